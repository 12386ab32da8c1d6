"""Counters of many links: by name, and of every link in many namespaces.

The cost per link in µs, measured with 1, 10 and 1000 links of one namespace:

    RTM_GETLINK by name, then RTM_GETSTATS, one link after the other    92   79  185
    the same, all names in one datagram and all counters in another     68   35  105
    one RTM_GETLINK that has the counters too (no RTEXT_FILTER_SKIP_STATS)    68   38  102
    a dump of RTM_GETSTATS                                              40    8   12

So a dump is the best way to read every link. Links that are given by name have to be found first, and for that the
kernel writes all attributes of each; adding the counters to those answers saves nothing.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from operator import itemgetter

from vethlib._nl.batch import Outcome
from vethlib._nl.link import dump_stats, get_named, get_stats, index_of, parse_indexed_stats, parse_link, parse_stats
from vethlib._nl.torn import read
from vethlib._primitives import time
from vethlib.errors import LinkNotFound, NetlinkError, VethError, is_exhaustion
from vethlib.linkref import Located
from vethlib.links import Stats, describe
from vethlib.rates import Sample
from vethlib.session.core.namespaces import Namespaces, OpenNetns
from vethlib.session.core.refusal import refusal
from vethlib.session.core.slabs import read_in_slabs, slabs

from .target import is_another_in, not_found, read_body, renumbered, replaced

__all__ = ["count_in", "count_many"]


def count_many(
    open_namespaces: Callable[[], Namespaces], items: Sequence[Located], *, missing_ok: bool
) -> list[Sample | None]:
    """Return a sample for each item, in order; see Session.stats_many."""
    read = partial(_count_slab, items, missing_ok=missing_ok)
    found = read_in_slabs(open_namespaces, (netns for _, netns, *_ in items), read)
    return [found.get(position) for position in range(len(items))]


def _count_slab(
    items: Sequence[Located], namespaces: Namespaces, groups: Iterable[Sequence[int]], *, missing_ok: bool
) -> Iterator[tuple[int, Sample | None]]:
    """Yield the position of each of these items, and its sample."""
    opened: list[tuple[OpenNetns, Sequence[int]]] = []
    for positions in groups:
        try:
            opened.append((namespaces(items[positions[0]][1]), positions))
        except LookupError:
            if not missing_ok:
                raise
    namespaces.open_sockets(place for place, _ in opened)
    for place, positions in opened:
        samples = _count(namespaces, place, [items[position] for position in positions], missing_ok=missing_ok)
        yield from zip(positions, samples, strict=True)


def _count(
    namespaces: Namespaces, place: OpenNetns, wanted: Sequence[Located], *, missing_ok: bool
) -> list[Sample | None]:
    indexes: list[int | None] = []
    for item, outcome in zip(wanted, namespaces.ask_all(place, [get_named(item[0]) for item in wanted]), strict=True):
        try:
            indexes.append(_index(namespaces, place, item, outcome))
        except LinkNotFound:
            if not missing_ok:
                raise
            indexes.append(None)
    requests = [get_stats(index) for index in indexes if index is not None]
    outcomes = iter(namespaces.ask_all(place, requests) if requests else ())
    at = time.monotonic()
    samples: list[Sample | None] = []
    for item, index in zip(wanted, indexes, strict=True):
        sample = None
        if index is not None:
            outcome = next(outcomes)
            if outcome.errno == 0:
                sample = Sample(place.identity, index, at, Stats(*read_body(place, outcome, parse_stats)), place.cookie)
            elif not (missing_ok and outcome.errno == errno.ENODEV):
                raise _named(not_found(outcome, *item[:2], _request(item)), item)
        samples.append(sample)
    return samples


def _index(namespaces: Namespaces, place: OpenNetns, item: Located, outcome: Outcome) -> int:
    """Return the ifindex of a link. Raises LinkNotFound, also if it is now another link."""
    name, netns, index, seen = item
    if outcome.errno:
        raise _named(not_found(outcome, name, netns, _request(item)), item)
    if seen is None:
        now = read_body(place, outcome, index_of)
    else:
        message = read_body(place, outcome, parse_link)
        now = message.ifindex
    if index not in (None, now):
        raise _named(renumbered(now, index, name, netns, _request(item)), item)
    if seen is not None and is_another_in(namespaces, place, seen, message):
        raise _named(replaced(name, netns, _request(item)), item)
    return now


def _request(item: Located) -> str:
    return f"read the counters of {describe(*item[:2])}"


def _named(error: NetlinkError, item: Located) -> NetlinkError:
    error.item = item[:2]
    return error


def count_in(open_namespaces: Callable[[], Namespaces], refs: Iterable[str]) -> dict[str, list[Sample] | VethError]:
    """Return a sample of every link in each namespace; see Session.stats_in."""
    wanted = list(dict.fromkeys(refs))
    found: dict[str, list[Sample] | VethError] = {}
    for slab in slabs(wanted):
        with open_namespaces() as namespaces:
            opened: list[tuple[str, OpenNetns]] = []
            for ref in slab:
                try:
                    opened.append((ref, namespaces(ref)))
                except VethError as error:
                    found[ref] = error
                    slab.short = slab.short or is_exhaustion(error)
            namespaces.open_sockets(place for _, place in opened)
            for ref, place in opened:
                try:
                    found[ref] = _dump(namespaces, place)
                except VethError as error:
                    found[ref] = error
                    slab.short = slab.short or is_exhaustion(error)
    return {ref: found[ref] for ref in wanted}


def _dump(namespaces: Namespaces, place: OpenNetns) -> list[Sample]:
    dump = partial(namespaces.dump, place, dump_stats(), parse_indexed_stats, 1)
    outcome = read(dump, itemgetter(0), namespaces.patience)
    at = time.monotonic()
    if outcome.errno:
        raise refusal(outcome, "read the counters", place.ref)
    return [Sample(place.identity, index, at, Stats(*counters), place.cookie) for index, counters in outcome.bodies]
