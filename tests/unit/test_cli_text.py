"""Text for people: escaping, colours, widths, tables, progress, and the pictures made of it."""

from __future__ import annotations

import io
import json
import os
import sys
import termios
from pathlib import Path

import pytest

from vethlib import errors
from vethlib.agent import State, Verdict
from vethlib.agent.stores.files.editing import DirectoryEditor
from vethlib.agent.stores.protocol import StoreError
from vethlib.cli import main
from vethlib.cli.render.details import detail_lines
from vethlib.cli.render.operations import count_states
from vethlib.cli.term.exits import INVALID, REFUSED, report
from vethlib.cli.term.output import Output
from vethlib.cli.term.progress import Progress
from vethlib.cli.term.text import counted, fit, natural, paint, printable, render, width


@pytest.mark.parametrize(
    ("text", "most", "cut"),
    [
        ("veth1", 5, "veth1"),
        ("veth12", 5, "veth…"),
        ("żółw", 4, "żółw"),
        ("żółwi", 4, "żół…"),
        ("龙龙", 4, "龙龙"),
        ("龙龙龙", 5, "龙龙…"),
        ("龙龙龙", 4, "龙…"),
        ("e\u0301" * 3, 3, "e\u0301" * 3),
        ("e\u0301" * 4, 3, "e\u0301" * 2 + "…"),
        ("龙x", 1, "…"),
        ("veth1", 0, ""),
        ("veth1", -5, ""),
        ("x" * 1_000_000, 3, "xx…"),
        ("龙" * 100_000, 3, "龙…"),
    ],
    ids=range(14),
)
def test_a_text_is_cut_to_columns_of_a_terminal(text: str, most: int, cut: str) -> None:
    assert fit(text, most) == cut


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("veth1", "veth1"),
        ("żółw ⇄ 龙", "żółw ⇄ 龙"),
        ("a\033[31mb", r"a\x1b[31mb"),
        ("a\nb\tc\rd", r"a\nb\tc\rd"),
        ("\x9b2J", r"\x9b2J"),
        ("x\udcff\udc9b", r"x\xff\x9b"),
        ("\u202eevil", r"\u202eevil"),
        ("\x00", r"\x00"),
        ("\ud800x\udcff", r"\ud800x\xff"),
    ],
)
def test_what_a_terminal_would_obey_or_cannot_show_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert printable(text).isprintable()


def test_only_our_own_colours_become_escape_sequences() -> None:
    text = f"{paint('up', 'good')} {paint(chr(27) + '[31mevil', 'link')}"
    assert render(text, colored=True) == "\033[32mup\033[0m \033[36m\\x1b[31mevil\033[0m"
    assert render(text, colored=False) == r"up \x1b[31mevil"


def test_what_is_empty_or_has_no_meaning_is_not_painted() -> None:
    assert paint("", "good") == ""
    assert paint(7, "") == "7"


def test_width_counts_columns_and_not_characters() -> None:
    assert width(paint("veth1", "link")) == 5
    assert width("龙") == 2
    assert width("e\u0301") == 1
    assert width("\033") == 4


def test_numbers_sort_as_people_count_them() -> None:
    names = ["leaf10", "leaf2", "leaf1", "10", "9", "a", ""]
    assert sorted(names, key=natural) == ["", "9", "10", "a", "leaf1", "leaf2", "leaf10"]
    assert sorted(["1" + "0" * 5000, "9" * 5000, "007", "8"], key=natural) == ["007", "8", "9" * 5000, "1" + "0" * 5000]


def test_one_is_singular() -> None:
    assert [counted(number, "pair") for number in (0, 1, 2)] == ["0 pairs", "1 pair", "2 pairs"]


def test_a_table_is_as_wide_as_its_cells(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output()
    output.table([("a", "龙", "x"), ("bcd", "e", "")], roles=("link",))
    output.table([("1", "200"), ("30", "4")], right=True)
    output.table([])
    assert capsys.readouterr().out == "a    龙  x\nbcd  e\n 1  200\n30    4\n"


def test_states_are_counted_in_words() -> None:
    good, waits, failed = Verdict(State.CONFIGURED), Verdict(State.PENDING, "x"), Verdict(State.FAILED, "y")
    assert count_states({}) == "no interfaces are configured"
    assert count_states({"a": good}) == "1 interface is as configured"
    assert count_states({"a": waits, "b": waits}) == "2 interfaces are PENDING"
    text = "of 4 interfaces 1 is PENDING, 2 are as configured, 1 is FAILED"
    assert count_states({"a": good, "b": waits, "c": failed, "d": good}) == text


def test_details_leave_out_what_was_not_decoded_or_says_nothing() -> None:
    details = {
        "index": 2,
        "flags": 0x11043,
        "IFLA_IFNAME": "a\033",
        "UNKNOWN": {"header": {"length": 4, "type": 32833}},
        "IFLA_STATS": {"rx_packets": 1},
        "IFLA_XDP": {"attrs": [("IFLA_XDP_ATTACHED", None)]},
        "IFLA_LINKINFO": {"attrs": [("IFLA_INFO_KIND", "veth"), ("IFLA_INFO_DATA", {"attrs": []})]},
        "IFLA_QDISC": "x" * 90,
        "IFLA_PHYS": "",
    }
    assert [render(line, colored=False) for line in detail_lines(details)] == [
        r"  index 2  flags UP,BROADCAST,RUNNING,MULTICAST,LOWER_UP  ifname a\x1b",
        f"  qdisc {'x' * 90}",
        "  linkinfo",
        "    info_kind veth",
    ]


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (errors.InvalidValue("mtu", 5, "more"), INVALID, ("mtu 5: more", "invalid-value", "mtu", "more")),
        (
            errors.LinkExists("taken", errno=17),
            REFUSED,
            ("taken", "link-exists", "", "to see it: vethctl show --all"),
        ),
        (errors.NetlinkError("no"), REFUSED, ("no", "netlink-error", "", "")),
        (errors.SessionClosed("closed"), REFUSED, ("closed", "session-closed", "", "")),
        (
            errors.NotPermitted("no"),
            REFUSED,
            ("no", "not-permitted", "", "run it as root, or see what is missing: vethctl doctor"),
        ),
    ],
)
def test_every_kind_of_error_has_a_code(
    capsys: pytest.CaptureFixture[str], error: errors.VethError, code: int, said: tuple[str, ...]
) -> None:
    assert report(Output(as_json=True), error) == code
    assert tuple(json.loads(capsys.readouterr().err).values()) == said


