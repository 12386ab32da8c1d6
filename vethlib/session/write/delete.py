"""Deleting links: many for the price of one (:mod:`.grouped`).

A pair is deleted through either end. If the named ends are in many namespaces but their peers are in the home
namespace, the peers are deleted, so that it is still one unregistration. Others take one unregistration per namespace,
in several threads, because their waits overlap.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple, TypeAlias

from vethlib._nl.batch import Outcome
from vethlib._nl.link import LinkMessage, delete_link, get_link, get_named, parse_link
from vethlib._nl.nsid import get_nsid, parse_nsid
from vethlib._primitives import do_in_threads
from vethlib.errors import NetnsNotFound, VethError
from vethlib.linkref import Item, as_items
from vethlib.links import Link, NetnsRef, describe
from vethlib.session.core.namespaces import Birth, Identity, Namespaces, OpenNetns
from vethlib.session.core.refusal import copy_for, refusal
from vethlib.session.core.slabs import SLAB, by_reference
from vethlib.session.read.reading import to_link
from vethlib.session.read.target import missing, read_body, renumbered

from .grouped import GONE, GroupDeletion

__all__ = ["DeleteItem", "Deletion", "delete_indexes"]

_THREADS: Final = 16


def delete_indexes(
    namespaces: Namespaces, place: OpenNetns, groups: Mapping[int, int], *, marks_are_dear: bool = False
) -> None:
    """Delete links of `place` by ifindex; those that are already gone are no error. Raises NetlinkError.

    `groups` has the link group of each, which is restored if the link cannot be deleted. Marks are dear on links that
    are up and have IPv6.
    """
    if len(groups) == 1:
        (outcome,) = namespaces.exchange(place, [delete_link(index) for index in groups])
    else:
        outcome = GroupDeletion(namespaces, place, groups, marks_are_dear=marks_are_dear).run()
    namespaces.caches.catch_up()
    if outcome.errno not in GONE:
        raise refusal(outcome, f"delete {len(groups)} links", place.ref)


def _mark_is_dear(link: LinkMessage) -> bool:
    return link.up and link.ipv6


class _Named(NamedTuple):
    """An end that was named and found."""

    position: int
    link: LinkMessage
    birth: Birth
    ref: NetnsRef
    peer_is_home: bool

    @property
    def index_at_home(self) -> int:
        """The ifindex of the link itself, or else of its other end, in the home namespace; 0 if neither is there."""
        if not self.ref:
            return self.link.ifindex
        return self.link.link or 0 if self.peer_is_home else 0


DeleteItem: TypeAlias = Item | tuple[str, NetnsRef, int]
"""A link to delete: a name in a namespace, or an End. With an ifindex, or as a Link, only if it still has that one."""


class Deletion:
    """One call that deletes links by name; see Session.delete_many."""

    def __init__(
        self,
        open_namespaces: Callable[[], Namespaces],
        items: Sequence[DeleteItem],
        *,
        missing_ok: bool,
        renamed_ok: bool = False,
        only_if: Callable[[DeleteItem, Link, Birth], bool] | None = None,
    ) -> None:
        self._open_namespaces = open_namespaces
        self._given = items
        exact = as_items(items)
        self._items = [(name, netns) for name, netns, _ in exact]
        self._indexes = [index for _, _, index in exact]
        self._missing_ok = missing_ok
        self._renamed_ok = renamed_ok
        self._only_if = only_if
        self._errors: dict[int, VethError] = {}

    def run(self, progress: Callable[[int, int], object] | None = None) -> list[VethError]:
        """Find all links, delete those that were found, and return an error for each item that failed, in order."""
        found = self._find_all()
        home: dict[int, list[_Named]] = {}
        foreign: dict[Birth, list[_Named]] = {}
        for named in found:
            if named.index_at_home:
                home.setdefault(named.index_at_home, []).append(named)
            else:
                foreign.setdefault(named.birth, []).append(named)
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
        refs = by_reference(netns for _, netns in self._items)
        found: list[_Named] = []
        for start in range(0, len(refs), SLAB):
            with self._open_namespaces() as namespaces:
                found += self._find_slab(namespaces, refs[start : start + SLAB])
        return found

    def _find_slab(self, namespaces: Namespaces, refs: Sequence[list[int]]) -> list[_Named]:
        by_place: dict[Identity, tuple[OpenNetns, list[int]]] = {}
        for positions in refs:
            try:
                place = namespaces(self._items[positions[0]][1])
            except VethError as error:
                if not (self._missing_ok and isinstance(error, NetnsNotFound)):
                    self._fail(positions, error)
            else:
                by_place.setdefault(place.identity, (place, []))[1].extend(positions)
        found: list[_Named] = []
        namespaces.open_sockets(place for place, _ in by_place.values())
        for place, positions in by_place.values():
            try:
                found += self._find_in(namespaces, place, positions)
            except VethError as error:
                self._fail(positions, error)
        return found

    def _fail(self, positions: Iterable[int], error: VethError) -> None:
        """Note an error of several items; each gets a copy of its own, which names it."""
        for position in positions:
            self._errors[position] = copy_for(error, self._items[position])

    def _find_in(self, namespaces: Namespaces, place: OpenNetns, positions: Sequence[int]) -> list[_Named]:
        home_nsid = None if place.is_home else _nsid_of_home(namespaces, place)
        links = self._look_up(namespaces, place, positions)
        found: list[_Named] = []
        for position, link in zip(positions, links, strict=True):
            name, netns = self._items[position]
            index = self._indexes[position]
            if link is None or index not in (None, link.ifindex) or not self._is_meant(position, link, place):
                if not self._missing_ok:
                    request = f"delete {describe(name, netns)}"
                    is_other = link is not None and index not in (None, link.ifindex)
                    self._errors[position] = (
                        renumbered(link.ifindex, index, name, netns, request)
                        if link is not None and is_other
                        else missing(name, netns, request)
                    )
            elif link.kind != "veth":
                self._errors[position] = _not_a_veth(name, netns, link)
            else:
                peer_is_home = home_nsid is not None and link.link_netnsid == home_nsid
                found.append(_Named(position, link, place.birth, "" if place.is_home else netns, peer_is_home))
        return found

    def _is_meant(self, position: int, link: LinkMessage, place: OpenNetns) -> bool:
        if self._only_if is None:
            return True
        return self._only_if(self._given[position], to_link(link, self._items[position][1]), place.birth)

    def _look_up(self, namespaces: Namespaces, place: OpenNetns, positions: Sequence[int]) -> list[LinkMessage | None]:
        return _look(namespaces, place, [self._key(position) for position in positions])

    def _key(self, position: int) -> str | int:
        """Return the name or ifindex by which an item is looked up."""
        index: int | None = self._indexes[position]
        if index is not None and self._renamed_ok:
            return index
        name: str = self._items[position][0]
        return name

    def _delete_home(self, targets: Mapping[int, Sequence[_Named]]) -> None:
        if not targets:
            return
        with self._open_namespaces() as namespaces:
            try:
                links = {index: named[0].link for index, named in targets.items() if not named[0].ref}
                links |= _peers(namespaces, {index: targets[index][0].link for index in targets.keys() - links})
                if links:
                    _delete_links(namespaces, namespaces.home, links)
            except VethError as error:
                self._fail((one.position for named in targets.values() for one in named), error)

    def _delete_foreign(self, groups: Sequence[list[_Named]]) -> None:
        for start in range(0, len(groups), SLAB):
            slab = groups[start : start + SLAB]
            with self._open_namespaces() as namespaces:
                opened = [(self._reopen(namespaces, group), group) for group in slab]
                ready = [(place, group) for place, group in opened if place is not None]
                namespaces.open_sockets(place for place, _ in ready)
                self._delete_in_threads(namespaces, ready)

    def _reopen(self, namespaces: Namespaces, group: Sequence[_Named]) -> OpenNetns | None:
        """Open the namespace again; None if it is another one, because the links of the old one ended with it."""
        try:
            place = namespaces(group[0].ref)
        except NetnsNotFound:
            return None
        except VethError as error:
            self._fail((named.position for named in group), error)
            return None
        return place if place.is_still(group[0].birth) else None

    def _delete_in_threads(self, namespaces: Namespaces, work: Sequence[tuple[OpenNetns, list[_Named]]]) -> None:
        def delete(job: tuple[OpenNetns, list[_Named]]) -> None:
            place, group = job
            try:
                namespaces.socket(place)  # which provides the cookie
                if place.is_still(group[0].birth):
                    left = group if place.cookie else _still_there(namespaces, place, group)
                    if left:
                        _delete_links(namespaces, place, {named.link.ifindex: named.link for named in left})
            except VethError as error:
                self._fail((named.position for named in group), error)

        if len(work) < 2:
            for job in work:
                delete(job)
            return
        do_in_threads(delete, work, _THREADS, "deleting links")


def _still_there(namespaces: Namespaces, place: OpenNetns, group: Sequence[_Named]) -> list[_Named]:
    """Return those links that are still the same. Without a cookie, their namespace may be another one by now."""
    now = _look(namespaces, place, [named.link.ifindex for named in group])
    return [
        named
        for named, link in zip(group, now, strict=True)
        if link is not None and link.kind == "veth" and link.mac == named.link.mac
    ]


def _look(namespaces: Namespaces, place: OpenNetns, keys: Sequence[str | int]) -> list[LinkMessage | None]:
    """Read each link by its name or ifindex; None for one that is missing."""
    requests = [get_link(key) if isinstance(key, int) else get_named(key) for key in keys]
    outcomes = namespaces.exchange(place, requests)
    for outcome in outcomes:
        if outcome.errno not in GONE:
            raise refusal(outcome, "look up links", place.ref)
    return [None if outcome.errno else read_body(place, outcome, parse_link) for outcome in outcomes]


def _delete_links(namespaces: Namespaces, place: OpenNetns, links: Mapping[int, LinkMessage]) -> None:
    groups = {index: link.group for index, link in links.items()}
    delete_indexes(namespaces, place, groups, marks_are_dear=any(map(_mark_is_dear, links.values())))


def _peers(namespaces: Namespaces, ends: Mapping[int, LinkMessage]) -> dict[int, LinkMessage]:
    """Return each of these links in home that is still the other end of its foreign link."""
    found = zip(ends.items(), _look(namespaces, namespaces.home, list(ends)), strict=True)
    return {
        index: peer
        for (index, end), peer in found
        if peer is not None and peer.kind == "veth" and peer.link in (None, end.ifindex)
    }


def _nsid_of_home(namespaces: Namespaces, place: OpenNetns) -> int | None:
    (outcome,) = namespaces.exchange(place, [get_nsid(namespaces.home.fd)])
    return None if outcome.errno else read_body(place, outcome, parse_nsid, "look up the id of the home namespace")


def _not_a_veth(name: str, netns: NetnsRef, link: LinkMessage) -> VethError:
    kind = link.kind or "physical or loopback"
    says = f"it is a {kind} link, and only veth links are deleted"
    return refusal(Outcome(errno.EOPNOTSUPP, "", ()), f"delete {describe(name, netns)}", netns, says=says)
