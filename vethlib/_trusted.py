"""Open paths without following the symbolic links of other users.

A user who can write to a directory on the path can put a symbolic link there, and change it at any moment. So a path is
walked part by part, each from the descriptor of the previous part, and a link is inspected and read through its own
descriptor. Links of root and of this user are followed. A link of another user is an error that names the user.

In a user namespace, all users that it does not map look the same, root outside included. Their links are followed if
nobody but the owner can write to any directory from / to the link: such a link is as old as the path itself.

The descriptors of a walk close themselves, so that an interruption loses none (vethlib/ns/descriptor.py).
"""

from __future__ import annotations

import errno
import os
import stat
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from vethlib._primitives import posix, select

if TYPE_CHECKING:
    Descriptor: TypeAlias = select.epoll
else:
    Descriptor = getattr(select, "epoll", None)

_WALK: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_ENTER: Final = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_OPEN: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_ALL: Final = (1 << 32) - 1  # users
_MODE: Final = 0o755  # of new directories
_MOST_LINKS: Final = 40  # MAXSYMLINKS, include/linux/namei.h

MOST_NAMES: Final = 128
"""The most names that are looked up on a path controlled by others, including the names in symbolic links.

Each costs several system calls. The kernel would look up 80 000: 4096 bytes of path, and again for each of 40 links.
"""


class Place(NamedTuple):
    """Location of a file that may not exist yet: the descriptor of its directory, which closes itself, and its name."""

    directory: Descriptor
    name: str


def is_trusted(link: os.stat_result) -> bool:
    """Return whether a symbolic link may be followed: it belongs to root or to this user."""
    return link.st_uid in (0, os.geteuid())


def open_directory(path: str, *, make: bool = False) -> int:
    """Open a directory. With `make`, create it and its parents if they are missing (mode 0755, whatever the umask).

    Returns a descriptor (O_RDONLY, close-on-exec), which the caller closes. Raises OSError: ELOOP, with the user in its
    text, for a link of another user.
    """
    with _walk(path, make=make) as place:
        return os.open(".", _OPEN, dir_fd=place.fileno())


def locate(path: str, directory: int | None = None) -> Place:
    """Locate a file that may not exist yet; a relative path starts from `directory`, or the working directory.

    If the file itself is a trusted link, it is followed; a link of another user is the location itself, so that
    replacing the file replaces the link. Raises OSError, also if a directory on the way is missing.
    """
    at: Descriptor | None = None
    for _ in range(_MOST_LINKS):
        head, name = os.path.split(path)
        if name in ("", ".", ".."):
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        parent = _walk(head, directory if at is None else at.fileno())
        target = _target(name, parent.fileno())
        if target is None:
            return Place(parent, name)
        path, at = target, parent
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)


def _opened(name: str, flags: int, directory: int | None) -> Descriptor:
    """Open a file, and return the object that owns its descriptor, in one C call."""
    own: Any = Descriptor.fromfd
    owner: Descriptor = next(map(own, map(partial(posix.open, dir_fd=directory), (name,), (flags,))))
    return owner


def make_directory(name: str, parent: int | None) -> None:
    """Create a directory with mode 0755 whatever the umask. Raises OSError: EEXIST if something has that name."""
    os.mkdir(name, _MODE, dir_fd=parent)
    with _opened(name, _OPEN | os.O_NOFOLLOW, parent) as made:
        if os.fstat(made.fileno()).st_uid == os.geteuid():  # otherwise somebody has put another directory in its place
            os.fchmod(made.fileno(), _MODE)


def _is_guarded(directory: os.stat_result) -> bool:
    """Return whether only the owner of a directory can create links in it."""
    return not directory.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def may_be_root(link: os.stat_result) -> bool:
    """Return whether a link may belong to root outside this user namespace."""
    try:
        with (
            open("/proc/sys/kernel/overflowuid", encoding="utf-8") as overflow,
            open("/proc/self/uid_map", encoding="utf-8") as mapped,
        ):
            return link.st_uid == int(overflow.read()) and sum(int(line.split()[2]) for line in mapped) < _ALL
    except (OSError, ValueError):
        return False


