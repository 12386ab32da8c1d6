"""A deadline for every test: a test that would wait for ever fails with the stack of every thread; the others go on.

The alarm raises an exception in the main thread, whatever that waits for, and again every few seconds, because the end
of a test may wait as well: `with subprocess.Popen(…)` does, for a process that has not been told to end.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.patience import Patience

__all__ = ["SECONDS", "deadline"]

# Tests whose duration can be chosen have that time in addition.
_LONGER = ("VETHLIB_SOAK", "VETHLIB_CHAOS", "VETHLIB_STRESS_SECONDS")
SECONDS = 360 + sum(float(os.environ.get(name, 0)) for name in _LONGER)
_LOOK = 30.0
"""Seconds between two checks of the clock, which may jump by any amount if the machine was suspended."""
_AGAIN = 5.0

_running: dict[str, Any] = {}
"""The test that has the deadline, and its seconds."""


def _look(*_: object) -> None:
    if not _running["patience"].is_over():
        return
    signal.setitimer(signal.ITIMER_REAL, _AGAIN, _AGAIN)
    faulthandler.dump_traceback(2, all_threads=True)
    pytest.fail("{name} has not ended after {seconds:g} seconds".format(**_running))


@contextmanager
def deadline(name: str, seconds: float = SECONDS) -> Iterator[None]:
    """Fail after `seconds`, whatever the test does meanwhile. A test that uses SIGALRM has no deadline from then on.

    Nor has a test with a fixture that uses it, whose handler stays between setup and teardown.
    """
    if threading.current_thread() is not threading.main_thread():  # only the main thread can set signal handlers
        yield
        return
    if signal.getsignal(signal.SIGALRM) in (signal.SIG_DFL, _look):
        look = min(_LOOK, seconds)
        _running.update(name=name, seconds=seconds, patience=Patience(seconds, 1.1 * look))
        signal.signal(signal.SIGALRM, _look)
        signal.setitimer(signal.ITIMER_REAL, look, look)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGALRM) is _look:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
