"""vethctl diff of a store: what an agent that follows it would do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.commands import Vethctl
from tests.live.configuring import settle
from tests.witness import host_state, names, seen
from vethlib import Session
from vethlib.agent import Configurator
from vethlib.agent.stores.files.editing import DirectoryEditor


@pytest.fixture
def put(tmp_path: Path) -> Callable[..., None]:
    def put(name: str, peer: str, **more: Any) -> None:
        value = {"name": name, "enabled": True, "veth": {"peer_if_name": peer}} | more
        (tmp_path / f"{name}.json").write_text(json.dumps(value))

    return put


def test_a_store_is_compared_as_an_agent_would_take_it(
    vethctl: Vethctl, put: Callable[..., None], tmp_path: Path
) -> None:
    put("a", "b")
    put("b", "a")
    store = f"dir:{tmp_path}"
    before = host_state()
    missing = vethctl("diff", "--store", store, "--label", "mine", "--json")
    assert (missing.code, {one["interface"] for one in missing.json}) == (1, {"a", "b"})
    assert host_state() == before
    assert vethctl("apply", str(tmp_path), "--label", "mine").code == 0
    assert vethctl("diff", "--store", store, "--label", "mine").code == 0
    put("a", "b", mtu=1400)
    put("b", "a", mtu=1400)
    changed = vethctl("diff", "--store", store, "--label", "mine")
    assert changed.code == 1
    assert f"+++ {store}\n" in changed.out
    assert seen("a")["mtu"] == 1500


def test_what_is_not_stored_is_to_go_and_what_cannot_be_read_stays(
    vethctl: Vethctl, put: Callable[..., None], tmp_path: Path
) -> None:
    for a, b in (("a", "b"), ("c", "d")):
        put(a, b)
        put(b, a)
    store = ("--store", f"dir:{tmp_path}", "--label", "mine", "--json")
    assert vethctl("apply", str(tmp_path), "--label", "mine").code == 0
    (tmp_path / "a.json").unlink()
    (tmp_path / "b.json").unlink()
    put("c", "d", mtu=5)
    put("d", "c", mtu=5)
    done = vethctl("diff", *store)
    assert done.code == 1
    assert [(one["op"], one["interface"]) for one in done.json] == [("delete", "a")]
    assert {(one["code"], one["field"]) for one in done.errors} == {("invalid-value", "mtu")}


@pytest.mark.parametrize("text", ["{", "[[]]", '[{"name": "a b"}]'])
def test_nothing_is_to_go_while_a_part_of_the_store_cannot_be_read(
    text: str, vethctl: Vethctl, put: Callable[..., None], tmp_path: Path
) -> None:
    put("a", "b")
    put("b", "a")
    assert vethctl("apply", str(tmp_path), "--label", "mine").code == 0
    (tmp_path / "a.json").rename(tmp_path / "b.json")
    (tmp_path / "b.json").write_text(text)
    done = vethctl("diff", "--store", f"dir:{tmp_path}", "--label", "mine", "--json")
    assert (done.code, done.json) == (1, [])
    assert [one["code"] for one in done.errors].count("warning") == 1
    with Session() as session, Configurator(session, label="mine", records="") as configurator:
        snapshot = DirectoryEditor(tmp_path).snapshot()
        configurator.resync([], refused={name: one.problems for name, one in snapshot.values.items()}, complete=False)
        settle(configurator)
    assert not snapshot.complete
    assert {"a", "b"} <= names()


def test_the_environment_may_name_the_store_and_paths_win(
    vethctl: Vethctl, put: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = vethctl("diff", "--json")
    assert (nothing.code, nothing.error["code"], nothing.error["field"]) == (1, "usage", "PATH")
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("VETHLIB_STORE", f"dir:{tmp_path}/empty")
    put("a", "b")
    put("b", "a")
    assert vethctl("diff").code == 0
    assert vethctl("diff", str(tmp_path)).code == 1


@pytest.mark.parametrize("store", ["dir:/nowhere", "nonsense", "memory:"])
def test_a_store_that_cannot_be_read_is_an_error_of_that_flag(vethctl: Vethctl, store: str) -> None:
    done = vethctl("diff", "--store", store, "--json")
    assert done.code == (2 if store.startswith("dir:") else 1)
    assert done.out == ""
    assert store.partition(":")[2] in done.error["error"]


def test_a_store_as_a_path_is_pointed_out(vethctl: Vethctl) -> None:
    for store in ("dir:/nowhere", "etcd://h:1"):
        done = vethctl("diff", store, "--json")
        assert (done.code, done.error["field"]) == (1, "--store")
