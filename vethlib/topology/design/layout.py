"""Complete a description to a layout: check everything, and choose the missing details."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Final, TypeVar, get_args

from vethlib._nl.const import RT_TABLE_MAIN
from vethlib.endfields.checks import IPV6_MIN_MTU
from vethlib.endfields.ipv6fields import field_of_ipv6
from vethlib.errors import InvalidValue
from vethlib.links import check_addresses, check_ipv6, check_mtu, check_name

from .addressing import Segment, give_addresses, is_narrow, port_at, segments, spell, without_ipv6
from .description import BRIDGE, Description, Kind, Layout, Member, Port, Route, Wire, placed
from .ends import check_fields
from .impairment import Impairment
from .routing import find_routes
from .text import check_node_name

__all__ = ["lay_out"]

T = TypeVar("T")

_MOST_PORTS: Final = 1023  # of a bridge: find_portno (net/bridge/br_if.c), BR_MAX_PORTS (br_private.h) without port 0
_MOST_SEGMENTS: Final = 1 << 16
_EXAMPLES: Final = {
    "Member": 'such as Member("a")',
    "Wire": 'such as Wire(Port("a"), Port("b"))',
    "Port": 'such as Port("a")',
}
_METRIC: Final = {4: 0, 6: 1024}  # of a route without a metric


def lay_out(
    description: Description,
    *,
    ipv4: bool = True,
    ipv6: bool = True,
    routes: bool = False,
    first: int = 0,
    mtu: int | None = None,
) -> Layout:
    """Choose the details that a description leaves open: link names, addresses and routes.

    `first` is the number of the first segment: 3 means 10.0.3.0/24 and fd00:3::/64. With `routes`, every node can reach
    every address of each node to which networks lead; nodes in two or more segments then forward. `mtu` applies to
    wires that specify none. Raises InvalidValue if the topology cannot be built.
    """
    if not isinstance(description, Description):
        raise InvalidValue("topology", description, 'must be text, such as "a -- b", or a Description')
    if type(first) is not int or not 0 <= first < _MOST_SEGMENTS:
        raise InvalidValue("first", first, f"must be the number of a segment, from 0 to {_MOST_SEGMENTS - 1}")
    members = _all_of(Member, description.members)
    if not members:
        raise InvalidValue("topology", "", 'must have at least one node, as in "a -- b"')
    kinds = _check_members(members)
    wires = [_check_wire(wire, kinds, mtu) for wire in _all_of(Wire, description.wires)]
    links = _links(wires, kinds)
    all_segments = segments(members, wires)
    _check_unique(wires, all_segments)
    given = give_addresses(wires, all_segments, ipv4=ipv4, ipv6=ipv6, first=first)
    settled = tuple(
        Wire(
            Port(wire.a.node, next(links), given.get((number, 0), ()), wire.a.fields),
            Port(wire.b.node, next(links), given.get((number, 1), ()), wire.b.fields),
            wire.mtu,
            wire.ipv6,
            wire.a_to_b,
            wire.b_to_a,
            wire.where,
        )
        for number, wire in enumerate(wires)
    )
    forwarding = {name for name, kind in kinds.items() if kind == "router"}
    if not routes:
        return Layout(members, settled, {}, frozenset(forwarding))
    forwarding |= _between(settled, all_segments)
    found = _not_given(find_routes(settled, all_segments, forwarding), settled)
    return Layout(members, settled, found, frozenset(forwarding))


def _not_given(found: Mapping[str, tuple[Route, ...]], wires: Sequence[Wire]) -> Mapping[str, tuple[Route, ...]]:
    """Return the routes that were found, except those to networks for which a port of the node lists a route."""
    given: dict[str, set[object]] = {}
    for wire in wires:
        for port in (wire.a, wire.b):
            if listed := port.fields.get("routes"):
                given.setdefault(port.node, set()).update(
                    route.network
                    for route in listed
                    if (route.metric, route.table) == (_METRIC[route.network.version], RT_TABLE_MAIN)
                )
    if not given:
        return found
    return {
        node: tuple(route for route in routes if route.network not in given.get(node, ()))
        for node, routes in found.items()
    }


def _between(wires: Sequence[Wire], all_segments: Sequence[Segment]) -> set[str]:
    """Return the nodes that are in two segments or more."""
    counts = Counter(node for segment in all_segments for node in {port_at(wires, at).node for at in segment.ports})
    return {name for name, count in counts.items() if count > 1}


def _all_of(kind: type[T], values: object) -> tuple[T, ...]:
    """Return the members or the wires of a description. Raises InvalidValue if there is something else among them."""
    if not isinstance(values, Iterable):
        raise InvalidValue("topology", values, f"must be a tuple of {kind.__name__}s")
    values = tuple(values)
    for value in values:
        if not isinstance(value, kind):
            raise InvalidValue("topology", value, f"must be a {kind.__name__}, {_EXAMPLES[kind.__name__]}")
    return values


def _check_members(members: Sequence[Member]) -> dict[str, Kind]:
    kinds: dict[str, Kind] = {}
    for member in members:
        check_node_name(member.name)
        if member.kind not in get_args(Kind):
            raise InvalidValue("topology", member.kind, f"the kind of {member.name} must be node, router or switch")
        if member.name in kinds:
            raise InvalidValue("topology", member.name, "two nodes have this name")
        kinds[member.name] = member.kind
    return kinds


def _check_wire(wire: Wire, kinds: Mapping[str, Kind], mtu: int | None) -> Wire:
    try:
        return _checked(wire, kinds, mtu)
    except InvalidValue as error:
        raise placed(error, wire) from None


def _checked(wire: Wire, kinds: Mapping[str, Kind], mtu: int | None) -> Wire:
    for port in (wire.a, wire.b):
        if not isinstance(port, Port):
            raise InvalidValue("topology", port, f"must be a Port, {_EXAMPLES['Port']}")
    if wire.mtu is None and mtu is not None:
        wire = replace(wire, mtu=mtu)
    if wire.a.node == wire.b.node:
        raise InvalidValue("topology", f"{wire.a.node} -- {wire.b.node}", "must connect two different nodes")
    if wire.mtu is not None:
        check_mtu(wire.mtu)
    check_ipv6(wire.ipv6, (), wire.mtu)
    return replace(
        wire,
        a=_check_port(wire.a, wire, kinds),
        b=_check_port(wire.b, wire, kinds),
        a_to_b=_check_impairment(wire.a_to_b),
        b_to_a=_check_impairment(wire.b_to_a),
    )


def _check_impairment(impairment: Impairment | None) -> Impairment | None:
    """Return an impairment with numbers in place of texts. Raises InvalidValue."""
    if impairment is None:
        return None
    if not isinstance(impairment, Impairment):
        raise InvalidValue("topology", impairment, 'must be an Impairment, as Impairment.of(delay="20ms") returns it')
    return Impairment.of(**asdict(impairment))


def _check_port(port: Port, wire: Wire, kinds: Mapping[str, Kind]) -> Port:
    kind = kinds.get(port.node) if isinstance(port.node, str) else None
    if kind is None:
        raise InvalidValue("topology", port.node, "must be the name of a node, because a wire leads there")
    if port.link not in ("", None):
        check_name(port.link, "topology")
    if port.link == "lo" or (kind == "switch" and port.link == BRIDGE):
        what = "loopback" if port.link == "lo" else "bridge"
        raise InvalidValue("topology", spell(port), f"the node's {what} has this name: rename the link")
    fields = check_fields(port.fields)
    if kind == "switch" and (listed := fields.keys() & {"routes", "neighbours", "master"}):
        hint = f"must have no {min(listed)}, because the links of a switch are in its bridge"
        raise InvalidValue("topology", spell(port), hint)
    addresses = None if port.addresses is None else check_addresses(port.addresses, "topology")
    if addresses and kind == "switch":
        raise InvalidValue(
            "topology", spell(port), "must have no addresses, because the links of a switch are in its bridge"
        )
    checked = Port(port.node, port.link, addresses, fields)
    _check_without_ipv6(checked, wire)
    return checked


def _check_without_ipv6(port: Port, wire: Wire) -> None:
    """Check that a port has no IPv6 values if its wire cannot have IPv6, as End requires."""
    if not without_ipv6(wire):
        return
    listed = field_of_ipv6(port.fields.get("routes", ()), port.fields.get("neighbours", ()))
    has = f"IPv6 in its {listed}" if listed else ""
    if any(address.version == 6 for address in port.addresses or ()):
        has = "an IPv6 address"
    if wire.ipv6 is False and has:
        raise InvalidValue("topology", "ipv6=off", f"must be on for IPv6, but {spell(port)} has {has}")
    if field_of_ipv6(sysctls=port.fields.get("sysctls", ())):
        has = has or "IPv6 in its sysctls"
    if is_narrow(wire) and has:
        hint = f"must be at least {IPV6_MIN_MTU} for IPv6, because {spell(port)} has {has}"
        raise InvalidValue("topology", f"mtu={wire.mtu}", hint)


def _links(wires: Sequence[Wire], kinds: Mapping[str, Kind]) -> Iterator[str]:
    """Choose the missing link names: the first of eth0, eth1, … that the node does not have yet.

    Also check that no node has two links with the same name, and no switch too many ports.
    """
    taken: dict[str, set[str]] = {name: set() for name in kinds}
    for wire in wires:
        for port in (wire.a, wire.b):
            for name in (port.link, *port.fields.get("altnames", ())):
                if name in taken[port.node]:
                    what = spell(port) if name == port.link else f"altname={name}"
                    raise placed(InvalidValue("topology", what, "two links of this node have this name"), wire)
                if name:
                    taken[port.node].add(name)
    counts = Counter(port.node for wire in wires for port in (wire.a, wire.b))
    for name, count in counts.items():
        if kinds[name] == "switch" and count > _MOST_PORTS:
            hint = f"has {count} wires, but a bridge can have {_MOST_PORTS} ports at most: use two switches"
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


def _check_unique(wires: Sequence[Wire], all_segments: Sequence[Segment]) -> None:
    """Check that no two nodes have the same address, except link-local ones in different segments.

    Links of one node may share an address.
    """
    owners: dict[object, str] = {}
    for number, segment in enumerate(all_segments):
        for at in segment.ports:
            port = port_at(wires, at)
            for address in port.addresses or ():
                ip = address.ip
                key = (number, ip) if address.version == 6 and ip.is_link_local else ip
                if (owner := owners.setdefault(key, port.node)) != port.node:
                    hint = f"two nodes have this address, {owner} and {port.node}: change one"
                    raise placed(InvalidValue("topology", str(address), hint), wires[at[0]])
