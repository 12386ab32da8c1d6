"""Read files that other users may have put into a directory: never wait, and read nothing that they may not read."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable
from typing import Final, NamedTuple

from vethlib import _trusted
from vethlib._primitives import posix
from vethlib.agent.limits import DEFAULT
from vethlib.ns.files.glance import glance_at, glance_of
from vethlib.ns.opening import has_procfs

__all__ = ["Content", "content", "is_mount_point", "mounts_on"]

_ITSELF: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
"""Flags that open a symbolic link itself, and a file without access to its content (open(2))."""


class Content(NamedTuple):
    """The content of a file, up to one byte more than the limit, and its number of names (st_nlink)."""

    raw: bytes
    names: int


def content(
    name: str, directory: int | None, *, follow: bool = True, longest: int = DEFAULT.file_bytes
) -> Content | None:
    """Return the content of a file, or None for a directory. Never waits, whatever the file is.

    Only regular files are opened: opening a pipe would release its writer, opening a device may do anything.
    Symbolic links, however many in a row, are followed if each belongs to root, to this user or to the owner of the
    file. So a user who can write to the directory, or to a directory that a link of root leads to, cannot have a file
    read that this user may not read. At most `longest` + 1 bytes are read, so a file that is endless, or grows
    meanwhile, costs no more than another.

    Raises FileNotFoundError, OSError with ELOOP for a symbolic link that must not be followed, PermissionError for a
    link of another user, and OSError with EINVAL for anything but a regular file.
    """
    target = os.open(name, _ITSELF, dir_fd=directory)
    try:
        status = os.fstat(target)
        if not stat.S_ISLNK(status.st_mode):
            return _content(target, status, longest)
    finally:
        os.close(target)
    if not follow:
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    return _content_behind(name, directory, status, longest)


def is_mount_point(name: str, directory: int) -> bool:
    """Return whether something is mounted on an entry of a directory, whose file system may never answer.

    Asks only the file system of the directory.
    """
    return name in mounts_on([name], directory)


def mounts_on(names: Iterable[str], directory: int) -> dict[str, tuple[int, int, int]]:
    """Return an identity of what is mounted on each of these entries of a directory, for those that are mount points.

    Asks only the file system of the directory.
    """
    mounts: dict[str, tuple[int, int, int]] = {}
    try:
        here = glance_of(directory)
    except OSError:
        return mounts
    for name in names:
        try:
            entry = glance_at(name, directory)
        except OSError:
            continue
        # Without mounts, files may have other devices than their directory on an overlay of several file systems.
        if (entry.mount != here.mount) if entry.mount and here.mount else (entry.dev != here.dev):
            mounts[name] = entry.mount, entry.dev, entry.ino
    return mounts


def _content_behind(name: str, directory: int | None, link: os.stat_result, longest: int) -> Content | None:
    target = os.open(name, os.O_PATH | os.O_CLOEXEC, dir_fd=directory)
    try:
        status = os.fstat(target)
        walked, strangers = _trusted.strangers_on_the_way(name, directory)
        _check_links(strangers, status)
        is_same = os.path.samestat(walked, status)
        if not is_same or _version(link) != _version(os.stat(name, dir_fd=directory, follow_symlinks=False)):
            raise OSError(errno.EAGAIN, "changed while it was read")
        return _content(target, status, longest)
    finally:
        os.close(target)


def _content(target: int, status: os.stat_result, longest: int) -> Content | None:
    if stat.S_ISDIR(status.st_mode):
        return None
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a regular file")
    return Content(_read(target, status.st_size, longest + 1), status.st_nlink)


def _check_links(strangers: set[int], target: os.stat_result) -> None:
    for uid in sorted(strangers - {target.st_uid}):
        raise PermissionError(
            errno.EPERM, f"is reached through a symbolic link of user {uid}, but belongs to user {target.st_uid}"
        )


def _version(link: os.stat_result) -> tuple[int, int, int]:
    return link.st_dev, link.st_ino, link.st_ctime_ns  # a rename changes st_ctime


def _read(target: int, size: int, most: int) -> bytes:
    try:
        file = os.open(f"/proc/self/fd/{target}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:  # which means that the file is gone, as a server may report
        if has_procfs():
            raise
        raise OSError(errno.EIO, "/proc is not mounted") from None
    try:
        pieces = [posix.read(file, min(size + 1, most))]
        left = most - len(pieces[-1])
        while pieces[-1] and left:  # the file may grow, and files in /proc report size 0
            pieces.append(posix.read(file, min(1 << 16, left)))
            left -= len(pieces[-1])
        return b"".join(pieces)
    finally:
        os.close(file)
