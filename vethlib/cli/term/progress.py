"""The progress of long work, on a terminal."""

from __future__ import annotations

import select
import sys
from types import TracebackType
from typing import IO

from .streams import abandon, columns_of, obeys_sequences
from .text import fit, printable

__all__ = ["Progress"]

_BAR = 24
_FEW = 50  # less than that is done too quickly to be read


class Progress:
    """A line on stderr that is overwritten, if stderr is a terminal; cleared at the end of a ``with``."""

    def __init__(self) -> None:
        self._is_terminal = obeys_sequences(sys.stderr)
        self._shown = ""

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.clear()

    def __call__(self, what: str, done: int, total: int) -> None:
        """Show that `done` of `total` are done, unless there are few."""
        if total >= _FEW:
            filled = _BAR * done // total
            percent = f"{100 * done // total}%"
            self.show(f"{what:>8} {'━' * filled}{'╌' * (_BAR - filled)} {percent:>4} of {total}")

    @property
    def is_shown(self) -> bool:
        """Whether stderr is a terminal."""
        return self._is_terminal

    def show(self, text: str) -> None:
        """Show a text instead of the current one."""
        if self._is_terminal and text != self._shown:
            # A line that wraps could not be overwritten.
            self._write(f"\r\033[K{fit(printable(text), columns_of(_number(sys.stderr)) - 1)}")
            self._shown = text

    def clear(self) -> None:
        """Clear the line."""
        if self._shown:
            self._write("\r\033[K")
            self._shown = ""

    def _write(self, text: str) -> None:
        try:
            if not _has_room(sys.stderr):
                return  # output is stopped (Ctrl-S), and the work must not wait for it
            sys.stderr.write(text)
            sys.stderr.flush()
        except OSError:  # the terminal is gone; the work continues
            self._is_terminal = False
            abandon(sys.stderr)


def _has_room(terminal: IO[str]) -> bool:
    number = _number(terminal)
    if number < 0:
        return True
    poll = select.poll()
    poll.register(number, select.POLLOUT)
    return bool(poll.poll(0))


def _number(stream: IO[str]) -> int:
    try:
        return stream.fileno()
    except OSError:
        return -1  # a stream without a descriptor
