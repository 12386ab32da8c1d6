"""HostObserver: what an agent knows of the host, and how it finds out.

An observation asks the kernel about some interfaces, by their names and by the last known ifindexes of their links, or
about the whole host. Between observations, events mark interfaces to be looked at again; only what an observation finds
counts.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from typing import TypeAlias

from vethlib.agent.config.model import Interface
from vethlib.agent.host.creatable import CreatableNetns
from vethlib.agent.host.executed import CreatedPair, Execution
from vethlib.agent.host.given import attributed
from vethlib.agent.host.observation import find_recorded, fingerprints, look_at, observe
from vethlib.agent.host.recordfile import RecordFile
from vethlib.agent.host.recording import ends_missing
from vethlib.agent.planning.compare import link_differences
from vethlib.agent.planning.desired import Desired
from vethlib.agent.planning.later.portions import SURPLUS
from vethlib.agent.planning.observed import LinkId, NetnsId, Observed, SeenLink, SeenNetns, is_same_netns
from vethlib.agent.planning.owned import OwnedPairs
from vethlib.agent.planning.recorded import RecordedEnd
from vethlib.ifindex.dumps import FirstLook
from vethlib.links import Link
from vethlib.session import Session
from vethlib.session.read.reading import address_messages, addresses_of, to_link
from vethlib.session.session import open_namespaces

from .watches import Watches

__all__ = ["HostObserver"]

Ends: TypeAlias = "dict[LinkId, str]"
"""The ends that were built for one interface, each with a reference by which its namespace can be entered."""


class HostObserver:
    """Observes the host for an agent, and remembers the ends that exist.

    `known` has the existing ends of every interface, configured or not, as of the last observation. `missing` are the
    recorded ends that the last observation did not find. `creatable` decides which missing namespaces a pair may
    create.
    """

    def __init__(
        self,
        session: Session,
        watches: Watches,
        label: str,
        records: RecordFile,
        creatable: CreatableNetns,
    ) -> None:
        self.watches = watches
        self.creatable = creatable
        self.known: dict[str, Ends] = {}
        self.missing: set[LinkId] = set()
        self._session = session
        self._label = label
        self._records = records
        self._built_for: dict[NetnsId, dict[int, str]] = {}  # namespace → ifindex → interface
        self._at_rest: tuple[object, bool, object] | None = None
        self._added: dict[str, NetnsId] = {}  # reference → the namespace that was created there
        self._reached_by: dict[str, set[str]] = {}  # reference → interfaces with a known end that is reached by it

    # --- looking

    def look(self, desired: Desired, names: Iterable[str]) -> Observed:
        """Observe all links that may belong to these interfaces. Raises VethError if the host cannot be observed."""
        self._records.refresh()
        refs: set[str] = set()
        links: dict[tuple[str, str | int], None] = {}
        recorded: dict[RecordedEnd, str] = {}
        interfaces: list[Interface] = []
        for name in names:
            if (interface := desired.interfaces.get(name)) is not None:
                interfaces.append(interface)
                ref = interface.namespace.ref
                refs.add(ref)
                links[ref, interface.kernel_name] = None
                for altname in interface.altnames:  # another link may have it
                    links[ref, altname] = None
                if interface.master:
                    links[ref, interface.master] = None
            for (_, index), ref in self.known.get(name, {}).items():
                refs.add(ref)
                links[ref, index] = None
            self._add_recorded(name, recorded)
        for end, ref in recorded.items():
            refs.add(ref)
            links[ref, end.index] = None
        observed = look_at(
            self._session,
            refs,
            links,
            gone=self._gone(refs),
            create_missing=self.creatable.create_missing,
            interfaces=interfaces,
            records=self._records,
            surplus=SURPLUS,
        )
        self.missing = {
            end.id
            for end, ref in recorded.items()
            if not observed.has(end.id, end.cookie) and not _is_unknown(observed, ref)
        }
        return self.creatable.admit(attributed(observed, self._records.record))

    def look_again(self, links: Iterable[SeenLink]) -> dict[LinkId, SeenLink]:
        """Observe links again that were seen before, and nothing else."""
        at = [(seen.ref, seen.link.index) for seen in links]
        observed = look_at(self._session, dict(at), at, gone={}, create_missing=False, surplus=SURPLUS)
        return attributed(observed, self._records.record).by_index

    def look_at_created(self, created: Iterable[CreatedPair], looks: Mapping[str, FirstLook]) -> Observed:
        """Return the ends of pairs that were created, in namespaces that are watched by now.

        `looks` has what each of these namespaces had when it was first watched; every later change is an event. The
        links in the home namespace are known by events, and only their addresses are read. Other ends are left out.

        Raises VethError if the home namespace cannot be read.
        """
        netns: dict[str, SeenNetns] = {}
        links: dict[LinkId, SeenLink] = {}
        cookies: dict[NetnsId, int] = {}
        with open_namespaces(self._session) as namespaces:
            for create, (_, pair, *births) in created:
                ends = [interface.namespace.ref for interface in (create.a, create.b)]
                ids = [(birth[0], link.index) for link, birth in zip(pair, births, strict=True)]
                for ref, link, (place, cookie), peer in zip(ends, pair, births, reversed(ids), strict=True):
                    look = looks.get(ref)
                    record = self.watches.cache.record(ref, link.index)
                    if record is None or self.watches.led_to(ref) != place:
                        continue
                    if not ref:
                        messages = address_messages(namespaces, namespaces.home, link.index)
                    elif look is not None and is_same_netns(place, cookie, place, look.cookie):
                        messages = look.addresses_of(link.index)
                    else:
                        continue
                    addresses = tuple(addresses_of(messages))
                    seen = SeenLink(place, ref, to_link(record, ref, addresses, cookie=cookie), addresses, peer, cookie)
                    links[seen.id] = seen
                    cookies[place] = cookie
                    netns[ref] = SeenNetns(ref, place)
        observed = Observed(netns, list(links.values()), cookies)
        return self.creatable.admit(attributed(observed, self._records.record))

    def look_everywhere(self, desired: Desired) -> Observed:
        """Observe the home namespace, every named namespace, and every namespace of an interface or a recorded pair."""
        refs, recorded = self._everywhere(desired)
        observed = observe(
            self._session,
            refs,
            gone=self._gone(refs),
            create_missing=self.creatable.create_missing,
            may_be_closed=True,
            fingerprints=True,
            interfaces=desired.interfaces.values(),
            records=self._records,
            surplus=SURPLUS,
        )
        self.missing = ends_missing(self._records.record, observed, recorded)
        self.creatable.start(desired.refs, observed)
        return self.creatable.admit(attributed(observed, self._records.record))

    def _everywhere(self, desired: Desired) -> tuple[set[str], dict[NetnsId, str]]:
        """Return all references to look at, and those of the recorded pairs by their namespaces."""
        self._records.refresh()
        recorded = find_recorded(self._records)
        return {*desired.refs, *self.watches.all_refs(), *self._reached_by, *recorded.values()}, recorded

    # --- whether an observation of everything can find anything new

    def note_at_rest(self, desired: Desired, observed: Observed) -> None:
        """Note that everything was observed, and that nothing is left to do or to try again.

        This holds until :meth:`note_work`.
        """
        places = getattr(observed.fingerprints, "places", None)
        # A fingerprint does not cover the fields that few interfaces have.
        if places is None or self.watches.is_impaired or any(each.further for each in desired.interfaces.values()):
            return
        # A namespace that could not be inspected, may be created, or must not be used has to be judged again.
        if all(
            isinstance(netns.place, tuple)
            or not (netns.unknown or netns.creatable or isinstance(places.get(ref), tuple))
            for ref, netns in observed.netns.items()
        ):
            self._at_rest = observed.fingerprints, desired.complete, self._records.version

    def note_work(self) -> None:
        """Note that an observation may find something new, because something has happened or was done."""
        self._at_rest = None

    def is_at_rest(self, desired: Desired) -> bool:
        """Observe everything, and return whether it is exactly as it was when nothing was left to do."""
        if self._at_rest is None or self.watches.is_impaired:
            return False
        refs, _recorded = self._everywhere(desired)
        taken = fingerprints(self._session, refs, self._gone(refs))
        return self._at_rest == (taken, desired.complete, self._records.version)

    def _gone(self, refs: Iterable[str]) -> dict[str, str]:
        gone = self.watches.follower.gone
        return {ref: reason for ref in refs if ref and (reason := gone(ref))}

    def _add_recorded(self, name: str, recorded: dict[RecordedEnd, str]) -> None:
        """Add the ends of the pairs that are recorded for this interface, if their namespaces can be reached."""
        for pair in self._records.record.of(name):
            for end in pair.ends:
                if end not in recorded and (ref := self._ref_of(end)) is not None:
                    recorded[end] = ref

    def _ref_of(self, end: RecordedEnd) -> str | None:
        if end.place == self._records.home:
            return ""
        known = self.known.get(end.name, {}).get(end.id)
        if known is not None:
            return known
        watched = next(iter(self.watches.refs.get(end.place, ())), None)
        if watched is None and self.watches.leads_to(end.ref) == end.place:
            return end.ref
        return watched

    # --- what is known

    def learn(self, owned: OwnedPairs, observed: Observed, names: Iterable[str] | None = None) -> None:
        """Remember the ends that were found by observing these interfaces; None for the whole host.

        Ends in a namespace that may exist, but could not be inspected, are still believed to exist.
        """
        if names is None:
            names = {*self.known, *owned.names()}
        for name in names:
            for end, ref in self._pop(name).items():
                if _is_unknown(observed, ref):
                    self.add(name, end, ref)
                else:
                    self._remove(end)
            for seen in owned.built_for(name):
                self.add(name, seen.id, seen.ref)

    def add(self, name: str, end: LinkId, ref: str) -> None:
        """Remember that an end was built for an interface, and a reference that leads to its namespace."""
        place, index = end
        if place == self._records.home:
            ref = ""  # another one may lead elsewhere later, and no record may have the end
        self.known.setdefault(name, {})[end] = ref
        self._reached_by.setdefault(ref, set()).add(name)
        self._built_for.setdefault(place, {})[index] = name

    def note_execution(self, execution: Execution) -> None:
        """Remember what was just created, so that events of it are understood."""
        if execution.added:
            self._added |= execution.added
            self.creatable.note(execution.done)
        for create, (_, links, *births) in execution.made:
            for interface, link, (place, _cookie) in zip((create.a, create.b), links, births, strict=True):
                self.add(interface.name, (place, link.index), interface.namespace.ref)

    def has_created(self, ref: str) -> bool:
        """Return whether a reference still leads to the namespace created there, which need not be observed."""
        place = self._added.get(ref)
        if place is None:
            return False
        if self.watches.leads_to(ref) == place:
            return True
        del self._added[ref]
        return False

    def _pop(self, name: str) -> Ends:
        """Forget all ends of an interface, and return them."""
        ends = self.known.pop(name, {})
        for ref in ends.values():
            names = self._reached_by.get(ref, set())
            names.discard(name)
            if not names:
                self._reached_by.pop(ref, None)
        return ends

    def _remove(self, end: LinkId) -> None:
        place, index = end
        built_for = self._built_for.get(place, {})
        built_for.pop(index, None)
        if not built_for:
            self._built_for.pop(place, None)

    def built_for(self, place: NetnsId, index: int) -> str | None:
        """Return the interface that a known end was built for; None if it is not known."""
        return self._built_for.get(place, {}).get(index)

    def interfaces_at(self, desired: Desired, place: NetnsId) -> set[str]:
        """Return the interfaces that have an end in a namespace, or are configured there."""
        names = set(self._built_for.get(place, {}).values())
        for ref in self.watches.refs.get(place, ()):
            names |= desired.at(ref)
        return names

    def known_at(self, ref: str) -> set[str]:
        """Return the interfaces with a known end that is reached by this reference."""
        return self._reached_by.get(ref, set())

    def hidden(self, name: str, observed: Observed) -> str:
        """Return why a known end of this interface could not be seen; "" if there is no such end."""
        refs = self.known.get(name, {}).values()
        return next((observed.netns[ref].reason for ref in refs if _is_unknown(observed, ref)), "")

    # --- comparing with events

    def stands(self, interface: Interface, link: Link) -> bool:
        """Return whether the link of an interface still matches it, as far as events show."""
        for place, index in self.known.get(interface.name, {}):
            if index == link.index:
                present = self.watches.link(place, index)
                return present is not None and not self.differences(interface, place, present)
        return False

    def differences(self, interface: Interface, place: NetnsId, link: Link) -> dict[str, tuple[object, object]]:
        """Return the drift of a link, apart from its addresses: field → (observed, desired)."""
        return link_differences(interface, link, self._label, marked=place == self._records.home)

    def release(self, desired: Desired, kept: Container[str]) -> list[NetnsId]:
        """Stop following references that no interface needs now. Return the namespaces that are no longer watched."""
        left = {ref for ref in self.watches.left if self.known_at(ref) <= desired.at(ref)}
        for ref in left:
            if ref not in kept and not desired.at(ref):
                self._added.pop(ref, None)  # no event reports its end any more
        return self.watches.release(desired, left, kept)


def _is_unknown(observed: Observed, ref: str) -> bool:
    netns = observed.netns.get(ref)
    return netns is not None and netns.unknown
