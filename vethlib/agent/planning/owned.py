"""The owned pairs of one agent among the observed links, decided by data that no tenant of a namespace can write.

A pair is owned by the first of these rules that applies:

1. An end in the home namespace: its marks, and those of the other end if it is in the home namespace, too. Another
   alias on one of them means that another program has taken the pair over. Without an alias yet, an intent decides.
2. The record: an end is where it was recorded, and so is its peer, or its MAC or its marks agree.
3. An intent: both ends are in its namespaces, each has its name or marks, and at least one has marks. Or both have
   marks, and at most one was moved or not observed; or both have its aliases, wherever they are.
4. Marks and MACs of both ends, as recorded, if both have been moved; or only the MACs, if the kernel has chosen them
   and nothing is where the pair was.
5. Marks on both ends of a pair, if exactly that pair is configured in exactly those namespaces. If there was no record
   before, it is enough that an interface is configured in one of those namespaces, and that no agent with another home
   namespace has built the pair, as far as known. If no record is kept at all, the marks alone are enough.

So the marks of an end in another namespace do not decide ownership, unless a program that can write them controls the
whole pair anyway.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property

from vethlib.agent.config.mark import Mark, group_of, read_alias
from vethlib.agent.config.model import Interface

from .observed import LinkId, NetnsId, Observed, SeenLink
from .recorded import PairRecord, RecordedEnd, RecordedPair

__all__ = ["OwnedPairs"]

_Marks = dict[LinkId, "Mark | None"]
"""The valid mark of each end of an owned pair; None if it is unknown which interface it was built for."""


class OwnedPairs:
    """An index of the pairs that the agent with this `label` owns.

    `record` has the pairs that it has built, as far as known; without a record, both ends need marks. `desired` are the
    configured interfaces.

    `pairs` are the owned pairs whose ends were both observed. `unrecorded` has an end of each pair that has the marks
    of this label but is not owned, because there is no record that it was built here. `half_created` has the names of
    the two interfaces of each intended pair of which only one end was found.
    """

    def __init__(
        self,
        observed: Observed,
        label: str,
        record: PairRecord | None = None,
        desired: Mapping[str, Interface] | None = None,
    ) -> None:
        self._label = label
        self._observed = observed
        self._home = observed.home
        self._record = PairRecord() if record is None else record
        self._desired = desired or {}
        self._peers = _peers(observed)
        self._written = _marks(observed, label)  # this also checks the label
        self._by_marks: set[LinkId] = set()  # ends whose own marks are valid
        self._marks: _Marks = {}
        self.pairs: list[tuple[SeenLink, SeenLink]] = []
        self.unrecorded: list[SeenLink] = []
        self.half_created: set[frozenset[str]] = set()
        self._decide_all()
        self._ends_of: dict[tuple[NetnsId, str], list[SeenLink]] = {}
        self._named: dict[str, list[SeenLink]] = {}
        for end, mark in self._marks.items():
            if mark is not None:
                seen = observed.by_index[end]
                self._ends_of.setdefault((seen.place, mark.name), []).append(seen)
                self._named.setdefault(mark.name, []).append(seen)

    # --- ownership

    def _decide_all(self) -> None:
        by_index, peers, home = self._observed.by_index, self._peers, self._home
        decided: set[LinkId] = set()
        for end, seen in by_index.items():
            if seen.link.kind != "veth" or end in decided:
                continue
            peer = peers.get(end)
            other = None if peer is None else by_index.get(peer)
            if other is not None and peer is not None:
                decided.add(peer)
            if end[0] == home:
                marks = self._by_home(end, None if other is None else peer)
            elif other is not None and peer is not None and peer[0] == home:
                marks = self._by_home(peer, end)
            else:
                ends = [seen] if other is None else [seen, other]
                marks = (
                    self._by_record(ends) or self._by_intent(ends) or self._by_macs(ends) or self._by_both_marks(ends)
                )
            if marks:
                self._marks.update(marks)
                if other is not None:
                    self.pairs.append((seen, other))

    def _by_home(self, end: LinkId, peer: LinkId | None) -> _Marks:
        """Apply rule 1; `end` is in the home namespace, and `peer` is the other end, if it was observed."""
        written = self._written
        if end not in written:
            return {}
        if peer is None:
            self._by_marks.add(end)
            return {end: written[end]}
        if peer[0] == self._home:
            if peer not in written:
                return {}
            self._by_marks.update((end, peer))
            return {end: written[end], peer: written[peer]}
        self._by_marks.add(end)
        if written[end] is None and (marks := self._by_intent([self._observed.by_index[each] for each in (end, peer)])):
            return marks
        mark = self._mark_of_other(end, peer)
        if mark is None:
            self._by_marks.add(peer)  # its alias still has to be set, once: then it is recorded
        return {end: written[end], peer: mark}

    def _mark_of_other(self, home: LinkId, other: LinkId) -> Mark | None:
        """Return the recorded mark of the other end of a pair with an end in the home namespace.

        Without a record, return its own mark, if it matches the configuration.
        """
        recorded, mark, written = self._record.at(home), self._written[home], self._written.get(other)
        if recorded is not None and not self._is_stale(recorded[0]):
            mine, theirs = recorded
            if mark is None or mark.name == mine.name:
                honest = written is not None and written.name == theirs.name and written.mac == theirs.given_mac
                return written if honest else theirs.mark(self._label)
        interface = None if written is None else self._desired.get(written.name)
        fits = interface is not None and mark is not None and interface.peer_if_name == mark.name
        return written if fits else None

    def _by_record(self, ends: list[SeenLink]) -> _Marks:
        """Apply rule 2."""
        for end in ends:
            recorded = self._record.at(end.id)
            if recorded is None or self._is_stale(recorded[0]):
                continue
            mine, theirs = recorded
            other = next((each for each in ends if each is not end), None)
            both = other is not None and other.id == theirs.id and not self._is_stale(theirs)
            if both or (mine.mac and end.link.mac == mine.mac) or self._has_mark_of(end, mine):
                marks: _Marks = {end.id: mine.mark(self._label)}
                if other is not None:
                    marks[other.id] = theirs.mark(self._label)
                return marks
        return {}

    def _is_stale(self, end: RecordedEnd) -> bool:
        """Return whether its namespace was replaced by another one with the same inode number."""
        return self._observed.is_replaced(end.place, end.cookie)

    def _has_mark_of(self, end: SeenLink, recorded: RecordedEnd) -> bool:
        mark = self._written.get(end.id)
        return mark is not None and recorded.name in (mark.name, "")

    def _by_intent(self, ends: list[SeenLink]) -> _Marks:
        """Apply rule 3."""
        if not any(end.id in self._written for end in ends):
            return {}
        for intent in self._intents_for(ends):
            if len(ends) == 1:
                if marks := self._half_intended(ends[0], intent):
                    return marks
                continue
            for a, b in (ends, ends[::-1]):
                if self._is_intended(a, b, intent):
                    self._by_marks.update((a.id, b.id))
                    return {a.id: intent.a.mark(self._label), b.id: intent.b.mark(self._label)}
        return {}

    def _half_intended(self, end: SeenLink, intent: RecordedPair) -> _Marks:
        """Return the mark of an end whose other end was not observed: it was moved while the pair was being created."""
        if self._is_claimed(end):
            return {}
        for mine in intent.ends:
            if self._fits(end, mine) and self._is_marked_for(end, mine):
                self._by_marks.add(end.id)
                self.half_created.add(intent.names)
                return {end.id: mine.mark(self._label)}
        return {}

    def _intents_for(self, ends: list[SeenLink]) -> Iterator[RecordedPair]:
        names = []
        for end in ends:
            yield from self._record.intents_at(end.place, end.link.name)
            if (mark := self._written.get(end.id)) is not None:
                yield from self._record.intents_at(end.place, mark.name)
                names.append(mark.name)
        if len(names) == 2 and (intent := self._record.intent_for(frozenset(names))) is not None:
            yield intent

    def _is_intended(self, a: SeenLink, b: SeenLink, intent: RecordedPair) -> bool:
        fit = self._fits(a, intent.a), self._fits(b, intent.b)
        if all(fit):
            return True
        if not (self._is_marked_for(a, intent.a) and self._is_marked_for(b, intent.b)) or self._is_claimed(a, b):
            return False
        # Moved by other programs between creation and recording. An end without its alias has existed for less than a
        # millisecond, and at most one of the two was moved in that time.
        return any(fit) or (self._has_mark_of(a, intent.a) and self._has_mark_of(b, intent.b))

    def _is_claimed(self, *ends: SeenLink) -> bool:
        """Return whether an agent of the same label with another home namespace has built the pair, as far as known."""
        return any(other.claims(end) for other in self._record.foreign or () for end in ends)

    def _fits(self, end: SeenLink, intended: RecordedEnd) -> bool:
        if end.place != intended.place or self._is_stale(intended):
            return False
        if end.id in self._written:
            mark = self._written[end.id]
            return mark is None or mark.name == intended.name
        return end.link.name == intended.link

    def _is_marked_for(self, end: SeenLink, intended: RecordedEnd) -> bool:
        if end.id not in self._written:
            return False
        mark = self._written[end.id]
        return end.link.name == intended.link if mark is None else mark.name == intended.name

    def _by_macs(self, ends: list[SeenLink]) -> _Marks:
        """Apply rule 4: both ends were moved, and their MACs are the same."""
        if len(ends) != 2:
            return {}
        a, b = ends
        mark, other = self._written.get(a.id), self._written.get(b.id)
        if mark is not None and other is not None:
            marked = {(mark.name, a.link.mac), (other.name, b.link.mac)}
            for pair in self._record.of(mark.name):
                if {(end.name, end.mac) for end in pair.ends} == marked and not any(map(self._is_stale, pair.ends)):
                    return {a.id: mark, b.id: other}
        known = self._record.with_macs(a.link.mac, b.link.mac)
        if known is None or any(map(self._is_stale, known.ends)):
            return {}
        if not {a.id, b.id}.intersection(known.key) and self._may_be_in_place(known):
            return {}  # somebody has copied its MACs
        mine, theirs = known.ends if known.a.mac == a.link.mac else known.ends[::-1]
        return {a.id: mine.mark(self._label), b.id: theirs.mark(self._label)}

    def _may_be_in_place(self, pair: RecordedPair) -> bool:
        """Return whether an end is where it was recorded, with the same MAC or the same peer, or cannot be seen."""
        for end, other in (pair.ends, pair.ends[::-1]):
            netns = self._observed.netns.get(end.ref)
            if netns is not None and (netns.unknown or netns.refused):
                return True
            seen = self._observed.by_index.get(end.id)
            if seen is not None and (seen.link.mac == end.mac or self._peers.get(end.id) == other.id):
                return True
        return False

    def _by_both_marks(self, ends: list[SeenLink]) -> _Marks:
        """Apply rule 5."""
        if not all(end.id in self._written for end in ends):
            return {}
        if len(ends) != 2 or not (self._is_configured(*ends) or self._may_adopt(ends)):
            self.unrecorded.append(ends[0])
            return {}
        self._by_marks.update(end.id for end in ends)
        return {end.id: self._written[end.id] for end in ends}

    def _is_configured(self, a: SeenLink, b: SeenLink) -> bool:
        """Return whether exactly this pair is configured in exactly these namespaces."""
        for end, other in ((a, b), (b, a)):
            mark, others = self._written[end.id], self._written[other.id]
            interface = None if mark is None else self._desired.get(mark.name)
            if interface is None or others is None or interface.peer_if_name != others.name:
                return False
            netns = self._observed.netns.get(interface.namespace.ref)
            if netns is None or netns.place != end.place:
                return False
        return True

    def _may_adopt(self, ends: list[SeenLink]) -> bool:
        """Return whether the marks of a pair are enough, because there was no record before.

        Agents with other home namespaces may have the same label. Their pairs must not be touched, whether or not their
        records can be read.
        """
        foreign = self._record.foreign
        if foreign is None or not self._record.adopts:
            return self._record.adopts
        if self._configured_places.isdisjoint(end.place for end in ends):
            return False
        return not self._is_claimed(*ends)

    @cached_property
    def _configured_places(self) -> set[NetnsId | None]:
        netns = (self._observed.netns.get(interface.namespace.ref) for interface in self._desired.values())
        return {each.place for each in netns if each is not None}

    # --- owned ends

    def __contains__(self, seen: SeenLink) -> bool:
        return seen.id in self._marks

    def __iter__(self) -> Iterator[SeenLink]:
        """Yield every owned end."""
        return map(self._observed.by_index.__getitem__, self._marks)

    def owner(self, seen: SeenLink) -> str:
        """Return the interface that an owned end was built for; "" if it is unknown."""
        mark = self._marks[seen.id]
        return mark.name if mark else ""

    def mark(self, seen: SeenLink) -> Mark | None:
        """Return the mark that decides for an owned end, whatever its alias is; None if it is unknown."""
        return self._marks.get(seen.id)

    def is_marked(self, seen: SeenLink) -> bool:
        """Return whether the marks on this end decide anything, so that they have to be right."""
        return seen.id in self._by_marks

    def ends(self, seen: SeenLink) -> list[SeenLink]:
        """Return both ends of a pair, given one of them; only that one if the other was not observed."""
        peer = self._observed.by_index.get(self._peers.get(seen.id, seen.id))
        return [seen] if peer is None or peer is seen else [seen, peer]

    def owners(self, seen: SeenLink) -> set[str]:
        """Return the interfaces that the pair was built for, as far as known."""
        return {owner for end in self.ends(seen) if (owner := self.owner(end))}

    def names(self) -> Iterable[str]:
        """Return the interfaces that an end was built for."""
        return self._named.keys()

    def built_for(self, name: str) -> list[SeenLink]:
        """Return every end that was built for the interface `name`."""
        return self._named.get(name, [])

    def candidates(self, interface: Interface, place: NetnsId) -> list[SeenLink]:
        """Return the links in `place` that may belong to `interface`, the likeliest first.

        They were built for it, or have its name and it is unknown which interface they were built for, as after a crash
        between the creation of a link and the setting of its alias.
        """
        ends = self._ends_of.get((place, interface.name), [])
        holder = self._observed.by_name.get((place, interface.kernel_name))
        if holder is not None and self._marks.get(holder.id, 0) is None:
            ends = [*ends, holder]
        if len(ends) > 1:
            ends = sorted(ends, key=lambda seen: (seen.link.name != interface.kernel_name, seen.link.index))
        return ends

    def pair(self, a: Interface, at: NetnsId, b: Interface, bt: NetnsId) -> tuple[SeenLink, SeenLink] | None:
        """Return the pair between `a` in the namespace `at` and `b` in `bt`; None if it does not exist."""
        of_a, of_b = self.candidates(a, at), self.candidates(b, bt)
        others = {seen.id: seen for seen in of_b}
        for seen in of_a:
            peer = others.get(self._peers.get(seen.id, seen.id))
            if peer is not None and peer is not seen:
                return seen, peer
        for seen in of_a:
            if (peer := self._unknown_other(seen, a, bt)) is not None:
                return seen, peer
        for seen in of_b:
            if (peer := self._unknown_other(seen, b, at)) is not None:
                return peer, seen
        return None

    def _unknown_other(self, seen: SeenLink, interface: Interface, place: NetnsId) -> SeenLink | None:
        """Return the end in `place` whose peer in the home namespace was built for `interface`, if not recorded.

        Its name does not matter: it is corrected.
        """
        if seen.place != self._home or self.owner(seen) != interface.name:
            return None
        for other in self.ends(seen)[1:]:
            if other.place == place and other.place != self._home and self._marks[other.id] is None:
                return other
        return None

    def half(self, interface: Interface, place: NetnsId) -> SeenLink | None:
        """Return the end of `interface` in `place` if its other end is its peer's, or unknown, or was not observed."""
        for seen in self._ends_of.get((place, interface.name), []):
            if {self.owner(end) for end in self.ends(seen)[1:]} <= {interface.peer_if_name, ""}:
                return seen
        for seen in self.built_for(interface.peer_if_name):
            for other in self.ends(seen)[1:]:
                if other.place == place and seen.place == self._home and self._marks[other.id] is None:
                    return other
        return None


def _peers(observed: Observed) -> dict[LinkId, LinkId]:
    """Return the other end of every veth, found from either end, because only one of them may be readable."""
    peers = {seen.id: seen.peer for seen in observed.links if seen.peer is not None}
    for end, peer in list(peers.items()):
        peers.setdefault(peer, end)
    return {end: peer for end, peer in peers.items() if peers[peer] == end}


def _marks(observed: Observed, label: str) -> _Marks:
    """Return the mark of `label` on each veth; None if it has the group of the label, but no alias."""
    group = group_of(label)
    marks: _Marks = {}
    for seen in observed.links:
        link = seen.link
        if link.kind != "veth":
            continue
        if link.alias:
            mark = read_alias(link.alias)
            if mark is not None and mark.label == label:
                marks[seen.id] = mark
        elif link.group == group:
            marks[seen.id] = None
    return marks
