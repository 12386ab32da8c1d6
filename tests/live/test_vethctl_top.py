"""vethctl top on a real terminal: its picture, its keys, and the terminal afterwards."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.witness import poll
from vethlib import End, Session, Veth

pytestmark = pytest.mark.timing  # top shows the links of all processes of the machine: those of other tests, too

ROOT = Path(__file__).parents[2]
INTERVAL = 0.1  # seconds between two pictures
_CODE = re.compile(r"\033\[(\??[0-9;]*)([A-Za-z])")


class Screen:
    """A child on a pseudoterminal, and what its screen shows: only of the codes that top has any use for."""

    def __init__(self, columns: int, lines: int, *argv: str) -> None:
        self.text = ""  # everything written
        self.pid, self.fd = pty.fork()
        if not self.pid:
            try:
                os.chdir(ROOT)
                os.environ["TERM"] = "xterm"
                os.environ.pop("NO_COLOR", None)
                signal.signal(signal.SIGINT, signal.default_int_handler)
                os.execv(sys.executable, [sys.executable, "-m", "vethlib", "top", *argv])
            finally:
                os._exit(127)
        self.resize(columns, lines)
        self.before = termios.tcgetattr(self.fd)
        self.status: int | None = None

    def resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def press(self, keys: str) -> None:
        os.write(self.fd, keys.encode())

    def read(self) -> str:
        """All that was written so far."""
        while select.select([self.fd], [], [], 0)[0]:
            try:
                read = os.read(self.fd, 65536)
            except OSError:  # EIO: nobody has the terminal open any more
                break
            if not read:
                break
            self.text += read.decode()
        return self.text

    @property
    def lines(self) -> list[str]:
        """The last picture that is complete."""
        self.read()
        pictures = self.text.split("\033[H")
        whole = [one for one in pictures[1:] if "\033[J" in one]
        if not whole:
            return []
        picture, _, _ = whole[-1].partition("\033[J")
        return [_CODE.sub("", line).rstrip("\r") for line in picture.split("\n")]

    def shows(self, condition: Callable[[list[str]], bool]) -> bool:
        return poll(lambda: condition(self.lines))

    def wait(self) -> int:
        """How it ended, as os.waitstatus_to_exitcode has it."""

        def ended() -> bool:
            self.read()
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
            return bool(pid)

        assert poll(ended), self.lines
        assert self.status is not None
        self.read()
        return self.status

    @property
    def is_as_before(self) -> bool:
        """The modes of the terminal, and the last settings of wrapping, the cursor and the alternate screen."""
        self.read()
        last = dict(re.findall(r"\033\[\?(7|25|1049)([hl])", self.text))
        return termios.tcgetattr(self.fd) == self.before and last == {"7": "h", "25": "h", "1049": "l"}


def is_blocked(screen: Screen) -> bool:
    """Whether it waits, for much longer than its interval, until the terminal takes something: nobody reads it here."""
    before = waits(screen)
    time.sleep(10 * INTERVAL)
    return waits(screen) == before


def waits(screen: Screen) -> list[str]:
    """How often it has waited for anything."""
    status = Path(f"/proc/{screen.pid}/status").read_text()
    return re.findall(r"^voluntary_ctxt_switches:\s*([0-9]+)$", status, re.MULTILINE)


@pytest.fixture
def start(session: Session, blue: str) -> Iterator[Callable[..., Screen]]:
    session.create(Veth(End("a", addresses=["10.0.0.1/24"]), End("b", blue, addresses=["10.0.0.2/24"])))
    started: list[Screen] = []

    def start(columns: int = 80, lines: int = 24, *argv: str) -> Screen:
        started.append(Screen(columns, lines, "--interval", str(INTERVAL), *argv))
        assert started[-1].shows(lambda lines: any(line.startswith("b ") for line in lines)), started[-1].text
        return started[-1]

    yield start
    for one in started:
        if one.status is None:
            os.kill(one.pid, signal.SIGKILL)
            os.waitpid(one.pid, 0)
        os.close(one.fd)


def test_the_screen_shows_every_link_with_its_namespace_and_is_left_by_q(start: Callable[..., Screen]) -> None:
    screen = start()
    assert screen.shows(lambda lines: lines[1].startswith("total rx"))
    lines = screen.lines
    assert len(lines) == 24
    assert max(map(len, lines)) <= 80
    # Including those of other processes of this machine, which start and end.
    expected = {("a", "home"), ("b", "blue")}
    assert screen.shows(lambda lines: expected <= {tuple(line.split()[:2]) for line in lines})
    assert not screen.is_as_before
    screen.press("q")
    assert (screen.wait(), screen.is_as_before) == (0, True)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM), (signal.SIGHUP, -signal.SIGHUP)]
)
def test_a_signal_ends_it_as_any_program_and_gives_the_terminal_back(
    start: Callable[..., Screen], number: int, code: int
) -> None:
    screen = start()
    os.kill(screen.pid, number)
    assert (screen.wait(), screen.is_as_before) == (code, True)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, -signal.SIGTERM), (signal.SIGHUP, -signal.SIGHUP)])
@pytest.mark.parametrize("stop", ["control-s", "unread"])
def test_a_signal_ends_it_while_the_terminal_takes_no_output(
    start: Callable[..., Screen], stop: str, number: int, code: int
) -> None:
    screen = start()
    if stop == "control-s":
        screen.press("\x13")
    assert poll(lambda: is_blocked(screen)), "it can still write"
    os.kill(screen.pid, number)
    assert poll(lambda: os.waitid(os.P_PID, screen.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None)
    assert termios.tcgetattr(screen.fd) == screen.before
    assert screen.wait() == code


def test_output_that_was_stopped_goes_on_with_whole_pictures(start: Callable[..., Screen]) -> None:
    screen = start()
    screen.press("\x13")
    assert poll(lambda: is_blocked(screen)), "it can still write"
    screen.press("\x11")
    before = len(screen.read())
    assert poll(lambda: screen.read()[before:].count("\033[J") >= 3)
    assert screen.shows(lambda lines: lines[1].startswith("total rx") and any(line.startswith("b ") for line in lines))
    screen.press("q")
    assert (screen.wait(), screen.is_as_before) == (0, True)


def test_control_c_is_a_signal_as_well(start: Callable[..., Screen]) -> None:
    screen = start()
    screen.press("\x03")
    assert (screen.wait(), screen.is_as_before) == (130, True)


def test_keys_sort_filter_and_pause(start: Callable[..., Screen]) -> None:
    screen = start()
    screen.press("t")
    assert screen.shows(lambda lines: ">TX B/s" in lines[2])
    screen.press("/blue")
    assert screen.shows(lambda lines: lines[-1].startswith("filter: blue"))
    screen.press("\r")
    assert screen.shows(lambda lines: "2 links in 1 namespace  filter: blue" in lines[0])
    screen.press("p")
    assert screen.shows(lambda lines: "PAUSED" in lines[0])
    screen.press("\033")
    assert screen.shows(lambda lines: "filter" not in lines[0])


def test_it_fits_itself_to_the_terminal_at_once(start: Callable[..., Screen]) -> None:
    screen = start()
    screen.resize(60, 8)
    assert screen.shows(lambda lines: len(lines) == 8 and max(map(len, lines)) <= 60)
    screen.resize(120, 30)
    assert screen.shows(lambda lines: len(lines) == 30)


def test_stopped_by_control_z_it_gives_the_terminal_back_until_it_goes_on(start: Callable[..., Screen]) -> None:
    screen = start()
    os.kill(screen.pid, signal.SIGTSTP)
    # Without a shell that could have it go on, the kernel leaves an orphaned process group running (job control), so
    # what is to be seen is that both were done, one after the other.
    assert poll(lambda: screen.read().count("\033[?1049h") == 2)
    assert screen.text.count("\033[?1049l") == 1
    before = len(screen.text)
    assert poll(lambda: "total rx" in screen.read()[before:])


@pytest.mark.usefixtures("home")
def test_a_crash_gives_the_terminal_back_before_it_says_so() -> None:
    code = "from vethlib.cli import main; from vethlib.cli.commands.host import top; "
    code += "top.picture = lambda *args, **how: 1 / 0; exit(main(['top']))"
    pid, fd = pty.fork()
    if not pid:
        os.chdir(ROOT)
        os.execv(sys.executable, [sys.executable, "-c", code])
    said = b""
    while True:
        try:
            read = os.read(fd, 65536)
        except OSError:
            break
        if not read:
            break
        said += read
    _, status = os.waitpid(pid, 0)
    os.close(fd)
    assert os.waitstatus_to_exitcode(status) > 0
    assert said.index(b"\033[?1049l") < said.index(b"division by zero")
