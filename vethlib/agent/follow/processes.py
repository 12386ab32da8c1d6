"""The ends of processes, each heard once.

A pidfd (pidfd_open(2)) stands for one process, not for its number: it becomes readable when the process has ended,
reaped or not, and whoever gets the number next has no part in that. It keeps neither the process nor its namespaces.
"""

from __future__ import annotations

import errno
import os
import re
import select
from collections.abc import Iterable
from dataclasses import dataclass

from vethlib.ns.descriptor import Descriptor

__all__ = ["Processes", "is_of_process"]

PID_MAX = 0x7FFF_FFFF
PIDFD_THREAD = os.O_EXCL  # include/uapi/linux/pidfd.h, since Linux 6.9

_OF_PROCESS = re.compile(r"/proc/([1-9][0-9]*)(?:/task/([1-9][0-9]*))?(?:/|$)")


def is_of_process(path: str) -> bool:
    """Whether `path` (without symbolic links, "//" and "/./") belongs to a process, and goes with it."""
    return _OF_PROCESS.match(path) is not None


@dataclass(slots=True)
class _Process:
    name: str
    fd: Descriptor | None  # None when it has ended


class Processes:
    """The processes that references lead to, one descriptor each, in `epoll` until they end.

    Of a thread (/proc/42/task/43) the end is heard since Linux 6.9; before, that of its process.
    """

    def __init__(self, epoll: select.epoll) -> None:
        self._epoll = epoll
        self._of_ref: dict[str, _Process] = {}
        self._ref_of_fd: dict[int, str] = {}

    def follow(self, ref: str, path: str) -> None:
        """Hear of the end of the process that `path` belongs to, in the name of `ref`; OSError as from pidfd_open.

        One that has ended already, or never was, is gone from the start.
        """
        match = _OF_PROCESS.match(path)
        assert match is not None
        process, thread = match.groups()
        name = f"thread {thread} of process {process}" if thread not in (None, process) else f"process {process}"
        try:
            fd = _opened(int(thread or process))
        except ProcessLookupError:
            self._of_ref[ref] = _Process(name, None)
            return
        if _has_ended(fd):
            fd.close()
            self._of_ref[ref] = _Process(name, None)
            return
        self._epoll.register(fd, select.EPOLLIN)
        self._of_ref[ref] = _Process(name, fd)
        self._ref_of_fd[fd.fileno()] = ref

    def unfollow(self, ref: str) -> None:
        """Forget what `ref` led to, if to anything."""
        process = self._of_ref.pop(ref, None)
        if process is not None:
            self._release(process)

    def ended(self, ready: Iterable[int]) -> set[str]:
        """The references whose processes have ended: those of the descriptors that are `ready`."""
        refs = {self._ref_of_fd[fd] for fd in ready if fd in self._ref_of_fd}
        for ref in refs:
            self._release(self._of_ref[ref])
        return refs

    def gone(self, ref: str) -> str:
        """``process 42 is gone``, or "" where `ref` leads to no process or to one that lives."""
        process = self._of_ref.get(ref)
        return f"{process.name} is gone" if process is not None and process.fd is None else ""

    def _release(self, process: _Process) -> None:
        fd, process.fd = process.fd, None
        if fd is not None:
            # A forked child has a copy, so that closing alone would not take it out of the epoll.
            self._epoll.unregister(fd)
            del self._ref_of_fd[fd.fileno()]
            fd.close()

    def close(self) -> None:
        """Close every descriptor."""
        for ref in list(self._of_ref):
            self.unfollow(ref)


def _opened(number: int) -> Descriptor:
    if number > PID_MAX:
        raise _no_process()
    try:
        return _pidfd(number, 0)
    except OSError as error:
        # A thread's number, which since 6.15 is ENOENT (kernel/fork.c, pidfd_prepare).
        if error.errno not in (errno.EINVAL, errno.ENOENT):
            raise
    try:
        return _pidfd(number, PIDFD_THREAD)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    return _pidfd(_leader(number), 0)


def _pidfd(number: int, flags: int) -> Descriptor:
    # Opened and owned in one go (vethlib/ns/descriptor.py).
    return next(map(Descriptor.fromfd, map(os.pidfd_open, (number,), (flags,))))


def _leader(thread: int) -> int:
    try:
        with open(f"/proc/{thread}/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("Tgid:"))
    except (FileNotFoundError, StopIteration):
        raise _no_process() from None


def _no_process() -> ProcessLookupError:
    return ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))


def _has_ended(fd: Descriptor) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(0))
