"""A route as it was read, and the messages that restore and delete exactly this route.

The kernel accepts what it has dumped, as ``ip route restore`` shows, except for what it only reports: ages, states of
the next hops (rtnh_flags, fib_create_info in net/ipv4/fib_semantics.c), and next hops that are a separate object.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable
from socket import AF_INET, AF_INET6, inet_ntop
from struct import Struct
from typing import Final, NamedTuple

from vethlib._nl.const import (
    NLM_F_APPEND,
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    NLM_F_REQUEST,
    RTA_CACHEINFO,
    RTA_DST,
    RTA_EXPIRES,
    RTA_GATEWAY,
    RTA_IIF,
    RTA_MULTIPATH,
    RTA_NH_ID,
    RTA_OIF,
    RTA_PREFSRC,
    RTA_PRIORITY,
    RTA_SRC,
    RTA_TABLE,
    RTA_VIA,
    RTM_DELROUTE,
    RTM_F_CLONED,
    RTM_NEWROUTE,
    RTN_UNICAST,
    RTNH_F_DEAD,
    RTNH_F_ONLINK,
    RTPROT_KERNEL,
    RTPROT_RA,
    RTPROT_REDIRECT,
)
from vethlib._nl.wire import attribute, attributes_of, message, without
from vethlib.errors import Malformed

from .route import hops_of

__all__ = [
    "FEW_MARKS",
    "KeptRoute",
    "add_kept",
    "delete_kept",
    "destination_of",
    "has_source",
    "kept_route",
    "marks_of_sources",
    "protocol_of",
    "restore_hops",
    "restore_kept",
    "without_source",
]

_RTMSG: Final = Struct("=BBBBBBBBI")
_RTNEXTHOP: Final = Struct("=HBBi")  # length, flags, hops, ifindex
_U32: Final = Struct("=I")
_CACHEINFO: Final = Struct("=8xi")  # struct rta_cacheinfo: rta_expires, after clntref and lastuse
_TICKS: Final = 100  # per second: USER_HZ, which is the same on all machines
_NEXT_HOPS: Final = frozenset({RTA_GATEWAY, RTA_VIA, RTA_OIF, RTA_MULTIPATH})
_LINK_LOCAL_OR_GROUP: Final = (b"\xfe\x80", b"\xff")


class KeptRoute(NamedTuple):
    """A route that a program has added, with its `source`, if any, and the seconds until it expires (0: never).

    The kernel does not distinguish routes with the same `key`. `over` is the ifindex of the link for which the route
    was read; 0: for none. `is_dead`: the kernel no longer uses one of its IPv4 hops over that link.
    """

    body: bytes
    key: tuple[bytes, ...]
    protocol: int
    has_gateway: bool
    source: bytes
    over: int
    expires: int
    is_dead: bool

    def __str__(self) -> str:
        family, prefixlen = self.body[0], self.body[1]
        return f"{inet_ntop(family, self.key[1] or bytes(4 if family == AF_INET else 16))}/{prefixlen}"


def protocol_of(body: bytes) -> int:
    """Return only the protocol of an RTM_NEWROUTE."""
    return body[5] if len(body) > 5 else 0


def destination_of(body: bytes) -> bytes:
    """Return only the destination of an RTM_NEWROUTE; b"" for a default route. Raises Malformed."""
    return next((body[start:end] for kind, start, end in attributes_of(body, _RTMSG.size) if kind == RTA_DST), b"")


def kept_route(body: bytes, index: int) -> KeptRoute | None:
    """Read the body of an RTM_NEWROUTE; None for a route that is not over link `index`, or that the kernel adds again.

    With `index` 0, it may be over any link. Routes that the kernel has added again by now need not be distinguished
    from others. Raises Malformed.
    """
    if len(body) < _RTMSG.size:
        raise Malformed(f"a route message of {len(body)} bytes")
    *head, flags = _RTMSG.unpack_from(body)
    if flags & RTM_F_CLONED:
        return None
    found: dict[int, bytes] = {}
    hops: list[tuple[bytes, int]] = []
    is_dead = False
    for kind, start, end in attributes_of(body, _RTMSG.size):
        found[kind] = body[start:end]
        if kind == RTA_MULTIPATH:
            hops = [(_as_given(body[at:to]), over) for at, to, over in hops_of(body, start, end)]
            dead = (over for at, _, over in hops_of(body, start, end) if _flags_of_hop(body, at) & RTNH_F_DEAD)
            is_dead = head[0] == AF_INET and index in dead
    links = [over for _, over in hops]
    if len(link := found.get(RTA_OIF, b"")) == _U32.size:
        links += _U32.unpack(link)
    if index and index not in links and RTA_NH_ID not in found:  # kernels before 4.20 do not filter
        return None
    expires = _expires(found.get(RTA_CACHEINFO, b""))
    if head[0] != AF_INET and _may_return(head[5], head[7], found.get(RTA_DST, b""), expires=expires):
        return None
    # IPv6 reports the link that a route to be looked up came in by, and all report ages.
    left_out = {RTA_CACHEINFO, RTA_IIF} | (_NEXT_HOPS if RTA_NH_ID in found else set())
    if hops:
        found[RTA_MULTIPATH] = _joined(head[0], [hop for hop, _ in hops])
    kept = _RTMSG.pack(*head, flags & RTNH_F_ONLINK)
    for kind, value in found.items():
        if kind not in left_out:
            kept += attribute(kind, value)
    key = (bytes(head[:4]), *(found.get(kind, b"") for kind in (RTA_DST, RTA_SRC, RTA_TABLE, RTA_PRIORITY)))
    has_gateway = not found.keys().isdisjoint((RTA_GATEWAY, RTA_VIA, RTA_NH_ID))
    has_gateway = has_gateway or any(len(hop) > _RTNEXTHOP.size for hop, _ in hops)
    return KeptRoute(kept, key, head[5], has_gateway, found.get(RTA_PREFSRC, b""), index, expires, is_dead)


def has_source(body: bytes, sources: Container[bytes]) -> bool:
    """Return whether an RTM_NEWROUTE has one of these addresses as its source; fast if it has none, like most."""
    head = _SOURCE_HEADS.get(body[0] if body else 0)
    if head is None or head not in body:
        return False
    return any(
        kind == RTA_PREFSRC and body[start:end] in sources for kind, start, end in attributes_of(body, _RTMSG.size)
    )


def marks_of_sources(family: int, sources: Collection[bytes]) -> list[bytes]:
    """Return marks for RtnlSocket.dump: each route with one of these sources contains at least one of them."""
    if len(sources) > FEW_MARKS:
        return [_SOURCE_HEADS[family]]
    return [attribute(RTA_PREFSRC, source) for source in sources]


FEW_MARKS: Final = 8
"""As many marks as are worth using: a datagram is searched once for each."""

# The header of RTA_PREFSRC, by family.
_SOURCE_HEADS: Final[dict[int, bytes]] = {
    AF_INET: attribute(RTA_PREFSRC, bytes(4))[:4],
    AF_INET6: attribute(RTA_PREFSRC, bytes(16))[:4],
}


def without_source(route: KeptRoute) -> bytes:
    """Return the body of a route of IPv6 that has lost its source along with that address (rt6_remove_prefsrc)."""
    return without(route.body, _RTMSG.size, RTA_PREFSRC)


def _may_return(protocol: int, kind: int, destination: bytes, *, expires: int) -> bool:
    """Return whether the kernel may add a route of IPv6 itself, but later than the address that it belongs to.

    It does so when an address has been checked for duplicates, when the link has a carrier, and with the next router
    advertisement. All of IPv4, and the route to the network of an IPv6 address, exist as soon as the address does.
    """
    if protocol == RTPROT_KERNEL:
        return kind != RTN_UNICAST or bool(expires) or destination.startswith(_LINK_LOCAL_OR_GROUP)
    return protocol in (RTPROT_REDIRECT, RTPROT_RA)


def _as_given(hop: bytes) -> bytes:
    """Return a struct rtnexthop with only those flags that can be given."""
    length, flags, weight, index = _RTNEXTHOP.unpack_from(hop)
    return _RTNEXTHOP.pack(length, flags & RTNH_F_ONLINK, weight, index) + hop[_RTNEXTHOP.size :]


def _flags_of_hop(body: bytes, at: int) -> int:
    return int(_RTNEXTHOP.unpack_from(body, at)[1])


def _joined(family: int, hops: Iterable[bytes]) -> bytes:
    """Return RTA_MULTIPATH. IPv6 hops are separate routes in the order of their addition, so they are sorted."""
    padded = [hop + bytes(-len(hop) % 4) for hop in hops]
    return b"".join(padded if family == AF_INET else sorted(padded))


def _expires(info: bytes) -> int:
    """Return the seconds that are left of a route, at least one; 0 if it does not expire (struct rta_cacheinfo)."""
    ticks = _CACHEINFO.unpack_from(info)[0] if len(info) >= _CACHEINFO.size else 0
    return max(1, round(ticks / _TICKS)) if ticks > 0 else 0


def restore_kept(route: KeptRoute, *, replace: bool) -> bytes:
    """RTM_NEWROUTE: add a route as it was, or in place of the one with its key.

    EEXIST: it exists; or, for an IPv6 route with several hops, another route with its key exists, which may be what is
    left of it (see restore_hops).
    """
    # Several routes may have the same key: those of IPv4 are in the order in which they were added (fib_table_insert).
    how = NLM_F_REPLACE if replace else NLM_F_EXCL if _has_several(route) else NLM_F_APPEND
    return _new(route, route.body, how)


def add_kept(route: KeptRoute) -> bytes:
    """RTM_NEWROUTE: add a route as it was. EEXIST: there is one with its key."""
    return _new(route, route.body, NLM_F_EXCL)


def restore_hops(route: KeptRoute) -> bytes:
    """RTM_NEWROUTE: add the hops over its link to an IPv6 route with several hops, if the others still exist.

    b"" for any other route. The kernel removes only those hops when the link loses IPv6 (fib6_ifdown).
    """
    if not _has_several(route):
        return b""
    body = route.body[: _RTMSG.size]
    for kind, start, end in attributes_of(route.body, _RTMSG.size):
        value = route.body[start:end]
        if kind == RTA_MULTIPATH:
            hops = hops_of(route.body, start, end)
            value = b"".join(
                [route.body[at : at + ((to - at + 3) & ~3)] for at, to, over in hops if over == route.over]
            )
        body += attribute(kind, value)
    return _new(route, body, NLM_F_APPEND)


def _has_several(route: KeptRoute) -> bool:
    return route.body[0] != AF_INET and any(
        kind == RTA_MULTIPATH for kind, _, _ in attributes_of(route.body, _RTMSG.size)
    )


def _new(route: KeptRoute, body: bytes, how: int) -> bytes:
    if route.expires:
        body += attribute(RTA_EXPIRES, _U32.pack(route.expires))
    return message(RTM_NEWROUTE, NLM_F_REQUEST | NLM_F_CREATE | how, body)


def delete_kept(route: KeptRoute) -> bytes:
    """RTM_DELROUTE of exactly this route. ESRCH: it does not exist."""
    return message(RTM_DELROUTE, NLM_F_REQUEST, route.body)
