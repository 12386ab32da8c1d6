"""What a link bears that others have put there, and that goes when the link goes, or is down, or changes.

What the kernel takes away, and never gives back:

* with the link: everything (unregister_netdevice_many, net/core/dev.c).
* down: its routes (fib_disable_ip, net/ipv4/fib_frontend.c; addrconf_ifdown, net/ipv6/addrconf.c) and its neighbours,
  the permanent ones too (neigh_ifdown, net/core/neighbour.c). Links that are stacked on it go down, too.
* another MAC: its neighbours (neigh_changeaddr). Those stacked on it may take the new one (vlan_sync_address).
* an IPv4 address: the routes that have it for a source, and with the last one of the link all of its routes.

Not seen: settings in /proc/sys/net, sockets that are bound to a link, filters in a qdisc that is known otherwise, and
stacked links that were moved to another namespace.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Sequence
from socket import AF_INET, AF_INET6
from typing import Final

from .. import ns
from .._nl.borne import Qdisc, dump_neighbours, dump_qdiscs, is_permanent, parse_mounted, parse_qdisc
from .._nl.const import RTM_F_CLONED, RTPROT_KERNEL
from .._nl.link import LinkMessage, get_link, parse_link
from .._nl.route import RouteMessage, dump_routes_over, parse_route
from ..errors import LinkNotFound
from ..links import Borne
from .places import Place, Places
from .reading import not_found, table
from .refusal import refusal

__all__ = ["read_borne"]

_PLAIN_QDISCS: Final = ("noop", "noqueue")  # a veth has no queue of its own (IFF_NO_QUEUE, drivers/net/veth.c)


def read_borne(open_places: Callable[[], Places], items: Iterable[tuple[str, int]]) -> list[Borne]:
    """What each link, (reference, ifindex), bears; nothing for one that is gone."""
    found: list[Borne] = []
    with open_places() as places:
        tables: dict[Place, tuple[list[LinkMessage], list[Qdisc]]] = {}
        for ref, index in items:
            place = places(ref)
            if place not in tables:
                tables[place] = table(places, place), _qdiscs(places, place)
            try:
                found.append(_borne(places, place, index, *tables[place]))
            except LinkNotFound:
                found.append(Borne())
    return found


def _qdiscs(places: Places, place: Place) -> list[Qdisc]:
    outcome = places.dump(place, dump_qdiscs(), parse_qdisc)
    if outcome.errno == errno.EOPNOTSUPP:
        return []  # a kernel without traffic control
    if outcome.errno:
        raise refusal(outcome, "list the queueing disciplines", place.ref)
    return [one for one in outcome.bodies if one.kind not in _PLAIN_QDISCS]


def _borne(places: Places, place: Place, index: int, links: Sequence[LinkMessage], qdiscs: Iterable[Qdisc]) -> Borne:
    outcome = places.ask(place, get_link(index))
    if outcome.errno:
        raise not_found(outcome, str(index), place.ref)
    link, mounted = parse_link(outcome.bodies[0]), parse_mounted(outcome.bodies[0])
    names = {one.ifindex: one.name for one in links}
    fixed = [f"its alternative name {name!r}" for name in link.altnames]
    if mounted.master:
        fixed.append(f"its place in {names.get(mounted.master, mounted.master)!r}")
    fixed += [f"its qdisc {one.kind}" for one in qdiscs if one.ifindex == index]
    if mounted.xdp:
        fixed.append("its XDP program")
    stacked = [one for one in links if one.link == index and one.kind != "veth" and one.link_netnsid is None]
    return Borne(
        sum(_routes(places, place, index, family) for family in (AF_INET, AF_INET6)),
        _neighbours(places, place, index),
        tuple(repr(one.name) for one in stacked),
        tuple(fixed),
        _ipv6_is_off(place, link.name),
    )


def _routes(places: Places, place: Place, index: int, family: int) -> int:
    outcome = places.dump(place, dump_routes_over(family, index), parse_route)
    if outcome.errno in (errno.ENODEV, errno.EAFNOSUPPORT, errno.EOPNOTSUPP):
        return 0
    if outcome.errno:
        raise refusal(outcome, "list the routes", place.ref)
    return sum(_is_foreign(route, index) for route in outcome.bodies)


def _is_foreign(route: RouteMessage, index: int) -> bool:
    # A route of many next hops has no index of its own.
    return route.protocol != RTPROT_KERNEL and not route.flags & RTM_F_CLONED and route.ifindex in (0, index)


def _neighbours(places: Places, place: Place, index: int) -> int:
    outcome = places.dump(place, dump_neighbours(index), lambda body: is_permanent(body, index))
    if outcome.errno:
        raise refusal(outcome, "list the neighbours", place.ref)
    return sum(outcome.bodies)


def _ipv6_is_off(place: Place, name: str) -> bool:
    # /proc/sys/net shows the namespace of whoever looks.
    def read() -> bool:
        try:
            with open(b"/proc/sys/net/ipv6/conf/" + os.fsencode(name) + b"/disable_ipv6", "rb", 0) as switch:
                return switch.read().strip() != b"0"
        except OSError:
            return False  # below an MTU of 1280 a link has no IPv6 at all

    return ns.call_in(place.fd, read)
