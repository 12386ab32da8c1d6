"""What an agent has to look at, and what it is told of: the links of its interfaces, wherever they are.

A look asks the kernel, of a few interfaces by their names and by the ifindexes their links had last, or of the whole
host. Between looks, events say which interfaces have to be looked at again. They are only occasions: what counts is
what the look finds.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass, field
from typing import TypeAlias

from vethlib.errors import LinkNotFound, NetnsNotFound, VethError
from vethlib.ifindex import IfIndexCache, LinkEvent
from vethlib.links import Address, Link
from vethlib.session import Session

from .compare import link_differences
from .desired import Desired
from .follow import Follower
from .mark import ADDRESS_PROTO, read_alias
from .model import Interface
from .observe import look_at, observe
from .observed import LinkId, Observed, Place
from .ours import OurPairs

__all__ = ["Heard", "Sight"]

Ends: TypeAlias = "dict[LinkId, str]"
"""The ends that were built for one interface, each with a reference its namespace can be entered by."""


@dataclass(slots=True)
class Heard:
    """What events come to.

    Those whose link is `wrong` have to be looked at, and those who are `bereft` of a namespace; the links of those
    that are `right`, and the `addresses` that came to them or went (False), are news only. Every link that something
    happened to is in `links` as it is now, None if it is gone; and the namespaces that `ended`.
    """

    wrong: set[str] = field(default_factory=set)
    bereft: set[str] = field(default_factory=set)
    right: dict[str, tuple[Place, Link]] = field(default_factory=dict)
    addresses: list[tuple[str, Address, bool]] = field(default_factory=list)
    links: dict[LinkId, Link | None] = field(default_factory=dict)
    ended: list[Place] = field(default_factory=list)


class Sight:
    """Looks at the host for an agent, and follows what is managed by events.

    `known` has the ends that exist of every interface, wanted or not, as of the last look.
    """

    def __init__(self, session: Session, follower: Follower, label: str, *, create_missing: bool) -> None:
        self._session = session
        self._follower = follower
        self._label = label
        self._create_missing = create_missing
        self.cache = IfIndexCache(session, addresses=True)
        self.known: dict[str, Ends] = {}
        self._owners: dict[Place, dict[int, str]] = {}  # namespace → ifindex → interface
        self._watched: dict[str, Place] = {}  # by the references given to the cache
        self._refs: dict[Place, set[str]] = {}  # the other way round
        try:
            self._watch_refs([""])
        except BaseException:
            self.cache.close()
            raise

    def close(self) -> None:
        """End every watch."""
        self.cache.close()

    # --- looking

    def look(self, desired: Desired, names: Iterable[str]) -> Observed:
        """Look at all there may be of these interfaces. Raises what makes looking impossible."""
        refs: set[str] = set()
        links: list[tuple[str, str | int]] = []
        for name in names:
            if (interface := desired.interfaces.get(name)) is not None:
                refs.add(interface.namespace.ref)
                links.append((interface.namespace.ref, interface.kernel_name))
            for (_, index), ref in self.known.get(name, {}).items():
                refs.add(ref)
                links.append((ref, index))
        gone = self._gone(refs)
        return look_at(self._session, refs, links, gone=gone, create_missing=self._create_missing)

    def look_everywhere(self, desired: Desired) -> Observed:
        """Look at all there is: at home, in every named namespace, and wherever an interface is or is wanted."""
        refs = {*desired.refs, *self._watched, *(ref for ends in self.known.values() for ref in ends.values())}
        return observe(self._session, refs, gone=self._gone(refs), create_missing=self._create_missing)

    def _gone(self, refs: Iterable[str]) -> dict[str, str]:
        return {ref: reason for ref in refs if (reason := self._follower.gone(ref))}

    def learn(self, ours: OurPairs, observed: Observed, names: Iterable[str] | None = None) -> None:
        """Take over what a look has found of these interfaces; of all, if it was at the whole host.

        What is in a namespace that may be there, but could not be looked into, is still believed to be there.
        """
        if names is None:
            names = {*self.known, *ours.names()}
        for name in names:
            for end, ref in self.known.pop(name, {}).items():
                if _is_unknown(observed, ref):
                    self._add(name, end, ref)
                else:
                    self._remove(end)
            for seen in ours.built_for(name):
                self._add(name, seen.id, seen.ref)

    def _add(self, name: str, end: LinkId, ref: str) -> None:
        place, index = end
        self.known.setdefault(name, {})[end] = ref
        self._owners.setdefault(place, {})[index] = name

    def _remove(self, end: LinkId) -> None:
        place, index = end
        owners = self._owners.get(place, {})
        owners.pop(index, None)
        if not owners:
            self._owners.pop(place, None)

    def hidden(self, name: str, observed: Observed) -> str:
        """Why an end of this interface that is known could not be seen; "" if there is none such."""
        refs = self.known.get(name, {}).values()
        return next((observed.netns[ref].reason for ref in refs if _is_unknown(observed, ref)), "")

    def stands(self, interface: Interface, link: Link) -> bool:
        """Whether the link of an interface is as it was and should be, as far as events tell: for who may not look."""
        for place, index in self.known.get(interface.name, {}):
            if index != link.index:
                continue
            try:
                now = self.link(place, index)
            except VethError:
                return False
            return now is not None and not link_differences(interface, now, self._label)
        return False

    def known_at(self, ref: str) -> set[str]:
        """The interfaces of which an end is known that is reached by this reference."""
        return {name for name, ends in self.known.items() if ref in ends.values()}

    # --- following

    def watch(self, desired: Desired, names: Iterable[str], observed: Observed) -> bool:
        """Hear of the links in the namespaces of these interfaces; whether there is one that was not watched before.

        What happened in there between the look and the watch is not told.
        """
        wanted: set[str] = set()
        for ref in {desired.interfaces[name].namespace.ref for name in names}:
            place = observed.netns[ref].place
            if place is not None and self._watched.get(ref) != place:
                wanted.add(ref)
        return bool(wanted) and self._watch_refs(wanted)

    def _watch_refs(self, refs: Iterable[str]) -> bool:
        refs = list(refs)
        try:
            self.cache.watch_all(refs)
        except NetnsNotFound:
            # One has ended since the look. The others are to be watched all the same.
            refs = [ref for ref in refs if self._watch_one(ref)]
        found = {}
        for ref in refs:
            try:
                found[ref] = self._session.identity(ref)
            except NetnsNotFound:
                continue  # the next look will see
        for ref, place in found.items():
            self._forget(ref)
            self._watched[ref] = place
            self._refs.setdefault(place, set()).add(ref)
        return bool(found)

    def _watch_one(self, ref: str) -> bool:
        try:
            self.cache.watch(ref)
        except NetnsNotFound:
            return False
        return True

    def _forget(self, ref: str) -> Place | None:
        place = self._watched.pop(ref, None)
        if place is not None:
            self._refs[place].discard(ref)
            if not self._refs[place]:
                del self._refs[place]
        return place

    def place(self, ref: str) -> Place | None:
        """Where a reference leads now; None for nowhere that is known."""
        try:
            return self._session.identity(ref)
        except VethError:
            return None

    def watch_also(self, refs: Iterable[str]) -> None:
        """Hear of the links in these namespaces, too, as far as they are there."""
        self._watch_refs([ref for ref in refs if self.place(ref) not in (None, self._watched.get(ref))])

    def link_called(self, name: str, ref: str) -> Link | None:
        """The link of that name in a watched namespace."""
        try:
            return self.cache.link(name, ref)
        except (LinkNotFound, NetnsNotFound):
            return None

    def release(self, desired: Desired, refs: Iterable[str], kept: Container[str]) -> list[Place]:
        """Hear no more of the namespaces of these references, if nobody wants anything there; of home always.

        Returns of which.
        """
        released: list[Place] = []
        for ref in refs:
            place = self._watched.get(ref)
            if place is None or any(not other or other in kept or desired.at(other) for other in self._refs[place]):
                continue
            for other in self._refs[place].copy():
                self._forget(other)
            released.append(place)
            try:
                self.cache.unwatch(ref)
            except VethError:
                continue  # it has ended
        return released

    def concerned(self, desired: Desired, events: Iterable[LinkEvent]) -> Heard:
        """What these events come to."""
        heard = Heard()
        links: dict[LinkId, set[str]] = {}  # with the names they have, or had
        for event in events:
            place = self._watched.get(str(event.netns or ""))
            if place is None:
                continue
            if event.kind == "netns-gone":
                if not self._is_over(str(event.netns or "")):
                    continue  # it was another one of that name, whose end was known when this one was watched
                heard.ended.append(place)
                heard.bereft |= self._ended(desired, place)
            elif event.address is not None:
                self._by_address(desired, place, event.address, event.kind == "address", heard)
            else:
                for link in (event.link, event.old):
                    if link is not None:
                        links.setdefault((place, link.index), set()).update((link.name, *link.altnames))
        for (place, index), names in links.items():
            heard.links[place, index] = link = self.link(place, index)
            self._by_link(desired, (place, index), link, names, heard)
        return heard

    def _is_over(self, ref: str) -> bool:
        """Whether the cache watches nothing by this reference any more."""
        try:
            self.cache.links(ref)
        except NetnsNotFound:
            return True
        return False

    def _ended(self, desired: Desired, place: Place) -> set[str]:
        found = set(self._owners.get(place, {}).values())
        for ref in self._refs.get(place, set()).copy():
            found |= desired.at(ref)
            self._forget(ref)
        return found

    def _by_address(self, desired: Desired, place: Place, address: Address, given: bool, heard: Heard) -> None:
        owner = self._owners.get(place, {}).get(address.index)
        interface = desired.interfaces.get(owner or "")
        if interface is None:
            return
        wanted = address.interface in interface.addresses
        wrong = address.proto == ADDRESS_PROTO and not wanted if given else wanted
        if wrong and not interface.link_only:
            heard.wrong.add(interface.name)
        else:
            heard.addresses.append((interface.name, address, given))

    def _by_link(self, desired: Desired, end: LinkId, link: Link | None, names: set[str], heard: Heard) -> None:
        """Whom a link concerns: its owner, if it is not as that wants it, and others who want one of its names."""
        place, index = end
        owner = self._owners.get(place, {}).get(index)
        if link is not None and owner is None:
            mark = read_alias(link.alias)
            if mark is not None and mark.label == self._label:
                # Moved here, or marked again, by others: no look has found it yet.
                owner = mark.name
                self._add(owner, end, next(iter(self._refs[place])))
                heard.wrong.add(owner)
        for name in names:
            heard.wrong |= desired.claimants(place, name) - {owner}
        if owner is None:
            return
        interface = desired.interfaces.get(owner)
        if interface is None or link is None or link_differences(interface, link, self._label):
            heard.wrong.add(owner)
        else:
            heard.right[owner] = place, link

    def link(self, place: Place, index: int) -> Link | None:
        """A link of a watched namespace as the last event left it; None if there is no such link."""
        ref = next(iter(self._refs.get(place, ())), None)
        if ref is None:
            return None
        try:
            return self.cache.link(self.cache.name(index, ref), ref)
        except (LinkNotFound, NetnsNotFound):
            return None


def _is_unknown(observed: Observed, ref: str) -> bool:
    netns = observed.netns.get(ref)
    return netns is not None and netns.unknown
