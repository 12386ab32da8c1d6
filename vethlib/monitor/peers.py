"""The other end of every veth, as far as it is in a namespace that is watched.

A message names it by ifindex and by an id that means something in its own namespace alone, so who fits is found in
what is known of all, and then confirmed by asking the kernel (`vethlib.session.survey`); once, for a veth keeps its
peer. What is new in one go is confirmed in one go.
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
    """Which link is the other end of which."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._peer: dict[str, dict[int, At]] = {}  # by namespace, for those end
        # Those whose other end is not known, by ifindex, with that of the other end where that is known: the first
        # message of a veth is sent before it has one (veth_newlink, drivers/net/veth.c).
        self._waiting: dict[int, dict[At, int | None]] = {}

    def of(self, at: At) -> At | None:
        """The other end, if it is known."""
        return self._peer.get(at[0], {}).get(at[1])

    def meet(self, links: Mapping[At, Link]) -> None:
        """Find the other ends of these, which are there now."""
        doubtful: dict[At, None] = {}
        new = {at: link for at, link in links.items() if link.kind == "veth" and self.of(at) is None}
        for at, link in new.items():
            if link.peer_index is not None and link.peer_netnsid is None:
                self._join(at, (at[0], link.peer_index))
            else:
                self._waiting.setdefault(link.index, {})[at] = link.peer_index
        for at, link in new.items():
            if link.peer_index is not None and link.peer_netnsid is not None:
                fitting = self._waiting.get(link.peer_index, {})
                doubtful.update((other, None) for other, peer in fitting.items() if peer in (None, link.index))
                doubtful[at] = None
        if doubtful:
            self._confirm(doubtful)

    def _confirm(self, doubtful: Iterable[At]) -> None:
        try:
            survey = self._session.inspect(doubtful)
        except VethError:
            return  # they stay unknown: it is no more than a word beside an event
        for one in survey.links:
            if one.peer is not None:
                ref = next((ref for ref, place in survey.places.items() if place == one.peer[0]), None)
                if ref is not None:
                    self._join((one.ref, one.link.index), (ref, one.peer[1]))

    def _join(self, a: At, b: At) -> None:
        for one, other in ((a, b), (b, a)):
            self._peer.setdefault(one[0], {})[one[1]] = other
            self._wait_no_more(one)

    def _wait_no_more(self, at: At) -> None:
        if (waiting := self._waiting.get(at[1])) is not None:
            waiting.pop(at, None)
            if not waiting:
                del self._waiting[at[1]]

    def forget(self, at: At) -> None:
        """This link is gone; its ifindex may be given to another."""
        self._part(at)
        self._wait_no_more(at)

    def forget_all_in(self, ref: str) -> None:
        """A namespace is gone, and all that was in it."""
        for index in list(self._peer.get(ref, ())):
            self._part((ref, index))
        self._peer.pop(ref, None)
        for at in [at for waiting in self._waiting.values() for at in waiting if at[0] == ref]:
            self._wait_no_more(at)

    def _part(self, at: At) -> None:
        other = self._peer.get(at[0], {}).pop(at[1], None)
        if other is not None:
            self._peer.get(other[0], {}).pop(other[1], None)