def test_errors_of_a_batch_are_told_one_by_one_with_their_notes(capsys: pytest.CaptureFixture[str]) -> None:
    first, second = errors.InvalidValue("mtu", 5, "more"), errors.LinkNotFound("gone")
    second.add_note("2 pairs stay behind")
    assert report(Output(), errors.BatchError("two", [first, second])) == REFUSED
    assert capsys.readouterr().err.splitlines() == [
        "vethctl: mtu 5: more",
        "vethctl: gone; 2 pairs stay behind",
        "  to see all links: vethctl show --all",
    ]


@pytest.mark.parametrize("as_json", [False, True])
def test_whatever_is_said_beside_the_result_has_no_password(capsys: pytest.CaptureFixture[str], as_json: bool) -> None:
    output = Output(as_json=as_json)
    text = "etcd://u:s3cret@h:1: 'a@b'"
    output.error(text, code="x", field=text, hint=f"not {text}")
    output.warning(text)
    output.remark(text)
    said = capsys.readouterr().err
    assert "s3cret" not in said
    assert said.count("etcd://u:…@h:1: 'a@b'".replace("…", "\\u2026" if as_json else "…")) == 4


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_written_over_and_taken_away(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with Progress() as progress:
        progress("create", 0, 2000)
        for done in range(1000, 1020):  # all of them 50 or 51 percent
            progress("create", done, 2000)
        progress("create", 2000, 2000)
    written = terminal.getvalue().split("\r\033[K")
    assert written[1] == f"  create {'╌' * 24}   0% of 2000"
    assert written[2] == f"  create {'━' * 12}{'╌' * 12}  50% of 2000"
    assert written[-2] == f"  create {'━' * 24} 100% of 2000"
    assert (len(written), written[-1]) == (5, "")


def test_little_work_shows_no_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with Progress() as progress:
        progress("create", 1, 2)
    assert terminal.getvalue() == ""


def test_progress_says_what_is_waited_for_and_ends_with_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)

    def interrupted() -> None:
        with Progress() as progress:
            progress.show("waiting for \033[31m")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert terminal.getvalue() == "\r\033[Kwaiting for \\x1b[31m\r\033[K"


def test_progress_never_wraps(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = os.openpty()
    with os.fdopen(ours, "rb", buffering=0) as screen, os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        termios.tcsetwinsize(theirs, (24, 20))
        with Progress() as progress:
            progress.show("x" * 200)
        shown = b"\r\033[K" + b"x" * 18 + "…\r\033[K".encode()
        said = b""
        while len(said) < len(shown):  # what was written at once may come in pieces
            said += screen.read(100)
        assert said == shown


def test_where_stderr_is_no_terminal_there_is_no_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with Progress() as progress:
        progress("create", 1, 2000)
        progress.show("waiting")
    assert stream.getvalue() == ""


@pytest.mark.parametrize(
    "command",
    ["validate S", "diff S", "list --store dir:S", "get v1 --store dir:S", "dump --store dir:S", "diff --store dir:S",
     "put S/1.json --store dir:S", "del v9 --store dir:S", "status --status-dir S --label none"],
)  # fmt: skip
def test_reading_many_files_shows_progress(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: str) -> None:
    for number in range(60):
        (tmp_path / f"{number}.json").write_text("{}")
    (tmp_path / "1.json").write_text('{"name": "v1", "veth": {"peer_if_name": "v2"}}')
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    main(command.replace("S", str(tmp_path)).split())
    written = terminal.getvalue().split("\r\033[K")
    assert written[1] == f"    read {'╌' * 24}   0% of 60"
    assert "━" not in written[-1]
    assert "╌" not in written[-1]


def test_a_warning_does_not_follow_the_progress_on_its_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    read = DirectoryEditor.values

    def cut_short(editor: DirectoryEditor) -> None:
        read(editor)
        raise StoreError("no answer")

    for number in range(60):
        (tmp_path / f"{number}.json").write_text("{}")
    (tmp_path / "1.json").write_text('{"name": "v1", "veth": {"peer_if_name": "v2"}}')
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(DirectoryEditor, "values", cut_short)
    main(["put", str(tmp_path / "1.json"), "--store", f"dir:{tmp_path}"])
    written = terminal.getvalue().split("\r\033[K")
    assert any("no answer" in text for text in written)
    assert not any("no answer" in text and "╌" in text for text in written)
