"""Segments, and the addresses of their ports.

A segment is a set of ports that frames can reach without a router: a wire between two nodes, or all wires joined by
switches. A segment without given addresses (an open one) gets the next IPv4 network of 10.0.0.0/8, a /24 or as large as
its ports need, and the IPv6 network fd00:N::/64, where N is its number in hexadecimal; its ports are numbered from 1.
If the MTU of a wire is too small for IPv6, the whole segment has only IPv4; with ipv6=off, only the ends of that wire.
In a segment with given addresses, open ports (those without addresses) get free addresses of the same networks.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from operator import itemgetter
from typing import Final

from vethlib.endfields.checks import IPV6_MIN_MTU
from vethlib.errors import InvalidValue
from vethlib.links import IPInterface

from .description import Member, Port, Wire, placed

__all__ = ["PortAt", "Segment", "give_addresses", "is_narrow", "port_at", "segments", "spell", "without_ipv6"]

PortAt = tuple[int, int]
"""A port: the number of its wire, and its end of that wire (0 is a, 1 is b)."""

_FIRST_V4: Final = 10 << 24
_END_V4: Final = 11 << 24
_FIRST_V6: Final = 0xFD00 << 112
_MOST_V6: Final = 1 << 16


@dataclass(slots=True)
class Segment:
    """The ports of a segment in order, without those of switches, and the numbers of its wires."""

    ports: list[PortAt]
    wires: list[int]


def segments(members: Sequence[Member], wires: Sequence[Wire]) -> list[Segment]:
    """Return the segments, in the order of their first wires. Raises InvalidValue for a loop of switches."""
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
                hint = "must not close a loop of switches, in which frames would circle for ever: leave out this wire"
                raise placed(InvalidValue("topology", f"{wire.a.node} -- {wire.b.node}", hint), wire)
            group[b] = a
    of_switch: dict[str, Segment] = {}
    all_segments: list[Segment] = []
    for number, wire in enumerate(wires):
        ends = [(number, end) for end, port in enumerate((wire.a, wire.b)) if port.node not in switches]
        if len(ends) == 2:
            all_segments.append(Segment(ends, [number]))
            continue
        switch = root(wire.a.node if wire.a.node in switches else wire.b.node)
        if switch not in of_switch:
            of_switch[switch] = Segment([], [])
            all_segments.append(of_switch[switch])
        of_switch[switch].ports += ends
        of_switch[switch].wires.append(number)
    return all_segments


def give_addresses(
    wires: Sequence[Wire], all_segments: Sequence[Segment], *, ipv4: bool, ipv6: bool, first: int
) -> dict[PortAt, tuple[IPInterface, ...]]:
    """Return the addresses of every port in the segments."""
    given = [address for wire in wires for port in (wire.a, wire.b) for address in port.addresses or ()]
    pool = _Pool(given, first)
    taken = {address.ip for address in given}
    result: dict[PortAt, tuple[IPInterface, ...]] = {}
    for segment in all_segments:
        fixed: list[IPInterface] = []
        opened: list[PortAt] = []
        for at in segment.ports:
            addresses = port_at(wires, at).addresses
            if addresses is None:
                opened.append(at)
            else:
                fixed += addresses
                result[at] = addresses
        if fixed and opened:
            of_these = [address for address in fixed if (ipv4 if address.version == 4 else ipv6)]
            result |= _beside(of_these, opened, wires, taken)
        elif opened:
            narrow = any(is_narrow(wires[wire]) for wire in segment.wires)
            excepted = {at for at in opened if narrow or wires[at[0]].ipv6 is False}
            pool.number(opened, result, ipv4=ipv4, ipv6=ipv6, without_ipv6=excepted)
    return result


def port_at(wires: Sequence[Wire], at: PortAt) -> Port:
    """Return the port at this end of this wire."""
    wire = wires[at[0]]
    return wire.b if at[1] else wire.a


def without_ipv6(wire: Wire) -> bool:
    """Return whether the ends of a wire have no IPv6: it is disabled, or the MTU is below its minimum."""
    return wire.ipv6 is False or is_narrow(wire)


def is_narrow(wire: Wire) -> bool:
    """Return whether the MTU of a wire is below the minimum of IPv6."""
    return wire.mtu is not None and wire.mtu < IPV6_MIN_MTU


def _beside(
    fixed: Iterable[IPInterface], opened: Iterable[PortAt], wires: Sequence[Wire], taken: set[IPv4Address | IPv6Address]
) -> dict[PortAt, tuple[IPInterface, ...]]:
    """Choose addresses for the open ports of a segment: in the networks of the fixed addresses, and not yet `taken`."""
    free = {network: network.hosts() for network in dict.fromkeys(address.network for address in fixed)}
    result = {}
    for at in opened:
        addresses: list[IPInterface] = []
        for network, hosts in free.items():
            if network.version == 6 and without_ipv6(wires[at[0]]):
                continue
            host = next((candidate for candidate in hosts if candidate not in taken), None)
            if host is None:
                hint = f"{network} has no free address for it: give a larger network"
                raise placed(InvalidValue("topology", spell(port_at(wires, at)), hint), wires[at[0]])
            taken.add(host)
            cls = IPv4Interface if network.version == 4 else IPv6Interface
            addresses.append(cls((int(host), network.prefixlen)))
        result[at] = tuple(addresses)
    return result


def spell(port: Port) -> str:
    """Return a port as written in a description, for messages."""
    return f"{port.node}:{port.link}" if port.link else port.node


class _Pool:
    """The source of networks for open segments: none overlaps a given network."""

    def __init__(self, given: Iterable[IPInterface], first: int) -> None:
        networks = {address.network for address in given}
        self._used = {version: _outermost(networks, version) for version in (4, 6)}
        self._next_v4 = _FIRST_V4 + (first << 8)
        self._next_v6 = first

    def number(
        self,
        opened: Sequence[PortAt],
        result: dict[PortAt, tuple[IPInterface, ...]],
        *,
        ipv4: bool,
        ipv6: bool,
        without_ipv6: Container[PortAt],
    ) -> None:
        """Choose the addresses of an open segment's ports. Its IPv6 network counts, even if no port has IPv6."""
        v4, prefix = self._network_v4(len(opened)) if ipv4 else (0, 0)
        v6 = self._network_v6() if ipv6 else 0
        for host, at in enumerate(opened, 1):
            has_ipv6 = ipv6 and at not in without_ipv6
            if ipv4 and has_ipv6:
                result[at] = (IPv4Interface((v4 + host, prefix)), IPv6Interface((v6 + host, 64)))
            elif ipv4:
                result[at] = (IPv4Interface((v4 + host, prefix)),)
            else:
                result[at] = (IPv6Interface((v6 + host, 64)),) if has_ipv6 else ()

    def _network_v4(self, ports: int) -> tuple[int, int]:
        size = 256
        while size < ports + 2:
            size *= 2
        start = -(-self._next_v4 // size) * size
        while clash := self._clash(start, start + size - 1, 4):
            start = -(-(clash + 1) // size) * size
        if start + size > _END_V4:
            hint = "10.0.0.0/8 is exhausted: give addresses, or leave IPv4 out (ipv4=False)"
            raise InvalidValue("topology", f"{ports} ports", hint)
        self._next_v4 = start + size
        return start, 33 - size.bit_length()

    def _network_v6(self) -> int:
        while True:
            number, self._next_v6 = self._next_v6, self._next_v6 + 1
            if number >= _MOST_V6:
                hint = "fd00::/16 is exhausted: give addresses, or leave IPv6 out (ipv6=False)"
                raise InvalidValue("topology", f"{number} segments", hint)
            start = _FIRST_V6 + (number << 96)
            if not self._clash(start, start + (1 << 64) - 1, 6):
                return start

    def _clash(self, first: int, last: int, version: int) -> int:
        """Return the last address of a given network that overlaps with this range, or 0."""
        used = self._used[version]
        at = bisect_left(used, first, key=itemgetter(1))
        return used[at][1] if at < len(used) and used[at][0] <= last else 0


def _outermost(networks: Iterable[IPv4Network | IPv6Network], version: int) -> list[tuple[int, int]]:
    """Return the first and last address of each network that is not part of another, in order."""
    bounds = sorted((int(network[0]), -int(network[-1])) for network in networks if network.version == version)
    spans: list[tuple[int, int]] = []
    for begin, last in bounds:
        if not spans or begin > spans[-1][1]:
            spans.append((begin, -last))
    return spans
