"""Run a function in a thread that moves to namespaces from which it does not return."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from ctypes import c_int
from typing import Generic, TypeAlias, TypeVar

from vethlib._primitives import Joinable, Lock
from vethlib._threads import start_kernel_thread
from vethlib.ns.descriptor import current
from vethlib.ns.syscalls import CLONE_NEWNET, bind

__all__ = ["Errand", "Stays", "go_to"]

T = TypeVar("T")

Stays: TypeAlias = list[Callable[[], object]]
"""Functions that let threads end, each of which may be called again. An ExitStack would lose one if interrupted."""

_setns = bind("setns", c_int, c_int)


def go_to(netns: int) -> None:
    """Move the calling thread, which is about to end, to the network namespace of a descriptor. Raises OSError."""
    _setns(netns, CLONE_NEWNET)


class Errand(Generic[T]):
    """A function that moves its thread to namespaces from which it cannot return, and so runs in a separate thread.

    If waiting for it is interrupted, `undo` is called with its result. With `stays`, the thread ends only when the
    function is called that is added to that: a program that has requested to be killed with its parent is killed when
    the thread that started it ends (PR_SET_PDEATHSIG; forget_original_parent, kernel/exit.c). Until then, the thread is
    back in the network namespace of the caller, so that it does not keep the other one alive.
    """

    def __init__(
        self, function: Callable[[], T], *, undo: Callable[[T], None] | None = None, stays: Stays | None = None
    ) -> None:
        self._function = function
        self._undo = undo
        self._stays = stays
        self._lock = Lock()
        self._done = Lock()  # released when there is a result
        self._may_end = Lock()
        self._thread: Joinable | None = None
        self._is_abandoned = False
        self._results: list[T] = []
        self._errors: list[BaseException] = []

    def run(self) -> T:
        """Call the function and return its result, or raise its exception. Raises ThreadRefused."""
        self._done.acquire()
        if self._stays is not None:
            self._may_end.acquire()
            self._stays.append(self._let_end)
        try:
            self._thread = start_kernel_thread(self._work, "netns", "work in another namespace")
            self._done.acquire()
            if self._stays is None:
                self._thread.join()
        except BaseException:
            with self._lock:
                self._is_abandoned = True
                results, self._results = self._results, []
            for result in results:
                self._abandon(result)
            raise
        if self._errors:
            raise self._errors.pop()
        return self._results.pop()

    def _let_end(self) -> None:
        if self._may_end.locked():  # a second call completes one that was interrupted
            self._may_end.release()
        if self._thread is not None:
            self._thread.join()

    def _work(self) -> None:
        try:
            if self._stays is None:
                self._call()
            else:
                self._call_and_return()
        finally:
            self._done.release()
            self._may_end.acquire()

    def _call_and_return(self) -> None:
        try:
            caller = current()
        except OSError as error:
            self._errors.append(error)
            return
        with caller:
            self._call()
            with suppress(OSError):  # the caller's may belong to an outer user namespace
                go_to(caller.fileno())

    def _call(self) -> None:
        try:
            result = self._function()
        except BaseException as error:
            self._errors.append(error)
            return
        with self._lock:
            if not self._is_abandoned:
                self._results.append(result)
                return
        self._abandon(result)

    def _abandon(self, result: T) -> None:
        if self._undo is not None:
            self._undo(result)
