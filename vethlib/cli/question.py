"""Asking whether to keep what is tried: on the terminal, of another process, and of the signals that say "no".

Whatever goes wrong while a question is open is a "no": the host is to be as it was when nobody can answer any more.
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
from types import FrameType
from typing import Any, Final

from vethlib.agent.trial import Trial

__all__ = ["KEEP", "Farewells", "ask", "duration"]

KEEP: Final = ""
"""The answer that is no reason to undo."""

_LEAVING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
# Stopped by Ctrl-Z, or for reading in the background, it could take nothing back.
_STOPPING: Final = (signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)
_GONE: Final = "the terminal is gone"


class Farewells:
    """The signals that end a program, put off: a ``with`` in which they are noted. `said` is the first, in words."""

    def __init__(self) -> None:
        self.said = ""
        self._before: dict[int, Any] = {}
        self._woken, self._waking = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._wakeup = -1

    def __enter__(self) -> Farewells:
        self._wakeup = signal.set_wakeup_fd(self._waking, warn_on_full_buffer=False)
        for number in _LEAVING:
            self._before[number] = signal.signal(number, self._note)
        for number in _STOPPING:
            self._before[number] = signal.signal(number, signal.SIG_IGN)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup)
        os.close(self._woken)
        os.close(self._waking)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.said = self.said or f"stopped by {signal.Signals(number).name}"

    def fileno(self) -> int:
        """Readable when one has come."""
        return self._woken


def ask(trial: Trial, farewells: Farewells, timeout: float) -> str:
    """Wait for an answer, at most `timeout` seconds; returns :data:`KEEP`, or in words why to undo."""
    deadline = time.monotonic() + timeout
    try:
        with _terminal() as terminal:
            return _wait(trial, farewells, deadline, terminal)
    except OSError:
        return _GONE


def _wait(trial: Trial, farewells: Farewells, deadline: float, terminal: int | None) -> str:
    poll = select.poll()
    poll.register(trial, select.POLLIN)
    poll.register(farewells, select.POLLIN)
    if terminal is not None:
        poll.register(terminal, select.POLLIN)
    readers = _register_readers(poll)
    while not farewells.said:
        left = deadline - time.monotonic()
        if left <= 0:
            return "nobody has answered in time"
        if terminal is not None:
            _show(terminal, f"keep these changes? y or n, {duration(left)} left ")
        for fd, events in poll.poll(min(left, left % 1 + 0.01 if terminal is not None else left) * 1000):
            if fd == terminal:
                answer = _GONE if events & (select.POLLHUP | select.POLLERR) else _key(terminal)
            elif fd in readers:
                answer = "nobody reads what it says"
            elif fd == trial.fileno():
                answer = {"keep": KEEP, "undo": "vethctl confirm --undo", "": None}[trial.hear()]
            else:
                continue
            if answer is not None:
                return answer
    return farewells.said


def _register_readers(poll: select.poll) -> set[int]:
    """stdout and stderr: without a terminal, it is by their other end that a lost connection is noticed (POLLERR)."""
    found: set[int] = set()
    for stream in (sys.stdout, sys.stderr):
        try:
            fd = stream.fileno()
        except (OSError, ValueError, AttributeError):
            continue
        if stat.S_ISFIFO(mode := os.fstat(fd).st_mode) or stat.S_ISSOCK(mode):
            poll.register(fd, 0)
            found.add(fd)
    return found


def _key(terminal: int) -> str | None:
    keys = os.read(terminal, 64)
    if not keys:
        return _GONE
    for key in keys.decode("ascii", "ignore").lower():
        if key == "y":
            return KEEP
        if key in "nq\x03\x04":  # with Ctrl-C and Ctrl-D, where they are keys like others
            return "the answer was no"
    return None


@contextmanager
def _terminal() -> Iterator[int | None]:
    """The terminal, if there is one and we are in its foreground: for single keys, that are not shown."""
    fd = _open_terminal()
    if fd is None:
        yield None
        return
    try:
        before = termios.tcgetattr(fd)
        try:
            tty.setcbreak(fd, termios.TCSAFLUSH)  # what was typed before the question is no answer to it
            yield fd
        finally:
            try:
                os.write(fd, b"\r\033[K")
                termios.tcsetattr(fd, termios.TCSAFLUSH, before)
            except (OSError, termios.error):
                pass  # it is gone
    except termios.error as error:
        raise OSError(*error.args) from None
    finally:
        os.close(fd)


def _open_terminal() -> int | None:
    """The controlling terminal, wherever stdin and stdout lead: as ssh and sudo ask."""
    for path in ("/dev/tty", _name_of_stdin()):
        try:
            fd = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            if os.tcgetpgrp(fd) == os.getpgrp():
                return fd
        except OSError:
            if os.isatty(fd):
                return fd  # it is nobody's controlling terminal
        os.close(fd)
    return None


def _name_of_stdin() -> str:
    try:
        return os.ttyname(sys.stdin.fileno())
    except (OSError, ValueError, AttributeError):
        return ""


def _show(terminal: int, text: str) -> None:
    os.write(terminal, f"\r\033[K{text}".encode())


def duration(seconds: float) -> str:
    """``1 min 30 s``, ``30 s``, ``0.2 s``."""
    if 0 < seconds < 1:
        return f"{seconds:.1g} s"
    minutes, rest = divmod(round(seconds), 60)
    return " ".join([f"{minutes} min"] * bool(minutes) + [f"{rest} s"] * bool(rest or not minutes))
