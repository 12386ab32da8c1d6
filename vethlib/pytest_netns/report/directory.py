"""The directory of all capture files: created by the first capture, ignored by git, removed if nothing is left in it.

All workers of pytest-xdist use the same directory. So only the main process removes it, after the workers have ended,
and only if it did not exist when the run began. A child that a test has forked and that goes on with the run does not
remove it, either.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

import pytest

__all__ = ["DIRECTORY", "Directory", "make_unversioned", "remove_captures"]

_IGNORE: Final = ".gitignore"
_IGNORED: Final = b"# by pytest's plugin netns\n*\n"


class Directory:
    """The directory of a run, to be removed when the run ends."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._was_there = os.path.lexists(path)
        self._runner = os.getpid()

    def end(self) -> None:
        """Remove the directory if this run has created it, and no capture is left in it."""
        if self._was_there or self._runner != os.getpid():
            return
        ignore = self._path / _IGNORE
        with suppress(OSError):  # there is none, or somebody else uses it
            if os.listdir(self._path) == [_IGNORE] and ignore.read_bytes() == _IGNORED:
                ignore.unlink()
                self._path.rmdir()


DIRECTORY: Final = pytest.StashKey[Directory]()


def make_unversioned(directory: Path) -> None:
    """Create the directory of all captures, with a file that has git ignore it."""
    try:
        directory.mkdir(parents=True)
    except FileExistsError:
        return  # it belongs to the user, or another worker has just created it
    (directory / _IGNORE).write_bytes(_IGNORED)


def remove_captures(files: list[Path], directory: Path, last: Path) -> None:
    """Remove files, and then the directories below `last` that have become empty. Errors are ignored."""
    for path in files:
        with suppress(OSError):
            path.unlink()
    for parent in (directory, *directory.parents):
        if parent == last:
            return
        try:
            parent.rmdir()
        except OSError:
            return  # it has other files
