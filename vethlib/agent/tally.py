"""What a configurator has done, in numbers: how often, how long, with which outcome. Pure, and always kept.

It costs a bout of work a few additions. Whoever shows it, as `vethlib.agent.metrics` does for Prometheus, reads it when
asked.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

__all__ = ["BOUNDS", "Durations", "Load", "Tally"]

BOUNDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of the buckets, in seconds: one pair takes a millisecond or two, thousands take seconds."""


class Durations:
    """A histogram: `counts` has how many lasted up to each of BOUNDS and no shorter one, and last how many longer."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        self.total = 0.0

    def add(self, seconds: float) -> None:
        """One more."""
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.total += seconds


class Load(NamedTuple):
    """What there is now: interfaces that are `dirty` (to be looked at), those that wait for the time of another try
    (`retries`), and namespaces that are `watched`.
    """

    dirty: int
    retries: int
    watched: int


class Tally:
    """Since the configurator was made.

    `outcomes` are what followed from judging interfaces (done, wait, retry, terminal); `resyncs` the looks at the whole
    host, by occasion; `overflows` how often events of links were lost; `done` and `failed` the operations, by kind;
    `durations` those of bouts of work, and of their parts: look, plan, execute.
    """

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self.resyncs: Counter[str] = Counter()
        self.done: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self.overflows = 0
        self.durations = {part: Durations() for part in ("bout", "look", "plan", "execute")}

    @contextmanager
    def timing(self, part: str) -> Iterator[None]:
        """A block that is this part of the work, however it ends."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.durations[part].add(time.perf_counter() - start)
