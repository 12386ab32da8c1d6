"""Run functions in a separate thread, whose namespaces end with it; and let a process start no thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest import mock

__all__ = ["in_thread", "no_thread_left"]


def in_thread(function: Callable[[], object]) -> None:
    """Run a function in a separate thread, and raise its exception here."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            function()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]


@contextmanager
def no_thread_left() -> Iterator[None]:
    """A block in which no thread can be started: pids.max, which a test may not lower, is reached."""

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with mock.patch.object(threading.Thread, "start", refuse):
        yield
