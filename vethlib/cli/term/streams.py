"""The three standard streams: they may be missing at the start, and fail while a command runs."""

from __future__ import annotations

import fcntl
import io
import os
import select
import sys
from typing import IO, Any

__all__ = ["Unread", "abandon", "are_one", "columns_of", "obeys_sequences", "open_missing", "wait_for_readers"]


class Unread(BrokenPipeError):
    """Nobody reads the output: its pipe is closed, or it was not read in time."""


def open_missing() -> None:
    """Open the standard streams that this process was started without (``>&-``).

    Python has None for such a stream, and the next opened file gets its number: messages for stderr could go into a
    socket. The substitute for stdin is empty; that for stdout cannot be written to, so that a command with a result
    fails; that for stderr discards everything.
    """
    modes = (os.O_RDONLY, os.O_RDONLY, os.O_WRONLY)
    for number, mode in enumerate(modes):
        try:
            fcntl.fcntl(number, fcntl.F_GETFD)
        except OSError:
            opened = os.open(os.devnull, mode)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
            os.set_inheritable(number, True)
    # typeshed does not know that streams may be None.
    streams: dict[str, IO[str] | None] = {"stdin": sys.stdin, "stdout": sys.stdout, "stderr": sys.stderr}
    for number, (name, stream) in enumerate(streams.items()):
        if stream is None:
            setattr(sys, name, open(number, "w" if number else "r", encoding="utf-8", closefd=False))  # noqa: SIM115


class _Waiting(io.FileIO):
    """An output that waits until there is room, even if the file is in non-blocking mode."""

    def write(self, data: Any) -> int:
        """Write some of the data; return how much."""
        while (written := super().write(data)) is None:  # EAGAIN
            room = select.poll()
            room.register(self, select.POLLOUT)
            room.poll()
        return written


def wait_for_readers() -> None:
    """Replace stdout and stderr if they are in non-blocking mode: Python would lose what has no room.

    The mode belongs to the open file, which other processes may have as well, so it stays as it is.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        number = _number_of(stream)
        if isinstance(stream, io.TextIOWrapper) and number is not None and not os.get_blocking(number):
            output = io.BufferedWriter(_Waiting(number, "w", closefd=False))
            errors, by_lines = stream.errors, stream.line_buffering
            setattr(sys, name, io.TextIOWrapper(output, stream.encoding, errors, line_buffering=by_lines))


def _number_of(stream: IO[str] | None) -> int | None:
    """Return the descriptor of a stream; None if it is closed, or never had one because a program captures output."""
    try:
        return None if stream is None else stream.fileno()
    except (OSError, ValueError):
        return None


def are_one(a: IO[str] | None, b: IO[str] | None) -> bool:
    """Return whether both write to the same file, pipe or terminal."""
    first, second = _number_of(a), _number_of(b)
    if first is None or second is None:
        return False
    try:
        return os.path.sameopenfile(first, second)
    except OSError:
        return False  # closed, but not by Python


def abandon(stream: IO[str] | None) -> None:
    """Discard the rest of an output stream that nobody reads or that is full.

    Otherwise, Python would report the buffered rest as another error at exit, and change any exit status to 120.
    """
    number = _number_of(stream)
    if number is None:
        return
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
    except OSError:  # no descriptor is left, and this one is useless
        os.close(number)
        nowhere = os.open(os.devnull, os.O_WRONLY)
    if nowhere != number:
        os.dup2(nowhere, number)
        os.close(nowhere)


def columns_of(terminal: int) -> int:
    """Return the number of columns of a terminal."""
    try:
        return os.get_terminal_size(terminal).columns or 80
    except OSError:
        return 80


def obeys_sequences(stream: IO[str] | None) -> bool:
    """Return whether a stream is a terminal that can move its cursor and clear lines."""
    return stream is not None and stream.isatty() and os.environ.get("TERM") != "dumb"
