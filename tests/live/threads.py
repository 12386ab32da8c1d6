"""Functions that run in a thread of their own, whose namespaces end with it."""

from __future__ import annotations

import threading
from collections.abc import Callable

__all__ = ["in_thread"]


def in_thread(function: Callable[[], object]) -> None:
    """Run in a thread of its own, and raise here what is raised there."""
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
