"""A terminal taken over for a while: pictures and single keys, and everything as it was afterwards.

Plain ECMA-48 and xterm's alternate screen, which every terminal of the last decades has, by ssh as well. curses would
need the terminal's description (terminfo), which minimal images lack; what it does beyond this, sending only what has
changed, is nothing to a screenful a second.

1. What a signal asks for is only noted, and wakes :meth:`Terminal.wait`: a picture is never cut in the middle.
2. SIGINT and SIGTERM end the program as if nothing had been taken over, after the terminal was given back.
3. Ctrl-Z gives the terminal back before the process stops, and takes it again when it goes on.
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
from types import FrameType, TracebackType
from typing import Any, Final

__all__ = ["Terminal"]

_TAKE: Final = "\033[?1049h\033[?25l\033[?7l"  # the other screen, no cursor, no wrapping of long lines
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
    """stdin and stdout, which are a terminal; a context manager. For the main thread, which gets the signals."""

    def __init__(self) -> None:
        self._in, self._out = sys.stdin.fileno(), sys.stdout.fileno()
        self._before: list[Any] = []
        self._handlers: dict[int, Any] = {}
        self._noted: list[int] = []
        self._wake_read, self._wake = -1, -1
        self._old_wake = -1

    def __enter__(self) -> Terminal:
        self._before = termios.tcgetattr(self._in)
        self._wake_read, self._wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            self._old_wake = signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
            for number in _NOTED:
                self._handlers[number] = signal.signal(number, self._note)
            self._take()
        except BaseException:
            self._leave()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()
        ending = [number for number in self._noted if number in _ENDING]
        if error is None and ending:
            if ending[0] == signal.SIGINT:
                raise KeyboardInterrupt
            signal.signal(ending[0], signal.SIG_DFL)
            os.kill(os.getpid(), ending[0])

    def _leave(self) -> None:
        self._give_back()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._old_wake)
        os.close(self._wake_read)
        os.close(self._wake)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self._noted.append(number)

    def _take(self) -> None:
        tty.setcbreak(self._in, termios.TCSADRAIN)
        self._write(_TAKE)

    def _give_back(self) -> None:
        # A terminal that has gone away takes neither; there is nothing left to give back then.
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
        """Whether a signal has asked for the end."""
        return any(number in _ENDING for number in self._noted)

    def size(self) -> tuple[int, int]:
        """Columns and lines, now."""
        found = os.get_terminal_size(self._out)
        return (found.columns or 80, found.lines or 24)

    def draw(self, lines: Sequence[str]) -> None:
        """Show these lines, rendered already, from the top; in one write, so that it does not flicker."""
        # Every line is cleared after it was written, and what is below the last.
        self._write("\033[H" + "\r\n".join(line + "\033[K" for line in lines) + "\033[J")

    def wait(self, until: float) -> list[str]:
        """The keys that were pressed, as soon as there are some; [] at `until` (monotonic seconds), or for a signal.

        A key is a character, or a word as "up" or "enter".
        """
        left = max(0.0, until - time.monotonic())
        readable, _, _ = select.select([self._in, self._wake_read], [], [], left)
        if self._wake_read in readable:
            with suppress(BlockingIOError):
                while os.read(self._wake_read, 512):
                    pass
        if signal.SIGTSTP in self._noted:
            self._stop()
        if self._in not in readable or self.ended:
            return []
        typed = os.read(self._in, 512)
        if not typed:  # the other side of the terminal is closed
            self._noted.append(signal.SIGHUP)
        return self._keys(typed)

    def _stop(self) -> None:
        self._give_back()
        self._noted = [number for number in self._noted if number != signal.SIGTSTP]
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        # Here the process is stopped until SIGCONT.
        signal.signal(signal.SIGTSTP, self._note)
        self._before = termios.tcgetattr(self._in)
        self._take()

    def _keys(self, typed: bytes) -> list[str]:
        text = typed.decode("utf-8", "ignore")
        keys: list[str] = []
        while text:
            # The longest first: an escape alone is a key, too.
            known = next((code for code in sorted(_KEYS, key=len, reverse=True) if text.startswith(code)), "")
            if known == "\033" and len(text) > 1 and text[1] in "[O":
                text = _after_sequence(text)  # a key we have no use for
            elif known:
                keys.append(_KEYS[known])
                text = text[len(known) :]
            else:
                if text[0].isprintable():
                    keys.append(text[0])
                text = text[1:]
        return keys


def _after_sequence(text: str) -> str:
    """What follows an escape sequence (ECMA-48: parameters, then one final character)."""
    end = 2
    while end < len(text) and not "@" <= text[end] <= "~":
        end += 1
    return text[end + 1 :]
