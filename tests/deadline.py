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
from typing import Any

import pytest

from tests.patience import Patience

__all__ = ["SECONDS", "deadline"]

# Those that take as long as somebody wants them to have that time on top.
_LONGER = ("VETHLIB_SOAK", "VETHLIB_CHAOS", "VETHLIB_STRESS_SECONDS")
SECONDS = 360 + sum(float(os.environ.get(name, 0)) for name in _LONGER)
_LOOK = 30.0
"""Seconds between two looks at the time, of which a machine that stands still lets any amount pass."""
_AGAIN = 5.0

_running: dict[str, Any] = {}
"""What has the deadline, and its seconds."""


def _look(*_: object) -> None:
    if not _running["patience"].is_over():
        return
    signal.setitimer(signal.ITIMER_REAL, _AGAIN, _AGAIN)
    faulthandler.dump_traceback(2, all_threads=True)
    pytest.fail("{name} has not ended after {seconds:g} seconds".format(**_running))


@contextmanager
def deadline(name: str, seconds: float = SECONDS) -> Iterator[None]:
    """Fail after `seconds`, whatever it does meanwhile. A test that uses SIGALRM has no deadline from then on.

    So has one with a fixture that uses it, whose handler stays between the setup and the teardown.
    """
    if threading.current_thread() is not threading.main_thread():  # signal handlers are its own
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
