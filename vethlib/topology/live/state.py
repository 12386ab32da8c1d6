"""A node as text: its links, addresses, routes, counters and started programs, for the report of a failure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from ipaddress import ip_address
from socket import AF_INET, AF_INET6
from typing import Final, TypeVar

from vethlib import ns
from vethlib._nl.const import RT_TABLE_MAIN, RTN_UNICAST
from vethlib._nl.dependents.route import RouteMessage, dump_routes, parse_route
from vethlib._nl.sock import RtnlSocket
from vethlib._nl.torn import read
from vethlib.errors import VethError
from vethlib.links import Link, Stats
from vethlib.ns.idmap import missing_ids
from vethlib.text import printable
from vethlib.topology.programs.status import exit_code
from vethlib.topology.programs.wording import describe_program

from .node import Node

__all__ = ["describe"]

T = TypeVar("T")

_LINK_LOCAL: Final = bytes([0xFE, 0x80])

# If the peer is down, the kernel reports one of these two, depending on the namespace of the peer (default_operstate,
# net/core/link_watch.c); lo has no state at all.
_STATES = {"up": "UP", "unknown": "UP", "down": "NO-CARRIER", "lowerlayerdown": "NO-CARRIER"}


_MOST: Final = 12  # links, addresses of a link, routes and programs that are shown


def describe(node: Node) -> list[str]:
    """Return the lines, which are printable and can be encoded: names are bytes, and may contain anything.

    This raises nothing, because it is for reports: a line describes what cannot be read.
    """
    return [printable(line) for line in (*_network(node), *_indented("programs", _programs(node)))]


def _programs(node: Node) -> list[str]:
    codes = {program: exit_code(program) for program in list(node.started)}  # other threads may start more
    programs = list(codes)
    failed = [program for program, code in codes.items() if code]
    running = [program for program, code in codes.items() if code is None]
    ended = [program for program, code in codes.items() if code == 0]
    shown = _first([*reversed(failed), *reversed(running), *reversed(ended)])
    lines = [describe_program(program, arguments=True) for program in programs if program in shown]
    if len(shown) < len(programs):
        lines.append(f"… and {len(programs) - len(shown)} more")
    if failed and (missing := missing_ids()):
        lines.append(missing)
    return lines


def _network(node: Node) -> list[str]:
    if node.closed:
        return ["closed"]
    try:
        links = node.links()
        shown = _first(links, last=lambda link: _state(link) == "UP")
        counters = {link.name: node.stats(link.name) for link in shown}
        routes = _routes(node)
    except (VethError, OSError) as error:
        return [f"cannot be read: {error}"]
    rows = [_route(route, links) for route in _first(routes)]
    return [
        *_aligned([_link(link) for link in shown]),
        *_more(links, shown, "ip address shows"),
        *_indented("routes", [*_aligned(rows), *_more(routes, rows, "ip route shows")]),
        *_indented("counters", _aligned(list(_counters(counters)))),
    ]


def _state(link: Link) -> str:
    return _STATES.get(link.operstate, link.operstate) if link.up else "DOWN"


def _link(link: Link) -> tuple[str, ...]:
    addresses = _first(link.addresses)
    texts = [*map(str, addresses), *_more(link.addresses, addresses, "ip address shows")]
    return link.name, _state(link), f"mtu {link.mtu}", link.mac, "  ".join(texts)


def _routes(node: Node) -> list[RouteMessage]:
    rtnl = ns.call_in(node.netns.fd, RtnlSocket)
    try:
        routes = [
            route
            for family in (AF_INET, AF_INET6)
            for route in read(partial(rtnl.dump, dump_routes(family), parse_route, 1)).bodies
            if route.family == family  # a kernel without IPv6 answers with the IPv4 routes once more
        ]
    finally:
        rtnl.close()
    # Every link has the network of link-local addresses, which is not informative.
    return [
        route
        for route in routes
        if route.table == RT_TABLE_MAIN and route.kind == RTN_UNICAST and not route.network.startswith(_LINK_LOCAL)
    ]


def _route(route: RouteMessage, links: Sequence[Link]) -> tuple[str, ...]:
    network = f"{ip_address(route.network)}/{route.prefixlen}" if route.network else "default"
    via = f"via {ip_address(route.gateway)}" if route.gateway else ""
    names = {link.index: link.name for link in links}
    devices = route.next_hops or (route.ifindex,)  # a route with several next hops has theirs
    return network, via, f"dev {', '.join(str(names.get(index, index)) for index in devices)}"


def _counters(counters: dict[str, Stats]) -> Iterator[tuple[str, ...]]:
    yield "", "packets", "bytes", "errors", "dropped"
    for name, one in counters.items():
        if name == "lo" and not one.rx_packets:
            continue
        yield f"{name} rx", *map(str, (one.rx_packets, one.rx_bytes, one.rx_errors, one.rx_dropped))
        yield f"{name} tx", *map(str, (one.tx_packets, one.tx_bytes, one.tx_errors, one.tx_dropped))


def _first(values: Sequence[T], *, last: Callable[[T], bool] = lambda _: False) -> Sequence[T]:
    """Return the values that are shown: all, or the first of many, with those for which `last` is true at the end."""
    return values if len(values) <= _MOST + 1 else sorted(values, key=last)[:_MOST]


def _more(values: Sequence[object], shown: Sequence[object], where: str) -> list[str]:
    more = len(values) - len(shown)
    return [f"… and {more} more, which {where}"] if more else []


def _indented(title: str, lines: list[str]) -> list[str]:
    return [f"{title}:", *(f"  {line}" for line in lines)] if lines else []


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Format rows as lines with aligned columns."""
    rows = [[*map(printable, row)] for row in rows]  # before the widths are known
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)] if rows else []
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
