"""Lock files that other users can open, and could therefore lock for ever (flock(2)): every wait is limited.

/proc/locks lists the holders of locks (proc_locks(5)). A lock that only unauthorized users hold is treated as free.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from contextlib import suppress

from ._primitives import time

_POLL = 0.01  # seconds
_UNKNOWN = 1.0  # seconds without a holder in /proc/locks, which is then in another pid namespace or has ended


def lock(descriptor: int, seconds: float, may_hold: Callable[[int], bool]) -> bool:
    """Lock a file or a directory for this descriptor; wait up to `seconds` for users who `may_hold` it.

    `may_hold` is called with a user id. Returns False if it was not locked in time; True also if only other users hold
    it, whose locks are ignored.
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


def holders(descriptor: int) -> list[tuple[int, int]]:
    """Return the processes that hold a lock on the file of a descriptor, each with its user, as far as known."""
    inode = str(os.fstat(descriptor).st_ino)
    holding: list[tuple[int, int]] = []
    with suppress(OSError), open("/proc/locks") as table:
        for line in table:
            # 1: FLOCK  ADVISORY  WRITE 1234 08:01:5678 0 EOF; the line of a waiting process has "->" after its number
            fields = line.split()
            if len(fields) == 8 and fields[1] == "FLOCK" and fields[5].rpartition(":")[2] == inode:
                user = user_of(fields[4], started_by=True)
                if user >= 0:
                    holding.append((int(fields[4]), user))
    return holding


def user_of(process: str, *, started_by: bool = False) -> int:
    """Return the effective user of a process; -1 if it is unknown.

    With `started_by`, it is the real user, unless that is root, since a set-user-ID program may have inherited a lock.
    The owner of its directory in /proc is no substitute: it is root for a process that is not dumpable (proc(5)).
    """
    with suppress(OSError, ValueError, IndexError), open(f"/proc/{process}/status", errors="replace") as lines:
        for line in lines:
            if line.startswith("Uid:"):
                real, effective = map(int, line.split()[1:3])
                return real if started_by and real else effective
    return -1
