"""Measure what a busy machine adds to short times: bounds below 0.2 seconds are extended by that much.

A bound states how soon something is done on an idle machine. If other programs wait for the processor, too, the
measured work has to wait, and can only be compared with something else that has to wait.
"""

from __future__ import annotations

import subprocess
import time

__all__ = ["slack"]

_STARTS = 3
_WAITS = 5  # waits of the measured work for a processor or a kernel lock; a start has about one


def slack() -> float:
    """Return the seconds to add to a bound: a few times as long as a program that does nothing takes at present.

    This is some ten milliseconds on an idle machine.
    """
    return _WAITS * min(_seconds() for _ in range(_STARTS))


def _seconds() -> float:
    began = time.monotonic()
    subprocess.run(["true"], check=True)
    return time.monotonic() - began
