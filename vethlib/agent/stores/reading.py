"""The directory of a store and its files, opened for one look and never longer: a descriptor that stays open would
keep a file system from being unmounted."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from vethlib.agent.files import is_configuration
from vethlib.agent.northbound import Parsed
from vethlib.errors import InvalidValue

from .protocol import StoreError

__all__ = ["Content", "Identity", "content", "file_names", "identity", "opened", "real_path", "unreadable", "why"]

Identity = tuple[int, int]
"""What tells one directory from another of the same name: st_dev and st_ino."""

_CURES = {
    errno.ENOENT: "does not exist: make the directory",
    errno.ENOTDIR: "is not a directory: name the one that the files are in",
    errno.ELOOP: "is a symbolic link that leads in circles: point it at a directory",
}


@contextmanager
def opened(path: str) -> Iterator[int]:
    """A directory to read from. Raises :class:`StoreError` with the cure."""
    try:
        directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise _refusal(path, error) from error
    try:
        try:
            os.stat(".", dir_fd=directory)  # with r but no x it can be listed, and none of its files be opened
        except OSError as error:
            raise _refusal(path, error) from error
        yield directory
    finally:
        os.close(directory)


def _refusal(path: str, error: OSError) -> StoreError:
    reason = _CURES.get(error.errno or 0, "")
    if reason:
        return StoreError(f"{path} {reason}", path=path, reason=reason, errno=error.errno)
    reason = why(error)
    if isinstance(error, PermissionError):
        reason = f"{reason}: let this user read and enter it"
    return StoreError(f"cannot read {path}: {reason}", path=path, reason=reason, errno=error.errno)


def why(error: OSError) -> str:
    """The system's words for an error."""
    return error.strerror or str(error)


def identity(directory: int) -> Identity:
    """Which directory this is."""
    found = os.fstat(directory)
    return found.st_dev, found.st_ino


def file_names(directory: int) -> list[str]:
    """The files that hold configuration, as far as their names tell; sorted."""
    return sorted(name for name in os.listdir(directory) if is_configuration(name))


class Content(NamedTuple):
    """What a file holds, and how many names it has (st_nlink)."""

    raw: bytes
    names: int


def content(name: str, directory: int, *, follow: bool = True) -> Content | None:
    """What a file holds; None for a directory. Never waits, whatever it is.

    Raises FileNotFoundError, and OSError with ELOOP for a symbolic link that is not to be followed.
    """
    how = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    file = os.open(name, how, dir_fd=directory)
    try:
        found = os.fstat(file)
        if stat.S_ISDIR(found.st_mode):
            return None
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        pieces = [os.read(file, found.st_size + 1)]
        while pieces[-1]:  # it may grow, and /proc files have no size
            pieces.append(os.read(file, 1 << 16))
        return Content(b"".join(pieces), found.st_nlink)
    finally:
        os.close(file)


def real_path(name: str, directory: int, at: str) -> str:
    """The path of a file without links, where `at` is that of its directory."""
    path = os.path.join(at, name)
    try:
        os.readlink(name, dir_fd=directory)
    except OSError:
        return path
    return os.path.realpath(path)


def unreadable(source: str, error: OSError) -> list[Parsed]:
    """What is known of a file that cannot be read."""
    return [Parsed(None, problems=(InvalidValue("file", source, f"cannot be read: {why(error)}"),), source=source)]
