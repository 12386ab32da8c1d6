"""Deleting links: many for the price of one.

The kernel waits for an RCU grace period per unregistration, 16 ms however many links it takes. So links that go
together are put into a group of their own and that group is deleted with one message (rtnl_group_dellink). Three
things make this safe for everybody else's links:

1. A link is marked by its ifindex, after a look that it is a veth of the name that was given.
2. The group is a random number above 2³⁰ that no link of the namespace had when we looked. Whoever would put a link
   into it meanwhile would have to guess it within a millisecond, or be about to delete that link the same way.
3. Marks and deletion are one datagram, that is one system call, as far as a datagram reaches; an interruption between
   two puts the old groups back.

A pair is deleted through either end. Where the ends that were named are in many namespaces but their peers are at
home, the peers are deleted, so that it is still one unregistration. What remains in foreign namespaces goes one
unregistration a namespace, from several threads, because their waits overlap.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple, TypeAlias

from .._nl.batch import Outcome
from .._nl.link import LinkMessage, delete_group, delete_link, get_link, parse_link, set_group
from .._nl.nsid import get_nsid, parse_nsid
from ..errors import NetnsNotFound, VethError
from ..links import Link, NetnsRef, describe
from .places import Identity, Place, Places
from .reading import missing, table
from .refusal import copy_for, refusal

__all__ = ["DeleteItem", "Deletion", "delete_indexes"]

_SLAB: Final = 64
_THREADS: Final = 16
_FEW: Final = 16
"""Up to so many names are looked up one by one; for more, one dump of the namespace is cheaper."""


def delete_indexes(
    places: Places, place: Place, indexes: Sequence[int], seen: Iterable[LinkMessage] | None = None
) -> None:
    """Delete links of `place` by ifindex; those that are gone already are as wanted. Raises NetlinkError.

    `seen` is the whole table of links there, if it was read just now.
    """
    if len(indexes) == 1:
        (outcome,) = places.exchange(place, [delete_link(indexes[0])])
    else:
        outcome = _delete_as_group(places, place, indexes, table(places, place) if seen is None else seen)
    places.known.catch_up()
    if outcome.errno not in (0, errno.ENODEV):
        raise refusal(outcome, f"delete {len(indexes)} links", place.ref)


def _delete_as_group(places: Places, place: Place, indexes: Sequence[int], seen: Iterable[LinkMessage]) -> Outcome:
    groups = {link.ifindex: link.group for link in seen}
    group = unused_group(groups.values())
    exchange = places.begin(place, [*(set_group(index, group) for index in indexes), delete_group(group)])
    try:
        places.run(place, exchange)
    finally:
        # A mark that fails means a link that is gone (ENODEV), so the deletion's own outcome is the one that counts.
        if exchange.outcomes[-1].errno not in (0, errno.ENODEV):
            places.exchange(place, [set_group(index, groups[index]) for index in indexes if index in groups])
    return exchange.outcomes[-1]


def unused_group(used: Iterable[int]) -> int:
    """A group number that is in nobody's use."""
    taken = set(used)
    while (group := _random_group()) in taken:
        pass
    return group


def _random_group() -> int:
    return 1 << 30 | int.from_bytes(os.urandom(4), "little") >> 2


class _Named(NamedTuple):
    """An end that was named, and was found."""

    position: int
    link: LinkMessage
    place: Identity
    ref: NetnsRef
    peer_is_home: bool


DeleteItem: TypeAlias = tuple[str, NetnsRef] | tuple[str, NetnsRef, int] | Link
"""What to delete: a name in a namespace. With an ifindex, or as a Link that was seen, only if it is still that one."""


