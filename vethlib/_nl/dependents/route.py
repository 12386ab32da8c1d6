"""Routes on the wire (struct rtmsg and RTA_* of include/uapi/linux/rtnetlink.h): adding static ones, reading all."""

from __future__ import annotations

from collections.abc import Iterator
from socket import AF_INET, AF_INET6
from struct import Struct
from typing import Final, NamedTuple

from vethlib._nl.const import (
    NLA_F_NESTED,
    NLM_F_CREATE,
    NLM_F_DUMP,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    NLM_F_REQUEST,
    RT_SCOPE_LINK,
    RT_SCOPE_NOWHERE,
    RT_SCOPE_UNIVERSE,
    RT_TABLE_MAIN,
    RTA_DST,
    RTA_ENCAP,
    RTA_GATEWAY,
    RTA_METRICS,
    RTA_MULTIPATH,
    RTA_NH_ID,
    RTA_OIF,
    RTA_PREFSRC,
    RTA_PRIORITY,
    RTA_TABLE,
    RTA_VIA,
    RTAX_MTU,
    RTM_DELROUTE,
    RTM_GETROUTE,
    RTM_NEWROUTE,
    RTN_UNICAST,
    RTPROT_STATIC,
)
from vethlib._nl.wire import (
    MOST_OF_A_NEST,
    Part,
    Template,
    attribute,
    attributes,
    attributes_of,
    hole,
    message,
    template_cache,
)
from vethlib.errors import Malformed

# family, destination's and source's prefix length, tos, table, protocol, scope, type, flags
_RTMSG: Final = Struct("=BBBBBBBBI")
_RTNEXTHOP: Final = Struct("=HxxI")  # struct rtnexthop: its length, flags and hops, ifindex
_U32: Final = Struct("=I")

# struct rtmsg from its fourth byte on: tos, table, protocol, scope, type, flags
_STATIC: Final = bytes([0, RT_TABLE_MAIN, RTPROT_STATIC, RT_SCOPE_UNIVERSE, RTN_UNICAST]) + b"\0\0\0\0"


def new_route(network: bytes, prefixlen: int, gateway: bytes) -> bytes:
    """RTM_NEWROUTE: add a static route to `network` (4 or 16 bytes; prefix length 0: the default route) via `gateway`.

    It is added to the main table. The kernel finds the link by the gateway, which must be on one of the links'
    networks; otherwise ENETUNREACH or EHOSTUNREACH (fib_check_nh, net/ipv4/fib_semantics.c; ip6_route_check_nh,
    net/ipv6/route.c). EEXIST: there is already a route to this network.
    """
    return _template(len(gateway)).fill((prefixlen, network, gateway))


@template_cache
def _template(size: int) -> Template:
    family = AF_INET if size == 4 else AF_INET6
    # To the kernel, a default route with RTA_DST all zeros equals one without RTA_DST.
    parts: list[Part] = [
        bytes([family]),
        "B",
        b"\0",
        _STATIC,
        *hole(RTA_DST, f"{size}s"),
        *hole(RTA_GATEWAY, f"{size}s"),
    ]
    return Template(RTM_NEWROUTE, NLM_F_REQUEST | NLM_F_CREATE | NLM_F_EXCL, parts)


def replace_route(network: bytes, prefixlen: int, gateway: bytes, index: int, metric: int) -> bytes:
    """RTM_NEWROUTE: add a static route to the main table, or replace the one to this network with this metric.

    It leads via `gateway` (b"": the network is on the link), over the link `index` (0: that of the gateway);
    `metric` 0 is the kernel's default.
    """
    scope = RT_SCOPE_UNIVERSE if gateway or len(network) == 16 else RT_SCOPE_LINK
    body = _head(network, prefixlen, RTPROT_STATIC, scope, RTN_UNICAST) + _hop(network, gateway, index, metric)
    return message(RTM_NEWROUTE, NLM_F_REQUEST | NLM_F_CREATE | NLM_F_REPLACE, body)


def delete_route(network: bytes, prefixlen: int, gateway: bytes, index: int, metric: int) -> bytes:
    """RTM_DELROUTE: delete the first route to a network in the main table that has the given values.

    ESRCH: there is none.
    """
    body = _head(network, prefixlen, 0, RT_SCOPE_NOWHERE, 0) + _hop(network, gateway, index, metric)
    return message(RTM_DELROUTE, NLM_F_REQUEST, body)


