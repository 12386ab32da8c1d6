"""Full-screen output and single keys on a terminal, which is restored afterwards.

It uses ECMA-48 and the alternate screen of xterm, which all terminals of the last decades have, also by ssh. curses
would need the description of the terminal (terminfo), which minimal images lack; and sending only changed parts would
save little at one screen per second.

1. Signals are noted and end :meth:`Terminal.wait`, so a picture is complete if the terminal takes it.
2. SIGINT and SIGTERM take effect after the terminal was restored.
3. Ctrl-Z restores the terminal before the process stops; afterwards, it is taken over again.
4. No write and no change of modes waits where a signal cannot end it: the terminal may take no output for ever (Ctrl-S,
   a lost connection). Then the picture is abandoned, and the modes of the terminal are still restored.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
import time
import tty
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Final

from .signals import NotedSignals

__all__ = ["Terminal"]

_TAKE: Final = "\033[?1049h\033[?25l\033[?7l"  # alternate screen, no cursor, no wrapping of long lines
_GIVE_BACK: Final = "\033[?7h\033[?25h\033[?1049l"
_PATIENCE: Final = 0.5  # seconds for a slow terminal to take what gives it back
_PAUSE: Final = 0.02
_ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_NOTED: Final = (*_ENDING, signal.SIGWINCH, signal.SIGTSTP, signal.SIGCONT)

_KEYS: Final = {
    "\033[A": "up",
    "\033[B": "down",
    "\033OA": "up",
    "\033OB": "down",
    "\033[5~": "page-up",
    "\033[6~": "page-down",
    "\033[H": "home",
    "\033[F": "end",
    "\033": "escape",
    "\r": "enter",
    "\n": "enter",
    "\x7f": "backspace",
    "\b": "backspace",
    "\f": "redraw",
}


class Terminal:
    """The terminal of stdin and stdout; a context manager. Only for the main thread, which receives the signals."""

    def __init__(self) -> None:
        self._in, self._out = sys.stdin.fileno(), -1
        self._before: list[Any] = []
        self._signals = NotedSignals(_NOTED)
        self._is_woken = False  # whether a signal arrived during a write

    def __enter__(self) -> Terminal:
        self._before = termios.tcgetattr(self._in)
        sys.stdout.flush()
        self._out = _opened_again(sys.stdout.fileno())
        self._signals.__enter__()
        try:
            self._take()
        except BaseException:
            self._leave()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()
        ending = [number for number in self._signals.received if number in _ENDING]
        if error is None and ending:
            if ending[0] == signal.SIGINT:
                raise KeyboardInterrupt
            self._signals.obey(ending[0])

    def _leave(self) -> None:
        self._give_back()
        self._signals.__exit__()
        os.close(self._out)

    def _take(self) -> None:
        # TCSADRAIN would wait until all output is shown: for ever, after Ctrl-S.
        tty.setcbreak(self._in, termios.TCSANOW)
        self._write(_TAKE)

    def _give_back(self) -> None:
        # Both fail if the terminal is gone; then there is nothing to restore.
        with suppress(OSError):
            self._write(_GIVE_BACK, patience=_PATIENCE)
        with suppress(termios.error):
            termios.tcsetattr(self._in, termios.TCSANOW, self._before)

    def _write(self, text: str, *, patience: float | None = None) -> None:
        """Write a text. Gives up after `patience` seconds, or without it, when a signal ends or stops the program."""
        encoding = sys.stdout.encoding or "utf-8"
        unsent = text.encode(encoding, "backslashreplace")
        deadline = None if patience is None else time.monotonic() + patience
        had_room = False
        while unsent:
            try:
                unsent = unsent[os.write(self._out, unsent) :]
                had_room = False
            except BlockingIOError:
                if had_room:
                    time.sleep(_PAUSE)  # there is room for a byte, but a line end takes two
                if not self._wait_for_room(deadline):
                    return
                had_room = True

    def _wait_for_room(self, deadline: float | None) -> bool:
        """Wait until the terminal takes output; return False if the rest is not to be written."""
        poll = select.poll()
        poll.register(self._out, select.POLLOUT)
        if deadline is not None:
            return bool(poll.poll(max(0.0, deadline - time.monotonic()) * 1000))
        poll.register(self._signals, select.POLLIN)
        while not (self.ended or signal.SIGTSTP in self._signals.received):
            ready = [fd for fd, _ in poll.poll()]
            if self._signals.fileno() in ready:
                self._signals.drain()
                self._is_woken = True
            if self._out in ready:
                return True
        return False

    @property
    def ended(self) -> bool:
        """Whether a signal has arrived that ends the program."""
        return any(number in _ENDING for number in self._signals.received)

    def size(self) -> tuple[int, int]:
        """Return the current number of columns and lines."""
        size = os.get_terminal_size(self._out)
        return (size.columns or 80, size.lines or 24)

    def draw(self, lines: Sequence[str]) -> None:
        """Show rendered lines from the top, in one write, so that the screen does not flicker."""
        # Clear the rest of each line, and the screen below the last line.
        self._write("\033[H" + "\r\n".join(line + "\033[K" for line in lines) + "\033[J")

    def wait(self, until: float) -> list[str]:
        """Wait for keys and return them; return [] at `until` (monotonic seconds), or after a signal.

        A key is a character, or a word such as "up" or "enter".
        """
        left = 0.0 if self._is_woken else max(0.0, until - time.monotonic())
        self._is_woken = False
        readable, _, _ = select.select([self._in, self._signals], [], [], left)
        self._signals.drain()
        if signal.SIGTSTP in self._signals.received:
            self._stop()
        if self._in not in readable or self.ended:
            return []
        typed = os.read(self._in, 512)
        if not typed:  # the other side of the terminal is closed
            self._signals.received.append(signal.SIGHUP)
        return self._keys(typed)

    def _stop(self) -> None:
        self._give_back()
        self._signals.obey(signal.SIGTSTP)
        self._before = termios.tcgetattr(self._in)
        self._take()

    def _keys(self, typed: bytes) -> list[str]:
        text = typed.decode("utf-8", "ignore")
        keys: list[str] = []
        while text:
            # The longest first, because a single escape is also a key.
            known = next((code for code in sorted(_KEYS, key=len, reverse=True) if text.startswith(code)), "")
            if known == "\033" and len(text) > 1 and text[1] in "[O":
                text = _after_sequence(text)  # an unknown key
            elif known:
                keys.append(_KEYS[known])
                text = text[len(known) :]
            else:
                if text[0].isprintable():
                    keys.append(text[0])
                text = text[1:]
        return keys


def _opened_again(terminal: int) -> int:
    """Open a terminal again for output that never waits: O_NONBLOCK applies to this open file, not to the terminal.

    If neither its name nor /dev/tty can be opened, as in a container that has only been handed the descriptor, return a
    copy of it, which may wait.
    """
    paths = []
    with suppress(OSError):
        paths.append(os.ttyname(terminal))
    with suppress(OSError):
        os.tcgetpgrp(terminal)  # only of the controlling terminal
        paths.append("/dev/tty")
    for path in paths:
        with suppress(OSError):
            return os.open(path, os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    return os.dup(terminal)


def _after_sequence(text: str) -> str:
    """Return the text after an escape sequence (ECMA-48: parameters, then one final character)."""
    end = 2
    while end < len(text) and not "@" <= text[end] <= "~":
        end += 1
    return text[end + 1 :]
