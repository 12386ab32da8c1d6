"""A thread that goes to namespaces from which it does not return."""

from __future__ import annotations

from collections.abc import Callable
from ctypes import c_int
from typing import Generic, TypeVar

from vethlib._primitives import Lock
from vethlib._threads import start_kernel_thread
from vethlib.ns.syscalls import CLONE_NEWNET, bind

__all__ = ["Errand", "go_to"]

T = TypeVar("T")

_setns = bind("setns", c_int, c_int)


def go_to(netns: int) -> None:
    """Move the calling thread, which is about to end, to the network namespace of a descriptor. Raises OSError."""
    _setns(netns, CLONE_NEWNET)


class Errand(Generic[T]):
    """A function that moves its thread to namespaces from which it cannot return, so it runs in a thread of its own.

    If waiting for it is interrupted, `undo` is called with its result.
    """

    def __init__(self, function: Callable[[], T], *, undo: Callable[[T], None] | None = None) -> None:
        self._function = function
        self._undo = undo
        self._lock = Lock()
        self._is_abandoned = False
        self._results: list[T] = []
        self._errors: list[BaseException] = []

    def run(self) -> T:
        """Call the function and return its result, or raise its exception. Raises ThreadRefused."""
        try:
            start_kernel_thread(self._work, "netns", "work in another namespace").join()
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

    def _work(self) -> None:
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
