"""Delete links: many for the price of one (:mod:`.grouped`).

A pair is deleted through either end. If the named ends are in many namespaces but their peers are in the home
namespace, the peers are deleted, so that it is still one unregistration. Others take one unregistration per namespace,
in several threads, because their waits overlap.

Between the look at all links and the deletion in a foreign namespace, seconds may pass. The references to that
namespace may lead elsewhere by then, so it stays open meanwhile. A veth of another program may have got the ifindex of
a link that was found, so each link is read once more.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple, TypeAlias

from vethlib._nl.batch import Outcome
from vethlib._nl.link import LinkMessage, delete_link, get_link, get_named, parse_link
from vethlib._primitives import do_in_threads
from vethlib.errors import NetnsNotFound, VethError, is_exhaustion
from vethlib.linkref import Item, as_items
from vethlib.links import Link, NetnsRef, describe, means_home
from vethlib.session.core.namespaces import Birth, Identity, Namespaces, OpenNetns
from vethlib.session.core.refusal import copy_for, refusal
from vethlib.session.core.slabs import SLAB, Slab, by_reference, slabs
from vethlib.session.read.reading import to_link
from vethlib.session.read.samelink import KnownVeth, is_another
from vethlib.session.read.target import missing, nsid_of_home, read_body, renumbered, replaced
from vethlib.text import counted

from .grouped import GONE, GroupDeletion

__all__ = ["DeleteItem", "Deletion", "delete_indexes", "look"]

_THREADS: Final = 16
_KEPT_OPEN: Final = SLAB
"""The most foreign namespaces that stay open from the look to the deletion.

