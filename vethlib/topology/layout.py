"""From a description to a layout: everything checked, and nothing left open."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, get_args

from ..errors import InvalidValue
from ..links import check_addresses, check_mtu, check_name
from .addressing import Segment, give_addresses, port_at, segments, spell, too_narrow
from .description import BRIDGE, Description, Kind, Layout, Member, Port, Wire
from .routing import find_routes
from .text import check_node_name

__all__ = ["lay_out"]

_MOST_PORTS: Final = 1023  # of a bridge: find_portno (net/bridge/br_if.c), BR_MAX_PORTS (br_private.h) without port 0
_MOST_SEGMENTS: Final = 1 << 16


def lay_out(
    description: Description, *, ipv4: bool = True, ipv6: bool = True, routes: bool = False, first: int = 0
) -> Layout:
    """Settle what a description leaves open: link names, addresses, routes.

    `first` is the number of its first open segment: with 3, that has 10.0.3.0/24 and fd00:3::/64. With `routes`, every
    address is reachable from every node, as far as wires lead there; nodes with two segments or more then forward.
    Raises InvalidValue for what cannot be built.
    """
    if not isinstance(description, Description):
        raise InvalidValue("topology", description, 'describe it by text, "a -- b", or by a Description')
    if type(first) is not int or not 0 <= first < _MOST_SEGMENTS:
        raise InvalidValue("first", first, f"the number of a segment is 0 to {_MOST_SEGMENTS - 1}")
    if not description.members:
        raise InvalidValue("topology", "", 'there is no node in it: describe it by text, "a -- b"')
    kinds = _check_members(description.members)
    wires = [_check_wire(wire, kinds) for wire in description.wires]
    links = _links(wires, kinds)
    found = segments(description.members, wires)
    _check_unique(wires, found)
    given = give_addresses(wires, found, ipv4=ipv4, ipv6=ipv6, first=first)
    settled = tuple(
        Wire(
            Port(wire.a.node, next(links), given.get((number, 0), ())),
            Port(wire.b.node, next(links), given.get((number, 1), ())),
            wire.mtu,
        )
        for number, wire in enumerate(wires)
    )
    forwarding = {name for name, kind in kinds.items() if kind == "router"}
    if not routes:
        return Layout(description.members, settled, {}, frozenset(forwarding))
    forwarding |= _between(settled, found)
    return Layout(description.members, settled, find_routes(settled, found, forwarding), frozenset(forwarding))


def _between(wires: Sequence[Wire], found: Sequence[Segment]) -> set[str]:
    """The nodes that are in two segments or more."""
    counts = Counter(node for segment in found for node in {port_at(wires, at).node for at in segment.ports})
    return {name for name, count in counts.items() if count > 1}


def _check_members(members: Sequence[Member]) -> dict[str, Kind]:
    kinds: dict[str, Kind] = {}
    for member in members:
        check_node_name(member.name)
        if member.kind not in get_args(Kind):
            raise InvalidValue("topology", member.kind, f"{member.name} is of no such kind: node, router or switch")
        if member.name in kinds:
            raise InvalidValue("topology", member.name, "there are two nodes of this name")
        kinds[member.name] = member.kind
    return kinds


def _check_wire(wire: Wire, kinds: Mapping[str, Kind]) -> Wire:
    if wire.a.node == wire.b.node:
        raise InvalidValue("topology", f"{wire.a.node} -- {wire.b.node}", "a wire is between two nodes")
    if wire.mtu is not None:
        check_mtu(wire.mtu)
    return Wire(_check_port(wire.a, wire.mtu, kinds), _check_port(wire.b, wire.mtu, kinds), wire.mtu)


def _check_port(port: Port, mtu: int | None, kinds: Mapping[str, Kind]) -> Port:
    kind = kinds.get(port.node)
    if kind is None:
        raise InvalidValue("topology", port.node, "a wire leads there, but there is no node of this name")
    if port.link:
        check_name(port.link, "topology")
    if port.link == "lo" or (kind == "switch" and port.link == BRIDGE):
        what = "loopback" if port.link == "lo" else "bridge"
        raise InvalidValue("topology", spell(port), f"the node's {what} has this name: give the link another")
    if port.addresses is None:
        return port
    addresses = check_addresses(port.addresses, "topology")
    if addresses and kind == "switch":
        raise InvalidValue("topology", spell(port), "a switch has no addresses: its links are its bridge's")
    if too_narrow(mtu) and any(one.version == 6 for one in addresses):
        raise InvalidValue("topology", f"mtu={mtu}", f"IPv6 needs 1280 bytes, and {spell(port)} has an address of it")
    return Port(port.node, port.link, addresses)


def _links(wires: Sequence[Wire], kinds: Mapping[str, Kind]) -> Iterator[str]:
    """The link names of all ports: the first of eth0, eth1, … that the node has not, where none is given.

    Checks that no node has two of a name, and no switch too many.
    """
    taken: dict[str, set[str]] = {name: set() for name in kinds}
    for wire in wires:
        for port in (wire.a, wire.b):
            if port.link in taken[port.node]:
                raise InvalidValue("topology", spell(port), "this node has two links of this name")
            if port.link:
                taken[port.node].add(port.link)
    counts = Counter(port.node for wire in wires for port in (wire.a, wire.b))
    for name, count in counts.items():
        if kinds[name] == "switch" and count > _MOST_PORTS:
            hint = f"it has {count} wires, and a bridge has at most {_MOST_PORTS} ports: make it two switches"
            raise InvalidValue("topology", name, hint)
    return _named(wires, taken)


def _named(wires: Sequence[Wire], taken: Mapping[str, set[str]]) -> Iterator[str]:
    numbers = dict.fromkeys(taken, 0)
    for wire in wires:
        for port in (wire.a, wire.b):
            if port.link:
                yield port.link
                continue
            number = numbers[port.node]
            while (name := f"eth{number}") in taken[port.node]:
                number += 1
            numbers[port.node] = number + 1
            yield name


def _check_unique(wires: Sequence[Wire], found: Sequence[Segment]) -> None:
    """No two nodes are given one address, but a link-local one in two segments. Links of one node may share theirs."""
    owners: dict[object, str] = {}
    for number, segment in enumerate(found):
        for at in segment.ports:
            port = port_at(wires, at)
            for one in port.addresses or ():
                ip = one.ip
                key = (number, ip) if one.version == 6 and ip.is_link_local else ip
                if (owner := owners.setdefault(key, port.node)) != port.node:
                    hint = f"two nodes have this address, {owner} and {port.node}: give one of them another"
                    raise InvalidValue("topology", str(one), hint)
