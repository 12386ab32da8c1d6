"""A look at many namespaces at once: every link, its addresses, and where the other end of each veth is.

A veth's message names its peer by ifindex and by the id that the peer's namespace has in its own (IFLA_LINK,
IFLA_LINK_NETNSID). Ids are private to a namespace, so a peer is found by its index pointing back, and then confirmed by
asking the one namespace for the id of the other (RTM_GETNSID): ifindexes are small numbers that repeat everywhere. One
answer settles both ends, and every other link between the two namespaces. Where many would fit (in a ring every link
looks alike), the MAC of the one behind the id is asked for first (IFLA_TARGET_NETNSID).
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from .._nl.link import get_link, parse_link
from .._nl.nsid import get_nsid, parse_nsid
from ..errors import NetlinkError, VethError
from ..links import Address, Link
from .places import Identity, Place, Places
from .reading import addresses_of, read_addresses, table, to_link

__all__ = ["LinkAt", "Survey", "SurveyedLink", "survey"]

_SLAB: Final = 64

LinkAt = tuple[Identity, int]
"""A link anywhere: the identity of its namespace, and its ifindex there."""


@dataclass(frozen=True, slots=True)
class SurveyedLink:
    """A link, the namespace it is in, its addresses, and for a veth the other end, where that was surveyed too."""

    at: Identity
    ref: str
    link: Link
    addresses: tuple[Address, ...]
    peer: LinkAt | None = None


@dataclass(frozen=True, slots=True)
class Survey:
    """`places` has the identity each reference leads to, or why it leads nowhere; `links` each namespace's, once."""

    places: dict[str, Identity | VethError]
    links: list[SurveyedLink]


def survey(open_places: Callable[[], Places], refs: Iterable[str]) -> Survey:
    """Look at every namespace that one of `refs` leads to. Raises what makes looking impossible, as NotPermitted."""
    wanted = list(dict.fromkeys(refs))
    found: dict[str, Identity | VethError] = {}
    raw: dict[LinkAt, SurveyedLink] = {}
    ref_of: dict[Identity, str] = {}
    for start in range(0, len(wanted), _SLAB):
        with open_places() as places:
            here: list[tuple[str, Place]] = []
            for ref in wanted[start : start + _SLAB]:
                try:
                    place = places(ref)
                except VethError as error:
                    if isinstance(error, NetlinkError):
                        raise
                    found[ref] = error
                    continue
                found[ref] = place.identity
                if place.identity not in ref_of:
                    ref_of[place.identity] = ref
                    here.append((ref, place))
            places.open_sockets(place for _, place in here)
            for ref, place in here:
                for seen in _links_in(places, place, ref):
                    raw[seen.at, seen.link.index] = seen
    peers = _Peers(open_places, raw, ref_of).find()
    return Survey(found, [_with_peer(seen, peers.get(at)) for at, seen in raw.items()])


def _with_peer(seen: SurveyedLink, peer: LinkAt | None) -> SurveyedLink:
    return seen if peer is None else SurveyedLink(seen.at, seen.ref, seen.link, seen.addresses, peer)


def _links_in(places: Places, place: Place, ref: str) -> list[SurveyedLink]:
    links = table(places, place)
    addresses: dict[int, list[Address]] = {}
    for address in addresses_of(read_addresses(places, place)):
        addresses.setdefault(address.index, []).append(address)
    found = []
    for message in links:
        own = tuple(addresses.get(message.ifindex, ()))
        link = to_link(message, ref, tuple(address.interface for address in own))
        found.append(SurveyedLink(place.identity, ref, link, own))
    return found


class _Peers:
    """Finds the other end of every veth of a survey."""

    def __init__(
        self, open_places: Callable[[], Places], links: dict[LinkAt, SurveyedLink], ref_of: dict[Identity, str]
    ) -> None:
        self._open_places = open_places
        self._ref_of = ref_of
        self._veths = {at: seen for at, seen in links.items() if seen.link.peer_index is not None}
        self._peers: dict[LinkAt, LinkAt] = {}
        # Where a namespace has a veth of this index and this peer index.
        self._pointing: dict[tuple[int, int | None], list[Identity]] = {}
        for (identity, index), seen in self._veths.items():
            self._pointing.setdefault((index, seen.link.peer_index), []).append(identity)

    def find(self) -> dict[LinkAt, LinkAt]:
        by_place: dict[Identity, list[SurveyedLink]] = {}
        for (identity, _), seen in self._veths.items():
            by_place.setdefault(identity, []).append(seen)
        # The namespace with the most ends first (home, as a rule): one socket there settles all of them.
        order = sorted(by_place, key=lambda identity: -len(by_place[identity]))
        for identity in order:
            self._find_in(identity, by_place[identity])
        return self._peers

    def _find_in(self, here: Identity, links: Sequence[SurveyedLink]) -> None:
        elsewhere = []
        for seen in links:
            at = here, seen.link.index
            if seen.link.peer_netnsid is None:
                self._join(at, (here, seen.link.peer_index or 0))
            elif at not in self._peers:
                elsewhere.append(seen)
        for start in range(0, len(elsewhere), _SLAB):
            with self._open_places() as places:
                self._confirm(places, here, elsewhere[start : start + _SLAB])

    def _join(self, a: LinkAt, b: LinkAt) -> None:
        if a in self._veths and b in self._veths:
            self._peers[a] = b
            self._peers[b] = a

    def _confirm(self, places: Places, here: Identity, links: Sequence[SurveyedLink]) -> None:
        place = self._reopen(places, here)
        if place is None:
            return
        known: dict[int, Identity] = {}  # netnsid here → namespace
        for seen, macs in zip(links, self._macs_of_peers(places, place, links), strict=True):
            index, peer_index, nsid = seen.link.index, seen.link.peer_index or 0, seen.link.peer_netnsid
            assert nsid is not None
            if (here, index) in self._peers:
                continue
            if nsid not in known:
                candidates = [
                    there
                    for there in self._pointing.get((peer_index, index), ())
                    if there != here and self._veths[there, peer_index].link.mac in macs
                ]
                known.update(self._ids(places, place, candidates))
            if nsid in known:
                self._join((here, index), (known[nsid], peer_index))

    def _macs_of_peers(self, places: Places, place: Place, links: Sequence[SurveyedLink]) -> list[Container[str]]:
        """Which MAC the other end of each link has: in a regular topology many look like it, but for that."""
        requests = [get_link(seen.link.peer_index or 0, netnsid=seen.link.peer_netnsid) for seen in links]
        outcomes = places.exchange(place, requests)
        return [_Anything() if outcome.errno else {parse_link(outcome.bodies[0]).mac.hex(":")} for outcome in outcomes]

    def _ids(self, places: Places, place: Place, candidates: Iterable[Identity]) -> dict[int, Identity]:
        """The netnsids that `place` has for the candidates."""
        opened = [(there, asked) for there in candidates if (asked := self._reopen(places, there)) is not None]
        outcomes = places.exchange(place, [get_nsid(asked.fd) for _, asked in opened])
        ids: dict[int, Identity] = {}
        for (there, _), outcome in zip(opened, outcomes, strict=True):
            if not outcome.errno and (nsid := parse_nsid(outcome.bodies[0])) is not None:
                ids[nsid] = there
        return ids

    def _reopen(self, places: Places, identity: Identity) -> Place | None:
        try:
            place = places(self._ref_of[identity])
        except VethError:
            return None
        return place if place.identity == identity else None


class _Anything:
    """Holds every MAC: the kernel would not say."""

    def __contains__(self, mac: object) -> bool:
        return True
