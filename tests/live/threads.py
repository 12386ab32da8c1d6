"""Run functions in separate threads, whose namespaces end with them; and let a process start no thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest import mock

__all__ = ["in_thread", "in_threads", "no_thread_left"]


def in_thread(function: Callable[[], object]) -> None:
    """Run a function in a separate thread, and raise its exception here."""
    in_threads(1, lambda _: function())


def in_threads(count: int, function: Callable[[int], object]) -> None:
    """Run a function in several threads at once, with the number of each, and raise the first exception here."""
    failures: list[BaseException] = []

    def run(number: int) -> None:
        try:
            function(number)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
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
