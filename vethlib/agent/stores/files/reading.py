"""Open the directory of a store and its files for one reading, and never longer.

An open descriptor would prevent an unmount.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Set
from contextlib import contextmanager

from vethlib import _trusted
from vethlib.agent.config.filecontent import Content, content, is_mount_point, mounts_on
from vethlib.agent.config.files import is_configuration
from vethlib.agent.config.northbound import Parsed
from vethlib.agent.stores.directories import why
from vethlib.agent.stores.protocol import StoreError
from vethlib.errors import InvalidValue
from vethlib.ns.descriptor import Descriptor
from vethlib.ns.files.glance import glance_at
from vethlib.ns.opening import asked, opened_directory

__all__ = [
    "Content",
    "content",
    "is_link",
    "is_mount_point",
    "is_of_another_user",
    "is_same",
    "mounts_on",
    "names_of",
    "opened",
    "real_path",
    "status_of",
    "unreadable",
]

_CURES = {
    errno.ENOENT: "does not exist: create the directory",
    errno.ENOTDIR: "is not a directory: name the directory that contains the files",
    errno.ELOOP: "is a circular symbolic link: point it at a directory",
}


@contextmanager
def opened(path: str, *, trusted: bool = False) -> Iterator[int]:
    """Open a directory for reading; if `trusted`, not through links of other users. Raises :class:`StoreError`."""
    try:
        owned = Descriptor.fromfd(_trusted.open_directory(path)) if trusted else opened_directory(path)
    except OSError as error:
        raise _refusal(path, error) from error
    try:
        directory = owned.fileno()
        try:
            # With r but without x, the directory can be listed, but its files cannot be opened.
            os.stat(".", dir_fd=directory)
        except OSError as error:
            raise _refusal(path, error) from error
        yield directory
    finally:
        owned.close()


def _refusal(path: str, error: OSError) -> StoreError:
    reason = _CURES.get(error.errno or 0, "")
    if reason and error.strerror == os.strerror(error.errno or 0):
        return StoreError(f"{path} {reason}", path=path, reason=reason, errno=error.errno)
    reason = why(error)
    if isinstance(error, PermissionError):
        reason = f"{reason}: let this user read and enter it"
    return StoreError(f"cannot read {path}: {reason}", path=path, reason=reason, errno=error.errno)


def names_of(inodes: Set[int], directory: int) -> list[str]:
    """Return the names of the configuration files in a directory that have one of these inodes."""
    with os.scandir(directory) as entries:
        return [entry.name for entry in entries if entry.inode() in inodes and is_configuration(entry.name)]


def is_same(path: str, other: str) -> bool:
    """Return whether two paths lead to the same directory; False if a file system does not answer."""
    try:
        real = asked(path, lambda: os.path.realpath(path))
        return real == asked(other, lambda: os.path.realpath(other))
    except OSError:
        return False


def real_path(name: str, directory: int, at: str) -> str:
    """Return the path of a file in the directory `at` without links; a link of another user is not resolved."""
    path = os.path.join(at, name)
    try:
        link = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    except OSError:
        return path
    try:
        status = os.fstat(link)
        if not stat.S_ISLNK(status.st_mode) or not _trusted.is_trusted(status):
            return path
        return os.path.realpath(os.path.join(at, os.readlink("", dir_fd=link)))
    finally:
        os.close(link)


def is_link(name: str, directory: int) -> bool:
    """Return whether an entry of a directory is a symbolic link. Asks only the file system of the directory."""
    try:
        return stat.S_ISLNK(glance_at(name, directory).mode)
    except OSError:
        return False


def status_of(name: str, directory: int) -> os.stat_result:
    """Return the status of an entry of a directory, without following a link. Raises OSError, also for a mount point.

    The file system that is mounted there may never answer.
    """
    if is_mount_point(name, directory):
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), name)
    return os.stat(name, dir_fd=directory, follow_symlinks=False)


def is_of_another_user(name: str, directory: int) -> bool:
    """Return whether a file is a symbolic link that belongs to a user other than root and this one."""
    try:
        # The file system of what is mounted on a file may never answer.
        status = os.stat(name, dir_fd=directory, follow_symlinks=False) if is_link(name, directory) else None
    except OSError:
        return False
    return status is not None and not _trusted.is_trusted(status)


def unreadable(source: str, error: OSError) -> list[Parsed]:
    """Return the values of a file that cannot be read: one problem."""
    return [Parsed(None, problems=(InvalidValue("file", source, f"cannot be read: {why(error)}"),), source=source)]
