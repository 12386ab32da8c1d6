"""The dependents of a link: what others have added to it, and what is lost when it is deleted, set down or changed.

The kernel removes the following, and never restores it:

* with the link: everything (unregister_netdevice_many, net/core/dev.c).
* when it is set down: its routes (fib_disable_ip, net/ipv4/fib_frontend.c; addrconf_ifdown, net/ipv6/addrconf.c) and
  its neighbours, including permanent ones (neigh_ifdown, net/core/neighbour.c). Links on top of it are set down, too.
* with its MAC: its neighbours (neigh_changeaddr). Links on top of it may take the new MAC (vlan_sync_address).
* with an IPv4 address: the routes that have it as their source, over any link; with the last IPv4 address, all IPv4
  routes and neighbours of the link. IPv6 routes only lose their source.
* with an MTU below 1280: its IPv6 token (addrconf_ifdown).

Not covered: settings in /proc and /sys (and those of neigh, which have their own netlink message), multicast addresses,
sockets bound to a link, filters in its qdiscs, rules and the like that name it, and links on top of it that were moved
to another namespace.
"""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from functools import partial
from ipaddress import ip_address
from socket import AF_INET, AF_INET6
from typing import Any, Final, TypeAlias

from vethlib._nl.const import RT_TABLE_MAIN, RTM_F_CLONED, RTPROT_KERNEL, TC_H_INGRESS, TC_H_ROOT
from vethlib._nl.dependents.attached import Mounted, dump_qdiscs, parse_mounted, parse_qdisc
from vethlib._nl.dependents.kept import has_source, marks_of_sources
from vethlib._nl.dependents.neighbour import dump_neighbours, parse_neighbour
from vethlib._nl.dependents.route import RouteMessage, dump_routes_over, parse_route
from vethlib._nl.link import LinkMessage, get_link
from vethlib._nl.torn import read
from vethlib._nl.wire import encoded
from vethlib.endfields.checks import OF_THE_NAMESPACE
from vethlib.endfields.routes import PROTO
from vethlib.links import Dependents, Link, NetnsRef, SourcedRoutes
from vethlib.session.core.namespaces import Namespaces, OpenNetns
from vethlib.session.core.refusal import refusal
from vethlib.session.core.slabs import read_in_slabs

from .reading import address_messages, table
from .target import is_another_in, read_body

__all__ = ["read_dependents"]

_Wanted: TypeAlias = tuple[NetnsRef, int, Link | None]
"""Reference, ifindex, and the Link that it must be, or None."""

_FEW: Final = 16  # links whose routes are requested individually
_PLAIN_QDISCS: Final = ("noop", "noqueue")  # a veth has no queue (IFF_NO_QUEUE, drivers/net/veth.c)


def read_dependents(open_namespaces: Callable[[], Namespaces], items: Iterable[_Wanted]) -> list[Dependents]:
    """Return the dependents of each link; none for a link that is missing."""
    wanted = list(items)
    found = read_in_slabs(open_namespaces, (ref for ref, *_ in wanted), partial(_in_slab, wanted))
    return [found.get(position, Dependents()) for position in range(len(wanted))]


def _in_slab(
    wanted: Sequence[_Wanted], namespaces: Namespaces, groups: Iterable[Sequence[int]]
) -> Iterator[tuple[int, Dependents]]:
    """Yield the dependents of those of these links that exist, each with its position."""
    by_place: dict[OpenNetns, list[int]] = {}
    for positions in groups:
        by_place.setdefault(namespaces(wanted[positions[0]][0]), []).extend(positions)
    for place, positions in by_place.items():
        links = {link.ifindex: link for link in table(namespaces, place)}
        indexes: dict[int, int] = {}
        for position in positions:
            _, index, seen = wanted[position]
            if index in links and not (seen and is_another_in(namespaces, place, seen, links[index])):
                indexes[position] = index
        dependents = dict(_in_place(namespaces, place, links, list(dict.fromkeys(indexes.values()))))
        yield from ((at, dependents[index]) for at, index in indexes.items() if index in dependents)


def _in_place(
    namespaces: Namespaces, place: OpenNetns, links: Mapping[int, LinkMessage], existing: Sequence[int]
) -> Iterator[tuple[int, Dependents]]:
    routes = Counter(_routed(namespaces, place, existing))
    foreign = [
        each
        for each in _dumped(namespaces, place, dump_neighbours(), parse_neighbour, "neighbours")
        if each.is_permanent and each.protocol != PROTO
    ]
    neighbours = Counter(each.ifindex for each in foreign)
    of_ipv4 = Counter(each.ifindex for each in foreign if len(each.address) == 4)
    sourced = _sourced(namespaces, place, existing)
    qdiscs = _qdiscs(namespaces, place)
    off = _without_ipv6(place, [links[index].name for index in existing])
    stacked: dict[int, list[str]] = {}
    for link in links.values():
        if link.link and link.kind != "veth" and link.link_netnsid is None:
            stacked.setdefault(link.link, []).append(repr(link.name))
    outcomes = namespaces.ask_all(place, [get_link(index, stats=True) for index in existing])
    for index, outcome in zip(existing, outcomes, strict=True):
        if outcome.errno:
            continue  # it has just been deleted
        mounted = read_body(place, outcome, parse_mounted)
        dependents = Dependents(
            routes[index],
            neighbours[index],
            tuple(stacked.get(index, ())),
            tuple(_fixed(links, index, mounted, qdiscs)),
            links[index].name in off,
            tuple(each for is_lost, each in sourced.get(index, ()) if is_lost or mounted.master),
            of_ipv4[index],
            mounted.token,
        )
        yield index, dependents


