"""vethctl validate needs no privilege, and reports all errors at once."""

from __future__ import annotations

import json
import pty
from pathlib import Path

import pytest

from tests.capabilities import dropped
from tests.commands import Vethctl
from tests.live.applying import EXAMPLES, value
from vethlib.agent.config.files import load
from vethlib.agent.limits import Limits


@pytest.mark.parametrize(("example", "number"), [("pair", 2), ("chain", 4), ("star", 40)])
def test_the_examples_are_valid_and_it_takes_no_privilege(vethctl: Vethctl, example: str, number: int) -> None:
    with dropped():
        said = vethctl("validate", str(EXAMPLES / example))
    assert (said.code, said.out, said.err) == (0, f"valid: {number} interfaces are well-formed\n", "")


def test_every_problem_is_told_with_its_file_interface_and_field(vethctl: Vethctl, tmp_path: Path) -> None:
    bad = value("a", "b", mtu=5, phys_address="zz", ip_addresses=["10.0.0.1/24", "10.0.0"])
    (tmp_path / "bad.json").write_text(json.dumps([bad, {"nam": "x"}]))
    (tmp_path / "good.json").write_text(json.dumps(value("b", "a")))
    said = vethctl("validate", str(tmp_path))
    assert (said.code, said.out) == (1, "")
    lines = said.err.splitlines()
    assert lines[0] == f"vethctl: {tmp_path}/bad.json[0]: a: phys_address 'zz': " + lines[0].rpartition("'zz': ")[2]
    assert {line.split(": ")[3].split()[0] for line in lines[:3]} == {"phys_address", "mtu", "ip_addresses[1]"}
    nearest = f"vethctl: {tmp_path}/bad.json[1]: nam 'x': unknown key; did you mean name?"
    assert nearest in lines


def test_json_has_an_entry_for_each_interface_good_or_bad(vethctl: Vethctl, tmp_path: Path) -> None:
    path = tmp_path / "two.json"
    path.write_text(json.dumps([value("a", "b"), value("b", "a", mtu=5)]))
    said = vethctl("validate", str(path), "--json")
    assert said.code == 1
    good, bad = said.json
    assert list(good) == ["name", "source", "valid", "problems", "warnings", "reasons"]
    assert (good["name"], good["source"], good["valid"], good["problems"]) == ("a", f"{path}[0]", True, [])
    problem = {"field": "mtu", "value": "5", "hint": "a veth's MTU is 68 to 65535 bytes"}
    assert (bad["name"], bad["valid"], bad["problems"]) == ("b", False, [problem])
    assert (said.error["code"], said.error["field"]) == ("invalid-value", "mtu")


def test_what_would_stay_pending_or_fail_is_a_warning(vethctl: Vethctl) -> None:
    values = [
        value("a", "nobody", "ns1"),
        value("b", "c", "ns1", host_if_name="eth0"),
        value("c", "b", "ns1", host_if_name="eth0"),
        value("d", "a", "ns2"),
    ]
    said = vethctl("validate", "-", stdin=json.dumps(values))
    assert said.code == 0
    lines = said.err.splitlines()
    assert [line.split(": ")[:2] for line in lines] == [["warning", "a"], ["warning", "c"], ["warning", "d"]]
    said = vethctl("validate", "-", "--json", stdin=json.dumps(values))
    assert [one["reasons"] for one in said.json] == [
        [{"code": "peer-not-configured", "about": "nobody"}],
        [],
        [{"code": "name-claimed", "about": "b"}],
        [{"code": "peer-points-elsewhere", "about": "a"}],
    ]
    texts = [one["warnings"] for one in said.json]
    assert [f"warning: {name}: {text}" for name, (text,) in zip("acd", filter(None, texts), strict=True)] == lines
    assert [one["code"] for one in said.errors] == ["warning"] * 3
    assert [reason[2:] for reason in said.reasons] == [
        ("peer-not-configured", "nobody"),
        ("name-claimed", "b"),
        ("peer-points-elsewhere", "a"),
    ]


def test_one_interface_is_not_many(vethctl: Vethctl) -> None:
    assert vethctl("validate", "-", stdin=json.dumps(value("a", "b"))).out == "valid: 1 interface is well-formed\n"


def test_a_path_that_cannot_be_read_is_an_error_and_not_an_empty_configuration(
    vethctl: Vethctl, tmp_path: Path
) -> None:
    said = vethctl("validate", str(tmp_path / "nothing"), "--json")
    assert (said.code, said.out, said.error["code"]) == (1, "", "unreadable-path")
    assert said.error["error"] == f"cannot read {tmp_path}/nothing: No such file or directory"


def test_text_that_is_no_json_is_told_with_its_place(vethctl: Vethctl) -> None:
    said = vethctl("validate", "-", "--json", stdin='{"name": "a",\n "mtu" 5}')
    assert said.code == 1
    assert said.error["error"].startswith("stdin: ")
    assert "line 2" in said.error["error"]


@pytest.mark.parametrize("mode", ["r", "rb"])
def test_a_limit_above_all_memory_is_none(
    vethctl: Vethctl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    monkeypatch.setenv("VETHLIB_LIMIT", "file_bytes=90000G")
    file = tmp_path / "pair.json"
    file.write_text(json.dumps([value("a", "b"), value("b", "a")]))
    said = vethctl("validate", str(file))
    assert (said.code, said.err) == (0, "")
    with open(file, mode) as stdin:
        assert list(load(["-"], stdin, limits=Limits(file_bytes=10**15)).interfaces) == ["a", "b"]


def test_standard_input_at_a_terminal_ends_with_the_first_end_of_file() -> None:
    ours, theirs = pty.openpty()
    with open(theirs, "rb") as terminal, open(ours, "wb", buffering=0) as keyboard:
        keyboard.write(json.dumps([value("a", "b")]).encode() + b"\n\x04" + b"more\n\x04\x04\x04")
        assert list(load(["-"], terminal).interfaces) == ["a"]
