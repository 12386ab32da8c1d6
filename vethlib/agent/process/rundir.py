"""The directories below /run/vethlib, to which only the agent's user may write because others trust their content.

1. A directory is opened from its parent's descriptor and never through a symbolic link, so that no planted link is
   followed. The opened directory itself is checked, by fstat.
2. Modes do not depend on the umask. If other users can write to a directory of this user (created under umask 0), its
   mode is corrected; a directory of another user is refused, and the message names that user.
3. /run belongs to root, so the owner of /run/vethlib was given it by root. A user other than root has a directory in
   $XDG_RUNTIME_DIR, unless root has given it /run/vethlib.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import Final

from vethlib import _trusted
from vethlib.agent.config.mark import check_label
from vethlib.errors import VethError, errno_text
from vethlib.ns.descriptor import HERE

__all__ = [
    "RUN",
    "UnsafeDirectory",
    "base_directories",
    "base_directory",
    "open_base",
    "open_directory",
    "open_for_writing",
    "open_own",
    "status_directories",
    "status_directory",
]

RUN: Final = "/run/vethlib"
_OPEN: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_BY_OTHERS: Final = stat.S_IWGRP | stat.S_IWOTH


class UnsafeDirectory(VethError, OSError):
    """A directory cannot be trusted, or cannot be opened.

    ``path`` is its path, ``errno`` the kernel's number or 0, and ``uid`` its owner, None if the owner is not the
    problem.
    """

    def __init__(self, message: str, *, path: str = "", uid: int | None = None, errno: int = 0) -> None:
        super().__init__(message)
        self.path = path
        self.uid = uid
        self.errno = errno

    def __str__(self) -> str:
        return str(self.args[0])


def base_directory() -> str:
    """Return the parent of the directories of this process's agents.

    It is /run/vethlib, or for an ordinary user without that, $XDG_RUNTIME_DIR/vethlib.
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if os.geteuid() == 0 or not os.path.isabs(runtime):
        return RUN
    try:
        if os.lstat(RUN).st_uid == os.geteuid():
            return RUN
    except OSError:
        pass
    return os.path.join(runtime, "vethlib")


def base_directories() -> tuple[str, ...]:
    """Return the parents of agents' directories that this process can trust: its own, and that of the host."""
    return tuple(dict.fromkeys((base_directory(), RUN)))


def open_directory(label: str, *parts: str) -> int:
    """Open the directory of a label's agent, or a directory in it; create it if it is missing (mode 0755).

    Returns a descriptor (O_RDONLY, close-on-exec) for ``openat`` and its like, which the caller closes. Raises
    UnsafeDirectory if it belongs to another user, is a symbolic link or something else, or cannot be created.
    """
    path, parts = base_directory(), (check_label(label), *parts)
    directory = open_base()
    for part in parts:
        path = os.path.join(path, part)
        try:
            inner = open_own(path, part, directory)
        finally:
            os.close(directory)
        directory = inner
    return directory


def open_base() -> int:
    """Open :func:`base_directory`, as :func:`open_directory` does."""
    return open_own(base_directory())


def open_for_writing(path: str) -> int:
    """Open the directory for statuses at an absolute `path`; create it if it is missing.

    Below :func:`base_directory`, only this user may be able to write to it. Elsewhere, its owner and mode are up to the
    operator, but no link of another user is followed. Raises OSError, such as UnsafeDirectory.
    """
    base = base_directory()
    if os.path.commonpath([base, path]) == base and path != base and ".." not in path.split("/"):
        label, *parts = os.path.relpath(path, base).split("/")
        return open_directory(label, *parts)
    return _trusted.open_directory(path, make=True)


def open_own(path: str, name: str | None = None, parent: int | None = None, *, make: bool = True) -> int:
    """Open a directory that only this user may write; `name` is its name in `parent`, `path` is for messages.

    It is created if it is missing, unless `make` is False, with mode 0755 whatever the umask. Raises UnsafeDirectory.
    """
    at = path if name is None else name
    try:
        directory = _opened(at, parent, make=make)
    except OSError as error:
        raise _refused(path, at, parent, error) from None
    try:
        _check(path, directory)
    except BaseException:
        os.close(directory)
        raise
    return directory


def _opened(at: str, parent: int | None, *, make: bool) -> int:
    try:
        return os.open(at, _OPEN, dir_fd=parent)
    except FileNotFoundError:
        if not make:
            raise
    try:
        _trusted.make_directory(at, parent)
    except FileExistsError:
        pass  # another process was quicker
    return os.open(at, _OPEN, dir_fd=parent)


def _check(path: str, directory: int) -> None:
    status = os.fstat(directory)
    if status.st_uid != os.geteuid():
        if os.geteuid() == 0 and _trusted.may_be_root(status):
            message = f"{path} belongs to root outside this user namespace: mount a tmpfs on /run"
        elif status.st_uid == 0:
            message = f"{path} belongs to root: run as root, or set $XDG_RUNTIME_DIR for an agent of your own"
        else:
            message = f"{path} belongs to user {status.st_uid}, who can change everything in it: remove it"
            message += f", or give it to user {os.geteuid()}"
        raise UnsafeDirectory(message, path=path, uid=status.st_uid)
    if status.st_mode & _BY_OTHERS:
        try:
            os.fchmod(directory, stat.S_IMODE(status.st_mode) & ~_BY_OTHERS)
        except OSError as error:
            message = f"other users can write to {path}, and chmod failed: {errno_text(error.errno or 0)}"
            raise UnsafeDirectory(f"{message}; chmod go-w {path}", path=path, errno=error.errno or 0) from None


def _refused(path: str, at: str, parent: int | None, error: OSError) -> UnsafeDirectory:
    number = error.errno or 0
    if number in (errno.ENOTDIR, errno.ELOOP):
        try:
            status = os.stat(at, dir_fd=parent, follow_symlinks=False)
        except OSError:
            pass
        else:
            what = "a symbolic link" if stat.S_ISLNK(status.st_mode) else "not a directory"
            message = f"{path} is {what} of user {status.st_uid}: remove it"
            return UnsafeDirectory(message, path=path, uid=status.st_uid, errno=number)
    return UnsafeDirectory(f"cannot use {path}: {errno_text(number)}", path=path, errno=number)


def status_directories(label: str, base: str | None = None) -> tuple[str, str]:
    """Return the default directories of the statuses of a label: that of agents of this namespace only, and the usual.

    Two hosts on one machine, each in its own network namespace, can have an agent of the same label, and the same /run.
    """
    usual = os.path.join(base_directory() if base is None else base, check_label(label), "status")
    return f"{usual}@{os.stat(HERE).st_ino}", usual  # '@' is in no label


def status_directory(label: str) -> str:
    """Return the default directory in which to read the statuses of an agent."""
    # An ordinary user may mean the agent of the host.
    directories = [path for base in base_directories() for path in status_directories(label, base)]
    return next(filter(os.path.isdir, directories), directories[1])
