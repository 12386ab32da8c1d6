"""From counters to rates: two samples of one link, and what went through it per second between them. Pure.

1. A link is known by its namespace and ifindex, never by its name: one that was deleted and made anew is another link,
   and one that was renamed is the same.
2. The counters are of 64 bits (struct rtnl_link_stats64). One that is lower than before has wrapped if that is the
   shorter way round; 100 Gbit/s take 46 years to get there, so mostly it was set back.
3. A counter that was set back (a driver's reset, or another link that was given the number of a dead one) makes the
   whole sample a new beginning. There is no rate then, rather than a wrong one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields
from operator import attrgetter
from typing import Final

from .links import Stats

__all__ = ["Meter", "Rates", "Sample", "rates", "total"]

_MODULUS: Final = 1 << 64


@dataclass(frozen=True, slots=True)
class Sample:
    """The counters of one link at one time.

    `place` is (st_dev, st_ino) of its namespace, `index` its ifindex there, `at` seconds of ``time.monotonic()``.
    """

    place: tuple[int, int]
    index: int
    at: float
    stats: Stats

    @property
    def link(self) -> tuple[tuple[int, int], int]:
        """Which link it is of: equal exactly for samples of one link, as long as it lives."""
        return self.place, self.index


@dataclass(frozen=True, slots=True)
class Rates:
    """What went through a link, per second. `interval` is over how many seconds."""

    interval: float
    rx_bytes: float
    tx_bytes: float
    rx_packets: float
    tx_packets: float
    rx_dropped: float
    tx_dropped: float
    rx_errors: float
    tx_errors: float


_COUNTERS: Final = tuple(field.name for field in fields(Rates))[1:]
_counters_of: Final = attrgetter(*_COUNTERS)


def rates(before: Sample, after: Sample) -> Rates | None:
    """What went through a link between two samples; None where that cannot be said (rules 1 and 3)."""
    interval = after.at - before.at
    if before.link != after.link or interval <= 0:
        return None
    grown = []
    for was, now in zip(_counters_of(before.stats), _counters_of(after.stats), strict=True):
        more = (now - was) % _MODULUS
        if more >= _MODULUS // 2:
            return None
        grown.append(more / interval)
    return Rates(interval, *grown)


def total(of: Iterable[Rates | None]) -> Rates | None:
    """The sum of all that are known; None if none is. The two ends of a pair count what they share once each."""
    known = [astuple(one) for one in of if one is not None]
    if not known:
        return None
    columns = list(zip(*known, strict=True))
    return Rates(max(columns[0]), *map(sum, columns[1:]))


class Meter:
    """Remembers the last sample of each link, and so turns one sample after the other into rates."""

    def __init__(self) -> None:
        self._last: dict[object, Sample] = {}

    def read(self, samples: Iterable[Sample]) -> list[Rates | None]:
        """The rates since the last call, in order; None for a link that was not there then. Others are forgotten."""
        now = list(samples)
        last, self._last = self._last, {one.link: one for one in now}
        return [None if (before := last.get(one.link)) is None else rates(before, one) for one in now]
