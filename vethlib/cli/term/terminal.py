"""Full-screen output and single keys on a terminal, which is restored afterwards.

It uses ECMA-48 and the alternate screen of xterm, which all terminals of the last decades have, also by ssh. curses
would need the description of the terminal (terminfo), which minimal images lack; and sending only changed parts would
save little at one screen per second.

1. Signals are noted and end :meth:`Terminal.wait`, so a picture is always complete.
2. SIGINT and SIGTERM take effect after the terminal was restored.
3. Ctrl-Z restores the terminal before the process stops; afterwards, it is taken over again.
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
        self._in, self._out = sys.stdin.fileno(), sys.stdout.fileno()
        self._before: list[Any] = []
        self._signals = NotedSignals(_NOTED)

    def __enter__(self) -> Terminal:
        self._before = termios.tcgetattr(self._in)
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

    def _take(self) -> None:
        tty.setcbreak(self._in, termios.TCSADRAIN)
        self._write(_TAKE)

    def _give_back(self) -> None:
        # Both fail if the terminal is gone; then there is nothing to restore.
        with suppress(OSError):
            self._write(_GIVE_BACK)
        with suppress(termios.error):
            termios.tcsetattr(self._in, termios.TCSADRAIN, self._before)

    def _write(self, text: str) -> None:
        sys.stdout.flush()
        encoding = sys.stdout.encoding or "utf-8"
        unsent = text.encode(encoding, "backslashreplace")
        while unsent:
            unsent = unsent[os.write(self._out, unsent) :]

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
        left = max(0.0, until - time.monotonic())
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


def _after_sequence(text: str) -> str:
    """Return the text after an escape sequence (ECMA-48: parameters, then one final character)."""
    end = 2
    while end < len(text) and not "@" <= text[end] <= "~":
        end += 1
    return text[end + 1 :]
