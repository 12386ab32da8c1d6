"""What a busy machine adds to a short time, measured beside it: bounds below 0.2 seconds are given that much more.

A bound says how soon something is done on a machine that has time for it. Where others wait for the processor, too, so
does whatever is measured, and nothing can be said of it but in comparison with something else that has to wait.
"""

from __future__ import annotations

import subprocess
import time

__all__ = ["slack"]

_STARTS = 3
_WAITS = 5  # of what is measured, for a processor or for a lock of the kernel's: a start has about one


def slack() -> float:
    """Seconds to add to a bound: a few times what a program that does nothing takes now from its start to its end.

    That is some ten milliseconds on a machine with nothing else to do.
    """
    return _WAITS * min(_seconds() for _ in range(_STARTS))


def _seconds() -> float:
    began = time.monotonic()
    subprocess.run(["true"], check=True)
    return time.monotonic() - began