def strangers_on_the_way(path: str, directory: int | None = None) -> tuple[os.stat_result, set[int]]:
    """Walk a path like the kernel does, following links of any user; a relative path starts from `directory`.

    Returns the status of the target, and the users, except root and this user, whose links were followed. Raises
    OSError: ELOOP also for links that lead through more than MOST_NAMES names.
    """
    proc = os.stat("/proc/self").st_dev
    at = os.open("/" if path.startswith("/") else ".", _ENTER, dir_fd=directory)
    parts = path.split("/")[::-1]
    strangers: set[int] = set()
    links, left = 0, MOST_NAMES
    is_guarded = path.startswith("/")
    try:
        while parts:
            part = parts.pop()
            if part in ("", "."):
                continue
            here = os.fstat(at)
            is_guarded = is_guarded and _is_guarded(here)
            inner = os.open(part, _WALK, dir_fd=at)
            try:
                status = os.fstat(inner)
                if not stat.S_ISLNK(status.st_mode):
                    at, inner = inner, at
                    continue
                links += 1
                if links > _MOST_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
                if not (is_trusted(status) or (is_guarded and may_be_root(status))):
                    strangers.add(status.st_uid)
                if here.st_dev == proc:  # its target may have no path
                    is_guarded = False
                    beyond = os.open(part, os.O_PATH | os.O_CLOEXEC, dir_fd=at)
                else:
                    target = os.readlink("", dir_fd=inner)
                    names = target.split("/")[::-1]
                    parts, left = parts + names, left - len(names)
                    if left < 0:
                        raise OSError(
                            errno.ELOOP, f"its symbolic links lead through more than {MOST_NAMES} names", path
                        )
                    is_guarded = is_guarded or target.startswith("/")
                    beyond = os.open("/" if target.startswith("/") else ".", _ENTER, dir_fd=at)
                os.close(at)
                at = beyond
            finally:
                os.close(inner)
        return os.fstat(at), strangers
    finally:
        os.close(at)


def who_else_writes(status: os.stat_result) -> str:
    """Name the users and groups, other than root and this user, that can write to a directory; "" if there are none."""
    who = []
    if status.st_uid not in (0, os.geteuid()):
        who.append(f"the user {status.st_uid}")
    if status.st_mode & stat.S_IWGRP and status.st_gid != 0:
        who.append(f"the group {status.st_gid}")
    if status.st_mode & stat.S_IWOTH:
        who.append("everybody")
    return " and ".join(who)


def _walk(path: str, start: int | None = None, *, make: bool = False) -> Descriptor:
    """Open a directory with O_PATH."""
    at = _opened("/" if path.startswith("/") else ".", _ENTER, start)
    parts = path.split("/")[::-1]
    links = 0
    is_guarded = path.startswith("/")
    try:
        while parts:
            part = parts.pop()
            if part in ("", "."):
                continue
            is_guarded = is_guarded and _is_guarded(os.fstat(at.fileno()))
            inner = _step(part, at.fileno(), make=make)
            try:
                status = os.fstat(inner.fileno())
                if stat.S_ISLNK(status.st_mode):
                    links += 1
                    target = _read_link(part, inner.fileno(), status, links, is_guarded=is_guarded)
                    parts += target.split("/")[::-1]
                    if target.startswith("/"):
                        at.close()
                        at = _opened("/", _ENTER, None)
                        is_guarded = True
                elif not stat.S_ISDIR(status.st_mode):
                    raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
                else:
                    at, inner = inner, at
            finally:
                inner.close()
        return at
    except OSError as error:
        at.close()
        error.filename = path
        raise


def _step(part: str, at: int, *, make: bool) -> Descriptor:
    try:
        return _opened(part, _WALK, at)
    except FileNotFoundError:
        if not make:
            raise
    try:
        make_directory(part, at)
    except FileExistsError:
        pass  # another process was quicker
    return _opened(part, _WALK, at)


def _read_link(part: str, link: int, status: os.stat_result, links: int, *, is_guarded: bool) -> str:
    if links > _MOST_LINKS:
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    if not (is_trusted(status) or (is_guarded and may_be_root(status))):
        raise OSError(errno.ELOOP, f"{part!r} is a symbolic link of user {status.st_uid}, which is not followed")
    return os.readlink("", dir_fd=link)


def _target(name: str, directory: int) -> str | None:
    """Return the target of a trusted link; None if it is something else, or missing.

    A link in /proc is not followed, because its target may have no path, such as a pipe.
    """
    if os.fstat(directory).st_dev == os.stat("/proc/self").st_dev:
        return None
    try:
        link = _opened(name, _WALK, directory)
    except FileNotFoundError:
        return None
    with link:
        status = os.fstat(link.fileno())
        return os.readlink("", dir_fd=link.fileno()) if stat.S_ISLNK(status.st_mode) and is_trusted(status) else None
