"""Distinguish a process from the next process with the same number where there are no pidfds.

The start time of a process does not change (proc_pid_stat(5)), so a process with another start time is another process.
"""

from __future__ import annotations

import errno
import os

from vethlib.ns.opening import has_procfs, hidden_process

__all__ = ["NO_PIDFDS", "start_time"]

NO_PIDFDS = (errno.ENOSYS, errno.EPERM)
"""The errors of pidfd_open(2) before Linux 5.3, and where a sandbox does not know it."""


def start_time(pid: int) -> str | None:
    """Return the start time of a process or thread; None if it has ended. Raises OSError if it is unknown."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            # After the name, which may contain anything: the state, and 19 fields later the start (proc_pid_stat(5)).
            fields = stat.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        if hidden_process(f"/proc/{pid}"):
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM)) from None
        if not has_procfs():
            raise OSError(errno.EIO, "/proc is not mounted") from None
        return None
    return None if fields[0] in (b"Z", b"X") else fields[19].decode()
