"""A deadline for every test: one that would wait for ever fails, says where every thread is, and the others go on.

The alarm raises in the main thread whatever it waits for, and again every few seconds, because what ends a test may
wait as well: `with subprocess.Popen(…)` does, for a process that nobody has told to end.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

__all__ = ["SECONDS", "deadline"]

# Those that take as long as somebody wants them to have that time on top.
_LONGER = ("VETHLIB_SOAK", "VETHLIB_CHAOS", "VETHLIB_STRESS_SECONDS")
SECONDS = 300 + sum(float(os.environ.get(name, 0)) for name in _LONGER)
_AGAIN = 5.0


@contextmanager
def deadline(name: str, seconds: float = SECONDS) -> Iterator[None]:
    """Fail after `seconds`, whatever it does meanwhile. A test that uses SIGALRM has no deadline from then on."""

    def fail(*_: object) -> None:
        faulthandler.dump_traceback(2, all_threads=True)
        pytest.fail(f"{name} has not ended after {seconds:g} seconds")

    if threading.current_thread() is not threading.main_thread():  # signal handlers are its own
        yield
        return
    before = signal.signal(signal.SIGALRM, fail)
    signal.setitimer(signal.ITIMER_REAL, seconds, _AGAIN)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
