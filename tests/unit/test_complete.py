"""The completions that are offered to the shell for a command line that is being typed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.commands import Vethctl
from vethlib.cli.arguments import COMMANDS, parser_of
from vethlib.cli.completion.words import completions

Complete = Callable[..., list[str]]


@pytest.fixture
def complete(vethctl: Vethctl) -> Complete:
    def run(*line: str) -> list[str]:
        done = vethctl("complete", "--", *line)
        assert (done.code, done.err) == (0, "")
        return [answer.split("\t")[0] for answer in done.out.splitlines()]

    return run


def test_every_command_is_offered_with_what_it_does(vethctl: Vethctl) -> None:
    offered = dict(line.split("\t") for line in vethctl("complete", "--", "").out.splitlines())
    assert offered == {name: command.summary for name, command in COMMANDS.items()}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_flag_of_every_command_is_offered(name: str) -> None:
    flags = {flag for action in parser_of(name)._actions for flag in action.option_strings}
    assert set(completions([name, "-"]).words) == flags
    assert {"--json", "--color", "--help"} <= flags


@pytest.mark.parametrize("name", COMMANDS)
def test_every_positional_argument_says_what_it_completes(name: str) -> None:
    line = [name]
    for action in parser_of(name)._get_positional_actions():
        found = completions([*line, ""])
        assert found.words or found.kinds, f"say completes=… where {action.dest} of {name} is added"
        line.append("x")


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        (["app"], ["apply"]),
        (["--json", "app"], ["apply"]),
        (["--color", "never", "app"], ["apply"]),
        (["--color", "nev"], ["never"]),
        (["--color", "app"], ["apply"]),
        (["--vers"], ["--version"]),
        (["nonsense", ""], []),
        (["show", "--bri"], ["--brief"]),
        (["show", "-br", "--de"], []),
        (["show", "--all", "--al"], []),
        (["create", "a", "b", "--a-addr", "10.0.0.1/24", "--a-ad"], ["--a-addr"]),
        (["create", "a", "b", "--mtu", ""], []),
        (["create", "veth1"], ["veth1@"]),
        (["agent", "--log", ""], ["json", "text"]),
        (["agent", "--log=j"], ["--log=json"]),
        (["agent", "--once=j"], []),
        (["apply", "--label", "x", "--missing-netns", "w"], ["wait"]),
        (["apply", ""], [":files"]),
        (["apply", "one", ""], [":files"]),
        (["apply", "--", "--dry"], [":files"]),
        (["put", "x", ""], [":files"]),
        (["agent", "--status-dir", ""], [":directories"]),
        (["agent", "--store", ""], ["dir:", "etcd://"]),
        (["agent", "--docker", "o"], ["off"]),
        (["netns", ""], ["add", "del", "exec", "list"]),
        (["netns", "add", ""], []),
        (["move", "x", "pi"], ["pid:"]),
        (["completion", "f"], ["fish"]),
        (["completion", "fish", "--js"], ["--json"]),
    ],
)
def test_what_can_be_said_is_offered(complete: Complete, line: list[str], offered: list[str]) -> None:
    assert complete(*line) == offered


def test_help_offers_the_commands(complete: Complete) -> None:
    assert set(complete("help", "")) == set(COMMANDS)
    assert complete("help", "desc") == [name for name in COMMANDS if name.startswith("desc")]


def test_names_come_from_the_store_and_from_the_status_of_the_agent(complete: Complete, tmp_path: Path) -> None:
    for part in ("store", "status"):
        (tmp_path / part).mkdir()
    (tmp_path / "store" / "many.json").write_text(json.dumps([{"name": "veth1"}, {"name": "veth2"}, {"nome": "x"}, 3]))
    (tmp_path / "store" / "half.json").write_text('{"name": "ve')
    (tmp_path / "status" / "veth%2F3.json").write_text("{}")
    store = f"dir:{tmp_path}/store"
    assert complete("get", "--store", store, "") == ["veth1", "veth2"]
    assert complete("get", "veth1", "--store", store, "ve") == ["veth2"]
    status = str(tmp_path / "status")
    assert complete("status", "--status-dir", status, "") == ["veth/3"]
    assert complete("status", "--store", store, "--status-dir", status, "v") == ["veth1", "veth2", "veth/3"]


def test_names_that_a_shell_or_vethctl_takes_for_something_else_are_not_offered(
    complete: Complete, tmp_path: Path
) -> None:
    special = ["veth?", "x[ab]", "~root", "^a^b", "--all", "-x", "a*", "$(x)", "a;b", "a b"]
    (tmp_path / "all.json").write_text(json.dumps([{"name": name} for name in ["a-b", "a.1", *special]]))
    assert complete("get", "--store", f"dir:{tmp_path}", "") == ["a-b", "a.1"]
    for name in special:
        assert name not in complete("get", "--store", f"dir:{tmp_path}", name[:1])


def test_the_store_may_come_from_the_environment(
    complete: Complete, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "one.json").write_text('{"name": "veth1"}')
    monkeypatch.setenv("VETHLIB_STORE", f"dir:{tmp_path}")
    assert complete("del", "") == ["veth1"]


def test_directories_of_a_store_are_offered(complete: Complete, tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "stop").write_text("")
    assert complete("agent", f"--store=dir:{tmp_path}/st") == [f"--store=dir:{tmp_path}/store/"]


def test_what_a_value_is_not_is_not_offered_for_it(complete: Complete, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VETHLIB_COLOR", "red")  # the command will complain of it, not the shell at each TAB
    assert complete("apply", "") == [":files"]


def test_an_etcd_that_does_not_answer_holds_nobody_up() -> None:
    line = ["complete", "--", "get", "--store", "etcd://192.0.2.1:1", ""]
    done = subprocess.run([sys.executable, "-m", "vethlib", *line], capture_output=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == (b"", b"")


@pytest.mark.parametrize(
    ("environment", "offered"),
    [
        ({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, b"veth1\nveth2\n"),
        ({"PYTHONIOENCODING": "latin-1"}, "veth1\nveth2\né\n".encode("latin-1")),
        ({"PYTHONIOENCODING": "utf-8"}, "veth1\nveth2\né\n→\n".encode()),
    ],
    ids=["C", "latin-1", "utf-8"],
)
def test_a_name_that_the_terminal_has_no_letters_for_keeps_no_other_from_being_offered(
    environment: dict[str, str], offered: bytes, tmp_path: Path
) -> None:
    (tmp_path / "many.json").write_text(json.dumps([{"name": name} for name in ("→", "veth1", "é", "veth2")]))
    line = ["complete", "--", "get", "--store", f"dir:{tmp_path}", ""]
    done = subprocess.run(
        [sys.executable, "-m", "vethlib", *line],
        env={name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG"))} | environment,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, offered, b"")
