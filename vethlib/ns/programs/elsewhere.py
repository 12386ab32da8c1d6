"""Waiting for a process to enter a network namespace of its own.

A process that does so (``unshare -n``, a container runtime) has a number before it has a namespace. The kernel sends no
event for that, so its namespace is checked every few milliseconds; the end of the process is noticed at once.
"""

from __future__ import annotations

import errno
from typing import Final

from vethlib._primitives import pidfd_open, select, time
from vethlib.errors import InvalidValue, NetlinkError, NetnsNotFound, WaitTimeout, errno_text
from vethlib.ns.descriptor import Descriptor, current
from vethlib.ns.reference import identity, open_owned, parse

__all__ = ["opened_elsewhere"]

_PAUSES: Final = (0.001, 0.05)  # seconds between two checks: the first, doubled up to the longest


def opened_elsewhere(pid: int, timeout: float) -> Descriptor:
    """Open the network namespace of a process as soon as it differs from that of the calling thread.

    Raises InvalidValue, NetnsNotFound if the process has ended, WaitTimeout, and NotPermitted.
    """
    ref = _checked(pid, timeout)
    deadline = time.monotonic() + timeout
    with current() as here, _pidfd(pid, ref) as process:
        home = identity(here.fileno())
        ended = select.poll()
        ended.register(process.fileno(), select.POLLIN)
        pause = _PAUSES[0]
        while True:
            owner = open_owned(ref)
            if ended.poll(0):  # otherwise, the number might already belong to another process
                owner.close()
                raise _gone(pid, ref)
            if identity(owner.fileno()) != home:
                return owner
            owner.close()
            left = deadline - time.monotonic()
            if left <= 0:
                message = f"process {pid} has not moved to another network namespace within {timeout:g} s"
                raise WaitTimeout(message, awaited="move", netns=ref, seconds=timeout)
            if ended.poll(max(1, round(min(pause, left) * 1000))):
                raise _gone(pid, ref)
            pause = min(2 * pause, _PAUSES[1])


def _checked(pid: int, timeout: float) -> str:
    if type(pid) is not int or pid < 1:
        raise InvalidValue("pid", pid, "must be the number of a process, 1 or more")
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 <= timeout <= 1e9:
        raise InvalidValue("timeout", timeout, "must be a number of seconds, 0 or more")
    return str(parse(f"pid:{pid}"))


def _pidfd(pid: int, ref: str) -> Descriptor:
    try:
        # Opened and owned in one step (descriptor.py).
        return next(map(Descriptor.fromfd, map(pidfd_open, (pid,), (0,))))
    except OSError as error:
        if error.errno == errno.ESRCH:
            raise _gone(pid, ref) from None
        if error.errno in (errno.EINVAL, errno.ENOENT):
            raise NetnsNotFound(f"{pid} is a thread, not a process", netns=ref) from None
        raise NetlinkError(
            f"cannot follow process {pid}: {errno_text(error.errno or 0)}", errno=error.errno or 0
        ) from None


def _gone(pid: int, ref: str) -> NetnsNotFound:
    return NetnsNotFound(f"process {pid} is gone", netns=ref)
