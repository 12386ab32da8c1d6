"""When files that take long to read are read: all of them together, for up to a tenth of the time.

1. After a file has taken long, all files that may take long rest for ten times as long. A rest of that file alone would
   be in vain, because a user who can write the file can also rename it, or delete it and create a new one.
2. During a rest, a file is expected to be quick if its name was quick at about the same size, or if it is much smaller
   than any that took long. The others wait, and so does every other name of a file that took long. Symbolic links are
   judged by name alone, since only a file system knows the size of a target; once one has taken long, all of them wait.
3. If such an expectation is wrong, the rest becomes longer, and fewer files are expected to be quick.
4. After a rest, the smallest of the files that wait are read first, since they are the most likely to be quick; after
   the next rest, those that have waited longest. With only one of these, a file that is rewritten all the time, or many
   of them, could keep another one unread for ever.
"""

from __future__ import annotations

import os
import stat
from typing import Final

from vethlib._primitives import time

from .reading import status_of

__all__ = ["LongReads"]

_LONG: Final = 0.05  # seconds of processor time
_REST: Final = 10.0  # length of a rest, as a multiple of the time that reading took
_GROWN: Final = 2  # a file of as many times the size may take much longer

_Inode = tuple[int, int]


class LongReads:
    """The files of a directory that took long to read, those that were quick, and the time until which others rest."""

    def __init__(self) -> None:
        self.until = 0.0
        """The time until which files that may take long are not read."""
        self._quick: dict[str, int] = {}  # the size of each file that was quick
        self._inodes: set[_Inode] = set()  # the files that took long since the rest began
        self._smallest = 0  # size of the smallest of these
        self._linked = False  # whether a symbolic link led to one of these
        self._waiting: dict[str, tuple[float, int]] = {}  # for each file that waits: since when, and its size
        self._smallest_first = True

    def note(self, name: str, took: float, size: int, directory: int) -> None:
        """Note that reading a file of `size` bytes has taken `took` seconds of processor time."""
        self._waiting.pop(name, None)
        if took <= _LONG:
            self._quick[name] = size
            return
        self._quick.pop(name, None)
        now = time.monotonic()
        if self.until <= now:
            self._smallest_first = not self._smallest_first
            self._inodes.clear()
            self._smallest, self._linked = size, False
        self._smallest = min(self._smallest, size)
        self.until = max(self.until, now) + _REST * took
        try:
            status = status_of(name, directory)
        except OSError:
            return
        if stat.S_ISLNK(status.st_mode):
            self._linked = True
        elif inode := _inode(status):
            self._inodes.add(inode)

    def must_wait(self, name: str, directory: int) -> bool:
        """Return whether an existing file may take long and must not be read before :attr:`until`."""
        if self.until <= time.monotonic():
            return False
        try:
            status = status_of(name, directory)
        except OSError:
            return False
        size = status.st_size
        if stat.S_ISLNK(status.st_mode):
            is_quick = name in self._quick and not self._linked
        elif _inode(status) in self._inodes:
            is_quick = False
        else:
            is_quick = size <= _GROWN * self._quick.get(name, -1) or _GROWN * size < self._smallest
        if is_quick:
            return False
        since, _ = self._waiting.get(name, (time.monotonic(), 0))
        self._waiting[name] = since, size
        return True

    def rank(self, name: str) -> tuple[float, float]:
        """Return the place of a file among those that are due at the same time: first the quick ones (rule 4)."""
        if name not in self._waiting:
            return (-1, 0) if name in self._quick else (0, 0)
        since, size = self._waiting[name]
        return (size, since) if self._smallest_first else (since, size)

    def has_waited(self, name: str) -> bool:
        """Return whether a file had to wait since it was read, so that its turn depends on its rank."""
        return name in self._waiting

    def forget(self, name: str) -> None:
        """Forget a file that was deleted."""
        self._quick.pop(name, None)
        self._waiting.pop(name, None)

    def end_rest(self) -> None:
        """Let no file wait from now on."""
        self.until = 0.0


def _inode(status: os.stat_result) -> _Inode | None:
    """Return the identity of a file with several names. That of any other may be given to another file at once."""
    return (status.st_dev, status.st_ino) if status.st_nlink > 1 else None
