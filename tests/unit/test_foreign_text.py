"""Text chosen by others: no terminal or shell interprets any of it, and none of it suppresses a message."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from argparse import ArgumentTypeError
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.commands import Vethctl
from tests.proportion import is_proportional
from vethlib import ns
from vethlib.agent import State
from vethlib.agent.hooks import Event, event_of
from vethlib.agent.limits import Limits
from vethlib.agent.reasons import Reason, ReasonCode
from vethlib.agent.reconcile.statuses import StatusChange, Statuses
from vethlib.agent.state import Verdict
from vethlib.agent.status import Status
from vethlib.agent.stores.etcd.address import masked, masked_in, parse_url
from vethlib.agent.stores.etcd.ledger import Ledger, as_json
from vethlib.agent.stores.etcd.reading import prefix_of, read_key
from vethlib.agent.stores.published import DirectoryStatuses, as_entry
from vethlib.agent.stores.statuses import StatusFiles, status_file
from vethlib.cli.arguments.parser import seconds
from vethlib.cli.commands.desired import agent
from vethlib.cli.completion import candidates
from vethlib.cli.term.output import Output
from vethlib.cli.term.text import paint, render
from vethlib.errors import InvalidValue
from vethlib.text import cut, has_controls, printable, without_controls
from vethlib.topology import parse

EVIL = "n\n\x1b[31mX\x9b0m\u202e\x07\0[8m"


def status(name: str, **fields: Any) -> Status:
    return Status(name, State.PENDING, fields.pop("reason", "waits"), 1_700_000_000.25, **fields)


# --- a terminal


def test_no_text_of_others_is_taken_for_a_colour_of_ours() -> None:
    for text in (EVIL, "\0[31m", "\x0031m", f"\0{'0' * 12}:31m", paint("", "bad"), "\0m"):
        assert "\x1b" not in render(text, colored=True)
        assert "\0" not in render(text, colored=True)
    assert render(paint("x", "bad"), colored=True) == "\x1b[31mx\x1b[0m"


@given(st.text())
def test_what_is_shown_has_nothing_to_obey_and_no_two_texts_are_told_as_one(text: str) -> None:
    assert printable(text).isprintable()
    assert not has_controls(without_controls(text))
    assert len(cut(text, 30)) <= 30


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_keys_that_differ_are_told_differently_and_without_anything_to_obey(one: bytes, other: bytes) -> None:
    prefix = prefix_of("here")
    told = [read_key(prefix + end, b"{}", prefix)[0] for end in (one, other)]
    assert (told[0] == told[1]) == (one == other)
    assert not any(map(has_controls, told))


def test_a_status_says_the_words_of_others_as_they_can_be_printed() -> None:
    statuses = Statuses(Limits(reason_chars=100))
    reason = Reason(ReasonCode.NETNS_NOT_FOUND, EVIL * 100, about=EVIL * 100)
    pending = Verdict.because(State.PENDING, reason)
    changed = [statuses.report("a", pending, None, None, warning=reason) for _ in range(2)]
    assert changed == [True, False]
    said = statuses.now["a"]
    for text in (said.reason, said.warning, said.reasons[0].text, said.reasons[0].about):
        assert text.isprintable()
        assert len(text) < 1000


@pytest.mark.parametrize("formatter", [agent._Lines(), agent._JsonLines()])
def test_a_line_of_the_log_has_so_much_of_the_words_of_others_and_no_more(formatter: logging.Formatter) -> None:
    words = (f"y{EVIL}" + "x" * 100_000,)
    record = logging.LogRecord("vethlib", logging.WARNING, "", 0, "%s is not there", words, None)
    line = formatter.format(record)
    assert "x" * 10_000 in line
    assert len(line) < 20_000
    assert line.isprintable()


@pytest.mark.parametrize("name", ["<0>all", "<7>hidden", "<3>", "<6"])
@pytest.mark.parametrize("inner", [agent._Lines(with_time=False), agent._JsonLines()])
@pytest.mark.parametrize(("level", "priority"), [(10, 7), (20, 6), (30, 4), (40, 3), (50, 2)])
def test_no_name_sets_the_priority_of_a_line_in_the_journal(
    inner: logging.Formatter, name: str, level: int, priority: int
) -> None:
    record = logging.LogRecord("vethlib", level, "", 0, "%s: CONFIGURED", (name,), None)
    assert agent._JournalLines(inner).format(record) == f"<{priority}>{inner.format(record)}"


def test_each_line_of_a_traceback_has_a_priority_in_the_journal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VETHLIB_DEBUG", "traceback")
    try:
        raise ValueError("<0>x\n<0>y")
    except ValueError:
        record = logging.LogRecord("vethlib", logging.ERROR, "", 0, "failed", (), sys.exc_info())
    lines = agent._JournalLines(agent._Lines()).format(record).splitlines()
    assert len(lines) > 3
    assert {line[:3] for line in lines} == {"<3>"}


def test_a_command_gets_nothing_in_its_environment_that_a_terminal_obeys() -> None:
    change = StatusChange("a", status("a", reason=EVIL, host_name=EVIL, peer="\ud800", netns="x" * 10_000))
    found = event_of(change, at=0.0, label="l", host="h")
    assert isinstance(found, Event)
    for value in found.environment().values():
        assert not has_controls(value)
        assert len(os.fsencode(value)) <= 4096
    assert json.loads(found.json())["reason"] == EVIL


# --- a shell


def test_a_shell_is_offered_no_name_that_it_would_obey(vethctl: Vethctl, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["good", "g$(reboot)", "g`x`", "g;x", "g|x", "g>x", "g&", "g\x1b[31m", "g x", "g'x", 'g"x', "g\\x", "g!x"]
    monkeypatch.setitem(candidates._KINDS, "interface", lambda *_: [(name, EVIL) for name in names])
    said = vethctl("complete", "--", "status", "g")
    assert said.out.split("\t")[0] == "good"
    (line,) = said.out.splitlines()
    assert line.replace("\t", "", 1).isprintable()


def test_what_is_no_file_is_not_waited_for_when_names_are_offered(
    vethctl: Vethctl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vethlib.cli.completion.candidates.PATIENCE", 30.0)
    os.mkfifo(tmp_path / "pipe.json")
    with open(tmp_path / "big.json", "wb") as big:
        big.truncate(1 << 40)
    (tmp_path / "veth1.json").write_text('{"name": "veth1"}')
    assert vethctl("complete", "--", "get", "--store", f"dir:{tmp_path}", "v").out.split() == ["veth1"]


# --- what is published


def test_a_status_that_cannot_be_said_keeps_no_file_of_others_from_being_written(tmp_path: Path) -> None:
    class Unsayable(Status):
        def as_dict(self) -> dict[str, Any]:
            raise RecursionError

    files = StatusFiles(tmp_path)
    (tmp_path / "b.json").mkdir()
    bad = Unsayable("a", State.PENDING, "", 0.0)
    statuses: dict[str, Status | None] = {"a": bad, "\ud800": status("\ud800"), "b": status("b"), "c": status("c")}
    files.publish(statuses)
    assert json.loads((tmp_path / "c.json").read_text())["name"] == "c"
    (tmp_path / "b.json").rmdir()
    while due := files.due():
        time.sleep(due)
    files.try_again()
    assert json.loads((tmp_path / "b.json").read_text())["name"] == "b"


@pytest.mark.parametrize(
    "left", ['{"state": "PENDING", "name": 5}', '{"state": [], "name": ""}', "[" * 100_000, "9" * 5000, "\x00" * 10]
)
def test_what_others_left_among_the_statuses_is_left_there(tmp_path: Path, left: str) -> None:
    (tmp_path / "x.json").write_text(left)
    os.mkfifo(tmp_path / "pipe.json")
    StatusFiles(tmp_path).publish({"a": status("a")})
    assert (tmp_path / "x.json").read_text() == left
    assert set(DirectoryStatuses(str(tmp_path), "l").read().entries) == {"a"}


@pytest.mark.parametrize("name", ["a", "\ud800", "a\udcff", EVIL, "x" * 1000, "\U000e0001"], ids=ascii)
def test_every_status_can_be_written_to_etcd_and_read_again(name: str) -> None:
    ledger = Ledger("l")
    ledger.update({name: status(name, reason=name), "other": status("other")}, {name: 7, "gone\ud800": 0})
    taken = ledger.take(10, 1)
    assert len(taken) == 2
    for operation in taken.values():
        raw = operation.request_put.value
        raw.decode()
        assert json.loads(raw)["state"] == "PENDING"
    entry = as_entry(as_json(status("b", reason=name).as_dict()))
    assert entry is not None
    assert entry["reason"] == name


def test_a_file_of_a_status_has_a_name_for_any_key() -> None:
    for name in ("key:" + "\u202e" * 300, "file:" + "x" * 5000, "a/b", "\0"):
        assert len(os.fsencode(status_file(name))) <= 255


# --- references, times, topologies and URLs


@pytest.mark.parametrize(
    "ref", ["pid:" + "1" * 5000, "fd:" + "9" * 5000, "pid:" + "0" * 5000 + "1", "path:/" + "x" * 5000]
)
def test_a_reference_of_any_length_is_refused_as_any_other(ref: str) -> None:
    with pytest.raises(InvalidValue) as refused:
        ns.parse(ref)
    assert refused.value.field == "netns"


def test_a_topology_with_a_number_of_any_length_is_refused_as_any_other() -> None:
    with pytest.raises(InvalidValue) as refused:
        parse("a -- b mtu=" + "9" * 5000)
    assert refused.value.field == "topology"


def quietly(function: Any, text: str) -> None:
    try:
        function(text)
    except (ValueError, ArgumentTypeError):
        pass


TEXTS = [
    (parse, "a{}b", " "),
    (parse, "a{}-- b", "\t"),
    (parse, "a -- b{}", " mtu=1"),
    (parse, "x mtu{}5", " "),
    (parse, "a{}", " -- b -- a"),
    (parse, "a({}) -- b", "1.1.1.1/8,"),
    (masked_in, "{}", "a"),
    (masked_in, "etcd://{}", "'"),
    (masked, "etcd://{}", ",h:1"),
    (masked, "etcd://{}", ":@"),
    (parse_url, "etcd://h{}", ",h:1"),
    (parse_url, "etcd://h:1?{}", "&a=1"),
    (seconds, "{}", "1"),
    (seconds, "{}", "1s"),
    (ns.parse, "pid:{}", "1"),
]


@pytest.mark.parametrize(("function", "form", "part"), TEXTS)
def test_texts_are_read_in_time_for_their_length(function: Any, form: str, part: str) -> None:
    size = 1000 if part == " -- b -- a" else 2000  # each of these is a wire; page faults are expensive in a guest
    assert is_proportional(lambda count: quietly(function, form.format(part * count)), size)


def test_one_long_cell_of_a_table_does_not_make_the_others_as_long(capsys: pytest.CaptureFixture[str]) -> None:
    def table(count: int) -> None:
        Output().table([("name", "value", "rest"), ("x", "y" * 500 * count, "z"), *[("a", "b", "c")] * count])
        capsys.readouterr()

    assert is_proportional(table, 100)
