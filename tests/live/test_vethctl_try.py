"""apply --try: the question on the terminal, and every way in which a trial ends."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from typing import ClassVar

import pytest

from tests.commands import Vethctl
from tests.live.applying import EXAMPLES, LABEL, Write
from tests.live.stalled import full_pipe, stopped_terminal
from tests.live.trials import PATIENCE, ends, other_ends
from tests.programs import attended
from tests.witness import host_state, names, poll
from vethlib import ns
from vethlib.agent.run.trial import settle

pytestmark = pytest.mark.slow

PAIR = str(EXAMPLES / "pair")


class Terminal:
    """vethctl on its own terminal, of which the test is the other side."""

    opened: ClassVar[list[Terminal]] = []

    def __init__(self, *argv: str, stdout: int | None = None, columns: int = 80) -> None:
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("4H", 24, columns, 0, 0))
        self.said = ""

        def take_terminal() -> None:
            fcntl.ioctl(slave, termios.TIOCSCTTY, 0)

        command = [sys.executable, "-m", "vethlib", *argv]
        self.process = subprocess.Popen(
            command,
            stdin=slave,
            stdout=slave if stdout is None else stdout,
            stderr=slave,
            start_new_session=True,
            preexec_fn=take_terminal,
            env=os.environ | {"NO_COLOR": "1"},
        )
        os.close(slave)
        self.opened.append(self)

    def until(self, text: str) -> Terminal:
        deadline = time.monotonic() + PATIENCE
        while text not in self.said:
            ready, _, _ = select.select([self.master], [], [], max(0, deadline - time.monotonic()))
            assert ready, self.said
            self.said += self._read()
        return self

    def _read(self) -> str:
        try:
            return os.read(self.master, 4096).decode()
        except OSError:  # EIO: nobody has the other side any more
            return ""

    def press(self, keys: str) -> Terminal:
        os.write(self.master, keys.encode())
        return self

    def end(self) -> int:
        while text := self._read():
            self.said += text
        os.close(self.master)
        return self.process.wait(PATIENCE)

    def hang_up(self) -> int:
        os.close(self.master)
        return self.process.wait(PATIENCE)


@pytest.fixture(autouse=True)
def _no_terminal_outlives_its_test() -> Iterator[None]:
    yield
    for terminal in Terminal.opened:
        if terminal.process.poll() is None:
            terminal.process.kill()
            terminal.end()
    Terminal.opened.clear()


@pytest.mark.parametrize("key", ["y", "n"])
def test_the_terminal_is_asked_and_a_key_decides(home: ns.Netns, write: Write, key: str) -> None:
    before = host_state()
    pair = write(*ends(ip_addresses=["10.0.0.1/24"]))  # of which nothing is tentative
    terminal = Terminal("apply", pair, "--try", "55s").until("keep these changes? y or n, 55 s left")
    assert names("ns1") == {"one"}
    code = terminal.press("x").press(key).end()  # x is no answer
    if key == "y":
        assert code == 0
        assert "kept: " in terminal.said
        assert names("ns1") == {"one"}
    else:
        assert code == 4
        assert "undone: " in terminal.said
        assert host_state() == before


@pytest.mark.parametrize("columns", [12, 30])
def test_the_question_is_never_wider_than_the_terminal(home: ns.Netns, write: Write, columns: int) -> None:
    terminal = Terminal("apply", write(*ends()), "--try", "60s", columns=columns).until("\033[Kkeep thes")
    code = terminal.press("n").end()
    _, *questions = terminal.said.partition("elsewhere")[2].split("\r\033[Kkeep")
    assert questions
    assert all(len("keep" + question.partition("\r")[0]) < columns for question in questions)
    assert code == 4


@pytest.mark.parametrize("long", ["600h", "1e300"])
@pytest.mark.parametrize("word", ["keep", "undo"])
def test_a_trial_may_be_longer_than_a_system_call_waits(home: ns.Netns, write: Write, long: str, word: str) -> None:
    command = [sys.executable, "-m", "vethlib", "apply", write(*ends()), "--try", long]
    pipe, null = subprocess.PIPE, subprocess.DEVNULL
    with attended(
        subprocess.Popen(command, stdin=null, stdout=null, stderr=pipe, text=True, start_new_session=True)
    ) as trial:
        assert settle(LABEL, word, timeout=PATIENCE) == {"keep": "kept", "undo": "undone"}[word]
        _, errors = trial.communicate()
    assert "unexpected" not in errors
    assert trial.returncode == {"keep": 0, "undo": 4}[word]


@pytest.mark.parametrize("how", ["SIGINT", "SIGTERM", "SIGHUP", "ctrl-c", "hang up", "no answer", "no reader"])
def test_every_way_of_leaving_takes_it_back_to_the_letter(vethctl: Vethctl, write: Write, how: str) -> None:
    vethctl("apply", write(*ends()))
    before = host_state()
    path = write(*other_ends())
    if how == "no reader":
        reader, writer = os.pipe()
        os.close(reader)
        code = Terminal("apply", path, "--try", "30s", stdout=writer).end()
        os.close(writer)
    else:
        terminal = Terminal("apply", path, "--try", "300ms" if how == "no answer" else "1m").until(
            "keep these changes?"
        )
        if how != "no answer":  # its time may be over by now
            assert names("ns1") == {"eth0"}
        if how.startswith("SIG"):
            terminal.process.send_signal(getattr(signal, how))
        elif how == "ctrl-c":
            terminal.press("\x03")
        code = terminal.hang_up() if how == "hang up" else terminal.end()
    assert code == 4
    assert host_state() == before


def test_the_json_of_a_trial_that_was_undone_has_both_ways(vethctl: Vethctl, write: Write) -> None:
    told = vethctl("apply", write(*ends()), "--try", "10ms", "--json").json
    assert (told["outcome"], told["code"], bool(told["reason"])) == ("undone", "not-confirmed", True)
    assert [one["op"] for one in told["undone"]] == ["delete", "remove-netns", "remove-netns"]


def test_nothing_is_asked_where_nothing_changes(vethctl: Vethctl, write: Write) -> None:
    one, two = ends(ip_addresses=["10.0.0.1/24"])  # of which nothing is tentative
    pair = one, two | {"mtu": one["mtu"]}
    vethctl("apply", write(*pair))
    said = vethctl("apply", write(*pair), "--try", "1h")
    assert (said.code, len(said.out.splitlines()), said.err) == (0, 1, "")


def test_a_connection_without_a_terminal_that_is_lost_takes_it_back(home: ns.Netns) -> None:
    before = host_state()
    trial = subprocess.Popen(
        [sys.executable, "-m", "vethlib", "apply", PAIR, "--try", "1m"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert trial.stdout is not None
    assert trial.stderr is not None
    assert trial.stderr.readline().startswith("applied on trial ")
    assert names("ns1") == {"veth1"}
    trial.stdout.close()
    assert trial.wait(PATIENCE) == 4
    trial.stderr.close()
    assert host_state() == before


@pytest.mark.parametrize("stalled", [full_pipe, stopped_terminal])
def test_a_trial_whose_output_is_not_read_ends_in_time(home: ns.Netns, stalled: Callable[[], tuple[int, int]]) -> None:
    before = host_state()
    read, write = stalled()
    trial = subprocess.Popen(
        [sys.executable, "-m", "vethlib", "apply", PAIR, "--try", "2s"],
        stdin=subprocess.DEVNULL,
        stdout=write,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert trial.wait(PATIENCE) == 4
    assert host_state() == before
    os.close(read)
    os.close(write)


def _is_again(before: object) -> bool:
    """Whether the host is as it was before.

    A look into a namespace uses it, so that it could not be removed: only its name is looked for until it is gone.
    """
    try:
        return not ns.names() and host_state() == before
    except RuntimeError:
        return False


def test_a_signal_that_whoever_starts_it_has_ignored_ends_no_trial(home: ns.Netns, write: Write) -> None:
    """As under nohup."""
    usual = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        terminal = Terminal("apply", write(*ends()), "--try", "1m").until("keep these changes?")
    finally:
        signal.signal(signal.SIGHUP, usual)
    terminal.process.send_signal(signal.SIGHUP)
    assert not poll(lambda: terminal.process.poll() is not None, 0.5)
    terminal.press("y\n")
    assert terminal.end() == 0
    assert names("ns1") == {"one"}


def test_a_terminal_that_is_stopped_while_the_question_is_open_does_not_keep_it_open(home: ns.Netns) -> None:
    before = host_state()
    terminal = Terminal("apply", PAIR, "--try", "3s")
    terminal.until("keep these changes?")
    terminal.press("\x13")  # Ctrl-S
    assert poll(lambda: _is_again(before), PATIENCE)
    terminal.press("\x11")
    assert terminal.end() == 4
