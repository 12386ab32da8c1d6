"""Rates per second from two samples of the counters of a link. Pure.

1. A link is identified by its namespace and ifindex, never by its name: a link that was deleted and created again is
   another link, and a link that was renamed is the same. The cookie distinguishes a namespace from later ones with its
   inode number, in which the first links have the same ifindexes.
2. The counters have 64 bits (struct rtnl_link_stats64). A counter that is lower than before has wrapped if that is the
   shorter distance; since that takes 46 years at 100 Gbit/s, it has usually been reset.
3. If a counter has been reset (by the driver, or because another link has the number of a deleted one), the new sample
   is a first sample: there is no rate, rather than a wrong one.
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
    """The counters of one link at a point in time.

    `place` is (st_dev, st_ino) of its namespace, `index` its ifindex there, `at` seconds of ``time.monotonic()``.
    `cookie` is the SO_NETNS_COOKIE of its namespace, which no other namespace has; 0 before Linux 5.14.
    """

    place: tuple[int, int]
    index: int
    at: float
    stats: Stats
    cookie: int = 0

    @property
    def link(self) -> tuple[tuple[int, int], int]:
        """Namespace and ifindex of the link: unique while it exists, but a later link may have the same."""
        return self.place, self.index

    @property
    def identity(self) -> tuple[tuple[int, int], int, int]:
        """The identity of the link: equal exactly for samples of the same link (before Linux 5.14, as `link`)."""
        return self.place, self.cookie, self.index


@dataclass(frozen=True, slots=True)
class Rates:
    """The traffic of a link per second, as the average over `interval` seconds."""

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
    """Return the rates between two samples of a link; None if they cannot be computed (rules 1 and 3)."""
    interval = after.at - before.at
    if before.identity != after.identity or interval <= 0:
        return None
    grown = []
    for was, now in zip(_counters_of(before.stats), _counters_of(after.stats), strict=True):
        more = (now - was) % _MODULUS
        if more >= _MODULUS // 2:
            return None
        grown.append(more / interval)
    return Rates(interval, *grown)


def total(of: Iterable[Rates | None]) -> Rates | None:
    """Return the sum of these rates, without None; None if no rates are left. Both ends of a pair count its traffic."""
    known = [astuple(one) for one in of if one is not None]
    if not known:
        return None
    columns = list(zip(*known, strict=True))
    return Rates(max(columns[0]), *map(sum, columns[1:]))


class Meter:
    """Computes rates from successive samples, by keeping the last sample of each link."""

    def __init__(self) -> None:
        self._last: dict[object, Sample] = {}

    def read(self, samples: Iterable[Sample]) -> list[Rates | None]:
        """Return the rates since the last call, in order; None for links without a sample then. Forgets other links."""
        now = list(samples)
        last, self._last = self._last, {one.identity: one for one in now}
        return [None if (before := last.get(one.identity)) is None else rates(before, one) for one in now]
