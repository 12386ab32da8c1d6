"""Asking whether to keep the changes of a trial: on the terminal, or through another process. Signals are a "no".

Any error while the question is open is a "no", too: if nobody can answer, the changes are undone.
"""

from __future__ import annotations

import os
import select
import signal
import stat
import sys
import termios
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

from vethlib.agent.run.trial import Trial
from vethlib.cli.term.signals import NotedSignals
from vethlib.cli.term.streams import columns_of
from vethlib.cli.term.text import fit

__all__ = ["FAILED", "IGNORED", "INCOMPLETE", "KEEP", "LEAVING", "NO_READER", "Answer", "ask", "duration", "stopped_by"]


class Answer(NamedTuple):
    """Why a trial is undone: a code for programs, and a text for people; both are "" if it is kept."""

    code: str
    text: str


KEEP: Final = Answer("", "")
"""The answer that keeps the changes."""

NO_READER: Final = Answer("no-reader", "nobody reads the output")
FAILED: Final = Answer("failed", "vethctl could not continue")
INCOMPLETE: Final = Answer("incomplete", "some of the changes could not be made")
_GONE: Final = Answer("terminal-gone", "the terminal is gone")
_LATE: Final = Answer("not-confirmed", "not confirmed in time")
_NO: Final = Answer("answered-no", "the answer was no")
_REVOKED: Final = Answer("confirm-undo", "vethctl confirm --undo")

LEAVING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
"""Signals that are a "no"."""

IGNORED: Final = (signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)
"""Signals that would stop the process; a stopped process cannot undo anything."""


_LONGEST: Final = 3600.0  # seconds; poll(2) accepts up to 24 days


def stopped_by(signals: NotedSignals) -> Answer:
    """Return the first signal as a reason to undo."""
    return Answer("signal", f"stopped by {signals.received[0].name}")


def ask(trial: Trial, signals: NotedSignals, timeout: float) -> Answer:
    """Wait up to `timeout` seconds for an answer; return :data:`KEEP`, or the reason to undo."""
    deadline = time.monotonic() + timeout
    try:
        with _terminal() as terminal:
            return _wait(trial, signals, deadline, terminal)
    except OSError:
        return _GONE


def _wait(trial: Trial, signals: NotedSignals, deadline: float, terminal: int | None) -> Answer:
    poll = select.poll()
    poll.register(trial, select.POLLIN)
    poll.register(signals, select.POLLIN)
    if terminal is not None:
        poll.register(terminal, select.POLLIN)
    readers = _register_readers(poll)
    while not signals.received:
        left = deadline - time.monotonic()
        if left <= 0:
            return _LATE
        if terminal is not None:
            _show(terminal, f"keep these changes? y or n, {duration(left)} left ")
        for fd, events in poll.poll(1000 * min(left, _LONGEST if terminal is None else left % 1 + 0.01)):
            if fd == terminal:
                answer = _GONE if events & (select.POLLHUP | select.POLLERR) else _key(terminal)
            elif fd in readers:
                answer = NO_READER
            elif fd == trial.fileno():
                answer = {"keep": KEEP, "undo": _REVOKED, "": None}[trial.hear()]
            else:
                signals.drain()
                continue
            if answer is not None:
                return answer
    return stopped_by(signals)


def _register_readers(poll: select.poll) -> set[int]:
    """Watch stdout and stderr: without a terminal, a lost connection shows at their other end (POLLERR)."""
    readers: set[int] = set()
    for stream in (sys.stdout, sys.stderr):
        try:
            fd = stream.fileno()
        except (OSError, ValueError, AttributeError):
            continue
        if stat.S_ISFIFO(mode := os.fstat(fd).st_mode) or stat.S_ISSOCK(mode):
            poll.register(fd, 0)
            readers.add(fd)
    return readers


def _key(terminal: int) -> Answer | None:
    try:
        keys = os.read(terminal, 64)
    except BlockingIOError:
        return None
    if not keys:
        return _GONE
    for key in keys.decode("ascii", "ignore").lower():
        if key == "y":
            return KEEP
        if key in "nq\x03\x04":  # Ctrl-C and Ctrl-D, where they are ordinary keys
            return _NO
    return None


@contextmanager
def _terminal() -> Iterator[int | None]:
    """Open the terminal for single keys without echo; None if there is none, or we are in its background."""
    fd = _open_terminal()
    if fd is None:
        yield None
        return
    try:
        before = termios.tcgetattr(fd)
        try:
            # TCSAFLUSH would wait until all output is shown: for ever, after Ctrl-S.
            tty.setcbreak(fd, termios.TCSANOW)
            termios.tcflush(fd, termios.TCIFLUSH)  # keys typed before the question do not answer it
            yield fd
        finally:
            try:
                _write(fd, b"\r\033[K")
                termios.tcflush(fd, termios.TCIFLUSH)
                termios.tcsetattr(fd, termios.TCSANOW, before)
            except (OSError, termios.error):
                pass  # it is gone
    except termios.error as error:
        raise OSError(*error.args) from None
    finally:
        os.close(fd)


def _open_terminal() -> int | None:
    """Open the controlling terminal, no matter where stdin and stdout lead, as ssh and sudo do."""
    for path in ("/dev/tty", _name_of_stdin()):
        try:
            # O_NONBLOCK applies to this open file, not to the terminal.
            fd = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            if os.tcgetpgrp(fd) == os.getpgrp():
                return fd
        except OSError:
            if os.isatty(fd):
                return fd  # no process has it as its controlling terminal
        os.close(fd)
    return None


def _name_of_stdin() -> str:
    try:
        return os.ttyname(sys.stdin.fileno())
    except (OSError, ValueError, AttributeError):
        return ""


def _show(terminal: int, text: str) -> None:
    # A line that wraps could not be overwritten.
    _write(terminal, f"\r\033[K{fit(text, columns_of(terminal) - 1)}".encode())


def _write(terminal: int, text: bytes) -> None:
    try:
        os.write(terminal, text)
    except BlockingIOError:
        pass  # output is stopped (Ctrl-S): skip it


def duration(seconds: float) -> str:
    """Return a duration as text: ``1 min 30 s``, ``30 s``, ``0.2 s``."""
    if 0 < seconds < 1:
        return f"{seconds:.1g} s"
    minutes, rest = divmod(round(seconds), 60)
    return " ".join([f"{minutes} min"] * bool(minutes) + [f"{rest} s"] * bool(rest or not minutes))
