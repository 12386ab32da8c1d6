"""Ask a file system that may never answer, in a thread of its own and with a time limit.

A thread that accesses a dead FUSE or NFS mount is blocked by the kernel until that answers or the process ends
(request_wait_answer of FUSE, rpc_wait_bit_killable: killable). So:

1. Each question has a thread. The asking thread starts it, so it is in the same namespaces.
2. The caller waits up to :data:`PATIENCE` seconds, then gets :class:`NoAnswer`. Up to a tenth of all time is spent
   waiting in vain; beyond that, a question only gets :data:`LEAST_PATIENCE`.
3. While a thread is stuck, the file system that blocks it is not asked again: before each step, a thread notes which
   file system it is about to ask, unless the question asks a single, known file system. So one dead mount takes one
   thread, and a path that now leads elsewhere can be asked again. If the file system is unknown, the same path is not
   asked again.
4. Others may have put symbolic links on the path. Each name takes the thread 10 µs, and the kernel looks up to 80 000.
   So beyond the first MOST_NAMES to which links lead, the file system counts as unknown.
5. A thread that has not run yet because the processors are busy is not blocked. It gets more time, so that a busy
   machine is not taken for a dead file system.
6. Up to :data:`MOST_STUCK` threads may be stuck. Beyond that, only file systems that always answer are asked.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Any, Final, TypeVar

from vethlib._primitives import Lock, get_native_id, start_native, time
from vethlib._trusted import MOST_NAMES
from vethlib.errors import InvalidValue
from vethlib.ns.descriptor import Descriptor

from .glance import NoAnswer, glance_of
from .walk import step, walk

__all__ = ["answered", "set_patience"]

PATIENCE = 1.0
"""Seconds to wait for the answer of a file system; see :func:`set_patience`."""

LEAST_PATIENCE: Final = 0.05
_LONGEST_PATIENCE: Final = 1e6  # accepted by acquire() of a lock
MOST_STUCK: Final = 32
_SHARE: Final = 0.1
_LONGEST_STARVED: Final = 10.0
_TICKS: Final = os.sysconf("SC_CLK_TCK")  # per second, of the times in /proc/PID/stat

T = TypeVar("T")


class _Question:
    """One question, its thread and, at the end, its answer."""

    def __init__(self, path: str, ask: Callable[[], Any], device: int | None = None) -> None:
        self.paths = {path}
        self.asking: int | None = None  # the device of the file system that is being asked, if known
        self.late = False
        self._device = device  # the only file system that is asked, if that is known
        self._ask = ask
        self._path = path
        self._answer: Any = None
        self._error: BaseException | None = None
        self._deciding = Lock()  # held while one thread decides whether the answer is in time
        self._done = Lock()
        self._done.acquire()
        self._thread = 0  # its number, once it runs

    def put(self, seconds: float) -> Any:
        """Ask, and return the answer. Raises NoAnswer after `seconds`, and any error of the question."""
        try:
            start_native(self._run, ())
        except RuntimeError:  # "can't start new thread": pids.max, RLIMIT_NPROC
            raise OSError(errno.EAGAIN, "no thread can be started to look at it") from None
        if not self._is_answered(seconds):
            with self._deciding:  # the question may be answered at this very moment
                if not self._done.acquire(blocking=False):
                    self.late = True
                    _stuck.add(self)
                    raise NoAnswer
        if self._error is not None:
            raise self._error
        return self._answer

    def _is_answered(self, seconds: float) -> bool:
        """Wait for the answer, and longer than `seconds` while the thread waits for a processor, not for an answer."""
        if self._done.acquire(timeout=seconds):
            return True
        until = time.monotonic() + _LONGEST_STARVED
        while _is_starved(self._thread, seconds) and time.monotonic() < until:
            if self._done.acquire(timeout=LEAST_PATIENCE):
                return True
        return False

    def _run(self) -> None:
        self._thread = get_native_id()
        try:
            if self._device is None:
                _walk(self._path, self)
            else:
                self.about_to_ask(self._device)
            if not self.late:  # otherwise nobody needs it, and its descriptors may have been reused
                self._answer = self._ask()
        except BaseException as error:  # it is raised in the asking thread
            self._error = error
        with self._deciding:
            _stuck.discard(self)
            if self.late:
                self._answer = self._error = None
            self._done.release()

    def about_to_ask(self, device: int) -> None:
        """Raise NoAnswer if that file system already blocks another thread."""
        for other in tuple(_stuck):
            if other.asking == device and other is not self:
                other.paths |= self.paths
                raise NoAnswer
        self.asking = device


def _is_starved(thread: int, seconds: float) -> bool:
    """Return whether a thread could run, but has not had `seconds` of a processor; True if it has not begun."""
    if not thread:
        return True
    try:
        with open(f"/proc/self/task/{thread}/stat", "rb", buffering=0) as file:
            # After the name, which may have any characters: first the state, 12th and 13th utime and stime (proc(5)).
            fields = file.read(4096).rpartition(b")")[2].split()
        return fields[0] == b"R" and int(fields[11]) + int(fields[12]) < seconds * _TICKS
    except (OSError, ValueError, IndexError):
        return False


_stuck: set[_Question] = set()
_debt = 0.0  # seconds spent waiting in vain, less the share of the time since then that may be spent so
_debt_at = 0.0


def set_patience(seconds: float) -> None:
    """Set how long this process waits for the file system of a reference to answer; 1 s by default.

    Raises InvalidValue if it is not a positive number.
    """
    global PATIENCE
    if not isinstance(seconds, int | float) or not 0 < seconds < float("inf"):
        raise InvalidValue("seconds", seconds, "must be a positive number of seconds")
    PATIENCE = min(seconds, _LONGEST_PATIENCE)


def answered(path: str, ask: Callable[[], T], device: int | None = None) -> T:
    """Call `ask`, which looks at `path`, in a thread of its own, and return its result. Takes 0.1 ms.

    If `ask` asks only one file system, `device` is its device number: this saves the walk that finds out which file
    system does not answer.

    Raises NoAnswer, what `ask` raises, and OSError (EAGAIN) if no thread can be started.
    """
    global _debt, _debt_at
    stuck = tuple(_stuck)
    if len(stuck) >= MOST_STUCK or any(question.asking is None and path in question.paths for question in stuck):
        raise NoAnswer
    now = time.monotonic()
    _debt, _debt_at = max(0.0, _debt - _SHARE * (now - _debt_at)), now
    patience = max(min(LEAST_PATIENCE, PATIENCE), PATIENCE - _debt)
    question = _Question(path, ask, device)
    try:
        answer: T = question.put(patience)
    except NoAnswer:
        if question.late:
            _debt += patience
        raise
    return answer


def _walk(path: str, question: _Question) -> None:
    """Walk `path`, and note each file system before it is asked.

    This only serves to find out which file system does not answer; any other error is raised by the question itself.
    """

    def noted(here: Descriptor, name: str, follow: bool) -> Descriptor:
        question.about_to_ask(glance_of(here.fileno()).dev)
        return step(here, name, follow)

    try:
        walk(path, noted, MOST_NAMES)
    except NoAnswer:
        raise
    except OSError:
        pass
    question.asking = None


def _forget_threads() -> None:
    """Forget the stuck threads in a forked child, which does not have them."""
    _stuck.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_threads)
