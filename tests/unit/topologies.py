"""Random topologies for properties, and their features that can be determined without our own code."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_interface
from typing import TypeAlias

from hypothesis import strategies as st

from vethlib.links import IPInterface
from vethlib.topology.design.description import Description, Kind, Layout, Member, Port, Wire
from vethlib.topology.design.layout import lay_out

Address: TypeAlias = IPv4Address | IPv6Address

KINDS: list[Kind] = ["node", "node", "router", "switch"]


@st.composite
def descriptions(draw: st.DrawFn, *, connected: bool = True, most: int = 9) -> Description:
    """Nodes of all kinds in one piece (or not), with parallel wires and cycles, but none of switches."""
    count = draw(st.integers(2, most))
    kinds = [draw(st.sampled_from(KINDS)) for _ in range(count)]
    pairs = []
    for node in range(1, count):
        if connected or draw(st.booleans()):
            pairs.append((node, draw(st.integers(0, node - 1))))
    ends = st.tuples(st.integers(0, count - 1), st.integers(0, count - 1))
    for a, b in draw(st.lists(ends, max_size=count)):
        if a != b and "switch" not in (kinds[a], kinds[b]):
            pairs.append((a, b))
    wires = tuple(Wire(Port(f"n{a}"), Port(f"n{b}")) for a, b in draw(st.permutations(pairs)))
    return Description(tuple(Member(f"n{number}", kind) for number, kind in enumerate(kinds)), wires)


@st.composite
def with_further_networks(draw: st.DrawFn) -> Description:
    """Descriptions in which some ports have a second address: in a network of their own, or in another of the segment.

    Some are only in that one.
    """
    layout = lay_out(draw(descriptions(most=7)))
    domains, number = _domains(layout), 0
    ports: dict[int, list[Port]] = {0: [], 1: []}
    for at, wire in enumerate(layout.wires):
        for end, port in enumerate((wire.a, wire.b)):
            addresses = list(port.addresses or ())
            kind = draw(st.sampled_from(["none", "none", "none", "service", "shared", "own", "instead"]))
            if addresses and kind != "none":
                number, segment = number + 1, domains[port.node, port.link]
                further = {
                    "service": (f"192.0.2.{number}/32", f"2001:db8::{number:x}/128"),
                    "own": (f"172.16.{number}.1/24", f"2001:db8:1:{number:x}::1/64"),
                }.get(kind, (f"172.17.{segment}.{at + 1}/24", f"2001:db8:2:{segment:x}::{at + 1 + 4096 * end:x}/64"))
                if kind in ("shared", "instead") and end:
                    further = (f"172.17.{segment}.{at + 101}/24", further[1])
                addresses = [*(addresses if kind != "instead" else ()), *map(ip_interface, further)]
            ports[end].append(replace(port, addresses=tuple(addresses) if port.addresses else port.addresses))
    wires = (replace(wire, a=a, b=b) for wire, a, b in zip(layout.wires, ports[0], ports[1], strict=True))
    return Description(layout.members, tuple(wires))


class Walk:
    """Packets that travel through a layout as the kernel would route them: by the longest prefix, hop by hop."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.domains = _domains(layout)
        self.ports = [port for wire in layout.wires for port in (wire.a, wire.b)]
        self.nodes = sorted({port.node for port in self.ports if port.addresses})
        self.addresses = [one for port in self.ports for one in port.addresses or ()]
        self._of: dict[str, list[Port]] = defaultdict(list)
        self._owners: dict[tuple[int, Address], str] = {}
        self._inside: dict[int, set[str]] = defaultdict(set)
        for port in self.ports:
            domain = self.domains[port.node, port.link]
            self._of[port.node].append(port)
            self._inside[domain].add(port.node)
            self._owners |= {(domain, one.ip): port.node for one in port.addresses or ()}

    def hops(self, source: str, address: IPInterface) -> int:
        """Return the number of segments that a packet crosses from the node to the address."""
        node = source
        for count in range(len(self.nodes) + 1):
            if any(one.ip == address.ip for port in self._of[node] for one in port.addresses or ()):
                return count
            assert count == 0 or node in self.layout.forwarding, f"{node} does not forward"
            node = self._next(node, address.ip)
        raise AssertionError(f"a packet from {source} to {address} goes in circles")

    def _next(self, node: str, address: Address) -> str:
        """Return the next node of the packet; fails, as in the kernel, if no node on that segment has the address."""
        links = [(one.network, port) for port in self._of[node] for one in port.addresses or ()]
        found: list[tuple[int, Address]]
        found = [(network.prefixlen, address) for network, _ in links if address in network]
        for route in self.layout.routes.get(node, ()):
            if address in route.network:
                found.append((route.network.prefixlen, route.via))
        assert found, f"{node} has no route to {address}"
        longest = max(length for length, _ in found)
        ways = {via for length, via in found if length == longest}
        assert len(ways) == 1, f"{node} has two routes to {address}"
        (via,) = ways
        domains = {self.domains[node, port.link] for network, port in links if via in network}
        (owner,) = {self._owners[domain, via] for domain in domains}
        return owner

    def in_reach(self, source: str, version: int) -> set[str]:
        """The nodes to which networks lead from a node, through nodes that forward."""
        inside: dict[tuple[int, IPv4Network | IPv6Network], set[str]] = defaultdict(set)
        for port in self.ports:
            for one in port.addresses or ():
                inside[self.domains[port.node, port.link], one.network].add(port.node)
        seen, waiting = {source}, [source]
        for node in waiting:
            if node == source or node in self.layout.forwarding:
                for (_, network), nodes in inside.items():
                    if node in nodes and network.version == version:
                        waiting += nodes - seen
                        seen |= nodes
        return seen

    def distance(self, source: str, address: IPInterface) -> int:
        """The fewest segments between the node and the segment of the address, that one included; 0 for its own."""
        if any(address in (port.addresses or ()) for port in self._of[source]):
            return 0
        (goal,) = {domain for domain, ip in self._owners if ip == address.ip}
        seen, here, count = {source}, {source}, 0
        while here:
            count += 1
            domains = {self.domains[port.node, port.link] for node in here for port in self._of[node]}
            if goal in domains:
                return count
            there = set[str]().union(*(self._inside[domain] for domain in domains))
            here = (there & self.layout.forwarding) - seen
            seen |= here
        raise AssertionError(f"there is no way from {source} to {address}")


def _domains(layout: Layout) -> dict[tuple[str, str], int]:
    """The number of the segment that each port is in: what frames sent there reach."""
    switches = {member.name for member in layout.members if member.kind == "switch"}
    domain = {(port.node, port.link): number for number, wire in enumerate(layout.wires) for port in (wire.a, wire.b)}
    for switch in [*switches] * len(switches):
        mine = {number for (node, _), number in domain.items() if node == switch}
        domain = {at: min(mine) if number in mine else number for at, number in domain.items()}
    return domain
