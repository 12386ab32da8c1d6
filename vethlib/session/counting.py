"""Counters of many links: by name, and of all there are in many namespaces.

What it costs here, on one link, 10 and 1000 of one namespace, in µs a link:

    RTM_GETLINK by name, then RTM_GETSTATS, one link after the other    92   79  185
    the same, all names in one datagram and all counters in another     68   35  105
    one RTM_GETLINK that has the counters too (no RTEXT_FILTER_SKIP_STATS)    68   38  102
    a dump of RTM_GETSTATS                                              40    8   12

So whoever wants every link takes the dump; whoever names links pays for finding them (the kernel writes all of a link's
attributes for that), and adding the counters there saves nothing.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from .._nl.link import dump_stats, get_link, get_stats, index_of, parse_indexed_stats, parse_stats
from ..errors import VethError
from ..links import NetnsRef, Stats, describe
from ..rates import Sample
from .places import Place, Places
from .reading import not_found
from .refusal import refusal

__all__ = ["count_in", "count_many"]

_SLAB: Final = 64  # namespaces open at a time

Named = tuple[str, NetnsRef]


def count_many(open_places: Callable[[], Places], items: Sequence[Named], *, missing_ok: bool) -> list[Sample | None]:
    """A sample for each item, in order; see Session.stats_many."""
    by_ref: dict[object, list[int]] = {}
    for position, (_, netns) in enumerate(items):
        by_ref.setdefault(netns or "", []).append(position)
    groups = list(by_ref.values())
    found: list[Sample | None] = [None] * len(items)
    for start in range(0, len(groups), _SLAB):
        with open_places() as places:
            slab: list[tuple[Place, list[int]]] = []
            for positions in groups[start : start + _SLAB]:
                try:
                    slab.append((places(items[positions[0]][1]), positions))
                except LookupError:
                    if not missing_ok:
                        raise
            places.open_sockets(place for place, _ in slab)
            for place, positions in slab:
                samples = _count(places, place, [items[position] for position in positions], missing_ok=missing_ok)
                for position, sample in zip(positions, samples, strict=True):
                    found[position] = sample
    return found


def _count(places: Places, place: Place, wanted: Sequence[Named], *, missing_ok: bool) -> list[Sample | None]:
    indexes: list[int | None] = []
    for item, outcome in zip(
        wanted, places.ask_all(place, [get_link(name=os.fsencode(name)) for name, _ in wanted]), strict=True
    ):
        if outcome.errno and not (missing_ok and outcome.errno == errno.ENODEV):
            raise _named(not_found(outcome, *item, f"read the counters of {describe(*item)}"), item)
        indexes.append(None if outcome.errno else index_of(outcome.bodies[0]))
    requests = [get_stats(index) for index in indexes if index is not None]
    outcomes = iter(places.ask_all(place, requests) if requests else ())
    at = time.monotonic()
    samples: list[Sample | None] = []
    for item, index in zip(wanted, indexes, strict=True):
        sample = None
        if index is not None:
            outcome = next(outcomes)
            if outcome.errno == 0:
                sample = Sample(place.identity, index, at, Stats(*parse_stats(outcome.bodies[0])))
            elif not (missing_ok and outcome.errno == errno.ENODEV):
                raise _named(not_found(outcome, *item, f"read the counters of {describe(*item)}"), item)
        samples.append(sample)
    return samples


def _named(error: VethError, item: Named) -> VethError:
    error.item = item
    return error


def count_in(open_places: Callable[[], Places], refs: Iterable[str]) -> dict[str, list[Sample] | VethError]:
    """A sample of every link in each namespace; see Session.stats_in."""
    wanted = list(dict.fromkeys(refs))
    found: dict[str, list[Sample] | VethError] = {}
    for start in range(0, len(wanted), _SLAB):
        with open_places() as places:
            slab: list[tuple[str, Place]] = []
            for ref in wanted[start : start + _SLAB]:
                try:
                    slab.append((ref, places(ref)))
                except VethError as error:
                    found[ref] = error
            places.open_sockets(place for _, place in slab)
            for ref, place in slab:
                try:
                    found[ref] = _dump(places, place)
                except VethError as error:
                    found[ref] = error
    return {ref: found[ref] for ref in wanted}


def _dump(places: Places, place: Place) -> list[Sample]:
    outcome = places.dump(place, dump_stats(), parse_indexed_stats)
    at = time.monotonic()
    if outcome.errno:
        raise refusal(outcome, "read the counters", place.ref)
    return [Sample(place.identity, index, at, Stats(*counters)) for index, counters in outcome.bodies]