def _head(network: bytes, prefixlen: int, protocol: int, scope: int, kind: int) -> bytes:
    family = AF_INET if len(network) == 4 else AF_INET6
    return _RTMSG.pack(family, prefixlen, 0, 0, RT_TABLE_MAIN, protocol, scope, kind, 0)


def _hop(network: bytes, gateway: bytes, index: int, metric: int) -> bytes:
    attrs = [attribute(RTA_DST, network)]
    if gateway:
        attrs.append(attribute(RTA_GATEWAY, gateway))
    if index:
        attrs.append(attribute(RTA_OIF, _U32.pack(index)))
    if metric:
        attrs.append(attribute(RTA_PRIORITY, _U32.pack(metric)))
    return b"".join(attrs)


def change_route(
    network: bytes,
    prefixlen: int,
    gateway: bytes,
    index: int,
    metric: int,
    *,
    add: bool,
    source: bytes = b"",
    mtu: int = 0,
    table: int = RT_TABLE_MAIN,
    protocol: int = RTPROT_STATIC,
) -> bytes:
    """RTM_NEWROUTE or RTM_DELROUTE of a route over link `index`; the message matches no other route.

    EEXIST: there is another route with this destination, metric and table. ESRCH: there is none to be deleted.
    """
    if not source and not mtu:  # like most routes: 1 µs instead of 5
        values: list[bytes | int] = [prefixlen, table if table < 256 else 0, protocol, network]
        values += [gateway] if gateway else []
        values += [index, metric] if metric else [index]
        values.append(table)
        return _change_template(add, len(network), bool(gateway), bool(metric)).fill(values)
    family, scope, kind = _family_scope_kind(add, len(network), bool(gateway))
    body = _RTMSG.pack(family, prefixlen, 0, 0, table if table < 256 else 0, protocol, scope, kind, 0)
    body += _hop(network, gateway, index, metric) + attribute(RTA_TABLE, _U32.pack(table))
    if source:
        body += attribute(RTA_PREFSRC, source)
    if mtu and add:
        body += attribute(RTA_METRICS | NLA_F_NESTED, attribute(RTAX_MTU, _U32.pack(mtu)))
    return message(*(_ADD if add else _DELETE), body)


@template_cache
def _change_template(add: bool, size: int, has_gateway: bool, has_metric: bool) -> Template:
    family, scope, kind = _family_scope_kind(add, size, has_gateway)
    parts: list[Part] = [bytes([family]), "B", b"\0\0", "B", "B", bytes([scope, kind]) + bytes(4)]
    parts += hole(RTA_DST, f"{size}s")
    parts += hole(RTA_GATEWAY, f"{size}s") if has_gateway else []
    parts += hole(RTA_OIF, "I") + (hole(RTA_PRIORITY, "I") if has_metric else []) + hole(RTA_TABLE, "I")
    return Template(*(_ADD if add else _DELETE), parts)


# The type and the flags of a message.
_ADD: Final = RTM_NEWROUTE, NLM_F_REQUEST | NLM_F_CREATE | NLM_F_EXCL
_DELETE: Final = RTM_DELROUTE, NLM_F_REQUEST


def _family_scope_kind(add: bool, size: int, has_gateway: bool) -> tuple[int, int, int]:
    """Return these fields of struct rtmsg for a route that is added, or deleted whatever scope and type it has."""
    family = AF_INET if size == 4 else AF_INET6
    if not add:
        return family, RT_SCOPE_NOWHERE, 0
    return family, RT_SCOPE_UNIVERSE if has_gateway or family == AF_INET6 else RT_SCOPE_LINK, RTN_UNICAST


def dump_routes(family: int) -> bytes:
    """RTM_GETROUTE of the main table (with NETLINK_GET_STRICT_CHK the kernel filters, Linux 4.20).

    A kernel without IPv6 answers with the routes of all families that it has (rtnetlink_rcv_msg falls back to
    PF_UNSPEC, net/core/rtnetlink.c), so look at the `family` of each message; the same holds for dump_routes_over.
    """
    body = _RTMSG.pack(family, 0, 0, 0, RT_TABLE_MAIN, 0, 0, 0, 0) + attribute(RTA_TABLE, _U32.pack(RT_TABLE_MAIN))
    return message(RTM_GETROUTE, NLM_F_REQUEST | NLM_F_DUMP, body)


