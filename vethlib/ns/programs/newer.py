"""Find the processes that were started since a certain moment, without looking at all others."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import NamedTuple

from vethlib._primitives import posix, time

__all__ = ["Moment", "earliest", "pids_since", "this_moment"]

_MANY = 512  # ids that are checked one by one instead of listing /proc, where each process takes as long as one check
_FASTEST = 100_000  # ids per second that a machine can use up; some 10 000 are usual if it does nothing else


class Moment(NamedTuple):
    """A moment; moments are ordered by time, because process ids wrap around."""

    time: float
    pid: int
    """The last process or thread id."""


def this_moment() -> Moment | None:
    """Return the present moment for :func:`pids_since`; None if the last process id is unknown."""
    last = last_pid()
    return None if last is None else Moment(time.monotonic(), last)


def earliest(moments: Iterable[Moment | None]) -> Moment | None:
    """Return the earliest of these moments; None if one of them is unknown."""
    known = []
    for moment in moments:
        if moment is None:
            return None
        known.append(moment)
    return min(known, default=None)


def last_pid() -> int | None:
    """Return the last process or thread id (Documentation/admin-guide/sysctl/kernel.rst); None if unknown."""
    return _number("/proc/sys/kernel/ns_last_pid")  # not in a kernel without CONFIG_CHECKPOINT_RESTORE


def pids_since(since: Moment | None) -> Iterable[int]:
    """Return all ids of processes that may have been started since :func:`this_moment` returned `since`.

    Ids of older processes may be among them: ids are allocated cyclically (alloc_pid, kernel/pid.c), so after many
    forks, any id may be new.
    """
    last = last_pid()
    if since is not None and last is not None and 0 <= last - since.pid <= _MANY and not _may_have_wrapped(since):
        return range(since.pid + 1, last + 1)
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]


def _may_have_wrapped(since: Moment) -> bool:
    """Return whether all ids can have been used since, so that the last one reveals nothing."""
    # The number of forks in /proc/stat would be exact, but the kernel adds up all interrupts of all CPUs for that file.
    return (time.monotonic() - since.time) * _FASTEST >= (_number("/proc/sys/kernel/pid_max") or 0)


def _number(path: str) -> int | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return int(posix.read(fd, 32))
    finally:
        os.close(fd)
