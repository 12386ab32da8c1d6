"""Find the other end of every veth that was read.

A veth's message names its peer by ifindex and by the id that the peer's namespace has in its own (IFLA_LINK,
IFLA_LINK_NETNSID). Ids are private to a namespace, so a peer is found by its peer index pointing back, and then
confirmed by asking one namespace for the id of the other (RTM_GETNSID), because ifindexes are small numbers that repeat
everywhere. One answer settles both ends, and every other link between the two namespaces.

To answer, the kernel goes through the ids of a namespace, lowest first (__peernet2id, net/core/net_namespace.c), at
20 ns each, and it assigns the lowest free id. So the namespace in which the other has the lower id is asked. Home tends
to have an id for every namespace, and the most ends: each namespace is asked for the id of home while it is read.

If several ends would fit (in a ring, all links look alike), the MAC of the link behind the id is requested first
(IFLA_TARGET_NETNSID).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from itertools import chain
from typing import Final, NamedTuple

from vethlib._nl.link import get_link, parse_link
from vethlib._nl.nsid import get_nsid, parse_nsid
from vethlib.errors import NetnsNotFound, VethError, is_exhaustion
from vethlib.links import Link
from vethlib.session.core.namespaces import Identity, Namespaces, OpenNetns
from vethlib.session.core.slabs import slabs

from .seen import LinkAt, Seen
from .target import read_body

__all__ = ["Peers"]

_DEARER: Final = 500  # going through this many more ids costs as much as opening a socket in the other namespace


class _Abroad(NamedTuple):
    """A veth whose other end is in another namespace; `netnsid` is the id of that in the namespace of the veth."""

    ifindex: int
    mac: str
    peer_index: int
    netnsid: int


class Peers:
    """Finds the other end of every veth that was read."""

    def __init__(self, open_namespaces: Callable[[], AbstractContextManager[Namespaces]], seen: Seen) -> None:
        self._open_namespaces = open_namespaces
        self._seen = seen
        self._veths = {at: link for at, (link, _) in seen.links.items() if link.peer_index is not None}
        self._peers: dict[LinkAt, LinkAt] = {}
        self._abroad: dict[LinkAt, _Abroad] = {}
        # The namespaces that have a veth with this index and this peer index, by the MAC of the veth.
        self._pointing: dict[tuple[int, int], dict[str, list[Identity]]] = {}

    def find(self) -> dict[LinkAt, LinkAt]:
        """Return the other end of each link whose other end was read."""
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
                    if not slab.is_repeated:
                        self._give_up(here, error)

    def _give_up(self, identity: Identity, error: VethError) -> None:
        """Mark a namespace as failed because the other ends of its links cannot be found. Raises `error` for home."""
        if identity == self._seen.home:
            raise error
        self._seen.failed[identity] = error

    def _alike(self, veth: _Abroad) -> dict[str, list[Identity]]:
        """Return the namespaces that may have its other end, judging by the indexes, by MAC."""
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
        """Return the MAC of the other end of each veth, by ifindex, as far as the kernel reports it."""
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
            place = namespaces(self._seen.reference(identity))
        except NetnsNotFound:
            return None
        except VethError as error:
            if is_exhaustion(error):
                raise
            self._give_up(identity, error)
            return None
        return place if place.identity == identity else None
