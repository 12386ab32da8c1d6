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
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from socket import AF_INET, AF_INET6
from typing import Any, Final

from .. import ns
from .._nl.borne import dump_neighbours, dump_qdiscs, parse_mounted, parse_qdisc, permanent_on
from .._nl.const import RTM_F_CLONED, RTPROT_KERNEL, TC_H_INGRESS, TC_H_ROOT
from .._nl.link import get_link
from .._nl.route import dump_routes_over, parse_route
from ..links import Borne
from .places import Place, Places
from .reading import table
from .refusal import refusal

__all__ = ["read_borne"]

_FEW: Final = 16  # links whose routes are asked for one by one
_PLAIN_QDISCS: Final = ("noop", "noqueue")  # a veth has no queue of its own (IFF_NO_QUEUE, drivers/net/veth.c)


def read_borne(open_places: Callable[[], Places], items: Iterable[tuple[str, int]]) -> list[Borne]:
    """What each link, (reference, ifindex), bears; nothing for one that is gone."""
    wanted = list(items)
    found: dict[tuple[Place, int], Borne] = {}
    with open_places() as places:
        by_place: dict[Place, list[int]] = {}
        for ref, index in wanted:
            by_place.setdefault(places(ref), []).append(index)
        for place, indexes in by_place.items():
            found.update(((place, index), borne) for index, borne in _in_place(places, place, indexes))
        return [found.get((places(ref), index), Borne()) for ref, index in wanted]


def _in_place(places: Places, place: Place, indexes: Sequence[int]) -> Iterator[tuple[int, Borne]]:
    links = {link.ifindex: link for link in table(places, place)}
    there = [index for index in indexes if index in links]
    routes = Counter(_routed(places, place, there))
    neighbours = Counter(_dumped(places, place, dump_neighbours(), permanent_on, "neighbours"))
    qdiscs = _dumped(places, place, dump_qdiscs(), parse_qdisc, "queueing disciplines")
    off = _without_ipv6(place, [links[index].name for index in there])
    stacked: dict[int, list[str]] = {}
    for link in links.values():
        if link.link and link.kind != "veth" and link.link_netnsid is None:
            stacked.setdefault(link.link, []).append(repr(link.name))
    on = {one.ifindex: one.kind for one in qdiscs if one.kind not in _PLAIN_QDISCS and one.parent == TC_H_INGRESS}
    root = {one.ifindex: one.kind for one in qdiscs if one.kind not in _PLAIN_QDISCS and one.parent == TC_H_ROOT}
    for index, outcome in zip(there, places.ask_all(place, [get_link(index) for index in there]), strict=True):
        if outcome.errno:
            continue  # it went a moment ago
        mounted, link = parse_mounted(outcome.bodies[0]), links[index]
        fixed = [f"its alternative name {name!r}" for name in link.altnames]
        if mounted.master:
            bridge = links.get(mounted.master)
            fixed.append(f"its place in {bridge.name if bridge else mounted.master!r}")
        fixed += [f"its qdisc {kinds[index]}" for kinds in (root, on) if index in kinds]
        if mounted.xdp:
            fixed.append("its XDP program")
        yield (
            index,
            Borne(routes[index], neighbours[index], tuple(stacked.get(index, ())), tuple(fixed), link.name in off),
        )


def _dumped(places: Places, place: Place, request: bytes, parse: Callable[[bytes], Any], what: str) -> Sequence[Any]:
    outcome = places.dump(place, request, parse)
    if outcome.errno in (errno.ENODEV, errno.EAFNOSUPPORT, errno.EOPNOTSUPP):
        return ()  # a kernel without traffic control, or without IPv6
    if outcome.errno:
        raise refusal(outcome, f"list the {what}", place.ref)
    return outcome.bodies


def _routed(places: Places, place: Place, indexes: Sequence[int]) -> Iterator[int]:
    """The link of each route that the kernel did not make by itself, once for each of its links."""
    # A host may have a million routes that are none of ours, and the kernel goes through them for each link.
    ask_for = indexes if len(indexes) <= _FEW else [0]
    for family in (AF_INET, AF_INET6):
        for one in ask_for:
            for route in _dumped(places, place, dump_routes_over(family, one), parse_route, "routes"):
                if route.protocol != RTPROT_KERNEL and not route.flags & RTM_F_CLONED:
                    links = {route.ifindex, *route.next_hops}
                    # One by a next hop object may name no link, but the kernel knows.
                    yield from {one} if one else links


def _without_ipv6(place: Place, names: Iterable[str]) -> set[str]:
    """Those on which IPv6 is switched off."""

    # /proc/sys/net shows the namespace of whoever looks.
    def read() -> set[str]:
        return {name for name in names if _is_set(b"/proc/sys/net/ipv6/conf/%b/disable_ipv6" % os.fsencode(name))}

    return ns.call_in(place.fd, read)


def _is_set(path: bytes) -> bool:
    try:
        with open(path, "rb", 0) as switch:
            return switch.read().strip() != b"0"
    except OSError:
        return False  # below an MTU of 1280 a link has no IPv6 at all
