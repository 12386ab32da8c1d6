"""Reading many namespaces at once: links, their addresses, and where the other end of each veth is.

:func:`survey` reads every link, :func:`inspect` single ones.

A veth's message names its peer by ifindex and by the id that the peer's namespace has in its own (IFLA_LINK,
IFLA_LINK_NETNSID). Ids are private to a namespace, so a peer is found by its index pointing back, and then confirmed by
asking one namespace for the id of the other (RTM_GETNSID), because ifindexes are small numbers that repeat everywhere.
One answer settles both ends, and every other link between the two namespaces.

To answer, the kernel goes through the ids of a namespace, lowest first (__peernet2id, net/core/net_namespace.c), at
20 ns each, and it assigns the lowest free id. So the namespace in which the other has the lower id is asked. Home tends
to have an id for every namespace, and the most ends: each namespace is asked for the id of home while it is read.

If several ends would fit (in a ring, all links look alike), the MAC of the link behind the id is requested first
(IFLA_TARGET_NETNSID).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Final, NamedTuple

from vethlib import ns
from vethlib._nl.addr import AddrMessage
from vethlib._nl.link import LinkMessage, get_link, parse_link
from vethlib._nl.nsid import get_nsid, parse_nsid
from vethlib.errors import InvalidValue, NetnsNotFound, NotPermitted, VethError, is_exhaustion
from vethlib.links import Address, Link, check_lookup_name
from vethlib.session.core.namespaces import Identity, Namespaces, OpenNetns
from vethlib.session.core.slabs import slabs

from .reading import addresses_of, read_addresses, read_addresses_if_whole, table, to_link
from .target import not_found, read_body

__all__ = ["LinkAt", "Survey", "SurveyedLink", "inspect", "survey"]

_FEW: Final = 512  # links whose addresses are read individually (10 µs each), as there may be any number of others
_DEARER: Final = 500  # more ids to go through than this cost as much as opening a socket in the other namespace

_Opener = Callable[[], AbstractContextManager[Namespaces]]

LinkAt = tuple[Identity, int]
"""A link in any namespace: the identity of the namespace, and the ifindex."""


@dataclass(frozen=True, slots=True)
class SurveyedLink:
    """A link, its namespace, its addresses, and for a veth its other end, if that was read as well."""

    at: Identity
    ref: str
    link: Link
    addresses: tuple[Address, ...]
    peer: LinkAt | None = None


@dataclass(frozen=True, slots=True)
class Survey:
    """The result of a survey. `links` has each link once.

    `places` has the identity of the namespace that each reference leads to, or an error: NetnsNotFound if there is no
    such namespace; any other error means that it is not known. `cookies` has the SO_NETNS_COOKIE (Linux 5.14) of the
    namespaces that were read, which distinguishes each from all others since the boot.
    """

    places: dict[str, Identity | VethError]
    links: list[SurveyedLink]
    cookies: dict[Identity, int] = field(default_factory=dict)


def survey(
    open_namespaces: Callable[[], Namespaces], refs: Iterable[str], may_be_closed: Container[str] = ()
) -> Survey:
    """Read every namespace that `refs` lead to.

    Raises errors of the home namespace, and NotPermitted if no namespace can be entered, except for `may_be_closed`.
    """
    wanted = list(dict.fromkeys(refs))
    seen = _Seen(with_home="" in wanted, may_be_closed=may_be_closed)
    for slab in slabs(wanted):
        with open_namespaces() as namespaces:
            opened = seen.open(namespaces, slab)
            new = [place for ref, place in opened if seen.ref_of[place.identity] == ref]
            namespaces.open_sockets(new)
            for place in new:
                with seen.contained(place):
                    found = {message.ifindex: message for message in table(namespaces, place)}
                    seen.add(namespaces, place, found.values(), _all_addresses(namespaces, place, found))
            slab.short = seen.short
    return seen.survey(_Peers(open_namespaces, seen).find())


def inspect(
    open_namespaces: Callable[[], Namespaces],
    links: Iterable[tuple[str, str | int]],
    refs: Iterable[str] = (),
    *,
    ends_at_home: bool = False,
    may_be_closed: Container[str] = (),
) -> Survey:
    """Read single links, each (reference, name or ifindex), and resolve their references and `refs`.

    With `ends_at_home`, the result has the other ends that are in the home namespace, too. Raises as :func:`survey`.
    """
    wanted: dict[str, dict[str | int, None]] = {}
    for ref, key in links:
        _check_key(key)
        wanted.setdefault(ref, {})[key] = None
    for ref in refs:
        wanted.setdefault(ref, {})
    seen = _Seen(with_home=bool(wanted.get("")), may_be_closed=may_be_closed)
    for slab in slabs(list(wanted)):
        with open_namespaces() as namespaces:
            keys_in: dict[OpenNetns, dict[str | int, None]] = {}
            for ref, place in seen.open(namespaces, slab):
                if wanted[ref]:
                    keys_in.setdefault(place, {}).update(wanted[ref])
            namespaces.open_sockets(keys_in)
            for place, keys in keys_in.items():
                with seen.contained(place):
                    found = _links(namespaces, place, keys)
                    seen.add(namespaces, place, found.values(), _addresses(namespaces, place, found))
            slab.short = seen.short
            if len(slab) == len(wanted) and not slab.short:  # all are still open
                return _inspected(lambda: nullcontext(namespaces), seen, ends_at_home=ends_at_home)
    return _inspected(open_namespaces, seen, ends_at_home=ends_at_home)


def _inspected(open_namespaces: _Opener, seen: _Seen, *, ends_at_home: bool) -> Survey:
    peers = _Peers(open_namespaces, seen).find()
    if ends_at_home:
        _add_all_ends_at_home(open_namespaces, seen, peers)
    return seen.survey(peers)


def _add_all_ends_at_home(open_namespaces: _Opener, seen: _Seen, peers: dict[LinkAt, LinkAt]) -> None:
    """Add the other ends that are in the home namespace, which the kernel reports and no tenant can forge."""
    lone: dict[Identity, list[Link]] = {}
    for at, (link, _) in seen.links.items():
        if link.peer_netnsid is not None and at not in peers:
            lone.setdefault(at[0], []).append(link)
    for slab in slabs([identity for identity in lone if identity not in seen.failed]):
        with open_namespaces() as namespaces:
            for identity in slab:
                if identity == namespaces.home.identity:
                    continue
                try:
                    place = namespaces(seen.ref_of[identity])
                    ends = _ends_at_home(namespaces, place, lone[identity]) if place.identity == identity else {}
                except VethError as error:
                    slab.short = slab.short or is_exhaustion(error)
                    seen.failed[identity] = error
                    continue
                seen.failed.pop(identity, None)
                if ends:
                    # Errors of home are raised, because they are not those of this namespace.
                    _add_ends_at_home(namespaces, identity, ends, seen, peers)


def _ends_at_home(namespaces: Namespaces, place: OpenNetns, lone: Sequence[Link]) -> dict[int, Link]:
    """Return the links of a namespace whose other end is in the home namespace, by the ifindex of that end."""
    outcome = namespaces.ask(place, get_nsid(namespaces.home.fd))
    nsid = None if outcome.errno else read_body(place, outcome, parse_nsid)
    if nsid is None:
        return {}
    return {link.peer_index: link for link in lone if link.peer_index and link.peer_netnsid == nsid}


def _add_ends_at_home(
    namespaces: Namespaces, identity: Identity, ends: Mapping[int, Link], seen: _Seen, peers: dict[LinkAt, LinkAt]
) -> None:
    """Add links of the home namespace that are the other ends of these links in the namespace `identity`."""
    home = namespaces.home
    found = _links(namespaces, home, ends)
    seen.ref_of.setdefault(home.identity, "")
    seen.add(namespaces, home, found.values(), _addresses(namespaces, home, found))
    for index in found:
        a, b = (identity, ends[index].index), (home.identity, index)
        if seen.links[b][0].peer_index == a[1]:
            peers[a], peers[b] = b, a


def _check_key(key: str | int) -> None:
    if isinstance(key, str):
        check_lookup_name(key)
    elif type(key) is not int or not 0 < key <= 0x7FFF_FFFF:
        raise InvalidValue("links", key, "give the name of a link, or its ifindex: a number from 1 to 2147483647")


def _links(namespaces: Namespaces, place: OpenNetns, keys: Iterable[str | int]) -> dict[int, LinkMessage]:
    """Return those of the links that exist, by ifindex."""
    keys = list(keys)
    requests = [get_link(key) if isinstance(key, int) else get_link(name=os.fsencode(key)) for key in keys]
    found: dict[int, LinkMessage] = {}
    for key, outcome in zip(keys, namespaces.ask_all(place, requests), strict=True):
        if outcome.errno == errno.ENODEV:
            continue
        if outcome.errno:
            raise not_found(outcome, str(key), place.ref)
        message = read_body(place, outcome, parse_link)
        found[message.ifindex] = message
    return found


def _addresses(namespaces: Namespaces, place: OpenNetns, indexes: dict[int, LinkMessage]) -> list[AddrMessage]:
    if len(indexes) > _FEW:
        addresses = read_addresses_if_whole(namespaces, place)
        if addresses is not None:
            return [address for address in addresses if address.ifindex in indexes]
    # The addresses of one link arrive in one datagram, so they are never torn. While the IPv6 addresses of thousands of
    # links become usable (duplicate address detection), no dump of all addresses would be whole.
    return [address for index in indexes for address in read_addresses(namespaces, place, index)]


def _all_addresses(namespaces: Namespaces, place: OpenNetns, indexes: dict[int, LinkMessage]) -> list[AddrMessage]:
    """Do as :func:`_addresses`, for every link in `place`."""
    return _addresses(namespaces, place, indexes) if len(indexes) > _FEW else read_addresses(namespaces, place)


class _Seen:
    """What has been read so far.

    An error concerns its own namespace only: it is `failed`, its links are left out, and its references have the error.
    Errors of the home namespace are raised.
    """

    def __init__(self, *, with_home: bool, may_be_closed: Container[str]) -> None:
        self.places: dict[str, Identity | VethError] = {}
        self.ref_of: dict[Identity, str] = {}
        self.links: dict[LinkAt, tuple[Link, tuple[Address, ...]]] = {}
        self.cookies: dict[Identity, int] = {}
        self.home: Identity | None = None
        self.home_id: dict[Identity, int | None] = {}  # the id of home in each namespace
        self.failed: dict[Identity, VethError] = {}
        self.short = False  # of descriptors, since the last slab was started
        self._with_home = with_home
        self._may_be_closed = may_be_closed

    def open(self, namespaces: Namespaces, refs: Iterable[str]) -> list[tuple[str, OpenNetns]]:
        """Open the references, and note the errors of those that cannot be opened."""
        self.short = False
        opened: list[tuple[str, OpenNetns]] = []
        for ref in refs:
            try:
                place = namespaces(ref)
            except VethError as error:
                self.short = self.short or is_exhaustion(error)
                self.places[ref] = error
                continue
            self.places[ref] = place.identity
            self.ref_of.setdefault(place.identity, ref)
            opened.append((ref, place))
        return opened

    @contextmanager
    def contained(self, place: OpenNetns) -> Iterator[None]:
        """Note an error of the block as that of `place` alone; success clears an earlier one."""
        try:
            yield
        except VethError as error:
            if place.is_home or self._is_closed_to_all(place, error):
                raise
            self.short = self.short or is_exhaustion(error)
            self.failed[place.identity] = error
        else:
            self.failed.pop(place.identity, None)

    def _is_closed_to_all(self, place: OpenNetns, error: VethError) -> bool:
        """Return whether a namespace that should be open may not be entered, as no other may."""
        if not isinstance(error, NotPermitted) or self.ref_of[place.identity] in self._may_be_closed:
            return False
        return not ns.can_enter()

    def add(
        self, namespaces: Namespaces, place: OpenNetns, links: Iterable[LinkMessage], addresses: Iterable[AddrMessage]
    ) -> None:
        """Add links of `place`, each with its addresses."""
        identity, ref = place.identity, self.ref_of[place.identity]
        self.cookies[identity] = place.cookie
        by_index: dict[int, list[Address]] = {}
        for address in addresses_of(addresses):
            by_index.setdefault(address.index, []).append(address)
        peers_abroad = False
        for message in links:
            own = tuple(by_index.get(message.ifindex, ()))
            link = to_link(message, ref, own)
            self.links[identity, link.index] = link, own
            peers_abroad = peers_abroad or link.peer_netnsid is not None
        if place.is_home:
            self.home = identity
        elif peers_abroad and self._with_home:
            outcome = namespaces.ask(place, get_nsid(namespaces.home.fd))
            if not outcome.errno:
                self.home_id[identity] = read_body(place, outcome, parse_nsid)

    def survey(self, peers: dict[LinkAt, LinkAt]) -> Survey:
        """Return the result, with these peers."""
        failed = self.failed
        links = [
            SurveyedLink(at[0], self.ref_of[at[0]], link, addresses, peers.get(at))
            for at, (link, addresses) in self.links.items()
            if at[0] not in failed
        ]
        if not failed:
            return Survey(self.places, links, self.cookies)
        links = [replace(link, peer=None) if link.peer and link.peer[0] in failed else link for link in links]
        namespaces = {
            ref: place if isinstance(place, VethError) else failed.get(place, place)
            for ref, place in self.places.items()
        }
        return Survey(namespaces, links, self.cookies)


class _Abroad(NamedTuple):
    """A veth whose other end is in another namespace, which has the id `netnsid` in that of the veth."""

    ifindex: int
    mac: str
    peer_index: int
    netnsid: int


class _Peers:
    """Finds the other end of every veth that was read."""

    def __init__(self, open_namespaces: Callable[[], AbstractContextManager[Namespaces]], seen: _Seen) -> None:
        self._open_namespaces = open_namespaces
        self._seen = seen
        self._veths = {at: link for at, (link, _) in seen.links.items() if link.peer_index is not None}
        self._peers: dict[LinkAt, LinkAt] = {}
        self._abroad: dict[LinkAt, _Abroad] = {}
        # The namespaces that have a veth with this index and this peer index, by its MAC.
        self._pointing: dict[tuple[int, int], dict[str, list[Identity]]] = {}

    def find(self) -> dict[LinkAt, LinkAt]:
        by_place: dict[Identity, list[_Abroad]] = {}
        for at, link in self._join_known():
            veth = _Abroad(link.index, link.mac, link.peer_index or 0, link.peer_netnsid or 0)
            self._abroad[at] = veth
            by_place.setdefault(at[0], []).append(veth)
            alike = self._pointing.setdefault((veth.ifindex, veth.peer_index), {})
            alike.setdefault(veth.mac, []).append(at[0])
        # The namespace with the most ends first: their peers need not be searched for again.
        for here in sorted(by_place, key=lambda identity: -len(by_place[identity])):
            self._find_in(here, by_place[here])
        return self._peers

    def _join_known(self) -> list[tuple[LinkAt, Link]]:
        """Join the ends that are already known; return the others."""
        home, home_id = self._seen.home, self._seen.home_id
        others: list[tuple[LinkAt, Link]] = []
        for at, link in self._veths.items():
            if link.peer_netnsid is None:
                self._join(at, (at[0], link.peer_index or 0))
            elif home is not None and at[0] in home_id and link.peer_netnsid == home_id[at[0]]:
                self._join(at, (home, link.peer_index or 0))
            else:
                others.append((at, link))
        if all(at[0] == home or at[0] in home_id for at, _ in others):  # then home has no unknown ends
            return [(at, link) for at, link in others if at[0] != home]
        return [(at, link) for at, link in others if at not in self._peers]

    def _join(self, a: LinkAt, b: LinkAt) -> None:
        if a in self._veths and b in self._veths and self._veths[b].peer_index == a[1]:
            self._peers[a] = b
            self._peers[b] = a

    def _find_in(self, here: Identity, veths: Sequence[_Abroad]) -> None:
        known: dict[int, Identity] = {}  # netnsid here → namespace
        open_ends = [veth for veth in veths if (here, veth.ifindex) not in self._peers and self._alike(veth)]
        for slab in slabs(open_ends):
            if here in self._seen.failed:
                return
            with self._open_namespaces() as namespaces:
                try:
                    if (place := self._reopen(namespaces, here)) is not None:
                        self._confirm(namespaces, place, slab, known)
                except VethError as error:
                    slab.short = is_exhaustion(error)
                    if not slab.short or len(slab) == 1:
                        self._give_up(here, error)

    def _give_up(self, identity: Identity, error: VethError) -> None:
        """Mark a namespace as failed because the other ends of its links cannot be found. Raises `error` for home."""
        if identity == self._seen.home:
            raise error
        self._seen.failed[identity] = error

    def _alike(self, veth: _Abroad) -> dict[str, list[Identity]]:
        """Return the namespaces that may have its other end according to the indexes, by MAC."""
        return self._pointing.get((veth.peer_index, veth.ifindex), {})

    def _confirm(
        self, namespaces: Namespaces, place: OpenNetns, veths: Sequence[_Abroad], known: dict[int, Identity]
    ) -> None:
        here = place.identity
        unknown = [veth for veth in veths if veth.netnsid not in known]
        macs = self._macs_of_peers(namespaces, place, [veth for veth in unknown if len(self._alike(veth)) > 1])
        claims: list[tuple[_Abroad, OpenNetns]] = []
        for veth in unknown:
            alike, mac = self._alike(veth), macs.get(veth.ifindex)
            fitting = chain.from_iterable(alike.values()) if mac is None else alike.get(mac, ())
            opened = [self._reopen(namespaces, other) for other in fitting]
            claims += [(veth, other) for other in opened if other is not None]
        known.update(self._ids(namespaces, place, claims))
        for veth in veths:
            if (other := known.get(veth.netnsid)) is not None:
                self._join((here, veth.ifindex), (other, veth.peer_index))

    def _macs_of_peers(self, namespaces: Namespaces, place: OpenNetns, veths: Sequence[_Abroad]) -> dict[int, str]:
        """Return the MAC of the other end of each, by ifindex, as far as the kernel reports it."""
        if not veths:
            return {}
        outcomes = namespaces.exchange(place, [get_link(veth.peer_index, netnsid=veth.netnsid) for veth in veths])
        return {
            veth.ifindex: read_body(place, outcome, parse_link).mac.hex(":")
            for veth, outcome in zip(veths, outcomes, strict=True)
            if not outcome.errno
        }

    def _ids(
        self, namespaces: Namespaces, place: OpenNetns, claims: Iterable[tuple[_Abroad, OpenNetns]]
    ) -> dict[int, Identity]:
        """Return the ids in `place` of the namespaces that may have the other end of a veth, with their identities."""
        near: dict[OpenNetns, None] = {}
        far: list[tuple[_Abroad, OpenNetns, int]] = []
        for veth, other in claims:
            back = self._abroad[other.identity, veth.peer_index].netnsid
            if back + _DEARER < veth.netnsid:
                far.append((veth, other, back))
            else:
                near[other] = None
        ids: dict[int, Identity] = {}
        for other, outcome in zip(
            near, namespaces.exchange(place, [get_nsid(candidate.fd) for candidate in near]), strict=True
        ):
            if not outcome.errno and (nsid := read_body(place, outcome, parse_nsid)) is not None:
                ids[nsid] = other.identity
        namespaces.open_sockets(other for _, other, _ in far)
        for veth, other, back in far:
            try:
                outcome = namespaces.ask(other, get_nsid(place.fd))
                id_there = None if outcome.errno else read_body(other, outcome, parse_nsid)
            except VethError as error:
                if is_exhaustion(error):
                    raise
                self._give_up(other.identity, error)
                continue
            if id_there == back:
                ids[veth.netnsid] = other.identity
        return ids

    def _reopen(self, namespaces: Namespaces, identity: Identity) -> OpenNetns | None:
        """Reopen the namespace; return None if it has ended. Raises if there are too few descriptors."""
        try:
            place = namespaces(self._seen.ref_of[identity])
        except NetnsNotFound:
            return None
        except VethError as error:
            if is_exhaustion(error):
                raise
            self._give_up(identity, error)
            return None
        return place if place.identity == identity else None
