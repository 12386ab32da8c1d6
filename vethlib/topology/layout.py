"""From a description to a layout: everything checked, and nothing left open."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import get_args

from ..errors import InvalidValue
from ..links import check_addresses, check_mtu, check_name
from .addressing import give_addresses, segments
from .description import Description, Kind, Layout, Member, Port, Wire
from .routing import find_routes
from .text import check_node_name

__all__ = ["lay_out"]


def lay_out(
    description: Description, *, ipv4: bool = True, ipv6: bool = True, routes: bool = False, first: int = 0
) -> Layout:
    """Settle what a description leaves open: link names, addresses, routes.

    `first` is the number of its first open segment: with 3, that has 10.0.3.0/24 and fd00:3::/64. With `routes`, every
    address is reachable from every node, as far as wires lead there; nodes with two segments or more then forward.
    Raises InvalidValue for what cannot be built.
    """
    members = description.members
    kinds = _check_members(members)
    wires = [_check_wire(wire, kinds) for wire in _named(description.wires)]
    found = segments(members, wires)
    given = give_addresses(wires, found, ipv4=ipv4, ipv6=ipv6, first=first)
    settled = [
        Wire(
            replace(wire.a, addresses=given.get((number, 0), ())),
            replace(wire.b, addresses=given.get((number, 1), ())),
            wire.mtu,
        )
        for number, wire in enumerate(wires)
    ]
    _check_twice(settled)
    forwarding = {member.name for member in members if member.kind == "router"}
    if routes:
        counts = Counter(node for segment in found for node in {_node(settled, at) for at in segment.ports})
        forwarding |= {name for name, count in counts.items() if count > 1}
    hops = find_routes(settled, found, forwarding) if routes else {}
    return Layout(members, tuple(settled), hops, frozenset(forwarding))


def _node(wires: list[Wire], at: tuple[int, int]) -> str:
    wire = wires[at[0]]
    return (wire.b if at[1] else wire.a).node


def _check_members(members: tuple[Member, ...]) -> dict[str, Kind]:
    kinds: dict[str, Kind] = {}
    for member in members:
        check_node_name(member.name)
        if member.kind not in get_args(Kind):
            raise InvalidValue("topology", member.kind, f"{member.name} is of no such kind: node, router or switch")
        if member.name in kinds:
            raise InvalidValue("topology", member.name, "there are two nodes of this name")
        kinds[member.name] = member.kind
    return kinds


def _named(wires: tuple[Wire, ...]) -> Iterator[Wire]:
    """The wires with a name for each link: the first of eth0, eth1, … that the node has not, where none is given."""
    taken: dict[str, set[str]] = {}
    for wire in wires:
        for port in (wire.a, wire.b):
            links = taken.setdefault(port.node, set())
            if port.link in links:
                raise InvalidValue("topology", f"{port.node}:{port.link}", "this node has two links of this name")
            if port.link:
                links.add(check_name(port.link, "topology"))
    numbers = dict.fromkeys(taken, 0)

    def name(port: Port) -> Port:
        if port.link:
            return port
        number = numbers[port.node]
        while f"eth{number}" in taken[port.node]:
            number += 1
        numbers[port.node] = number + 1
        return replace(port, link=f"eth{number}")

    return (Wire(name(wire.a), name(wire.b), wire.mtu) for wire in wires)


def _check_wire(wire: Wire, kinds: dict[str, Kind]) -> Wire:
    text = f"{wire.a.node} -- {wire.b.node}"
    if wire.a.node == wire.b.node:
        raise InvalidValue("topology", text, "a wire is between two nodes")
    if wire.mtu is not None:
        check_mtu(wire.mtu)
    return Wire(_checked_port(wire.a, wire.mtu, kinds), _checked_port(wire.b, wire.mtu, kinds), wire.mtu)


def _checked_port(port: Port, mtu: int | None, kinds: dict[str, Kind]) -> Port:
    kind = kinds.get(port.node)
    if kind is None:
        raise InvalidValue("topology", port.node, "a wire leads there, but there is no node of this name")
    if port.addresses is None:
        return port
    addresses = check_addresses(port.addresses, "topology")
    if addresses and kind == "switch":
        raise InvalidValue(
            "topology", f"{port.node}:{port.link}", "a switch has no addresses: its links are its bridge's"
        )
    if (mtu or 1500) < 1280 and any(one.version == 6 for one in addresses):
        raise InvalidValue("topology", f"mtu={mtu}", f"IPv6 at {port.node} needs 1280 bytes")
    return replace(port, addresses=addresses)


def _check_twice(wires: list[Wire]) -> None:
    owners: dict[object, str] = {}
    for wire in wires:
        for port in (wire.a, wire.b):
            for one in port.addresses or ():
                if (owner := owners.setdefault(one.ip, port.node)) != port.node:
                    hint = f"two nodes have this address, {owner} and {port.node}"
                    raise InvalidValue("topology", str(one), hint)