For any others, and for all if there are too few descriptors, the references are followed again.
"""


def delete_indexes(
    namespaces: Namespaces, place: OpenNetns, groups: Mapping[int, int], *, marks_are_dear: bool = False
) -> None:
    """Delete links of `place` by ifindex; it is no error if some are already gone. Raises NetlinkError.

    `groups` has the link group of each, which is restored if the link cannot be deleted. Marking is expensive
    (`marks_are_dear`) for links that are up and have IPv6.
    """
    if len(groups) == 1:
        (outcome,) = namespaces.exchange(place, [delete_link(index) for index in groups])
    else:
        outcome = GroupDeletion(namespaces, place, groups, marks_are_dear=marks_are_dear).run()
    namespaces.caches.catch_up()
    if outcome.errno not in GONE:
        raise refusal(outcome, f"delete {counted(len(groups), 'link')}", place.ref)


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
        if means_home(self.ref):
            return self.link.ifindex
        return self.link.link or 0 if self.peer_is_home else 0


DeleteItem: TypeAlias = Item | tuple[str, NetnsRef, int]
"""A link to delete: a name in a namespace, or an End; with an ifindex, or as a Link, only if that still matches."""


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
        self._items = as_items(items)
        self._missing_ok = missing_ok
        self._renamed_ok = renamed_ok
        self._only_if = only_if
        self._errors: dict[int, VethError] = {}
        self._open: dict[Birth, OpenNetns] = {}
        self._most_open = _KEPT_OPEN

    def run(self, progress: Callable[[int, int], object] | None = None) -> list[VethError]:
        """Find all links, delete those that were found, and return an error for each item that failed, in order."""
        try:
            self._run(progress)
        finally:
            self._close(list(self._open))
        for position, error in self._errors.items():
            error.item = self._given[position]
        return [error for _, error in sorted(self._errors.items())]

    def _run(self, progress: Callable[[int, int], object] | None) -> None:
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
        self._delete_foreign(list(foreign.items()))
        if progress is not None:
            progress(len(self._items), len(self._items))

    def _find_all(self) -> list[_Named]:
        found: list[_Named] = []
        for slab in slabs(by_reference(netns for _, netns, *_ in self._items)):
            with self._open_namespaces() as namespaces:
                by_place, refused = self._open_slab(namespaces, slab)
                if slab.short and self._open:
                    self._keep_none_open()
                    by_place, refused = self._open_slab(namespaces, slab)
                if not slab.is_repeated:
                    for positions, error in refused:
                        self._fail(positions, error)
                    found += self._find_slab(namespaces, by_place)
        return found

    def _open_slab(
        self, namespaces: Namespaces, slab: Slab[list[int]]
    ) -> tuple[_ByPlace, list[tuple[list[int], VethError]]]:
        """Open the namespaces of a slab, given by positions with one reference each, or note that it is short."""
        by_place: _ByPlace = {}
        refused: list[tuple[list[int], VethError]] = []
        for positions in slab:
            try:
                place = namespaces(self._items[positions[0]][1])
            except VethError as error:
                if not (self._missing_ok and isinstance(error, NetnsNotFound)):
                    refused.append((positions, error))
            else:
                by_place.setdefault(place.identity, (place, []))[1].extend(positions)
        slab.short = any(is_exhaustion(error) for _, error in refused)
        slab.short = namespaces.lacks_sockets(place for place, _ in by_place.values()) or slab.short
        return by_place, refused

    def _find_slab(self, namespaces: Namespaces, by_place: _ByPlace) -> list[_Named]:
        found: list[_Named] = []
        kept: list[OpenNetns] = []
        for place, positions in by_place.values():
            try:
                found_here = self._find_in(namespaces, place, positions)
            except VethError as error:
                self._fail(positions, error)
            else:
                found += found_here
                if any(not named.index_at_home for named in found_here):
                    kept.append(place)
        self._keep_open(kept)
        return found

    def _keep_open(self, places: Iterable[OpenNetns]) -> None:
        """Keep namespaces open, or none if a descriptor is refused: more will be needed before the deletion."""
        try:
            for place in places:
                if len(self._open) < self._most_open and place.birth not in self._open:
                    self._open[place.birth] = place.again()
        except (VethError, OSError):
            self._keep_none_open()

    def _keep_none_open(self) -> None:
        self._most_open = 0
        self._close(list(self._open))

    def _close(self, births: Iterable[Birth]) -> None:
        for birth in births:
            if birth in self._open:
                self._open[birth].close()
                del self._open[birth]

    def _fail(self, positions: Iterable[int], error: VethError) -> None:
        """Note an error of several items; each item gets its own copy, which names it."""
        for position in positions:
            self._errors[position] = copy_for(error, self._given[position])

    def _find_in(self, namespaces: Namespaces, place: OpenNetns, positions: Sequence[int]) -> list[_Named]:
        home_nsid = None if place.is_home else nsid_of_home(namespaces, place)
        links = look(namespaces, place, [self._key(position) for position in positions])
        found: list[_Named] = []
        for position, link in zip(positions, links, strict=True):
            name, netns, index, _ = self._items[position]
            peer_is_home = link is not None and link.link_netnsid is not None and link.link_netnsid == home_nsid
            if (
                link is None
                or index not in (None, link.ifindex)
                or self._is_another(position, link, place, peer_is_home=peer_is_home)
            ) or not self._is_meant(position, link, place.birth):
                self._miss(position, link)
            elif link.kind != "veth":
                self._errors[position] = _not_a_veth(name, netns, link)
            else:
                found.append(_Named(position, link, place.birth, "" if place.is_home else netns, peer_is_home))
        return found

    def _miss(self, position: int, link: LinkMessage | None) -> None:
        """Note that an item is missing, unless that is permitted; `link` is another link that has its name."""
        if self._missing_ok:
            return
        name, netns, index, _ = self._items[position]
        request = f"delete {describe(name, netns)}"
        if link is None:
            self._errors[position] = missing(name, netns, request)
        elif index not in (None, link.ifindex):
            self._errors[position] = renumbered(link.ifindex, index, name, netns, request)
        else:
            self._errors[position] = replaced(name, netns, request)

    def _is_another(self, position: int, link: LinkMessage, place: OpenNetns, *, peer_is_home: bool) -> bool:
        """Return whether an item is a Link and `link` is a different one. Later, :class:`KnownVeth` is compared."""
        *_, seen = self._items[position]
        if seen is None:
            return False
        return is_another(seen, link, place.cookie, in_home=place.is_home, peer_is_home=lambda: peer_is_home)

    def _is_meant(self, position: int, link: LinkMessage, birth: Birth) -> bool:
        if self._only_if is None:
            return True
        return self._only_if(self._given[position], to_link(link, self._items[position][1], cookie=birth[1]), birth)

    def _key(self, position: int) -> str | int:
        """Return the name or ifindex by which an item is looked up."""
        name, _, index, _ = self._items[position]
        return index if index is not None and self._renamed_ok else name

    def _delete_home(self, targets: Mapping[int, Sequence[_Named]]) -> None:
        if not targets:
            return
        with self._open_namespaces() as namespaces:
            try:
                links = {index: named[0].link for index, named in targets.items() if means_home(named[0].ref)}
                links |= _peers(namespaces, {index: targets[index][0].link for index in targets.keys() - links})
                if links:
                    _delete_links(namespaces, namespaces.home, links)
            except VethError as error:
                self._fail((one.position for named in targets.values() for one in named), error)

    def _delete_foreign(self, groups: Sequence[tuple[Birth, list[_Named]]]) -> None:
        # First those that are open, so that their descriptors become available for others.
        groups = sorted(groups, key=lambda each: each[0] not in self._open)
        for slab in slabs(groups):
            with self._open_namespaces() as namespaces:
                work = self._reopen_slab(namespaces, slab)
                if slab.short and self._open:
                    self._keep_none_open()
                    work = self._reopen_slab(namespaces, slab)
                if slab.is_repeated:
                    continue
                if self._only_if is not None:
                    work = [(place, self._still_meant(namespaces, place, group)) for place, group in work]
                self._delete_in_threads(namespaces, [(place, group) for place, group in work if group])
            self._close(birth for birth, _ in slab)

    def _reopen_slab(self, namespaces: Namespaces, slab: Slab[tuple[Birth, list[_Named]]]) -> list[_Work]:
        """Open those namespaces of a slab that are no longer open, or note that it is short."""
        work: list[_Work] = []
        slab.short = False
        for birth, group in slab:
            for named in group:
                self._errors.pop(named.position, None)  # of an attempt with too few descriptors
            place = self._open.get(birth) or self._reopen(namespaces, birth, group)
            if place is not None:
                work.append((place, group))
            elif (error := self._errors.get(group[0].position)) is not None:
                slab.short = slab.short or is_exhaustion(error)
        slab.short = namespaces.lacks_sockets(place for place, _ in work) or slab.short
        return work

    def _reopen(self, namespaces: Namespaces, birth: Birth, group: Sequence[_Named]) -> OpenNetns | None:
        """Open a namespace again by any of its references.

        If none leads there, it is an error: the namespace may have ended, and the links with it, or be in use
        elsewhere.
        """
        error: VethError | None = None
        for named in (group[positions[0]] for positions in by_reference(named.ref for named in group)):
            try:
                if (place := namespaces.reopened(named.ref, birth)) is not None:
                    return place
            except VethError as refused:
                error = refused
        for named in group:
            self._errors[named.position] = copy_for(error, None) if error is not None else self._lost(named)
        return None

    def _lost(self, named: _Named) -> NetnsNotFound:
        what = describe(self._items[named.position][0], named.ref)
        says = "its namespace can no longer be reached; if that has ended, the link has ended with it"
        return NetnsNotFound(f"delete {what}: {says}", netns=str(named.ref or ""))

    def _still_meant(self, namespaces: Namespaces, place: OpenNetns, group: Sequence[_Named]) -> list[_Named]:
        """Return the links that still exist and are still meant: the answer of `only_if` may be seconds old."""
        left: list[_Named] = []
        try:
            for named, link in _still_there(namespaces, place, group):
                if self._is_meant(named.position, link, named.birth):
                    left.append(named)
                else:
                    self._miss(named.position, None)
        except VethError as error:
            self._fail((named.position for named in group), error)
            return []
        return left

    def _delete_in_threads(self, namespaces: Namespaces, work: Sequence[_Work]) -> None:
        def delete(job: _Work) -> None:
            place, group = job
            try:
                links = {link.ifindex: link for _, link in _still_there(namespaces, place, group)}
                if links:
                    _delete_links(namespaces, place, links)
            except VethError as error:
                self._fail((named.position for named in group), error)

        if len(work) < 2:
            for job in work:
                delete(job)
            return
        do_in_threads(delete, work, _THREADS, "deleting links")


_Work: TypeAlias = tuple[OpenNetns, list[_Named]]
_ByPlace: TypeAlias = dict[Identity, tuple[OpenNetns, list[int]]]


def _still_there(namespaces: Namespaces, place: OpenNetns, group: Sequence[_Named]) -> list[tuple[_Named, LinkMessage]]:
    """Return those links that still exist, as they are now, but no other links that have got their ifindexes."""
    now = look(namespaces, place, [named.link.ifindex for named in group])
    return [
        (named, link)
        for named, link in zip(group, now, strict=True)
        if link is not None and KnownVeth.of(named.link).is_now(link)
    ]


def look(namespaces: Namespaces, place: OpenNetns, keys: Sequence[str | int]) -> list[LinkMessage | None]:
    """Read each link by its name or ifindex; None if it is missing."""
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
    found = zip(ends.items(), look(namespaces, namespaces.home, list(ends)), strict=True)
    return {
        index: peer
        for (index, end), peer in found
        if peer is not None and peer.kind == "veth" and peer.link in (None, end.ifindex)
    }


def _not_a_veth(name: str, netns: NetnsRef, link: LinkMessage) -> VethError:
    kind = link.kind or "physical or loopback"
    says = f"it is a {kind} link, and only veth links are deleted"
    return refusal(Outcome(errno.EOPNOTSUPP), f"delete {describe(name, netns)}", netns, says=says)
