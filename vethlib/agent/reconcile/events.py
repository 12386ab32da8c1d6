"""From events to marks: a namespace that starts or ends, a link that another program changed, a time that has come."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Final

from vethlib._primitives import time
from vethlib.agent.planning.observed import NetnsId
from vethlib.agent.reasons import ReasonCode, events_ignored
from vethlib.agent.state import State
from vethlib.errors import VethError
from vethlib.ifindex.changes import LinkChanges
from vethlib.links import Address
from vethlib.ns.deadline import earliest

from .linkchanges import InterfaceChanges, Interpreter
from .occasions import MANY_VALUES
from .owners import Owners
from .reporter import CHANGED, GONE, Reporter

__all__ = ["Events"]

_log = logging.getLogger("vethlib.agent")

_RETRY: Final = "retry"


class Events:
    """Reads all events, and marks the interfaces that they concern.

    Changes that leave a link as configured only update its status and the registry.
    """

    def __init__(self, owners: Owners, reporter: Reporter) -> None:
        self._owners = owners
        self._reporter = reporter
        self._desired = owners.desired
        self._occasions = owners.occasions
        self._backoff = owners.backoff
        self._observer = owners.observer
        self._watches = owners.observer.watches
        self._dependants = owners.dependants
        self._unsteady: set[str] = set()  # references that keep changing, each logged once

    def next_due(self) -> float | None:
        """Return the time, by time.monotonic(), at which :meth:`collect` has something to mark; None for never."""
        if self._dependants.any_starved and self._backoff.attaching.due is None:
            return time.monotonic()
        left = self._watches.follower.due()
        return earliest(
            self._occasions.next_due(),
            self._backoff.next_due(),
            self._observer.creatable.due(),
            self._watches.cache.due(),
            self._watches.rest_ends(),
            None if left is None else time.monotonic() + left,
        )

    def collect(self) -> None:
        """Mark everything that has a reason to be looked at."""
        now = time.monotonic()
        self._collect_references(now)
        self._collect_due(now)
        try:
            changes = self._watches.cache.changes()
        except VethError as error:
            # It stays due in the cache, too.
            self._occasions.everything("events of links cannot be read")
            self._reporter.fail(self._desired.names(), error)
        else:
            if changes:
                self._take(changes)
        self._occasions.mark_detected(now)

    def _collect_references(self, now: float) -> None:
        follower = self._watches.follower
        refs = follower.changed() | follower.moved()
        if not refs:
            return
        for ref in refs:
            if self._observer.has_created(ref):
                continue
            left = self._observer.known_at(ref) if ref in self._watches.left else set()
            self._reference_changed(ref, self._desired.at(ref) | left, now)
        if awaited := refs & self._dependants.refs:
            self.find_for_dependants(awaited)

    def _reference_changed(self, ref: str, names: set[str], now: float) -> None:
        """Mark the interfaces of a reference; if it keeps changing, log that once, instead of every change."""
        put_off = [name for name in names if not self._occasions.reference_changed(name, ref, now)]
        if put_off and ref not in self._unsteady:
            self._unsteady.intersection_update(self._desired.refs)
            self._unsteady.add(ref)
            _log.warning("%s keeps changing: its interfaces are checked only now and then", ref)
        elif not any(self._occasions.keeps_moving(name, now) for name in names):
            self._unsteady.discard(ref)

    def _collect_due(self, now: float) -> None:
        occasions, backoff = self._occasions, self._backoff
        due = backoff.take_due(now)
        occasions.mark(due.interfaces, _RETRY)
        occasions.mark_put_off(now)
        if due.following:
            followed = self._watches.follow_the_rest(backoff.following, now)
            for ref in followed:
                occasions.mark(self._desired.at(ref), f"{ref} can be followed now")
            if awaited := self._dependants.refs & set(followed):
                self.find_for_dependants(awaited)
        for place, refs, is_ended in self._watches.take_rested(now):
            if is_ended:
                self._dependants.place_is_gone(place)
            for ref in refs:
                occasions.mark(self._desired.at(ref), "its events are no longer ignored")
            self.find_for_dependants(refs & self._dependants.refs)
            if place not in self._watches.refs:
                self._dependants.place_is_gone(place)  # its end was not reported, because its events were ignored
            self._dependants.check(place)
        for ref in self._observer.creatable.freed(now):
            occasions.mark(self._desired.at(ref), "another namespace may be created")
        if due.watching:
            for ref in self._watches.unwatched:
                occasions.mark(self._desired.at(ref), _RETRY)
            if awaited := self._watches.unwatched.keys() & self._dependants.refs:
                self.find_for_dependants(awaited)
        if due.attaching:
            self._dependants.ask_starved()
        self._ask_starved_later(now)
        if due.leftovers:
            occasions.everything(_RETRY)

    def _ask_starved_later(self, now: float) -> None:
        attempts = self._backoff.attaching
        if not self._dependants.any_starved:
            attempts.succeed()
        elif attempts.due is None:
            attempts.fail(now)

    def find_for_dependants(self, refs: set[str]) -> None:
        """Find the links that dependants wait for in these namespaces, whose references may lead elsewhere now."""
        try:
            self._watches.watch_also(refs)
        except VethError as error:
            _log.warning("the links that dependants wait for cannot be watched: %s", error)
            self._occasions.everything(_RETRY)
            self._backoff.looking.fail(time.monotonic())
            return
        if self._watches.unwatched and self._backoff.watching.due is None:
            self._backoff.watching.fail(time.monotonic())
        for ref in refs:
            place = self._watches.led_to(ref)
            if place is None or place != self._watches.known_to_lead_to(ref):
                continue
            for name in self._dependants.names_at(ref):
                link = self._watches.link_named(name, ref)
                if link is None or link.name != name:  # the name may be an alternative name of another link
                    self._dependants.link_is_gone(place, name)
                else:
                    self._dependants.link_is(place, link)
        self._dependants.look_again(refs)

    def recover(self) -> None:
        """Bring the registry and the dependants up to date after an interruption, by which any event may be lost.

        An observation of the whole host, which follows, is about interfaces only.
        """
        watches, dependants = self._watches, self._dependants
        watches.forget_unwatched()
        self._owners.indexes.reset_unmanaged(watches.cache.links(""))
        for place in dependants.places():
            if place not in watches.refs and not watches.is_resting(place):
                dependants.place_is_gone(place)
        self.find_for_dependants(set(dependants.refs))
        for place in dependants.places():
            dependants.check(place)

    # --- links

    def _take(self, changes: LinkChanges) -> None:
        """Mark the interfaces that these changes concern."""
        owners, occasions = self._owners, self._occasions
        record = owners.records.record
        interpreter = Interpreter(self._observer, self._desired, owners.label, owners.home, record, self._follows())
        changed = interpreter.interpret(changes)
        if changed.lost:
            owners.counters.overflows += 1
        if any(watch.inode == owners.home[1] for watch in changes.lost):
            owners.indexes.reset_unmanaged(self._watches.cache.links(""))
        self._pass_on(changed)
        now = time.monotonic()
        for name in changed.drifted:
            # The next attempt is scheduled already: after a failure, which has events of its own (what was half created
            # is deleted), or while another program keeps changing the link.
            if not self._waits(name, now):
                occasions.event(name, GONE if name in changed.gone else CHANGED, now)
        for ref in changed.noisy:
            _log.warning("%s: %s", ref, events_ignored())
        occasions.mark((name for name in changed.lost if not self._waits(name, now)), "events of links were lost")
        occasions.mark(changed.orphaned, "its namespace has ended")
        for name, (place, link) in changed.unchanged.items():
            fresh = owners.statuses.fresh(name, link)
            if fresh is not None and occasions.event(name, "", now):
                owners.statuses.refresh(name, fresh)
                owners.indexes.set_managed(name, place, self._desired.interfaces[name].namespace.ref, fresh)
        for name, addresses in changed.addresses.items():
            self._take_addresses(name, addresses, now)

    def _take_addresses(self, name: str, addresses: list[tuple[Address, bool]] | None, now: float) -> None:
        statuses, interface = self._owners.statuses, self._desired.interfaces[name]
        self._hurry(interface.peer_if_name, addresses, now)
        status = statuses.now.get(name)
        if status is None or status.link is None:
            return
        if addresses is None or len(status.link.addresses) > MANY_VALUES:
            if not self._waits(name, now):
                self._occasions.event(name, "its addresses keep changing", now)
        elif statuses.is_usability_changed(name, addresses, interface.by_identity):
            self._occasions.detection_ended(name)
        elif self._occasions.event(name, "", now):
            statuses.refresh_addresses(name, addresses)

    def _hurry(self, peer: str, addresses: Iterable[tuple[Address, bool]] | None, now: float) -> None:
        """Try a peer with a duplicate address again if that address was removed here."""
        reason = self._backoff.duplicate(peer)
        if reason is None or addresses is None:
            return
        removed = {address.interface.ip for address, added in addresses if not added}
        if reason.code is ReasonCode.DUPLICATE_MAC:
            # The duplicate is the link-local address made of the MAC, and the kernel has removed all that the peer had.
            is_lost = any(address.is_link_local for address in removed)
        else:
            is_lost = not removed.isdisjoint(self._owners.statuses.duplicates(peer))
        if is_lost:
            self._backoff.hurry(peer)
            self._occasions.event(peer, "the other end has lost an address", now)

    def _waits(self, name: str, now: float) -> bool:
        """Return whether another attempt for an interface is scheduled."""
        status = self._owners.statuses.now.get(name)
        return status is not None and status.state is State.RETRYING and self._backoff.waits(name, now)

    def _follows(self) -> Callable[[NetnsId, int], bool]:
        """Return which foreign links to report: those in the home namespace, and those that dependants wait for."""
        home, refs_at, dependants = self._owners.home, self._watches.refs_at, self._dependants

        def follows(place: NetnsId, index: int) -> bool:
            return place == home or dependants.knows(place, index) or not dependants.refs.isdisjoint(refs_at(place))

        return follows

    def _pass_on(self, changed: InterfaceChanges) -> None:
        """Report changed links to the registry and to dependants."""
        indexes, dependants = self._owners.indexes, self._dependants
        for (place, index), link in changed.links.items():
            if (place, index) in changed.renewed:
                dependants.link_is_gone(place, index)
            if place == self._owners.home:
                if link is None:
                    indexes.remove_unmanaged(index)
                else:
                    indexes.set_unmanaged(link)
            if link is None:
                dependants.link_is_gone(place, index)
            else:
                dependants.link_is(place, link)
        for place in changed.doubted:
            dependants.check(place)
        for place in changed.ended:
            dependants.place_is_gone(place)
        # A new namespace with that name may have existed before the end of the former one was reported.
        if awaited := changed.left & dependants.refs:
            self.find_for_dependants(awaited)
