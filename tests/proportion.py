"""Check whether work takes time in proportion to its size, by processor time, which a busy machine does not change."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["clock_tick", "is_proportional"]

_RUNS = 3
_TIMES = 8
_SLACK = 4.0  # quadratic work would take eight times as long as proportional work
_NOISE = 0.02  # seconds


def clock_tick(clock: Callable[[], float] = time.process_time) -> float:
    """The resolution of a clock, in seconds: less than a microsecond, or 10 ms if the kernel counts ticks."""
    began = clock()
    while (now := clock()) == began:
        pass
    return now - began


def is_proportional(work: Callable[[int], object], size: int) -> bool:
    """Return whether eight times the size takes about eight times as long, and nowhere near sixty-four times."""
    small = max(min(_seconds(work, size) for _ in range(_RUNS)), _NOISE / _TIMES, clock_tick())
    # The minimum of several runs for each size, because other work of the machine can only add to it.
    return any(_seconds(work, size * _TIMES) <= _TIMES * _SLACK * small for _ in range(_RUNS))


def _seconds(work: Callable[[int], object], size: int) -> float:
    began = time.process_time()
    work(size)
    return time.process_time() - began
