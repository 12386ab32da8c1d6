"""Counters of the work of a configurator: numbers, durations and outcomes. Pure.

They are always maintained, because they cost a reconcile pass only a few additions. `vethlib.agent.metrics` reads them
on demand, for Prometheus.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

from vethlib._primitives import time

__all__ = ["BOUNDS", "Counters", "Durations", "Load"]

BOUNDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of the buckets, in seconds: one pair takes a millisecond or two, thousands take seconds."""


class Durations:
    """A histogram: `counts` has a bucket for each upper bound of BOUNDS, and a last one for longer durations."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        self.total = 0.0

    def add(self, seconds: float) -> None:
        """Add one duration."""
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.total += seconds


class Load(NamedTuple):
    """The current amount of work.

    `dirty` is the number of interfaces to be checked, `retries` that of interfaces waiting for a retry, and `watched`
    that of watched namespaces.
    """

    dirty: int
    retries: int
    watched: int


class Counters:
    """Counters since the configurator was created.

    `outcomes` are the outcomes of checking interfaces (done, wait, retry, terminal), `resyncs` the resyncs by cause,
    `overflows` the number of times that link events were lost, and `done` and `failed` the operations by kind.
    `durations` are those of reconcile passes and of their parts: look, plan, execute.
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
        """Add the duration of a ``with`` block to this part of the work, even if the block raises."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.durations[part].add(time.perf_counter() - start)
