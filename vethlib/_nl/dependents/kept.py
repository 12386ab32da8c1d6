"""A route as it was read, in the messages that restore and delete exactly it.

The kernel accepts what it has dumped, as ``ip route restore`` shows, but for what it only reports: ages, states of the
next hops (rtnh_flags, fib_create_info in net/ipv4/fib_semantics.c), and the next hops behind an object of their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from socket import AF_INET, inet_ntop
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
    RTNH_F_ONLINK,
    RTPROT_KERNEL,
    RTPROT_RA,
    RTPROT_REDIRECT,
)
from vethlib._nl.wire import attribute, attributes_of, message
from vethlib.errors import Malformed

__all__ = ["KeptRoute", "delete_kept", "kept_route", "protocol_of", "restore_kept"]

_RTMSG: Final = Struct("=BBBBBBBBI")
_RTNEXTHOP: Final = Struct("=HBBi")  # length, flags, hops, ifindex
_I32: Final = Struct("=i")
_NEXT_HOPS: Final = frozenset({RTA_GATEWAY, RTA_VIA, RTA_OIF, RTA_MULTIPATH})
_BY_KERNEL: Final = frozenset({RTPROT_KERNEL, RTPROT_REDIRECT, RTPROT_RA})


class KeptRoute(NamedTuple):
    """A route that a program has added, with its `source` if it has one.

    The kernel does not tell apart those with the same `key`.
    """

    body: bytes
    key: tuple[bytes, ...]
    protocol: int
    has_gateway: bool
    source: bytes

    def __str__(self) -> str:
        family, prefixlen = self.body[0], self.body[1]
        return f"{inet_ntop(family, self.key[1] or bytes(4 if family == AF_INET else 16))}/{prefixlen}"


def protocol_of(body: bytes) -> int:
    """Return only the protocol of an RTM_NEWROUTE."""
    return body[5] if len(body) > 5 else 0


def kept_route(body: bytes, index: int) -> KeptRoute | None:
    """Read the body of an RTM_NEWROUTE; None for a route that is not over link `index`, or made by the kernel itself.

    Raises Malformed.
    """
    if len(body) < _RTMSG.size:
        raise Malformed(f"a route message of {len(body)} bytes")
    *head, flags = _RTMSG.unpack_from(body)
    protocol = head[5]
    if protocol in _BY_KERNEL or flags & RTM_F_CLONED:
        return None
    found = {kind: body[start:end] for kind, start, end in attributes_of(body, _RTMSG.size)}
    if not _leads_over(found, index):  # kernels before 4.20 do not filter
        return None
    # IPv6 reports the link that a route to be looked up came in by, and all report ages.
    left_out = {RTA_CACHEINFO, RTA_IIF} | (_NEXT_HOPS if RTA_NH_ID in found else set())
    if RTA_MULTIPATH in found:
        found[RTA_MULTIPATH] = _without_states(found[RTA_MULTIPATH])
    kept = _RTMSG.pack(*head, flags & RTNH_F_ONLINK)
    for kind, value in found.items():
        if kind not in left_out:
            kept += attribute(kind, value)
    key = (bytes(head[:4]), *(found.get(kind, b"") for kind in (RTA_DST, RTA_SRC, RTA_TABLE, RTA_PRIORITY)))
    has_gateway = not found.keys().isdisjoint((RTA_GATEWAY, RTA_VIA, RTA_MULTIPATH, RTA_NH_ID))
    return KeptRoute(kept, key, protocol, has_gateway, found.get(RTA_PREFSRC, b""))


def _leads_over(found: dict[int, bytes], index: int) -> bool:
    links = [*_hops(found.get(RTA_MULTIPATH, b""))]
    over = {int(_RTNEXTHOP.unpack_from(found[RTA_MULTIPATH], at)[3]) for at in links}
    if len(link := found.get(RTA_OIF, b"")) == 4:
        over.add(int(_I32.unpack(link)[0]))
    return index in over or RTA_NH_ID in found


def _hops(hops: bytes) -> Iterator[int]:
    """Yield where each struct rtnexthop begins."""
    at = 0
    while len(hops) - at >= _RTNEXTHOP.size:
        yield at
        length = int(_RTNEXTHOP.unpack_from(hops, at)[0])
        if length < _RTNEXTHOP.size:
            return
        at += (length + 3) & ~3


def _without_states(hops: bytes) -> bytes:
    """Return RTA_MULTIPATH with those flags only that can be given."""
    cleared = bytearray(hops)
    for at in _hops(hops):
        length, flags, weight, index = _RTNEXTHOP.unpack_from(hops, at)
        _RTNEXTHOP.pack_into(cleared, at, length, flags & RTNH_F_ONLINK, weight, index)
    return bytes(cleared)


def restore_kept(route: KeptRoute, *, replace: bool) -> bytes:
    """RTM_NEWROUTE: add a route as it was, or in place of the one with its key. EEXIST: it exists."""
    # Two IPv4 routes may have the same key: they are in the order in which they were added (fib_table_insert).
    how = NLM_F_REPLACE if replace else NLM_F_APPEND if route.body[0] == AF_INET else NLM_F_EXCL
    return message(RTM_NEWROUTE, NLM_F_REQUEST | NLM_F_CREATE | how, route.body)


def delete_kept(route: KeptRoute) -> bytes:
    """RTM_DELROUTE of exactly this route. ESRCH: it does not exist."""
    return message(RTM_DELROUTE, NLM_F_REQUEST, route.body)
