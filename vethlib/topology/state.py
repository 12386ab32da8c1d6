"""What a node looks like now, as text: its links, addresses, routes and counters, for the report of a failure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from ipaddress import ip_address
from socket import AF_INET, AF_INET6
from typing import Final

from .. import ns
from .._nl.const import RT_TABLE_MAIN, RTN_UNICAST
from .._nl.route import RouteMessage, dump_routes, parse_route
from .._nl.sock import RtnlSocket
from ..errors import VethError
from ..links import Link, Stats
from .node import Node

__all__ = ["describe"]

_LINK_LOCAL: Final = bytes([0xFE, 0x80])

# Which of the two the kernel says where the other end is down depends on where that is (default_operstate,
# net/core/link_watch.c); and lo has none at all.
_STATES = {"up": "UP", "unknown": "UP", "down": "NO-CARRIER", "lowerlayerdown": "NO-CARRIER"}


_MOST_ROUTES = 12


def describe(node: Node) -> list[str]:
    """The lines. What cannot be read any more is a line that says so: this is for reports, and raises nothing."""
    if node.closed:
        return ["closed"]
    try:
        links = node.links()
        counters = {link.name: node.stats(link.name) for link in links}
        routes = _routes(node)
    except (VethError, OSError) as error:
        return [f"cannot be read: {error}"]
    return [
        *_aligned([_link(link) for link in links]),
        *_indented("routes", _shortened(_aligned([_route(one, links) for one in routes]))),
        *_indented("counters", _aligned(list(_counters(counters)))),
    ]


def _link(link: Link) -> tuple[str, ...]:
    state = _STATES.get(link.operstate, link.operstate) if link.up else "DOWN"
    addresses = "  ".join(map(str, link.addresses))
    return link.name, state, f"mtu {link.mtu}", link.mac, addresses


def _routes(node: Node) -> list[RouteMessage]:
    rtnl = ns.call_in(node.netns.fd, RtnlSocket)
    try:
        found = [one for family in (AF_INET, AF_INET6) for one in rtnl.dump(dump_routes(family), parse_route).bodies]
    finally:
        rtnl.close()
    # The network of link-local addresses is on every link, and says nothing.
    return [
        one
        for one in found
        if one.table == RT_TABLE_MAIN and one.kind == RTN_UNICAST and not one.network.startswith(_LINK_LOCAL)
    ]


def _route(route: RouteMessage, links: Sequence[Link]) -> tuple[str, ...]:
    network = f"{ip_address(route.network)}/{route.prefixlen}" if route.network else "default"
    via = f"via {ip_address(route.gateway)}" if route.gateway else ""
    names = {link.index: link.name for link in links}
    return network, via, f"dev {names.get(route.ifindex, route.ifindex)}"


def _counters(counters: dict[str, Stats]) -> Iterator[tuple[str, ...]]:
    yield "", "packets", "bytes", "errors", "dropped"
    for name, one in counters.items():
        if name == "lo" and not one.rx_packets:
            continue
        yield f"{name} rx", *map(str, (one.rx_packets, one.rx_bytes, one.rx_errors, one.rx_dropped))
        yield f"{name} tx", *map(str, (one.tx_packets, one.tx_bytes, one.tx_errors, one.tx_dropped))


def _shortened(lines: list[str]) -> list[str]:
    more = len(lines) - _MOST_ROUTES
    return [*lines[:_MOST_ROUTES], f"… and {more} more, which ip route shows"] if more > 1 else lines


def _indented(title: str, lines: list[str]) -> list[str]:
    return [f"{title}:", *(f"  {line}" for line in lines)] if lines else []


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as lines whose columns begin at the same places."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)] if rows else []
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
