"""Segments, and the addresses of their ports.

A segment is what frames reach without a router: a wire between two nodes, or all that is joined by switches. An open
one has the next IPv4 network out of 10.0.0.0/8, a /24 or as large as its ports need, and the IPv6 network fd00:N::/64,
N its number in hexadecimal; its ports are numbered from 1. In one where an address is given, only what is given counts:
the open ports get free addresses of the same networks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv4Network, IPv6Interface, IPv6Network
from typing import Final

from ..errors import InvalidValue
from ..links import Interface
from .description import Member, Port, Wire

__all__ = ["Segment", "give_addresses", "segments"]

PortAt = tuple[int, int]
"""Which wire, and which end of it: 0 is a."""

_FIRST_V4: Final = 10 << 24
_END_V4: Final = 11 << 24
_FIRST_V6: Final = 0xFD00 << 112
_MOST_V6: Final = 1 << 16


@dataclass(slots=True)
class Segment:
    """The ports of it that are no switch's, in order."""

    ports: list[PortAt]


def segments(members: Sequence[Member], wires: Sequence[Wire]) -> list[Segment]:
    """The segments, in the order of their first wires. InvalidValue for a loop of switches."""
    switches = {member.name for member in members if member.kind == "switch"}
    group = {name: name for name in switches}

    def root(name: str) -> str:
        while group[name] != name:
            group[name] = group[group[name]]
            name = group[name]
        return name

    for wire in wires:
        if wire.a.node in switches and wire.b.node in switches:
            a, b = root(wire.a.node), root(wire.b.node)
            if a == b:
                hint = "this wire closes a loop of switches, in which frames would circle for ever: leave it out"
                raise InvalidValue("topology", f"{wire.a.node} -- {wire.b.node}", hint)
            group[b] = a
    of_switch: dict[str, Segment] = {}
    found: list[Segment] = []
    for number, wire in enumerate(wires):
        ends = [(number, end) for end, port in enumerate((wire.a, wire.b)) if port.node not in switches]
        if len(ends) == 2:
            found.append(Segment(ends))
            continue
        switch = root(wire.a.node if wire.a.node in switches else wire.b.node)
        if switch not in of_switch:
            of_switch[switch] = Segment([])
            found.append(of_switch[switch])
        of_switch[switch].ports += ends
    return found


def give_addresses(
    wires: Sequence[Wire], found: Sequence[Segment], *, ipv4: bool, ipv6: bool, first: int
) -> dict[PortAt, tuple[Interface, ...]]:
    """The addresses of every port in the segments."""
    given = [port.addresses for wire in wires for port in (wire.a, wire.b) if port.addresses]
    pool = _Pool({one.network for addresses in given for one in addresses}, first)
    result: dict[PortAt, tuple[Interface, ...]] = {}
    for segment in found:
        ports = {at: _port(wires, at) for at in segment.ports}
        fixed = [one for port in ports.values() for one in port.addresses or ()]
        opened = [at for at, port in ports.items() if port.addresses is None]
        if fixed:
            result |= _beside(fixed, opened, wires)
        else:
            narrow = any((wires[wire].mtu or 1500) < 1280 for wire, _ in segment.ports)
            result |= pool.number(opened, ipv4=ipv4, ipv6=ipv6 and not narrow)
        result |= {at: tuple(port.addresses) for at, port in ports.items() if port.addresses is not None}
    return result


def _port(wires: Sequence[Wire], at: PortAt) -> Port:
    wire = wires[at[0]]
    return wire.b if at[1] else wire.a


def _beside(
    fixed: Sequence[Interface], opened: Iterable[PortAt], wires: Sequence[Wire]
) -> dict[PortAt, tuple[Interface, ...]]:
    networks = list(dict.fromkeys(one.network for one in fixed))
    taken = {one.ip for one in fixed}
    free = [iter(network.hosts()) for network in networks]
    result = {}
    for at in opened:
        addresses = []
        for network, hosts in zip(networks, free, strict=True):
            host = next((one for one in hosts if one not in taken), None)
            if host is None:
                hint = f"{network} has no address left for it: give a larger network"
                raise InvalidValue("topology", _port(wires, at).node, hint)
            cls = IPv4Interface if network.version == 4 else IPv6Interface
            addresses.append(cls((int(host), network.prefixlen)))
        result[at] = tuple(addresses)
    return result


class _Pool:
    """Where open segments have their networks from: none that overlaps one that is `used`."""

    def __init__(self, used: Iterable[IPv4Network | IPv6Network], first: int) -> None:
        self._used = [(int(one[0]), int(one[-1]), one.version) for one in used]
        self._next_v4 = _FIRST_V4 + (first << 8)
        self._next_v6 = first

    def number(self, opened: Sequence[PortAt], *, ipv4: bool, ipv6: bool) -> dict[PortAt, tuple[Interface, ...]]:
        """The addresses of the ports of an open segment."""
        v4, prefix = self._network_v4(len(opened)) if ipv4 else (0, 0)
        v6 = self._network_v6() if ipv6 else 0
        result: dict[PortAt, tuple[Interface, ...]] = {}
        for host, at in enumerate(opened, 1):
            addresses: list[Interface] = []
            if ipv4:
                addresses.append(IPv4Interface((v4 + host, prefix)))
            if ipv6:
                addresses.append(IPv6Interface((v6 + host, 64)))
            result[at] = tuple(addresses)
        return result

    def _network_v4(self, ports: int) -> tuple[int, int]:
        size = 256
        while size < ports + 2:
            size *= 2
        start = -(-self._next_v4 // size) * size
        while clash := self._clash(start, start + size - 1, 4):
            start = -(-(clash + 1) // size) * size
        if start + size > _END_V4:
            raise InvalidValue("topology", f"{ports} ports", "10.0.0.0/8 is used up: give addresses, or ipv4=False")
        self._next_v4 = start + size
        return start, 33 - size.bit_length()

    def _network_v6(self) -> int:
        while True:
            number, self._next_v6 = self._next_v6, self._next_v6 + 1
            if number >= _MOST_V6:
                raise InvalidValue(
                    "topology", f"{number} segments", "fd00::/16 is used up: give addresses, or ipv6=False"
                )
            start = _FIRST_V6 + (number << 96)
            if not self._clash(start, start + (1 << 64) - 1, 6):
                return start

    def _clash(self, first: int, last: int, version: int) -> int:
        """The last address of a used network that overlaps, or 0."""
        return max(
            (end for begin, end, kind in self._used if kind == version and begin <= last and first <= end), default=0
        )
