"""Wait for a process to enter its own network namespace.

A process that does so (``unshare -n``, a container runtime) has a number before it has a namespace. The kernel sends no
event for that, so its namespace is checked every few milliseconds; the end of the process is noticed at once, or with
the next check where there are no pidfds.
"""

from __future__ import annotations

import errno
from typing import Final

from vethlib._primitives import pidfd_open, select, time
from vethlib.errors import InvalidValue, NetlinkError, NetnsNotFound, WaitTimeout, errno_text
from vethlib.ns.descriptor import Descriptor, current
from vethlib.ns.reference import identity, not_opened, open_owned, parse

from .starttime import NO_PIDFDS, start_time

__all__ = ["opened_elsewhere"]

_ENDLESS: Final = 1 << 64  # Python refuses to make a text of a number with thousands of digits
_PAUSES: Final = (0.001, 0.05)  # seconds between two checks: the first, doubled up to the longest


def opened_elsewhere(pid: int, timeout: float) -> Descriptor:
    """Open the network namespace of a process as soon as it differs from that of the calling thread.

    Raises InvalidValue, NetnsNotFound if the process has ended, WaitTimeout, and NotPermitted.
    """
    ref = _checked(pid, timeout)
    deadline = time.monotonic() + timeout
    with current() as here, _Followed(pid, ref) as process:
        home = identity(here.fileno())
        pause = _PAUSES[0]
        while True:
            owner = open_owned(ref)
            if process.has_ended(0):  # otherwise, the number might already belong to another process
                owner.close()
                raise _gone(pid, ref)
            if identity(owner.fileno()) != home:
                return owner
            owner.close()
            left = deadline - time.monotonic()
            if left <= 0:
                message = f"process {pid} has not moved to another network namespace within {timeout:g} s"
                raise WaitTimeout(message, awaited="move", netns=ref, seconds=timeout)
            if process.has_ended(min(pause, left)):
                raise _gone(pid, ref)
            pause = min(2 * pause, _PAUSES[1])


def _checked(pid: int, timeout: float) -> str:
    if type(pid) is not int or not 1 <= pid < _ENDLESS:
        raise InvalidValue("pid", pid, "must be the number of a process, 1 or more")
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 <= timeout <= 1e9:
        raise InvalidValue("timeout", timeout, "must be a number of seconds, 0 or more")
    return str(parse(f"pid:{pid}"))


class _Followed:
    """A process, by its pidfd, or, where there are none, by its start time."""

    def __init__(self, pid: int, ref: str) -> None:
        self._pid = pid
        self._poll = select.poll()
        self._pidfd = _pidfd(pid, ref)
        if self._pidfd is not None:
            self._poll.register(self._pidfd.fileno(), select.POLLIN)
            return
        try:
            self._started = start_time(pid)
        except OSError as error:
            raise not_opened(parse(ref), error) from None
        if self._started is None:
            raise _gone(pid, ref)

    def __enter__(self) -> _Followed:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pidfd is not None:
            self._pidfd.close()

    def has_ended(self, within: float) -> bool:
        """Wait up to `within` seconds for the end of the process; return whether it has ended."""
        # Without a pidfd, the poll only waits for the time to pass.
        if self._poll.poll(max(1, round(within * 1000)) if within else 0):
            return True
        if self._pidfd is not None:
            return False
        try:
            return start_time(self._pid) != self._started
        except OSError:
            return False  # unknown; opening its namespace reports why


def _pidfd(pid: int, ref: str) -> Descriptor | None:
    try:
        # Opened and owned in one step (descriptor.py).
        return next(map(Descriptor.fromfd, map(pidfd_open, (pid,), (0,))))
    except OSError as error:
        if error.errno in NO_PIDFDS:
            return None
        if error.errno == errno.ESRCH:
            raise _gone(pid, ref) from None
        if error.errno in (errno.EINVAL, errno.ENOENT):
            raise NetnsNotFound(f"{pid} is a thread, not a process", netns=ref) from None
        raise NetlinkError(
            f"cannot follow process {pid}: {errno_text(error.errno or 0)}", errno=error.errno or 0
        ) from None


def _gone(pid: int, ref: str) -> NetnsNotFound:
    return NetnsNotFound(f"process {pid} is gone", netns=ref)
