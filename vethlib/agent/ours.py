"""The pairs of one agent among the links that were seen: by their marks, and with both their ends.

A pair is ours only if every end of it that was seen is: whoever puts another alias on one end has taken the pair.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from .mark import Mark, check_label, group_of, read_alias
from .model import Interface
from .observed import LinkId, Observed, Place, SeenLink

__all__ = ["OurPairs"]


class OurPairs:
    """Index over the pairs of the agent called `label`."""

    def __init__(self, observed: Observed, label: str) -> None:
        check_label(label)
        self._observed = observed
        self._peers = _peers(observed)
        self._marks = _marks(observed, label)
        for end in [end for end in self._marks if not self._wholly_ours(end)]:
            del self._marks[end]
        self._ends_of: dict[tuple[Place, str], list[SeenLink]] = {}
        self._named: dict[str, list[SeenLink]] = {}
        for end, mark in self._marks.items():
            if mark is not None:
                seen = observed.by_index[end]
                self._ends_of.setdefault((seen.place, mark.name), []).append(seen)
                self._named.setdefault(mark.name, []).append(seen)

    def _wholly_ours(self, end: LinkId) -> bool:
        peer = self._peers.get(end)
        return peer is None or peer not in self._observed.by_index or peer in self._marks

    def __contains__(self, seen: SeenLink) -> bool:
        return seen.id in self._marks

    def __iter__(self) -> Iterator[SeenLink]:
        """Every end of ours."""
        return (self._observed.by_index[end] for end in self._marks)

    def owner(self, seen: SeenLink) -> str:
        """The interface that an end of ours was built for; "" where a crash came before the alias."""
        mark = self._marks[seen.id]
        return mark.name if mark else ""

    def ends(self, seen: SeenLink) -> list[SeenLink]:
        """Both ends of a pair of ours by one of them, or this one where the other was not seen."""
        peer = self._observed.by_index.get(self._peers.get(seen.id, seen.id))
        return [seen] if peer is None or peer is seen else [seen, peer]

    def owners(self, seen: SeenLink) -> set[str]:
        """The interfaces that the pair was built for, as far as it says."""
        return {owner for end in self.ends(seen) if (owner := self.owner(end))}

    def names(self) -> Iterable[str]:
        """The interfaces that an end says it was built for."""
        return self._named.keys()

    def built_for(self, name: str) -> list[SeenLink]:
        """Every end that says it was built for the interface `name`."""
        return self._named.get(name, [])

    def candidates(self, interface: Interface, place: Place) -> list[SeenLink]:
        """The links that may be `interface`'s in `place`, the likeliest first.

        They say so, or say nothing and have its name: what a crash between create and alias leaves.
        """
        found = self._ends_of.get((place, interface.name), [])
        holder = self._observed.by_name.get((place, interface.kernel_name))
        if holder is not None and self._marks.get(holder.id, 0) is None:
            found = [*found, holder]
        if len(found) > 1:
            found = sorted(found, key=lambda seen: (seen.link.name != interface.kernel_name, seen.link.index))
        return found

    def pair(self, a: Interface, at: Place, b: Interface, bt: Place) -> tuple[SeenLink, SeenLink] | None:
        """The pair between `a` in the namespace `at` and `b` in `bt`, if it is there."""
        others = {seen.id: seen for seen in self.candidates(b, bt)}
        for seen in self.candidates(a, at):
            peer = others.get(self._peers.get(seen.id, seen.id))
            if peer is not None and peer is not seen:
                return seen, peer
        return None

    def half(self, interface: Interface, place: Place) -> SeenLink | None:
        """The end of `interface` in `place` whose other end is its peer's, or was not seen."""
        for seen in self._ends_of.get((place, interface.name), []):
            if {self.owner(end) for end in self.ends(seen)[1:]} <= {interface.peer_if_name}:
                return seen
        return None


def _peers(observed: Observed) -> dict[LinkId, LinkId]:
    """The other end of every veth; seen from either end, because one may be all that was readable."""
    peers = {seen.id: seen.peer for seen in observed.links if seen.peer is not None}
    for end, peer in list(peers.items()):
        peers.setdefault(peer, end)
    return {end: peer for end, peer in peers.items() if peers[peer] == end}


def _marks(observed: Observed, label: str) -> dict[LinkId, Mark | None]:
    group = group_of(label)
    marks: dict[LinkId, Mark | None] = {}
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
