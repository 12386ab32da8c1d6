"""Follow, by events, references to namespaces, and the links in the namespaces that they lead to.

A namespace is watched by the cache under each reference that leads to it. The events of a namespace that sends too many
are ignored for some seconds.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Container, Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

from vethlib import ns
from vethlib._primitives import time
from vethlib.agent.attempts import Attempts
from vethlib.agent.planning.desired import Desired
from vethlib.agent.planning.observed import NetnsId, Observed, is_same_netns
from vethlib.agent.reasons import Reason, ReasonCode, events_ignored, events_missed, moves_missed
from vethlib.errors import NetlinkError, NetnsNotFound, VethError, is_exhaustion
from vethlib.follow import Follower
from vethlib.ifindex import IfIndexCache
from vethlib.ifindex.dumps import FirstLook
from vethlib.links import Link
from vethlib.session import Session

__all__ = ["Rested", "Watches"]

_log = logging.getLogger("vethlib.agent")

REST: Final = 5.0
"""Seconds for which the events of a namespace are ignored after it was too noisy, doubled each time."""

LONGEST_REST: Final = 60.0


@dataclass(slots=True)
class _Rest:
    """How long the events of a namespace that was too noisy are ignored.

    `refs` lead to it, and are to be looked at when that `is_over`, which is noted once. `cookie` distinguishes it from
    later namespaces with the same identity; 0 if it is unknown. `until` is 0.0 once there is such a namespace.
    """

    refs: set[str]
    cookie: int
    until: float
    length: float
    is_over: bool = False

    def is_forgotten(self, now: float) -> bool:
        return now > self.until + 4 * self.length


class Rested(NamedTuple):
    """A namespace whose events are no longer ignored; if it `is_ended`, another one has its identity.

    `refs` led to it, or lead to the other one.
    """

    place: NetnsId
    refs: set[str]
    is_ended: bool


class Watches:
    """The references that are followed, and the namespaces whose links are watched.

    `refs` has the references under which each namespace is watched. `unwatched` has the reason for each reference whose
    namespace could not be watched, which has to be tried again. `left` are references that an interface had before,
    until :meth:`release`.
    """

    def __init__(self, session: Session) -> None:
        self.follower = Follower(session.resolver)
        self.refs: dict[NetnsId, set[str]] = {}
        self.unwatched: dict[str, str] = {}
        self.left: set[str] = set()
        self._session = session
        self._unfollowed: dict[str, str] = {}  # could not be followed for now, each with the reason
        self._led_to: dict[str, NetnsId] = {}  # when it was watched, by reference
        self._rests: dict[NetnsId, _Rest] = {}
        try:
            self.cache = IfIndexCache(session, addresses=True, coalesce=True)
            try:
                if ns.can_enter():
                    self.cache.prepare()  # otherwise it watches the home namespace alone
                self._watch([""])
            except BaseException:
                self.cache.close()
                raise
        except BaseException:
            self.follower.close()
            raise

    def close(self) -> None:
        """Stop watching and following."""
        self.cache.close()
        self.follower.close()

    def filenos(self) -> tuple[int, ...]:
        """Return the descriptors that are readable when there are events."""
        return self.follower.fileno(), self.follower.moves_fileno(), self.cache.fileno()

    # --- references

    def follow(self, ref: str, attempts: Attempts) -> None:
        """Follow a reference, too; later, by `attempts`, if no descriptor is available for it now."""
        try:
            self.follower.follow([ref])
        except NetlinkError as error:
            if not self._unfollowed:
                _log.warning("%s is not followed for now: %s", ref, error)
                attempts.fail(time.monotonic())
            self._unfollowed[ref] = str(error)

    def follow_the_rest(self, attempts: Attempts, now: float) -> list[str]:
        """Follow what could not be followed before. Return the references that are followed now: look at them."""
        followed: list[str] = []
        for ref in list(self._unfollowed):
            try:
                self.follower.follow([ref])
            except NetlinkError as error:
                self._unfollowed[ref] = str(error)
                if is_exhaustion(error):
                    break  # there is no descriptor for the others either
            else:
                del self._unfollowed[ref]
                followed.append(ref)
        if self._unfollowed:
            attempts.fail(now)
        else:
            attempts.succeed()
        return followed

    def is_gone(self, ref: str) -> bool:
        """Return whether the process that a reference meant has ended.

        If so, the reference now means a new process with that number. Call this when an interface with the reference is
        configured again.
        """
        if not self.follower.gone(ref):
            return False
        self.follower.unfollow([ref])
        return True

    # --- namespaces

    def watch(self, desired: Desired, names: Iterable[str], observed: Observed) -> bool:
        """Watch the namespaces of these interfaces; return whether one of them was not watched before.

        Events between the observation and the watch are lost, so that another observation has to follow.
        """
        refs: set[str] = set()
        for ref in {desired.interfaces[name].namespace.ref for name in names}:
            place = observed.netns[ref].place
            if place is not None and self._led_to.get(ref) != place and not self._waits(ref, place):
                refs.add(ref)
        return bool(refs) and self._watch(refs)

    def watch_more(self, refs: Iterable[str]) -> dict[str, FirstLook]:
        """Watch those of these namespaces that are not watched yet, and return what they have, as far as it was read.

        Every later change there is an event.
        """
        new = [ref for ref in refs if ref not in self._led_to]
        if self._rests:
            new = [ref for ref in new if (place := self.leads_to(ref)) is None or not self._waits(ref, place)]
        looks: dict[str, FirstLook] = {}
        self._watch(new, looks)
        return looks

    def watch_also(self, refs: Iterable[str]) -> None:
        """Watch these namespaces, too, as far as they exist."""
        new: list[str] = []
        for ref in refs:
            place = self._place_or_note(ref)
            if place is None:
                continue
            if place == self._led_to.get(ref):
                self.unwatched.pop(ref, None)
            elif not self._waits(ref, place):
                new.append(ref)
        self._watch(new)

    def _watch(self, refs: Iterable[str], looks: dict[str, FirstLook] | None = None) -> bool:
        refs = list(refs)
        try:
            if looks is None:
                self.cache.watch_all(refs)
            else:
                looks |= self.cache.watch_and_read(refs)
        except VethError:
            # One has ended since the observation, or cannot be read, or there are too few descriptors for all of them.
            # The others have to be watched nevertheless.
            refs = [ref for ref in refs if self._watch_one(ref)]
        places = {}
        for ref in refs:
            place = self.cache.identity(ref)
            if place is None:
                continue  # it has ended since then
            places[ref] = place  # if it leads elsewhere by now, that is an event
            self.unwatched.pop(ref, None)
        for ref, place in places.items():
            for rest in self._rests.values():
                rest.refs.discard(ref)  # it led to another namespace then
            self._forget(ref)
            self._led_to[ref] = place
            self.refs.setdefault(place, set()).add(ref)
        return bool(places)

    def _place_or_note(self, ref: str) -> tuple[int, int] | None:
        """Return where a reference leads; None if it leads nowhere, or if descriptors run out, which is noted."""
        try:
            return self._session.identity(ref)
        except VethError as error:
            if is_exhaustion(error):
                self.unwatched[ref] = str(error)
            return None

    def _watch_one(self, ref: str) -> bool:
        try:
            self.cache.watch(ref)
        except VethError as error:
            if not ref:
                raise
            if not isinstance(error, NetnsNotFound):
                self.unwatched[ref] = str(error)
            return False
        return True

    def release(self, desired: Desired, refs: Iterable[str], kept: Container[str]) -> list[NetnsId]:
        """Stop following these references, and watching their namespaces, unless an interface is configured there.

        References that are `kept` are still needed, and so is the home namespace. Return the namespaces that are no
        longer watched.
        """
        refs = list(refs)
        self.follower.unfollow(ref for ref in refs if ref not in kept and not desired.at(ref))
        released: list[NetnsId] = []
        for ref in refs:
            if ref not in kept and not desired.at(ref):
                self.unwatched.pop(ref, None)
                self._unfollowed.pop(ref, None)
            place = self._led_to.get(ref)
            if place is None or any(not other or other in kept or desired.at(other) for other in self.refs[place]):
                continue
            self.forget(place)
            released.append(place)
            try:
                self.cache.unwatch(ref)
            except VethError:
                continue  # it has ended
        self.left.difference_update(refs)
        return released

    def forget(self, place: NetnsId) -> None:
        """Forget the references to a namespace that is no longer watched."""
        for ref in self.refs.get(place, set()).copy():
            self._forget(ref)

    def forget_ended(self, place: tuple[int, int]) -> None:
        """Forget the references to a namespace that has ended, except those by which its successor is watched."""
        for ref in self.refs.get(place, set()).copy():
            if not self.cache.is_at(ref, place):
                self._forget(ref)

    def forget_unwatched(self) -> None:
        """Forget the references by which the cache watches no namespace now, or another one, without an event of it."""
        for ref, place in list(self._led_to.items()):
            if self.cache.identity(ref) != place:
                self._forget(ref)

    def _forget(self, ref: str) -> None:
        place = self._led_to.pop(ref, None)
        if place is not None:
            self.refs[place].discard(ref)
            if not self.refs[place]:
                del self.refs[place]

    def led_to(self, ref: str) -> NetnsId | None:
        """Return where a reference led when its namespace was watched; None if it is not watched."""
        return self._led_to.get(ref)

    def refs_at(self, place: NetnsId) -> Collection[str]:
        """Return the references under which a namespace is watched."""
        return self.refs.get(place, ())

    def leads_to(self, ref: str) -> NetnsId | None:
        """Return where a reference leads now; None if it is unknown."""
        try:
            return self._session.identity(ref)
        except VethError:
            return None

    def known_to_lead_to(self, ref: str) -> NetnsId | None:
        """Return where a reference leads now; if descriptors or memory run out, where it led when it was watched."""
        try:
            return self._session.identity(ref)
        except VethError as error:
            return self._led_to.get(ref) if is_exhaustion(error) else None

    def is_replaced(self, place: NetnsId, cookie: int, ref: str) -> bool:
        """Return whether the namespace with this identity and cookie has ended: `ref` leads to its successor.

        False if that is unknown.
        """
        try:
            return not is_same_netns(place, cookie, place, self._session.cookie(ref))
        except VethError:
            return False

    def all_refs(self) -> Iterable[str]:
        """Return every reference under which a namespace is watched."""
        return self._led_to.keys()

    # --- namespaces that send too many events

    def rest(self, place: NetnsId, cookie: int) -> None:
        """Ignore the events of a namespace for a while. Its cookie is 0 if it is unknown."""
        now = time.monotonic()
        self._rests = {other: rest for other, rest in self._rests.items() if not rest.is_forgotten(now)}
        before = self._rests.get(place)
        is_same = before is not None and is_same_netns(place, before.cookie, place, cookie)
        length = min(LONGEST_REST, 2 * before.length) if before is not None and is_same else REST
        self._rests[place] = _Rest(set(self.refs.get(place, ())), cookie, now + length, length)

    def is_resting(self, place: NetnsId) -> bool:
        """Return whether the events of a namespace are ignored."""
        rest = self._rests.get(place)
        return rest is not None and not rest.is_over

    def _waits(self, ref: str, place: NetnsId) -> bool:
        """Return whether the events of a namespace are ignored; if so, :meth:`take_rested` returns `ref` later."""
        rest = self._rests.get(place)
        if rest is None or rest.is_over:
            return False
        if self.is_replaced(place, rest.cookie, ref):
            rest.until = 0.0  # once what was known of the former namespace is forgotten, the new one is watched
        rest.refs.add(ref)
        return True

    def rest_ends(self) -> float | None:
        """Return when the events of some namespace are no longer ignored; None if none are."""
        return min((rest.until for rest in self._rests.values() if not rest.is_over), default=None)

    def take_rested(self, now: float) -> list[Rested]:
        """Return the namespaces whose events are no longer ignored, once: they have to be watched."""
        rested: list[Rested] = []
        for place, rest in self._rests.items():
            if not rest.is_over and rest.until <= now:
                rest.is_over = True
                leading = [ref for ref in rest.refs if self.leads_to(ref) == place]
                is_ended = any(self.is_replaced(place, rest.cookie, ref) for ref in leading)
                rested.append(Rested(place, rest.refs, is_ended))
        return rested

    def any_rests(self) -> bool:
        """Return whether the events of some namespace are, or were lately, ignored."""
        return bool(self._rests)

    @property
    def is_impaired(self) -> bool:
        """Whether something that should be watched or followed is not, or still has to be given up."""
        return bool(self._rests or self.unwatched or self._unfollowed or self.left)

    def rests_at(self, ref: str) -> bool:
        """Return whether the events of the namespace that this reference led to are ignored."""
        return any(ref in rest.refs and rest.until and not rest.is_over for rest in self._rests.values())

    def remark(self, ref: str) -> Reason | None:
        """Return what an operator should know about where a reference leads; None for nothing."""
        if self._rests and self.rests_at(ref):
            return events_ignored()
        if reason := self.unwatched.get(ref):
            return events_missed(reason)
        if reason := self._unfollowed.get(ref) or self.follower.unnoticed(ref):
            return moves_missed(reason)
        remark = self.follower.remark(ref)
        return Reason(ReasonCode.RESOLVER_REMARK, remark) if remark else None

    # --- links, by events

    def link(self, place: NetnsId, index: int) -> Link | None:
        """Return a link of a watched namespace, as of the last event; None if there is no such link."""
        ref = next(iter(self.refs.get(place, ())), None)
        if ref is None:
            return None
        try:
            return self.cache.link(self.cache.name(index, ref), ref)
        except VethError:
            return None

    def link_named(self, name: str, ref: str) -> Link | None:
        """Return the link of that name in a watched namespace; None if there is no such link."""
        try:
            return self.cache.link(name, ref)
        except VethError:
            return None
