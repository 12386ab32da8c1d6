"""Start threads, and describe the cure where pids.max of a control group or a limit of the user prevents it."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import TYPE_CHECKING

from ._primitives import Joinable, are_threads_real, begin, start_thread
from .errors import VethError

if TYPE_CHECKING:
    import threading

__all__ = ["ThreadRefused", "start", "start_kernel_thread"]


class ThreadRefused(VethError, OSError):
    """No further thread can be started; ``errno`` is EAGAIN, as from clone(2)."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.errno = errno.EAGAIN

    def __str__(self) -> str:
        return str(self.args[0])


def start(thread: threading.Thread, purpose: str) -> None:
    """Start a thread; `purpose` is for the message. Raises ThreadRefused."""
    if not are_threads_real():
        cure = "run it in a separate process"
        raise ThreadRefused(f"{purpose} needs a thread, but gevent or eventlet has replaced threads: {cure}")
    try:
        begin(thread)
    except RuntimeError as error:
        raise _refused(purpose) from error


def start_kernel_thread(target: Callable[[], object], name: str, purpose: str) -> Joinable:
    """Call `target` in a kernel thread, also where threads have been replaced. Raises ThreadRefused."""
    try:
        return start_thread(target, name)
    except RuntimeError as error:
        raise _refused(purpose) from error


def _refused(purpose: str) -> ThreadRefused:
    """Return the error that replaces Python's "can't start new thread", whatever its reason."""
    cure = "raise TasksMax= of the service, pids.max of its control group, or ulimit -u"
    return ThreadRefused(f"{purpose} needs a thread, but none can be started: {cure}")
