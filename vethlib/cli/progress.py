"""How far long work is, on a terminal."""

from __future__ import annotations

import os
import sys
from types import TracebackType

from .text import printable

__all__ = ["Progress"]

_BAR = 24
_FEW = 50  # less than that is done before anyone has read it


class Progress:
    """A line on stderr that is written over; nothing where stderr is no terminal. Gone at the end of a ``with``."""

    def __init__(self) -> None:
        self._wanted = sys.stderr.isatty()
        self._shown = ""

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.clear()

    def __call__(self, what: str, done: int, total: int) -> None:
        """`done` of `total` are through."""
        if total >= _FEW:
            filled = _BAR * done // total
            percent = f"{100 * done // total}%"
            self.say(f"{what:>8} {'━' * filled}{'╌' * (_BAR - filled)} {percent:>4} of {total}")

    def say(self, text: str) -> None:
        """Show `text` instead of what is shown."""
        if self._wanted and text != self._shown:
            # A line that wraps could not be written over.
            sys.stderr.write(f"\r\033[K{printable(text)[: _columns() - 1]}")
            sys.stderr.flush()
            self._shown = text

    def clear(self) -> None:
        """Take the line away."""
        if self._shown:
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()
            self._shown = ""


def _columns() -> int:
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or 80
    except OSError:
        return 80
