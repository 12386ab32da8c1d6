"""Ask a file system that may never answer, in a thread of its own and with a time limit.

A thread that accesses a dead FUSE or NFS mount is blocked by the kernel until that answers or the process ends
(request_wait_answer of FUSE, rpc_wait_bit_killable: killable). So:

1. Each question has a thread. The asking thread starts it, so it is in the same namespaces.
2. The caller waits up to :data:`PATIENCE` seconds, then gets :class:`NoAnswer`. Up to a tenth of all time is spent
   waiting in vain; beyond that, a question only gets :data:`LEAST_PATIENCE`.
3. While a thread is stuck, the file system that blocks it is not asked again: before each step, a thread notes which
   file system it is about to ask, unless the question asks a known one only. So one dead mount takes one thread, and a
   path that leads elsewhere by now can be asked again. If the file system is unknown, the same path is not asked again.
4. Others may have put symbolic links on the path. Each name takes the thread 10 µs, and the kernel looks up to 80 000.
   So beyond the first MOST_NAMES to which links lead, the file system counts as unknown.
5. Up to :data:`MOST_STUCK` threads may be stuck. Beyond that, only file systems that always answer are asked.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from typing import Any, Final, TypeVar

from vethlib._primitives import Lock, start_native, time
from vethlib._trusted import MOST_NAMES
from vethlib.errors import InvalidValue

from .descriptor import Descriptor
from .descriptor import opened as opened_file
from .glance import O_PATH, NoAnswer, glance_of

__all__ = ["answered", "set_patience"]

PATIENCE = 1.0
"""Seconds to wait for the answer of a file system; see :func:`set_patience`."""

LEAST_PATIENCE: Final = 0.05
_LONGEST_PATIENCE: Final = 1e6  # accepted by acquire() of a lock
MOST_STUCK: Final = 32
_SHARE: Final = 0.1
_MAX_LINKS: Final = 40  # MAXSYMLINKS, include/linux/namei.h

T = TypeVar("T")


class _Question:
    """One question, its thread, and in the end its answer."""

    def __init__(self, path: str, ask: Callable[[], Any], device: int | None = None) -> None:
        self.paths = {path}
        self.asking: int | None = None  # the device of the file system that is being asked, if known
        self.late = False
        self._device = device  # the only one that is asked, if that is known
        self._ask = ask
        self._path = path
        self._answer: Any = None
        self._error: BaseException | None = None
        self._done = Lock()
        self._done.acquire()

    def put(self, seconds: float) -> Any:
        """Ask, and return the answer. Raises NoAnswer after `seconds`, and any error of the question."""
        try:
            start_native(self._run, ())
        except RuntimeError:  # "can't start new thread": pids.max, RLIMIT_NPROC
            raise OSError(errno.EAGAIN, "no thread can be started to look at it") from None
        if not self._done.acquire(timeout=seconds):
            self.late = True
            _stuck.add(self)
            # It may have ended at this very moment, and then it must not be listed as stuck.
            if not self._done.acquire(blocking=False):
                raise NoAnswer
            _stuck.discard(self)
        if self._error is not None:
            raise self._error
        return self._answer

    def _run(self) -> None:
        try:
            if self._device is None:
                _walk(self._path, self)
            else:
                self.about_to_ask(self._device)
            if not self.late:  # otherwise nobody needs it, and its descriptors may have been reused
                self._answer = self._ask()
        except BaseException as error:  # it is raised in the asking thread
            self._error = error
        self._done.release()
        _stuck.discard(self)
        if self.late:
            self._answer = self._error = None

    def about_to_ask(self, device: int) -> None:
        """Raise NoAnswer if that file system already blocks another thread."""
        for other in tuple(_stuck):
            if other.asking == device and other is not self:
                other.paths |= self.paths
                raise NoAnswer
        self.asking = device


_stuck: set[_Question] = set()
_debt = 0.0  # seconds that were waited in vain, less what the time since then allows for
_debt_at = 0.0


def set_patience(seconds: float) -> None:
    """Set how long this process waits for the file system of a reference to answer; 1 s by default.

    Raises InvalidValue if it is not a positive number.
    """
    global PATIENCE
    if not 0 < seconds < float("inf"):
        raise InvalidValue("seconds", seconds, "must be a positive number of seconds")
    PATIENCE = min(seconds, _LONGEST_PATIENCE)


def answered(path: str, ask: Callable[[], T], device: int | None = None) -> T:
    """Call `ask`, which looks at `path`, in a thread of its own, and return its result. Takes 0.1 ms.

    If `ask` asks only one file system, `device` is that: this saves the walk that finds out which does not answer.

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
    """Walk `path` like the kernel does (path_walk, fs/namei.c), and note each file system before it is asked.

    This only serves to know which file system does not answer; any other error is raised by the question itself.
    """
    here, links, left = opened_file("/", O_PATH), 0, MOST_NAMES
    names = path.split("/")[::-1]
    proc = os.stat("/proc").st_dev
    while names:
        name = names.pop()
        if name in ("", "."):
            continue
        device = glance_of(here.fileno()).dev
        question.about_to_ask(device)
        try:
            # The links in /proc lead to the file itself, whatever their text.
            step = _step(here, name, follow=device == proc)
            if stat.S_ISLNK(glance_of(step.fileno()).mode):
                target, links = os.readlink("", dir_fd=step.fileno()), links + 1
                if links > _MAX_LINKS:
                    break
                beyond = [name for name in reversed(target.split("/")) if name not in ("", ".")]
                names, left = names + beyond, left - len(beyond)
                step = opened_file("/", O_PATH) if target.startswith("/") else here
        except OSError:
            break
        here = step
        if left < 0:
            break
    question.asking = None


def _step(here: Descriptor, name: str, *, follow: bool) -> Descriptor:
    flags = O_PATH | (0 if follow else os.O_NOFOLLOW)
    return next(map(Descriptor.fromfd, [os.open(name, flags, dir_fd=here.fileno())]))


def _forget_threads() -> None:
    """Forget the stuck threads in a forked child, which does not have them."""
    _stuck.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_threads)