def dump_routes_over(family: int, index: int = 0, protocol: int = 0) -> bytes:
    """RTM_GETROUTE of the routes in any table, or of those that use link `index`, even if only as one of several hops.

    With `protocol`, only routes of that protocol. The kernel filters with NETLINK_GET_STRICT_CHK; ENODEV: there is no
    such link.
    """
    body = _RTMSG.pack(family, 0, 0, 0, 0, protocol, 0, 0, 0)
    if index:
        body += attribute(RTA_OIF, _U32.pack(index))
    return message(RTM_GETROUTE, NLM_F_REQUEST | NLM_F_DUMP, body)


class RouteMessage(NamedTuple):
    """The parts of an RTM_NEWROUTE that are read: `network` and `gateway` have 4, 16 or no bytes; `ifindex` 0 is none.

    `next_hops` are the ifindexes of a route that has several (RTA_MULTIPATH), and `first_gateway` is that of the first,
    whose protocol the message has: those of IPv6 are routes of their own (rt6_fill_node, net/ipv6/route.c).

    A route `is_special` if it applies only to some packets to its destination (by their source, or by their type of
    service), leads to a next hop that is a separate object, has a gateway of the other family, wraps its packets
    (RTA_ENCAP), or is not a unicast route. A message without these properties adds a different route.
    """

    network: bytes
    prefixlen: int
    gateway: bytes
    ifindex: int
    table: int
    kind: int
    protocol: int
    flags: int = 0
    next_hops: tuple[int, ...] = ()
    metric: int = 0
    source: bytes = b""
    mtu: int = 0
    is_special: bool = False
    family: int = 0
    first_gateway: bytes = b""


def parse_route(body: bytes) -> RouteMessage:
    """Read the body of an RTM_NEWROUTE message. Raises Malformed."""
    if len(body) < _RTMSG.size:
        raise Malformed(f"a route message of {len(body)} bytes")
    family, prefixlen, from_prefixlen, tos, table, protocol, _scope, kind, flags = _RTMSG.unpack_from(body)
    network = gateway = preferred = b""
    index = metric = mtu = 0
    is_special = bool(from_prefixlen or tos) or kind != RTN_UNICAST
    next_hops: tuple[int, ...] = ()
    first_gateway = b""
    for attr, start, end in attributes_of(body, _RTMSG.size):
        if attr == RTA_DST:
            network = body[start:end]
        elif attr == RTA_GATEWAY:
            gateway = body[start:end]
        elif attr == RTA_OIF and end - start >= 4:
            index = _U32.unpack_from(body, start)[0]
        elif attr == RTA_TABLE and end - start >= 4:
            table = _U32.unpack_from(body, start)[0]
        elif attr == RTA_MULTIPATH:
            hops = list(hops_of(body, start, end))
            next_hops = tuple([over for _, _, over in hops])
            first_gateway = _gateway(body, *hops[0][:2]) if hops else b""
        elif attr == RTA_PRIORITY and end - start >= 4:
            metric = _U32.unpack_from(body, start)[0]
        elif attr == RTA_PREFSRC:
            preferred = body[start:end]
        elif attr == RTA_METRICS:
            mtu = _mtu(body, start, end)
        elif attr in (RTA_NH_ID, RTA_VIA, RTA_ENCAP):
            is_special = True
    more = (next_hops, metric, preferred, mtu, is_special, family, first_gateway)
    return RouteMessage(network, prefixlen, gateway, index, table, kind, protocol, flags, *more)


def _mtu(body: bytes, start: int, end: int) -> int:
    found = (at for attr, at, to in attributes(body, start, end) if attr == RTAX_MTU and to - at >= 4)
    return next((int(_U32.unpack_from(body, at)[0]) for at in found), 0)


def _gateway(body: bytes, start: int, end: int) -> bytes:
    """Return the gateway of a struct rtnexthop, or b""."""
    found = attributes(body, start + _RTNEXTHOP.size, end)
    return next((body[at:to] for attr, at, to in found if attr == RTA_GATEWAY), b"")


def hops_of(body: bytes, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield where each struct rtnexthop of an RTA_MULTIPATH begins and ends, and its ifindex. Raises Malformed."""
    while end - start >= _RTNEXTHOP.size:
        length, index = _RTNEXTHOP.unpack_from(body, start)
        if not _RTNEXTHOP.size <= length <= end - start:
            if len(body) > MOST_OF_A_NEST:
                return
            raise Malformed(f"a next hop of {length} bytes in {end - start}")
        yield start, start + length, index
        start += (length + 3) & ~3
