"""A look at many namespaces at once: links, their addresses, and where the other end of each veth is.

All links there are (:func:`survey`), or those one asks for (:func:`inspect`).

A veth's message names its peer by ifindex and by the id that the peer's namespace has in its own (IFLA_LINK,
IFLA_LINK_NETNSID). Ids are private to a namespace, so a peer is found by its index pointing back, and then confirmed by
asking the one namespace for the id of the other (RTM_GETNSID): ifindexes are small numbers that repeat everywhere. One
answer settles both ends, and every other link between the two namespaces.

For an answer the kernel goes through the ids there, lowest first (__peernet2id, net/core/net_namespace.c), 20 ns each,
and new ids are the lowest that are free. So the namespace is asked in which the other has the lower id. Home tends to
have as many ids as there are namespaces, and the most ends: each namespace is asked for home while it is looked at.

Where several ends would fit (in a ring every link looks alike), the MAC of the one behind the id is asked for first
(IFLA_TARGET_NETNSID).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import chain
from typing import Final, NamedTuple

from .._nl.addr import AddrMessage
from .._nl.link import LinkMessage, get_link, parse_link
from .._nl.nsid import get_nsid, parse_nsid
from ..errors import InvalidValue, NetlinkError, VethError
from ..links import Address, Link, check_lookup_name
from .places import Identity, Place, Places
from .reading import addresses_of, not_found, read_addresses, table, to_link

__all__ = ["LinkAt", "Survey", "SurveyedLink", "inspect", "survey"]

_SLAB: Final = 64  # namespaces open at a time, and links confirmed at a time
_FEW: Final = 512  # links whose addresses are read one by one (10 µs): there may be any number of others
_DEARER: Final = 500  # ids more to go through cost as much as a socket elsewhere

LinkAt = tuple[Identity, int]
"""A link anywhere: the identity of its namespace, and its ifindex there."""


@dataclass(frozen=True, slots=True)
class SurveyedLink:
    """A link, the namespace it is in, its addresses, and for a veth the other end, where that was looked at too."""

    at: Identity
    ref: str
    link: Link
    addresses: tuple[Address, ...]
    peer: LinkAt | None = None


@dataclass(frozen=True, slots=True)
class Survey:
    """`places` has the identity each reference leads to, or why it leads nowhere; `links` each link, once."""

    places: dict[str, Identity | VethError]
    links: list[SurveyedLink]


def survey(open_places: Callable[[], Places], refs: Iterable[str]) -> Survey:
    """Look at every namespace that one of `refs` leads to. Raises what makes looking impossible, as NotPermitted."""
    wanted = list(dict.fromkeys(refs))
    seen = _Seen(with_home="" in wanted)
    for start in range(0, len(wanted), _SLAB):
        with open_places() as places:
            opened = seen.open(places, wanted[start : start + _SLAB])
            new = [place for ref, place in opened if seen.ref_of[place.identity] == ref]
            places.open_sockets(new)
            for place in new:
                found = {message.ifindex: message for message in table(places, place)}
                seen.add(places, place, found.values(), _all_addresses(places, place, found))
    return seen.survey(_Peers(open_places, seen).find())


def inspect(
    open_places: Callable[[], Places], links: Iterable[tuple[str, str | int]], refs: Iterable[str] = ()
) -> Survey:
    """Look at single links, each (reference, name or ifindex), and where their references and `refs` lead.

    Raises as :func:`survey`.
    """
    wanted: dict[str, dict[str | int, None]] = {}
    for ref, key in links:
        _check_key(key)
        wanted.setdefault(ref, {})[key] = None
    for ref in refs:
        wanted.setdefault(ref, {})
    seen = _Seen(with_home=bool(wanted.get("")))
    order = list(wanted)
    for start in range(0, len(order), _SLAB):
        with open_places() as places:
            keys_in: dict[Place, dict[str | int, None]] = {}
            for ref, place in seen.open(places, order[start : start + _SLAB]):
                if wanted[ref]:
                    keys_in.setdefault(place, {}).update(wanted[ref])
            places.open_sockets(keys_in)
            for place, keys in keys_in.items():
                found = _links(places, place, keys)
                seen.add(places, place, found.values(), _addresses(places, place, found))
            if len(order) <= _SLAB:  # all are open still
                return seen.survey(_Peers(lambda: nullcontext(places), seen).find())
    return seen.survey(_Peers(open_places, seen).find())


def _check_key(key: str | int) -> None:
    if isinstance(key, str):
        check_lookup_name(key)
    elif type(key) is not int or not 0 < key <= 0x7FFF_FFFF:
        raise InvalidValue("links", key, "a link goes by its name, or by its ifindex: a number from 1 to 2147483647")


def _links(places: Places, place: Place, keys: Iterable[str | int]) -> dict[int, LinkMessage]:
    """Those of the links that are there, by ifindex."""
    keys = list(keys)
    requests = [get_link(key) if isinstance(key, int) else get_link(name=os.fsencode(key)) for key in keys]
    found: dict[int, LinkMessage] = {}
    for key, outcome in zip(keys, places.ask_all(place, requests), strict=True):
        if outcome.errno == errno.ENODEV:
            continue
        if outcome.errno:
            raise not_found(outcome, str(key), place.ref)
        message = parse_link(outcome.bodies[0])
        found[message.ifindex] = message
    return found


def _addresses(places: Places, place: Place, indexes: dict[int, LinkMessage]) -> list[AddrMessage]:
    if len(indexes) > _FEW:
        try:
            return [one for one in read_addresses(places, place, attempts=1) if one.ifindex in indexes]
        except NetlinkError as error:
            if error.errno != errno.EAGAIN:
                raise
    # Those of one link come in one datagram, and so they are never torn: of thousands of links whose IPv6 addresses
    # become usable just now (duplicate address detection), no dump of all would come through.
    return [one for index in indexes for one in read_addresses(places, place, index)]


def _all_addresses(places: Places, place: Place, indexes: dict[int, LinkMessage]) -> list[AddrMessage]:
    """As :func:`_addresses`, of all the links that there are in `place`."""
    return _addresses(places, place, indexes) if len(indexes) > _FEW else read_addresses(places, place)


class _Seen:
    """What was found so far, and what is asked while a namespace is open anyway."""

    def __init__(self, *, with_home: bool) -> None:
        self.places: dict[str, Identity | VethError] = {}
        self.ref_of: dict[Identity, str] = {}
        self.links: dict[LinkAt, tuple[Link, tuple[Address, ...]]] = {}
        self.home: Identity | None = None
        self.home_id: dict[Identity, int | None] = {}  # in each namespace that was asked
        self._with_home = with_home

    def open(self, places: Places, refs: Iterable[str]) -> list[tuple[str, Place]]:
        """Open what the references lead to; note where one leads nowhere."""
        opened: list[tuple[str, Place]] = []
        for ref in refs:
            try:
                place = places(ref)
            except VethError as error:
                if isinstance(error, NetlinkError):
                    raise
                self.places[ref] = error
                continue
            self.places[ref] = place.identity
            self.ref_of.setdefault(place.identity, ref)
            opened.append((ref, place))
        return opened

    def add(self, places: Places, place: Place, links: Iterable[LinkMessage], addresses: Iterable[AddrMessage]) -> None:
        """Add links of `place`, with those of the addresses that are theirs."""
        identity, ref = place.identity, self.ref_of[place.identity]
        by_index: dict[int, list[Address]] = {}
        for address in addresses_of(addresses):
            by_index.setdefault(address.index, []).append(address)
        peers_abroad = False
        for message in links:
            own = tuple(by_index.get(message.ifindex, ()))
            link = to_link(message, ref, tuple([one.interface for one in own]))
            self.links[identity, link.index] = link, own
            peers_abroad = peers_abroad or link.peer_netnsid is not None
        if place.is_home:
            self.home = identity
        elif peers_abroad and self._with_home:
            outcome = places.ask(place, get_nsid(places.home.fd))
            if not outcome.errno:
                self.home_id[identity] = parse_nsid(outcome.bodies[0])

    def survey(self, peers: dict[LinkAt, LinkAt]) -> Survey:
        """All of it, with the peers that were found."""
        links = [
            SurveyedLink(at[0], self.ref_of[at[0]], link, addresses, peers.get(at))
            for at, (link, addresses) in self.links.items()
        ]
        return Survey(self.places, links)


class _Abroad(NamedTuple):
    """A veth whose other end is in another namespace, which `netnsid` stands for here."""

    ifindex: int
    mac: str
    peer_index: int
    netnsid: int


class _Peers:
    """Finds the other end of every veth that was seen."""

    def __init__(self, open_places: Callable[[], AbstractContextManager[Places]], seen: _Seen) -> None:
        self._open_places = open_places
        self._seen = seen
        self._veths = {at: link for at, (link, _) in seen.links.items() if link.peer_index is not None}
        self._peers: dict[LinkAt, LinkAt] = {}
        self._abroad: dict[LinkAt, _Abroad] = {}
        # Which namespaces have one of this index and this peer index, by its MAC.
        self._pointing: dict[tuple[int, int], dict[str, list[Identity]]] = {}

    def find(self) -> dict[LinkAt, LinkAt]:
        by_place: dict[Identity, list[_Abroad]] = {}
        for at, link in self._join_known():
            veth = _Abroad(link.index, link.mac, link.peer_index or 0, link.peer_netnsid or 0)
            self._abroad[at] = veth
            by_place.setdefault(at[0], []).append(veth)
            alike = self._pointing.setdefault((veth.ifindex, veth.peer_index), {})
            alike.setdefault(veth.mac, []).append(at[0])
        # The namespace with the most ends first: what is found there need not be looked for elsewhere.
        for here in sorted(by_place, key=lambda identity: -len(by_place[identity])):
            self._find_in(here, by_place[here])
        return self._peers

    def _join_known(self) -> list[tuple[LinkAt, Link]]:
        """Join the ends of which all is known already; return the others."""
        home, home_id = self._seen.home, self._seen.home_id
        others: list[tuple[LinkAt, Link]] = []
        for at, link in self._veths.items():
            if link.peer_netnsid is None:
                self._join(at, (at[0], link.peer_index or 0))
            elif home is not None and at[0] in home_id and link.peer_netnsid == home_id[at[0]]:
                self._join(at, (home, link.peer_index or 0))
            else:
                others.append((at, link))
        if all(at[0] == home or at[0] in home_id for at, _ in others):  # then home has no other ends to be found
            return [(at, link) for at, link in others if at[0] != home]
        return [(at, link) for at, link in others if at not in self._peers]

    def _join(self, a: LinkAt, b: LinkAt) -> None:
        if a in self._veths and b in self._veths and self._veths[b].peer_index == a[1]:
            self._peers[a] = b
            self._peers[b] = a

    def _find_in(self, here: Identity, veths: Sequence[_Abroad]) -> None:
        known: dict[int, Identity] = {}  # netnsid here → namespace
        open_ends = [veth for veth in veths if (here, veth.ifindex) not in self._peers and self._alike(veth)]
        for start in range(0, len(open_ends), _SLAB):
            with self._open_places() as places:
                if (place := self._reopen(places, here)) is not None:
                    self._confirm(places, place, open_ends[start : start + _SLAB], known)

    def _alike(self, veth: _Abroad) -> dict[str, list[Identity]]:
        """Where its other end may be, judged by the indexes; by MAC."""
        return self._pointing.get((veth.peer_index, veth.ifindex), {})

    def _confirm(self, places: Places, place: Place, veths: Sequence[_Abroad], known: dict[int, Identity]) -> None:
        here = place.identity
        unknown = [veth for veth in veths if veth.netnsid not in known]
        macs = self._macs_of_peers(places, place, [veth for veth in unknown if len(self._alike(veth)) > 1])
        claims: list[tuple[_Abroad, Place]] = []
        for veth in unknown:
            alike, mac = self._alike(veth), macs.get(veth.ifindex)
            fitting = chain.from_iterable(alike.values()) if mac is None else alike.get(mac, ())
            opened = [self._reopen(places, there) for there in fitting]
            claims += [(veth, there) for there in opened if there is not None]
        known.update(self._ids(places, place, claims))
        for veth in veths:
            if (there := known.get(veth.netnsid)) is not None:
                self._join((here, veth.ifindex), (there, veth.peer_index))

    def _macs_of_peers(self, places: Places, place: Place, veths: Sequence[_Abroad]) -> dict[int, str]:
        """By index, which MAC the other end of each has, as far as the kernel says."""
        if not veths:
            return {}
        outcomes = places.exchange(place, [get_link(veth.peer_index, netnsid=veth.netnsid) for veth in veths])
        return {
            veth.ifindex: parse_link(outcome.bodies[0]).mac.hex(":")
            for veth, outcome in zip(veths, outcomes, strict=True)
            if not outcome.errno
        }

    def _ids(self, places: Places, place: Place, claims: Iterable[tuple[_Abroad, Place]]) -> dict[int, Identity]:
        """The netnsids that `place` has for namespaces of which each may have the other end of a veth."""
        near: dict[Place, None] = {}
        far: list[tuple[_Abroad, Place, int]] = []
        for veth, there in claims:
            back = self._abroad[there.identity, veth.peer_index].netnsid
            if back + _DEARER < veth.netnsid:
                far.append((veth, there, back))
            else:
                near[there] = None
        ids: dict[int, Identity] = {}
        for there, outcome in zip(near, places.exchange(place, [get_nsid(one.fd) for one in near]), strict=True):
            if not outcome.errno and (nsid := parse_nsid(outcome.bodies[0])) is not None:
                ids[nsid] = there.identity
        places.open_sockets(there for _, there, _ in far)
        for veth, there, back in far:
            outcome = places.ask(there, get_nsid(place.fd))
            if not outcome.errno and parse_nsid(outcome.bodies[0]) == back:
                ids[veth.netnsid] = there.identity
        return ids

    def _reopen(self, places: Places, identity: Identity) -> Place | None:
        try:
            place = places(self._seen.ref_of[identity])
        except VethError:
            return None
        return place if place.identity == identity else None
