"""Follow processes, and report the end of each once.

A pidfd (pidfd_open(2)) refers to one process, not to its number: it becomes readable when the process has ended, reaped
or not, even if another process gets the number. It keeps neither the process nor its namespaces alive.

Up to half of the descriptors of this process are used for pidfds. Further processes are checked once a second; the
start time distinguishes a process from the next one with the same number (proc_pid_stat(5)).
"""

from __future__ import annotations

import errno
import logging
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass

from vethlib._primitives import pidfd_open, select, time
from vethlib.ns.descriptor import Descriptor, limits
from vethlib.ns.programs.starttime import NO_PIDFDS, start_time

__all__ = ["LOOK", "Processes", "is_of_process"]

_log = logging.getLogger("vethlib.agent")

_FOR_OTHERS = 96  # descriptors for the rest: an agent has some 40, and uses a few more to look at a namespace
LOOK = 1.0  # seconds between checks of processes without a descriptor

PID_MAX = 0x7FFF_FFFF
PIDFD_THREAD = os.O_EXCL  # include/uapi/linux/pidfd.h, since Linux 6.9

_OF_PROCESS = re.compile(r"/proc/([1-9][0-9]*)(?:/task/([1-9][0-9]*))?(?:/|$)")


def is_of_process(path: str) -> bool:
    """Return whether `path` (without symbolic links, "//" and "/./") belongs to a process, and ends with it."""
    return _OF_PROCESS.match(path) is not None


@dataclass(slots=True)
class _Process:
    name: str
    fd: Descriptor | None = None  # None if it has ended, is beyond the budget, or has none in this kernel
    started: tuple[int, str] | None = None  # its number and start time, if it is checked without a descriptor

    @property
    def has_ended(self) -> bool:
        return self.fd is None and self.started is None


class Processes:
    """The processes to which references lead, with a descriptor each, registered in `epoll` until they end.

    A process has had a descriptor since Linux 5.3, and a thread (/proc/42/task/43) since 6.9; before, they are checked
    every second.
    """

    def __init__(self, epoll: select.epoll) -> None:
        self._epoll = epoll
        self._most = _budget()
        self._looked_at: set[str] = set()  # references to processes without a descriptor
        self._look_at = 0.0
        self._is_warned = False
        self._of_ref: dict[str, _Process] = {}
        self._ref_of_fd: dict[int, str] = {}

    def follow(self, ref: str, path: str) -> None:
        """Follow the process to which `path` belongs, for `ref`. Raises OSError like pidfd_open.

        A process that has already ended, or never existed, is gone from the start.
        """
        match = _OF_PROCESS.match(path)
        assert match is not None
        process, thread = match.groups()
        name = f"thread {thread} of process {process}" if thread not in (None, process) else f"process {process}"
        number = int(thread or process)
        if len(self._ref_of_fd) >= self._most:
            self._look_later(ref, _Process(name, started=_started(number)))
            self._warn()
            return
        try:
            fd = _opened(number)
        except ProcessLookupError:
            self._of_ref[ref] = _Process(name)
            return
        if fd is None:
            self._look_later(ref, _Process(name, started=_started(number)))
            return
        if _has_ended(fd):
            fd.close()
            self._of_ref[ref] = _Process(name)
            return
        self._epoll.register(fd, select.EPOLLIN)
        self._of_ref[ref] = _Process(name, fd)
        self._ref_of_fd[fd.fileno()] = ref

    def unfollow(self, ref: str) -> None:
        """Stop following the process of `ref`, if there is one."""
        process = self._of_ref.get(ref)
        if process is not None:
            self._release(ref, process)
            del self._of_ref[ref]

    def ended(self, ready: Iterable[int], everything: bool = False) -> set[str]:
        """Return the references whose processes have ended, given the descriptors that are `ready`.

        With `everything`, all descriptors are checked, because the last call may have been interrupted.
        """
        refs = {self._ref_of_fd[fd] for fd in ready if fd in self._ref_of_fd}
        if everything:
            refs |= {ref for ref, each in self._of_ref.items() if each.fd is not None and _has_ended(each.fd)}
        if self._looked_at and self._look_at <= time.monotonic():
            refs |= {ref for ref in self._looked_at if _differs(self._of_ref[ref])}
            self._look_at = time.monotonic() + LOOK
        for ref in refs:
            self._release(ref, self._of_ref[ref])
        return refs

    def due(self) -> float | None:
        """Return the seconds until :meth:`ended` must be called even if no descriptor is ready, or None."""
        return max(0.0, self._look_at - time.monotonic()) if self._looked_at else None

    def gone(self, ref: str) -> str:
        """Return ``process 42 is gone``, or "" if `ref` leads to no process or to a running one."""
        process = self._of_ref.get(ref)
        return f"{process.name} is gone" if process is not None and process.has_ended else ""

    def _look_later(self, ref: str, process: _Process) -> None:
        self._of_ref[ref] = process
        if process.started is None:
            return
        if not self._looked_at:
            self._look_at = time.monotonic() + LOOK
        self._looked_at.add(ref)

    def _warn(self) -> None:
        if not self._is_warned:
            self._is_warned = True
            text = "%d processes are followed; the end of further ones is noticed up to %g s late: raise ulimit -n"
            _log.warning(text, self._most, LOOK)

    def _release(self, ref: str, process: _Process) -> None:
        process.started = None
        self._looked_at.discard(ref)
        fd = process.fd
        if fd is not None:
            # A forked child may have a copy, so closing alone would not remove it from the epoll. If this is
            # interrupted, the descriptor is still known, and the next attempt may find it removed.
            try:
                self._epoll.unregister(fd)
            except FileNotFoundError:
                pass
            self._ref_of_fd.pop(fd.fileno(), None)
            process.fd = None
            fd.close()

    def close(self, *, in_child: bool = False) -> None:
        """Close every descriptor; those of a forked child are copies, and the epoll is also its parent's."""
        if in_child:
            for process in self._of_ref.values():
                if process.fd is not None:
                    process.fd.close()
            return
        for ref in list(self._of_ref):
            self.unfollow(ref)


def _opened(number: int) -> Descriptor | None:
    """Return a descriptor of a process or thread, or None if this kernel has none for it."""
    if number > PID_MAX:
        raise _no_process()
    try:
        return _pidfd(number, 0)
    except OSError as error:
        if error.errno in NO_PIDFDS:
            return None
        # The number of a thread: EINVAL, and ENOENT since 6.15 (kernel/fork.c, pidfd_prepare).
        if error.errno not in (errno.EINVAL, errno.ENOENT):
            raise
    try:
        return _pidfd(number, PIDFD_THREAD)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    return None


def _pidfd(number: int, flags: int) -> Descriptor:
    # Opened and owned in one go (vethlib/ns/descriptor.py).
    return next(map(Descriptor.fromfd, map(pidfd_open, (number,), (flags,))))


def _no_process() -> ProcessLookupError:
    return ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))


def _has_ended(fd: Descriptor) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(0))


def _budget() -> int:
    """Return the number of descriptors for processes: half of all, but none that an agent needs for other things."""
    most = limits()[0]
    return max(0, min(most // 2, most - _FOR_OTHERS))


def _differs(process: _Process) -> bool:
    """Return whether a process without a descriptor has ended; another may have its number."""
    assert process.started is not None
    try:
        return _started(process.started[0]) != process.started
    except OSError:
        return False  # unknown, because no descriptor is left, or /proc hides it


def _started(number: int) -> tuple[int, str] | None:
    """Return the number of a process or thread and its start time; None if it has ended. Raises OSError if unknown."""
    started = start_time(number)
    return None if started is None else (number, started)