def _qdiscs(namespaces: Namespaces, place: OpenNetns) -> dict[tuple[int, int], str]:
    """Return the kinds of queueing disciplines that a new veth does not have, by ifindex and parent."""
    qdiscs = _dumped(namespaces, place, dump_qdiscs(), parse_qdisc, "queueing disciplines")
    return {(each.ifindex, each.parent): each.kind for each in qdiscs if each.kind not in _PLAIN_QDISCS}


def _fixed(
    links: Mapping[int, LinkMessage], index: int, mounted: Mounted, qdiscs: Mapping[tuple[int, int], str]
) -> Iterator[str]:
    """Yield descriptions of what is part of a link, or attached to it."""
    link = links[index]
    for name in link.altnames:
        yield f"its alternative name {name!r}"
    if mounted.master:
        bridge = links.get(mounted.master)
        yield f"its place in {bridge.name if bridge else mounted.master!r}"
    for parent in (TC_H_ROOT, TC_H_INGRESS):
        if (kind := qdiscs.get((index, parent))) is not None:
            yield f"its qdisc {kind}"
    if mounted.xdp:
        yield "its XDP program"
    if link.kind == "veth":
        for setting in mounted.settings:
            yield f"its setting {setting!r}"


def _dumped(
    namespaces: Namespaces,
    place: OpenNetns,
    request: bytes,
    parse: Callable[[bytes], Any],
    what: str,
    marks: Sequence[bytes] = (),
) -> Sequence[Any]:
    dump = partial(namespaces.dump, place, request, parse, 1, marks=marks)
    outcome = read(dump, patience=namespaces.patience)
    if outcome.errno in (errno.ENODEV, errno.EAFNOSUPPORT, errno.EOPNOTSUPP):
        return ()  # a kernel without traffic control, or without IPv6
    if outcome.errno:
        raise refusal(outcome, f"list the {what}", place.ref)
    return outcome.bodies


def _routed(namespaces: Namespaces, place: OpenNetns, indexes: Sequence[int]) -> Iterator[int]:
    """Yield the ifindexes of each route that the kernel did not create automatically."""
    # A host may have a million routes over other links, and the kernel goes through all of them for each request.
    requested = indexes if len(indexes) <= _FEW else [0]
    for family in (AF_INET, AF_INET6):
        for index in requested:
            for route in _dumped(namespaces, place, dump_routes_over(family, index), parse_route, "routes"):
                if route.family != family:
                    continue  # a kernel without IPv6
                if route.protocol not in (RTPROT_KERNEL, PROTO) and not route.flags & RTM_F_CLONED:
                    links = {route.ifindex, *route.next_hops}
                    # A route with a next hop object need not name its link, but the kernel has matched it.
                    yield from {index} if index else links


def _sourced(
    namespaces: Namespaces, place: OpenNetns, indexes: Sequence[int]
) -> dict[int, list[tuple[bool, SourcedRoutes]]]:
    """Return the routes over other links whose source is an address of each of these links.

    Of IPv4 routes, the kernel removes only those of the main table, or of the VRF that the link is in. So each entry
    includes whether the kernel removes these routes with the address of a link that has no master.
    """
    having: dict[bytes, set[int]] = {}
    asked = frozenset(indexes)
    for address in address_messages(namespaces, place):
        if address.ifindex in asked:
            having.setdefault(address.address, set()).add(address.ifindex)
    counts: Counter[tuple[int, bytes, int, bool, bool]] = Counter()
    for family, size in ((AF_INET, 4), (AF_INET6, 16)):
        sources = {source for source in having if len(source) == size}
        for route in _from_sources(namespaces, place, family, sources) if sources else ():
            links = [*route.next_hops, route.ifindex]
            for index in having[route.source].difference(links):
                is_lost = family == AF_INET6 or route.table == RT_TABLE_MAIN
                counts[index, route.source, links[0], route.protocol == PROTO, is_lost] += 1
    sourced: dict[int, list[tuple[bool, SourcedRoutes]]] = {}
    for (index, source, over, own, is_lost), count in counts.items():
        sourced.setdefault(index, []).append((is_lost, SourcedRoutes(ip_address(source), over, own, count)))
    return sourced


def _from_sources(namespaces: Namespaces, place: OpenNetns, family: int, sources: Set[bytes]) -> Iterator[RouteMessage]:
    def parse(body: bytes) -> RouteMessage | None:  # few of a million routes
        return parse_route(body) if has_source(body, sources) else None

    marks = marks_of_sources(family, sources)
    for route in _dumped(namespaces, place, dump_routes_over(family), parse, "routes", marks):
        if route is not None and route.protocol != RTPROT_KERNEL and not route.flags & RTM_F_CLONED:
            yield route


def _without_ipv6(place: OpenNetns, names: Iterable[str]) -> set[str]:
    """Return the links on which IPv6 is disabled."""

    # /proc/sys/net belongs to the namespace of the thread that opens it.
    def read() -> set[str]:
        own = (name for name in names if name not in OF_THE_NAMESPACE)
        return {name for name in own if _is_set(b"/proc/sys/net/ipv6/conf/%b/disable_ipv6" % encoded(name))}

    return place.call(read)


def _is_set(path: bytes) -> bool:
    try:
        with open(path, "rb", 0) as switch:
            return switch.read().strip() != b"0"
    except OSError:
        return False  # below an MTU of 1280 a link has no IPv6 at all
