"""Find out what changes of links, as reported by events, mean for interfaces."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from vethlib.agent.config.mark import ADDRESS_PROTO, read_alias
from vethlib.agent.planning.compare import is_as_given, will_expire
from vethlib.agent.planning.desired import Desired
from vethlib.agent.planning.observed import LinkId, NetnsId
from vethlib.agent.planning.recorded import PairRecord
from vethlib.endfields.table import FIELDS
from vethlib.ifindex.changes import AddressChanges, LinkChanges
from vethlib.ifindex.watch import Watch
from vethlib.links import Address, Link
from vethlib.session.read.reading import addresses_of, to_link

from .observer import HostObserver

__all__ = ["InterfaceChanges", "Interpreter"]


@dataclass(slots=True)
class InterfaceChanges:
    """The interfaces concerned by changes of links, by what has happened.

    `drifted`: the link no longer matches, or may not; of these, the links of `gone` no longer exist.
    `orphaned`: the namespace has ended. `lost`: events were lost. All of these have to be looked at.

    `unchanged`: the link has changed, but still matches; `addresses` were added (True) or removed (False), and match,
    too; None for more than can be listed. Only the status has to be updated.

    `links` has each followed link that has changed, None if it was deleted; those in `renewed` were deleted or moved
    away, and there is a link with that ifindex again. In `doubted` namespaces, that may have happened without an event.
    `ended` are the namespaces that have ended, and `left` the references that led to them. `noisy` are the references
    of those whose events are ignored from now on.
    """

    drifted: set[str] = field(default_factory=set)
    gone: set[str] = field(default_factory=set)
    orphaned: set[str] = field(default_factory=set)
    lost: set[str] = field(default_factory=set)
    unchanged: dict[str, tuple[NetnsId, Link]] = field(default_factory=dict)
    addresses: dict[str, list[tuple[Address, bool]] | None] = field(default_factory=dict)
    noisy: list[str] = field(default_factory=list)
    links: dict[LinkId, Link | None] = field(default_factory=dict)
    renewed: set[LinkId] = field(default_factory=set)
    ended: list[NetnsId] = field(default_factory=list)
    left: set[str] = field(default_factory=set)
    doubted: list[NetnsId] = field(default_factory=list)


class Interpreter:
    """Finds the interfaces that changes of links concern.

    `follows` returns whether a link that is not owned has to be reported, too.
    """

    def __init__(
        self,
        observer: HostObserver,
        desired: Desired,
        label: str,
        home: tuple[int, int],
        record: PairRecord,
        follows: Callable[[NetnsId, int], bool],
    ) -> None:
        self._observer = observer
        self._watches = observer.watches
        self._desired = desired
        self._label = label
        self._home = home
        self._record = record
        self._follows = follows
        self._result = InterfaceChanges()

    def interpret(self, changes: LinkChanges) -> InterfaceChanges:
        """Return what these changes mean. Namespaces that have ended or are too noisy are no longer watched."""
        result = self._result
        for watch in changes.ended:
            ended = self._home[0], watch.inode
            result.ended.append(ended)
            result.left.update(self._watches.refs_at(ended))
            result.orphaned |= self._observer.interfaces_at(self._desired, ended)
            # A reference may have been watched again since, even in a namespace with the same inode number.
            self._watches.forget_ended(ended)
        for watch in changes.noisy:
            if (place := self._place_of(watch)) is not None:
                result.noisy.append(str(watch.netns))
                if watch.cookie is not None:
                    self._watches.rest(place, watch.cookie)
                result.lost |= self._leave(place)
        # What happened in a namespace before it ended does not matter for the namespace that has its name now.
        for watch in changes.lost:
            if not watch.is_over and (place := self._place_of(watch)) is not None:
                result.lost |= self._observer.interfaces_at(self._desired, place)
                result.doubted.append(place)
        for (watch, index), names in changes.links.items():
            if not watch.is_over and (place := self._place_of(watch)) is not None:
                self._add_link((place, index), watch, names, renewed=(watch, index) in changes.deleted)
        for watch, index in changes.unclear:
            if not watch.is_over and (place := self._place_of(watch)) is not None:
                self._add_unclear(place, index)
        for (watch, index), addresses in changes.addresses.items():
            if not watch.is_over and (place := self._place_of(watch)) is not None:
                self._add_addresses(place, index, addresses)
        return result

    def _place_of(self, watch: Watch) -> NetnsId | None:
        """Return the namespace of a watch; None if no reference is known to lead to it."""
        place = self._home[0], watch.inode
        return place if place in self._watches.refs else None

    def _leave(self, place: NetnsId) -> set[str]:
        """Forget a namespace that is no longer watched; return the interfaces concerned."""
        names = self._observer.interfaces_at(self._desired, place)
        self._watches.forget(place)
        return names

    def _add_link(self, end: LinkId, watch: Watch, names: set[str], *, renewed: bool) -> None:
        """Add the owner of a link, and the interfaces that claim a name that the link has or had."""
        place, index = end
        result = self._result
        owner = self._observer.built_for(place, index)
        message = watch.table.get(index)
        if message is not None and owner is None and (owner := self._unseen_owner(end, message.alias)) is not None:
            self._observer.add(owner, end, next(iter(self._watches.refs[place])))
            result.drifted.add(owner)
        for name in names:
            # If a link has taken over the name, the interface of that link is not concerned by the former holder.
            holder = watch.table.get(name)
            holds = None if holder is None else self._observer.built_for(place, holder.ifindex)
            result.drifted |= self._desired.claimants(place, name) - {owner, holds}
            result.drifted |= self._desired.attached_to(place, name)
        if owner is None and message is not None and not self._follows(place, index):
            return
        result.links[end] = link = None if message is None else to_link(message, watch.netns, cookie=watch.cookie or 0)
        if renewed and link is not None:
            result.renewed.add(end)
        if owner is None:
            return
        interface = self._desired.interfaces.get(owner)
        # An event does not show the fields that few interfaces have.
        if (
            interface is None
            or link is None
            or renewed
            or interface.further
            or self._observer.differences(interface, place, link)
        ):
            result.drifted.add(owner)
            if link is None:
                result.gone.add(owner)
        else:
            result.unchanged[owner] = place, link

    def _add_unclear(self, place: NetnsId, index: int) -> None:
        interface = self._desired.interfaces.get(self._observer.built_for(place, index) or "")
        if interface is not None and any(FIELDS[name].announced for name in interface.further):
            self._result.drifted.add(interface.name)

    def _unseen_owner(self, end: LinkId, alias: str) -> str | None:
        """Return the owner of a link that no observation has found yet.

        It is marked in the home namespace, or recorded by another process with this label. The mark of a link in
        another namespace does not count.
        """
        if end[0] == self._home:
            mark = read_alias(alias)
            return mark.name if mark is not None and mark.label == self._label else None
        recorded = self._record.at(end)
        if recorded is None:
            return None
        ref = next(iter(self._watches.refs[end[0]]))
        return None if self._watches.is_replaced(end[0], recorded[0].cookie, ref) else recorded[0].name or None

    def _add_addresses(self, place: NetnsId, index: int, changes: AddressChanges) -> None:
        interface = self._desired.interfaces.get(self._observer.built_for(place, index) or "")
        if interface is None:
            return
        if changes is None:
            self._result.addresses[interface.name] = None
            return
        listed = self._result.addresses.setdefault(interface.name, [])
        for message, added in changes.values():
            (address,) = addresses_of([message])
            given = interface.by_identity.get(address.identity)
            desired = given is not None
            if not added:
                drifted = desired
            elif given is not None:
                # Another program added it again: it was gone, and may be at another position in the order now.
                drifted = will_expire(address) or (address.proto != ADDRESS_PROTO and len(interface.addresses) > 1)
                drifted = drifted or not is_as_given(address, given, interface.kernel_name)
            else:
                drifted = address.proto == ADDRESS_PROTO
            # Enabling IPv6 causes no event, but the link-local address that follows does.
            enabled = added and interface.wants_ipv6 is False and address.interface.version == 6
            if enabled or (drifted and not interface.link_only):
                self._result.drifted.add(interface.name)
            elif listed is not None:
                listed.append((address, added))
