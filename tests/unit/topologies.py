"""Random topologies for properties, and what of them can be known without our own code."""

from __future__ import annotations

from ipaddress import IPv4Interface, IPv6Interface

from hypothesis import strategies as st

from vethlib.topology.description import Description, Kind, Layout, Member, Port, Wire

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


class Walk:
    """Packets that go through a layout as the kernel would send them: by the longest prefix, hop by hop."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.domains = _domains(layout)
        self.ports = [port for wire in layout.wires for port in (wire.a, wire.b)]
        self.nodes = sorted({port.node for port in self.ports if port.addresses})
        self.addresses = [one for port in self.ports for one in port.addresses or ()]

    def hops(self, source: str, address: IPv4Interface | IPv6Interface) -> int:
        """Over how many segments a packet goes from the node to the address."""
        node = source
        for count in range(len(self.nodes) + 1):
            if any(one.ip == address.ip for port in self.ports if port.node == node for one in port.addresses or ()):
                return count
            assert count == 0 or node in self.layout.forwarding, f"{node} does not forward"
            node = self._next(node, address)
        raise AssertionError(f"a packet from {source} to {address} goes in circles")

    def _next(self, node: str, address: IPv4Interface | IPv6Interface) -> str:
        found = [(one.network, address.ip) for port in self._of(node) for one in port.addresses or ()]
        found += [(route.network, route.via) for route in self.layout.routes.get(node, ())]
        fitting = [(network, via) for network, via in found if address.ip in network]
        assert fitting, f"{node} has no route to {address}"
        longest = max(network.prefixlen for network, _ in fitting)
        via = {via for network, via in fitting if network.prefixlen == longest}
        assert len(via) == 1, f"{node} has two routes to {address}"
        return self._neighbour(node, via.pop())

    def _neighbour(self, node: str, via: object) -> str:
        inside = {
            self.domains[port.node, port.link]
            for port in self._of(node)
            if any(via in one.network for one in port.addresses or ())
        }
        (owner,) = {
            port.node
            for port in self.ports
            if self.domains[port.node, port.link] in inside and any(one.ip == via for one in port.addresses or ())
        }
        return owner

    def _of(self, node: str) -> list[Port]:
        return [port for port in self.ports if port.node == node]

    def distance(self, source: str, address: IPv4Interface | IPv6Interface) -> int:
        """The fewest segments between the node and the segment of the address, that one included; 0 for its own."""
        if any(address in (port.addresses or ()) for port in self._of(source)):
            return 0
        (goal,) = {self.domains[port.node, port.link] for port in self.ports if address in (port.addresses or ())}
        seen, here, count = {source}, {source}, 0
        while here:
            count += 1
            domains = {self.domains[port.node, port.link] for node in here for port in self._of(node)}
            if goal in domains:
                return count
            there = {port.node for port in self.ports if self.domains[port.node, port.link] in domains}
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
