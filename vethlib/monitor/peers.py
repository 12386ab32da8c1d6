"""Find the peer of every veth whose peer is in a watched namespace.

A link message has the peer's ifindex and an nsid that is valid in the link's own namespace only. So candidates are
collected from all namespaces and then confirmed by the kernel (`vethlib.session.read.peers`); only once, because a
veth keeps its peer. All new candidates are confirmed in one survey.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from vethlib.errors import VethError
from vethlib.links import Link
from vethlib.session import Session

__all__ = ["At", "Peers"]

At = tuple[str, int]
"""A link by the reference of its namespace and its ifindex there."""


class Peers:
    """The peer of each known veth."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._peer: dict[str, dict[int, At]] = {}  # by namespace, so that the end of a namespace is cheap
        # Links with an unknown peer, by namespace and ifindex, each with the peer's ifindex if that is known: the first
        # message of a veth is sent before it has a peer (veth_newlink, drivers/net/veth.c).
        self._waiting: dict[str, dict[int, int | None]] = {}
        # The same links by their ifindex and that of the peer, because in containers all have the same ifindex.
        self._by_indexes: dict[tuple[int, int | None], dict[At, None]] = {}

    def of(self, at: At) -> At | None:
        """Return the peer of a link, if it is known."""
        return self._peer.get(at[0], {}).get(at[1])

    def meet(self, links: Mapping[At, Link]) -> None:
        """Find the peers of these links, which exist now."""
        doubtful: dict[At, None] = {}
        new = {at: link for at, link in links.items() if link.kind == "veth" and self.of(at) is None}
        for at, link in new.items():
            if link.peer_index is not None and link.peer_netnsid is None:
                self._join(at, (at[0], link.peer_index))
            else:
                self._wait(at, link.peer_index)
        fitting: dict[tuple[int, int | None], None] = {}
        for at, link in new.items():
            if link.peer_index is not None and link.peer_netnsid is not None:
                fitting[link.peer_index, None] = fitting[link.peer_index, link.index] = None
                doubtful[at] = None
        for indexes in fitting:
            doubtful.update(self._by_indexes.get(indexes, {}))
        if doubtful:
            self._confirm(doubtful)

    def _confirm(self, doubtful: Iterable[At]) -> None:
        try:
            survey = self._session.inspect(doubtful)
        except VethError:
            return  # they stay unknown, which only leaves out a detail of events
        refs = {place: ref for ref, place in reversed(survey.places.items())}
        for seen in survey.links:
            if seen.peer is not None:
                ref = refs.get(seen.peer[0])
                if ref is not None:
                    self._join((seen.ref, seen.link.index), (ref, seen.peer[1]))

    def _join(self, a: At, b: At) -> None:
        for end, peer in ((a, b), (b, a)):
            self._peer.setdefault(end[0], {})[end[1]] = peer
            self._wait_no_more(end)

    def _wait(self, at: At, peer: int | None) -> None:
        self._wait_no_more(at)
        self._waiting.setdefault(at[0], {})[at[1]] = peer
        self._by_indexes.setdefault((at[1], peer), {})[at] = None

    def _wait_no_more(self, at: At) -> None:
        ref, index = at
        waiting = self._waiting.get(ref, {})
        if index not in waiting:
            return
        indexes = index, waiting.pop(index)
        if not waiting:
            del self._waiting[ref]
        fitting = self._by_indexes[indexes]
        del fitting[at]
        if not fitting:
            del self._by_indexes[indexes]

    def forget(self, at: At) -> None:
        """Forget a deleted link, because its ifindex may be reused."""
        self._part(at)
        self._wait_no_more(at)

    def forget_all_in(self, ref: str) -> None:
        """Forget all links of a namespace that has ended."""
        for index in list(self._peer.get(ref, ())):
            self._part((ref, index))
        self._peer.pop(ref, None)
        for index in list(self._waiting.get(ref, ())):
            self._wait_no_more((ref, index))

    def rename(self, ref: str, to: str) -> None:
        """Note that the links of a namespace have another reference from now on."""
        for index, peer in self._peer.pop(ref, {}).items():
            self._join((to, index), (to, peer[1]) if peer[0] == ref else peer)
        for index, peer_index in list(self._waiting.get(ref, {}).items()):
            self._wait_no_more((ref, index))
            self._wait((to, index), peer_index)

    def _part(self, at: At) -> None:
        other = self._peer.get(at[0], {}).pop(at[1], None)
        if other is not None:
            self._peer.get(other[0], {}).pop(other[1], None)
            # The end may have been moved, and then appears again in another namespace, with another ifindex.
            self._wait(other, None)