class Deletion:
    """One call that deletes links by name; see Session.delete_many for what it promises."""

    def __init__(self, open_places: Callable[[], Places], items: Sequence[DeleteItem], *, missing_ok: bool) -> None:
        self._open_places = open_places
        self._given = items
        exact = [(one.name, one.netns, one.index) if isinstance(one, Link) else (*one, None)[:3] for one in items]
        self._items = [(name, netns) for name, netns, _ in exact]
        self._indexes = [index for _, _, index in exact]
        self._missing_ok = missing_ok
        self._seen_at_home: list[LinkMessage] | None = None
        self._errors: dict[int, VethError] = {}

    def run(self, progress: Callable[[int, int], object] | None = None) -> list[VethError]:
        """Find them all, delete what was found, return an error for each item that failed, in their order."""
        found = self._find_all()
        home: dict[int, list[int]] = {}
        foreign: dict[Identity, list[_Named]] = {}
        for named in found:
            if named.peer_is_home and named.link.link:
                home.setdefault(named.link.link, []).append(named.position)
            elif not named.ref:
                home.setdefault(named.link.ifindex, []).append(named.position)
            else:
                foreign.setdefault(named.place, []).append(named)
        self._delete_home(home)
        if progress is not None:
            progress(len(self._items) - sum(map(len, foreign.values())), len(self._items))
        self._delete_foreign(list(foreign.values()))
        if progress is not None:
            progress(len(self._items), len(self._items))
        for position, error in self._errors.items():
            error.item = self._given[position]
        return [error for _, error in sorted(self._errors.items())]

    def _find_all(self) -> list[_Named]:
        by_ref: dict[object, list[int]] = {}
        for position, (_, netns) in enumerate(self._items):
            by_ref.setdefault(netns or "", []).append(position)
        refs = list(by_ref.values())
        found: list[_Named] = []
        for start in range(0, len(refs), _SLAB):
            with self._open_places() as places:
                found += self._find_slab(places, refs[start : start + _SLAB])
        return found

    def _find_slab(self, places: Places, refs: Sequence[list[int]]) -> list[_Named]:
        by_place: dict[Identity, tuple[Place, list[int]]] = {}
        for positions in refs:
            try:
                place = places(self._items[positions[0]][1])
            except VethError as error:
                if not (self._missing_ok and isinstance(error, NetnsNotFound)):
                    self._fail(positions, error)
            else:
                by_place.setdefault(place.identity, (place, []))[1].extend(positions)
        found: list[_Named] = []
        places.open_sockets(place for place, _ in by_place.values())
        for place, positions in by_place.values():
            try:
                found += self._find_in(places, place, positions)
            except VethError as error:
                self._fail(positions, error)
        return found

    def _fail(self, positions: Iterable[int], error: VethError) -> None:
        """Take note of what befell several items; each has its own copy, which names it."""
        for position in positions:
            self._errors[position] = copy_for(error, self._items[position])

    def _find_in(self, places: Places, place: Place, positions: Sequence[int]) -> list[_Named]:
        home_nsid = None if place.is_home else _nsid_of_home(places, place)
        links = self._look_up(places, place, positions)
        found: list[_Named] = []
        for position, link in zip(positions, links, strict=True):
            name, netns = self._items[position]
            if link is None or self._indexes[position] not in (None, link.ifindex):
                if not self._missing_ok:
                    self._errors[position] = missing(name, netns, f"delete {describe(name, netns)}")
            elif link.kind != "veth":
                self._errors[position] = _not_a_veth(name, netns, link)
            else:
                peer_is_home = home_nsid is not None and link.link_netnsid == home_nsid
                found.append(_Named(position, link, place.identity, "" if place.is_home else netns, peer_is_home))
        return found

    def _look_up(self, places: Places, place: Place, positions: Sequence[int]) -> list[LinkMessage | None]:
        names = [self._items[position][0] for position in positions]
        if len(names) > _FEW:
            links = table(places, place)
            if place.is_home:
                self._seen_at_home = links
            by_name = {link.name: link for link in links}
            by_name.update((altname, link) for link in links if link.altnames for altname in link.altnames)
            return [by_name.get(name) for name in names]
        outcomes = places.exchange(place, [get_link(name=os.fsencode(name)) for name in names])
        for outcome in outcomes:
            if outcome.errno not in (0, errno.ENODEV):
                raise refusal(outcome, "look up links", place.ref)
        return [None if outcome.errno else parse_link(outcome.bodies[0]) for outcome in outcomes]

    def _delete_home(self, targets: dict[int, list[int]]) -> None:
        if not targets:
            return
        with self._open_places() as places:
            try:
                delete_indexes(places, places.home, list(targets), self._seen_at_home)
            except VethError as error:
                for positions in targets.values():
                    self._fail(positions, error)

    def _delete_foreign(self, groups: Sequence[list[_Named]]) -> None:
        for start in range(0, len(groups), _SLAB):
            slab = groups[start : start + _SLAB]
            with self._open_places() as places:
                opened = [(self._reopen(places, group), group) for group in slab]
                ready = [(place, group) for place, group in opened if place is not None]
                places.open_sockets(place for place, _ in ready)
                self._delete_in_threads(places, ready)

    def _reopen(self, places: Places, group: Sequence[_Named]) -> Place | None:
        """The namespace again, if it is still the same one: a namespace that went took its links along."""
        try:
            place = places(group[0].ref)
        except NetnsNotFound:
            return None
        except VethError as error:
            self._fail((named.position for named in group), error)
            return None
        return place if place.identity == group[0].place else None

    def _delete_in_threads(self, places: Places, work: Sequence[tuple[Place, list[_Named]]]) -> None:
        def delete(job: tuple[Place, list[_Named]]) -> None:
            place, group = job
            try:
                delete_indexes(places, place, sorted({named.link.ifindex for named in group}))
            except VethError as error:
                self._fail((named.position for named in group), error)

        if len(work) < 2:
            for job in work:
                delete(job)
            return
        from concurrent.futures import ThreadPoolExecutor  # costs 8 ms to import

        with ThreadPoolExecutor(min(_THREADS, len(work))) as threads:
            list(threads.map(delete, work))


def _nsid_of_home(places: Places, place: Place) -> int | None:
    (outcome,) = places.exchange(place, [get_nsid(places.home.fd)])
    return None if outcome.errno else parse_nsid(outcome.bodies[0])


def _not_a_veth(name: str, netns: NetnsRef, link: LinkMessage) -> VethError:
    kind = link.kind or "physical or loopback"
    says = f"it is a {kind} link, and only veth links are deleted"
    return refusal(Outcome(errno.EOPNOTSUPP, "", ()), f"delete {describe(name, netns)}", netns, says=says)
