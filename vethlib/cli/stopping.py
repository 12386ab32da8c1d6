"""Commands that run until they are stopped."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["until_stopped"]


class _Stopped(BaseException):
    """SIGTERM came while something was waited for."""


@contextmanager
def until_stopped() -> Iterator[Callable[[], bool]]:
    """A block that SIGTERM ends, as if all in it were done: what it has opened is closed, and the command succeeds.

    What is yielded says whether it has come.
    """
    came = False

    def stop(*_: object) -> None:
        nonlocal came
        if not came:  # a second one is to interrupt nothing of what ends
            came = True
            raise _Stopped

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield lambda: came
    except _Stopped:
        pass
    finally:
        signal.signal(signal.SIGTERM, before)
