"""Valid but implausible values are reported wherever an operator looks, without changing exit codes or states."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.commands import Vethctl, runner
from tests.live.applying import interface, value
from tests.live.configuring import put, settle, states
from tests.witness import ip
from vethlib import Session, ns
from vethlib.agent import Interface, read_value
from vethlib.agent.process.instance import Instance
from vethlib.agent.reconcile.configurator import Configurator
from vethlib.agent.stores.files.directory import DirectoryStore

LABEL = "plausible"
ODD = [
    value("odd1", "odd2", "blue", mtu=9000, ip_addresses=["10.0.0.1/24"]),
    value("odd2", "odd1", "bleu", ip_addresses=["10.0.0.1/24"]),
]
CODES = {"mtu-mismatch", "same-address", "similar-netns"}


@pytest.fixture
def vethctl(home: ns.Netns, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Vethctl:
    monkeypatch.setenv("VETHLIB_LABEL", LABEL)
    return runner(capsys, monkeypatch)


@pytest.fixture
def configurator(home: ns.Netns) -> Iterator[Configurator]:
    with Session() as session, Configurator(session, label=LABEL) as configurator:
        yield configurator


def odd() -> list[Interface]:
    return [interface(one["name"], one["veth"]["peer_if_name"], **_rest(one)) for one in ODD]


def _rest(one: dict[str, Any]) -> dict[str, Any]:
    return {key: given for key, given in one.items() if key not in ("name", "veth", "enabled")}


def codes(err: str) -> set[str]:
    """The codes of the warnings that a command has printed as JSON."""
    return {json.loads(line)["code"] for line in err.splitlines()}


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["validate"], 0),
        (["validate", "--strict"], 1),
        (["diff"], 1),
        (["apply", "--dry-run"], 0),
        (["apply"], 0),
        (["graph"], 0),
        (["graph", "--offline"], 0),
    ],
)
def test_commands_on_files_warn_and_end_as_ever(vethctl: Vethctl, command: list[str], code: int) -> None:
    said = vethctl(*command, "-", "--json", stdin=json.dumps(ODD))
    assert said.code == code
    assert codes(said.err) == CODES
    for_people = vethctl(*command, "-", stdin=json.dumps(ODD))
    assert for_people.err.count("warning: ") == 3


def test_strict_is_content_with_what_is_meant(vethctl: Vethctl) -> None:
    good = [value("a", "b", "ns1"), value("b", "a", "ns2")]
    assert vethctl("validate", "--strict", "-", stdin=json.dumps(good)).code == 0
    assert vethctl("validate", "--strict", "-", stdin=json.dumps(good[:1])).code == 1  # no peer
    former = [good[0] | {"linux_namespace": good[0]["namespace"]}, good[1]]
    del former[0]["namespace"]
    assert vethctl("validate", "--strict", "-", stdin=json.dumps(former)).code == 1


def test_validate_has_them_for_each_interface(vethctl: Vethctl) -> None:
    for entry in vethctl("validate", "-", "--json", stdin=json.dumps(ODD)).json:
        assert {one["code"] for one in entry["plausibility"]} == CODES
        assert entry["warnings"] == [one["message"] for one in entry["plausibility"]]


def test_a_namespace_that_would_be_new_is_compared_with_those_of_the_host(vethctl: Vethctl) -> None:
    ip("netns", "add", "production")
    values = [value("a", "b", "prodction"), value("b", "a", "ns2")]
    for command in (["diff"], ["apply", "--dry-run"], ["apply"]):
        said = vethctl(*command, "-", "--json", stdin=json.dumps(values))
        assert codes(said.err) == {"similar-netns"}
    assert "similar-netns" not in codes(vethctl("diff", "-", "--json", stdin=json.dumps(values)).err)  # it is there now


def test_a_store_tells_of_what_was_put_into_it(vethctl: Vethctl, tmp_path: Path) -> None:
    store = f"dir:{tmp_path}"
    assert vethctl("put", "-", "--store", store, "--json", stdin=json.dumps(ODD[0])).code == 0
    second = vethctl("put", "-", "--store", store, "--json", stdin=json.dumps(ODD[1]))
    assert (second.code, codes(second.err)) == (0, CODES)  # with the other one, which is stored already
    unconcerned = vethctl("put", "-", "--store", store, "--json", stdin=json.dumps([value("a", "b"), value("b", "a")]))
    assert unconcerned.err == ""
    listed = vethctl("list", "--store", store, "--json")
    assert listed.code == 0
    assert [bool(one["problem"]) for one in listed.json] == [False, False, True, True]


def test_an_agent_has_them_in_its_status_and_once_in_its_log(
    vethctl: Vethctl, configurator: Configurator, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "vethlib.agent")
    store = DirectoryStore(tmp_path, status_dir=tmp_path / "status")
    instance = Instance(LABEL)
    try:
        put(configurator, *odd())
        store.publish(settle(configurator))
        assert states(configurator) == {"odd1": "CONFIGURED", "odd2": "CONFIGURED"}
        assert set(_logged(caplog)) == CODES
        assert len(_logged(caplog)) == 3
        shown = vethctl("status", "--status-dir", str(tmp_path / "status"), "--json")
        assert shown.code == 0
        assert {one["code"] for entry in shown.json for one in entry["warnings"]} == CODES
        (pair,) = [one for one in shown.json[0]["warnings"] if one["code"] == "mtu-mismatch"]
        assert (pair["interfaces"], pair["fields"]) == (["odd1", "odd2"], ["mtu"])
        for_people = vethctl("status", "--status-dir", str(tmp_path / "status"))
        assert for_people.out.count("9000") == 2
        (edge,) = vethctl("graph", "--status-dir", str(tmp_path / "status"), "--json").json["edges"]
        assert len(edge["a"]["warnings"] + edge["b"]["warnings"]) == 6
        picture = vethctl("graph", "--status-dir", str(tmp_path / "status"))
        assert "⚠" in picture.out
        # Not at each look
        configurator.resync()
        ip("link", "set", "odd1", "mtu", "1400", netns="blue")
        settle(configurator)
        assert len(_logged(caplog)) == 3
        # When it changes, and no more when it is mended
        configurator.put(interface("odd1", "odd2", "blue", mtu=4000, ip_addresses=["10.0.0.1/24"]))
        settle(configurator)
        assert _logged(caplog)[3:] == ["mtu-mismatch"]
        put(
            configurator,
            interface("odd1", "odd2", "blue", ip_addresses=["10.0.0.1/24"]),
            interface("odd2", "odd1", "green", ip_addresses=["10.0.0.2/24"]),
        )
        settle(configurator)
        assert [status.warnings for status in configurator.status()] == [(), ()]
        assert len(_logged(caplog)) == 4
    finally:
        instance.close()
        store.close()


def test_what_is_hardly_meant_of_one_value_is_in_the_status_and_leaves_it_when_it_is_mended(
    configurator: Configurator,
) -> None:
    good = interface("a", "b", "ns1")
    odd = read_value(value("a", "b", "ns1") | {"namespace": {"type": 2, "name": "ns1", "pid": 7}}).interface
    assert odd is not None
    assert odd == good
    for one, codes in ((odd, ["unread-field"]), (good, []), (odd, ["unread-field"])):
        configurator.resync([one, interface("b", "a")])
        settle(configurator)
        assert [warning.code for warning in configurator.status("a")[0].warnings] == codes


def _logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The codes of the warnings in the log, in order."""
    fields = [getattr(record, "vethlib", {}) for record in caplog.records]
    return [one["code"] for one in fields if "code" in one]


