"""apply, diff and agent --once where IPv6 addresses are checked for duplicates."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.commands import Vethctl, runner
from tests.live.applying import value
from tests.live.detection import ONE, TWO, can_bind
from tests.live.sysctls import sysctl
from tests.witness import addresses, ip
from vethlib import ns


@pytest.fixture
def vethctl(home: ns.Netns, blue: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Vethctl:
    for netns in ("", "blue"):
        sysctl(netns, "ipv6/conf/default/router_solicitation_delay", "0")
    return runner(capsys, monkeypatch)


def files(directory: Path, a: str, b: str, **more: Any) -> str:
    store = directory / "store"
    store.mkdir(exist_ok=True)
    for one in (value("a", "b", ip_addresses=[a], **more), value("b", "a", "blue", ip_addresses=[b], **more)):
        (store / f"{one['name']}.json").write_text(json.dumps(one))
    return str(store)


def test_apply_ends_when_the_addresses_can_be_used_and_finds_duplicates(vethctl: Vethctl, tmp_path: Path) -> None:
    said = vethctl("apply", files(tmp_path, ONE, TWO))
    assert said.code == 0
    assert can_bind(ONE)
    assert can_bind(TWO, "blue")
    assert vethctl("diff", str(tmp_path / "store")).code == 0
    said = vethctl("apply", files(tmp_path, ONE, ONE), "--json")
    (error,) = [one for one in said.errors if one["code"] == "failed"]
    assert (said.code, error["field"]) == (2, "b")
    assert ONE in error["error"]
    assert can_bind(ONE)
    said = vethctl("diff", str(tmp_path / "store"), "--json")
    assert (said.code, [one["field"] for one in said.errors if one["code"] == "failed"]) == (1, ["b"])
    assert vethctl("apply", files(tmp_path, ONE, TWO)).code == 0
    assert can_bind(TWO, "blue")


def test_apply_that_has_waited_in_vain_is_pending(
    vethctl: Vethctl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vethlib.cli.applying.detection._PATIENCE", 0.1)
    sysctl("", "ipv6/conf/default/dad_transmits", "30")
    said = vethctl("apply", files(tmp_path, ONE, "10.0.0.2/24"), "--json")
    assert (said.code, said.error["code"], said.error["field"]) == (3, "pending", "a")


def test_apply_does_not_wait_where_the_other_end_is_to_be_down(vethctl: Vethctl, tmp_path: Path) -> None:
    sysctl("", "ipv6/conf/default/dad_transmits", "30")
    store = files(tmp_path, ONE, TWO)
    (tmp_path / "store/b.json").write_text(json.dumps(value("b", "a", "blue", enabled=False)))
    assert vethctl("apply", store).code == 0


def test_a_run_with_once_ends_when_the_addresses_can_be_used(vethctl: Vethctl, tmp_path: Path) -> None:
    how = (
        "agent",
        "--store",
        f"dir:{files(tmp_path, ONE, TWO)}",
        "--label",
        "t",
        "--docker",
        "off",
        "--once",
        "--json",
    )
    said = vethctl(*how)
    assert {one["name"]: one["state"] for one in said.json} == {"a": "CONFIGURED", "b": "CONFIGURED"}
    assert said.code == 0
    assert can_bind(ONE)
    ip("addr", "add", "2001:db8::3/64", "dev", "a", "nodad")
    files(tmp_path, ONE, "2001:db8::3/64")
    said = vethctl(*how)
    (b,) = [one for one in said.json if one["name"] == "b"]
    assert (said.code, b["state"], b["address_states"]) == (2, "RETRYING", {"2001:db8::3/64": "dadfailed"})
    assert addresses("a")
