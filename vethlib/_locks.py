"""Locks (flock(2)) among processes of this user and of root, which no other user can hold up.

1. :func:`lock` locks a file or a directory that other users can open, and could therefore lock for ever. /proc/locks
   lists the holders (proc_locks(5)), and a lock that only unauthorized users hold is treated as free. This alone
   excludes nobody, since a shared lock of such a user makes it free for everybody.
2. :func:`locked` locks a file that no other user can open, so nobody else can hold the lock.
3. :func:`exclusive` does both: the second excludes others, and the first excludes programs that only know that lock.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from ._primitives import time

_POLL = 0.01  # seconds
_UNKNOWN = 1.0  # seconds without a holder in /proc/locks: it is in another pid namespace, or has ended
_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


@contextmanager
def exclusive(
    descriptor: int, seconds: float, may_hold: Callable[[int], bool], *, file: str, directory: int
) -> Iterator[None]:
    """Lock a directory, and a private `file` in `directory`; wait up to `seconds`. The descriptor stays locked.

    The file belongs to the owner of `directory`, and is removed at the end. It is left out if it cannot be written, or
    if other users can write to the directory and so are authorized to lock it. Raises TimeoutError, which names the
    holder.
    """
    deadline = time.monotonic() + seconds
    private = _locked_until(deadline, seconds, file, directory)
    try:
        if not lock(descriptor, deadline - time.monotonic(), may_hold):
            raise _held(descriptor, seconds)
        yield
    finally:
        if private is not None:
            with suppress(OSError):
                os.unlink(file, dir_fd=directory)  # before it is unlocked, so that no file of a later holder is removed
            os.close(private)


def _locked_until(deadline: float, seconds: float, file: str, directory: int) -> int | None:
    status = os.fstat(directory)
    if status.st_mode & _BY_OTHERS:
        return None
    while True:
        try:
            return locked(file, directory, owner=status.st_uid)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                with suppress(FileNotFoundError), _opened(file, directory) as held:
                    raise _held(held, seconds) from None
        except OSError:
            return None
        time.sleep(_POLL)


@contextmanager
def _opened(file: str, directory: int) -> Iterator[int]:
    descriptor = os.open(file, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _held(descriptor: int, seconds: float) -> TimeoutError:
    names = "; ".join(f"process {pid} of user {uid}" for pid, uid in holders(descriptor))
    return TimeoutError(errno.ETIMEDOUT, f"locked for {seconds:g} s by {names or 'another process'}")


def lock(descriptor: int, seconds: float, may_hold: Callable[[int], bool]) -> bool:
    """Lock a file or a directory for this descriptor; wait up to `seconds` for users who `may_hold` it.

    `may_hold` is called with a user id. Returns False if the wait was too short. Locks of users who may not hold it are
    ignored: if there are no others, the result is True.
    """
    deadline = time.monotonic() + seconds
    unknown = time.monotonic() + _UNKNOWN
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            pass
        held_by = holders(descriptor)
        if held_by and not any(may_hold(uid) for _, uid in held_by):
            return True
        if held_by:
            unknown = time.monotonic() + _UNKNOWN
        elif time.monotonic() >= unknown:
            return True
        if time.monotonic() >= deadline:
            return False
        time.sleep(_POLL)


def locked(name: str, directory: int, *, owner: int | None = None) -> int:
    """Lock a file that no other user can open, and return its descriptor. Raises BlockingIOError if it is held.

    The file may also belong to `owner`; if not, root gives it to that user.
    """
    while True:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            held = os.open(name, flags, 0o600, dir_fd=directory)
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.ENXIO, errno.EISDIR):
                raise
            remove(name, directory)  # planted while other users could write here
            continue
        try:
            status = os.fstat(held)
            is_private = stat.S_ISREG(status.st_mode) and not status.st_mode & 0o077 and status.st_nlink <= 1
            if not is_private or status.st_uid not in (os.geteuid(), owner):
                remove(name, directory)
            else:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if owner is not None and status.st_uid != owner:
                    with suppress(OSError):
                        os.fchown(held, owner, -1)
                if os.path.samestat(status, os.stat(name, dir_fd=directory, follow_symlinks=False)):
                    return held
        except FileNotFoundError:
            pass  # the previous holder has removed it
        except BaseException:
            os.close(held)
            raise
        os.close(held)


def remove(name: str, directory: int) -> None:
    """Remove the entry of that name in a trusted directory; if it is a directory, rename it."""
    try:
        os.unlink(name, dir_fd=directory)
    except FileNotFoundError:
        pass
    except IsADirectoryError:
        os.rename(name, f"{name}.planted.{time.time_ns()}", src_dir_fd=directory, dst_dir_fd=directory)


def holders(descriptor: int) -> list[tuple[int, int]]:
    """Return the processes that hold a lock on the file of a descriptor, each with its user, as far as known."""
    inode = str(os.fstat(descriptor).st_ino)
    device = _device(descriptor)
    holding: list[tuple[int, int]] = []
    with suppress(OSError), open("/proc/locks", encoding="utf-8") as table:
        for line in table:
            # 1: FLOCK  ADVISORY  WRITE 1234 08:01:5678 0 EOF; the line of a waiting process has "->" after its number
            fields = line.split()
            if len(fields) != 8 or fields[1] != "FLOCK":
                continue
            place, _, number = fields[5].rpartition(":")
            if number == inode and device in ("", place):
                user = user_of(fields[4], started_by=True)
                if user >= 0:
                    holding.append((int(fields[4]), user))
    return holding


def _device(descriptor: int) -> str:
    """Return the file system of a descriptor as /proc/locks writes it, such as 08:01; "" if it is unknown.

    The number is that of the mount, because on btrfs st_dev is a different one (proc_pid_mountinfo(5)).
    """
    with suppress(OSError, ValueError, StopIteration):
        with open(f"/proc/self/fdinfo/{descriptor}", encoding="utf-8") as lines:
            mount = next(line.split()[1] for line in lines if line.startswith("mnt_id:"))
        # Others may have given mount points any bytes, of which only blanks, tabs and line feeds are escaped.
        with open("/proc/self/mountinfo", "rb") as mounts:
            device = next(line.split(b" ", 3)[2] for line in mounts if line.startswith(f"{mount} ".encode()))
        major, minor = map(int, device.split(b":"))
        return f"{major:02x}:{minor:02x}"
    return ""


def user_of(process: str, *, started_by: bool = False) -> int:
    """Return the effective user of a process; -1 if it is unknown.

    With `started_by`, it is the real user, unless that is root, since a set-user-ID program may have inherited a lock.
    The owner of the process's directory in /proc is no substitute: it is root if the process is not dumpable (proc(5)).
    """
    with (
        suppress(OSError, ValueError, IndexError),
        open(f"/proc/{process}/status", encoding="utf-8", errors="replace") as lines,
    ):
        for line in lines:
            if line.startswith("Uid:"):
                real, effective = map(int, line.split()[1:3])
                return real if started_by and real else effective
    return -1