def test_a_namespace_made_because_of_a_typing_error_is_in_the_log_and_the_status(
    configurator: Configurator, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "vethlib.agent")
    ip("netns", "add", "production")
    put(configurator, interface("a", "b", "prodction"), interface("b", "a", "ns2"))
    settle(configurator)
    assert {"prodction", "ns2"} <= set(ns.names())
    made = [record for record in caplog.records if "new namespace" in record.getMessage()]
    assert len(made) == 2
    (warning,) = configurator.status("a")[0].warnings
    assert (warning.code, warning.interfaces) == ("similar-netns", ("a",))
    assert configurator.status("b")[0].warnings == ()
    configurator.resync()
    settle(configurator)
    assert configurator.status("a")[0].warnings == (warning,)  # though it is there by now
    caplog.clear()
    configurator.put(interface("a", "b", "production"))
    settle(configurator)
    assert configurator.status("a")[0].warnings == ()
    assert not [record for record in caplog.records if "new namespace" in record.getMessage()]


def test_of_very_many_only_some_are_a_line_each(vethctl: Vethctl) -> None:
    values = [
        value(f"v{number}{end}", f"v{number}{other}", f"ns{number}", mtu=mtu)
        for number in range(60)
        for end, other, mtu in (("a", "b", 9000), ("b", "a", 1500))
    ]
    said = vethctl("validate", "-", stdin=json.dumps(values))
    assert len(said.err.splitlines()) == 21
    assert len(vethctl("validate", "-", "--json", stdin=json.dumps(values)).err.splitlines()) == 60
