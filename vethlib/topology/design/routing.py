"""Choose static routes along the shortest paths, with as few entries as possible.

1. Search from each network outwards, breadth first, through nodes that forward: each node reaches the network through
   the node from which it was found. Of two equally short paths, the path described first wins.
2. IPv4 and IPv6 are routed separately, because a segment may have only one of them; usually the routes are the same.
3. The networks that a node has behind one neighbour are merged into the fewest prefixes that cover exactly them: two
   halves become the larger network. A node that does not forward and has everything behind one neighbour has only a
   default route. Routers have no default route, so packets to unknown addresses are refused by the first router instead
   of circling between two. Nor does a default route lead through a host (6), which would drop these packets silently.
4. The automatic IPv6 networks are far apart (fd00:N::/64), so a route to one covers the whole fd00:N::/32 if nothing
   else is in it; so they can be merged, too.
5. Overlapping networks are refused. So no route of (3) except the default route covers a network that its node is in,
   and a link's own network is more specific than the default route.
6. A node that does not forward may be in several networks: it has further addresses at its wire. The search (1) from a
   network that no other node is in leads through that node. If others are in the network, those that cannot reach it
   have routes to the addresses of the node in it, through another network of the node.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from itertools import pairwise
from typing import Final, NamedTuple, TypeAlias

from vethlib.errors import InvalidValue

from .addressing import Segment, port_at
from .description import Route, Wire, placed

__all__ = ["find_routes", "prefixes"]

Span: TypeAlias = tuple[int, int]
"""A network as numbers: its first address, and the one after its last."""

Neighbour: TypeAlias = tuple[int, int]
"""A node in a network: the number of the network, and the number of the member."""

Behind: TypeAlias = Mapping[str, Mapping[Neighbour, Sequence[int]]]
"""For each node: the networks that it is not in, by the neighbour through which they are reached."""

_BITS: Final = {4: 32, 6: 128}
_WIDE: Final = 96  # host bits of fd00:N::/32


class _Network(NamedTuple):
    """A network on one segment, and the nodes with addresses in it."""

    span: Span
    nodes: tuple[str, ...]
    addresses: tuple[tuple[int, ...], ...]
    """The addresses of each of these nodes; the first is used as next hop."""
    part_of: int = -1
    """The number of the network that contains this address of a single node (6)."""
    wire: int = -1
    """The number of the first wire with an address in it; -1 for an address of a single node."""


def find_routes(
    wires: Sequence[Wire], segments: Sequence[Segment], forwarding: Set[str]
) -> dict[str, tuple[Route, ...]]:
    """Return the routes of every node that needs any. All ports must have addresses, or () for none.

    Raises InvalidValue if networks overlap.
    """
    by_node: dict[str, list[Route]] = {}
    known: dict[object, Behind] = {}
    for version in (4, 6):
        networks = [network for segment in segments for network in _networks(wires, segment, version)]
        _check_apart(sorted(networks), version, wires)
        spans = [network.span for network in networks]
        if version == 6:
            spans = _widened(spans)
        parts = list(_parts(networks, forwarding))
        spans += [part.span for part in parts]
        networks += parts
        order = sorted(range(len(networks)), key=lambda number: (networks[number].span[0], -networks[number].span[1]))
        members = tuple(network.nodes for network in networks)
        wholes = tuple(network.part_of for network in networks)
        key = (members, wholes, tuple(order))
        if key not in known:
            known[key] = _behind(members, wholes, order, forwarding)
        for node, behind in known[key].items():
            by_node.setdefault(node, []).extend(_routes(node, behind, version, networks, spans, forwarding))
    return {node: tuple(routes) for node, routes in by_node.items()}


def _networks(wires: Sequence[Wire], segment: Segment, version: int) -> Iterator[_Network]:
    """Return the networks of a segment, without link-local ones, which need no routes."""
    of_span: dict[Span, dict[str, list[int]]] = {}
    first: dict[Span, int] = {}
    for at in segment.ports:
        port = port_at(wires, at)
        for address in port.addresses or ():
            if address.version == version and not (version == 6 and address.ip.is_link_local):
                size = 1 << (address.max_prefixlen - address.network.prefixlen)
                begin = int(address) & -size
                span = (begin, begin + size)
                first.setdefault(span, at[0])
                of_span.setdefault(span, {}).setdefault(port.node, []).append(int(address))
    for span, members in of_span.items():
        yield _Network(span, tuple(members), tuple(map(tuple, members.values())), wire=first[span])


def _parts(networks: Sequence[_Network], forwarding: Set[str]) -> Iterator[_Network]:
    """Return each address that needs a separate route, because its network may be out of reach (6)."""
    counts = Counter(node for network in networks for node in network.nodes)
    for number, network in enumerate(networks):
        if len(network.nodes) > 1:
            for node, addresses in zip(network.nodes, network.addresses, strict=True):
                if counts[node] > 1 and node not in forwarding:
                    for address in addresses:
                        yield _Network((address, address + 1), (node,), ((address,),), number)


def _check_apart(networks: Iterable[_Network], version: int, wires: Sequence[Wire]) -> None:
    for network, other in pairwise(networks):
        if other.span[0] < network.span[1]:
            small, large = (f"{_prefix(version, *these.span)} (of {these.nodes[0]})" for these in (other, network))
            hint = f"must not overlap with {large}: change one of the networks, or leave out routes"
            raise placed(InvalidValue("topology", small, hint), wires[other.wire])


def _behind(
    members: Sequence[Sequence[str]], wholes: Sequence[int], order: Iterable[int], forwarding: Set[str]
) -> Behind:
    """Apply rules 1 and 6. The networks behind a neighbour are in the order of the search.

    `wholes` has, for each network, the number of the network of which it is a part; -1 for none.
    """
    numbers = {node: number for number, node in enumerate(dict.fromkeys(node for those in members for node in those))}
    inside = [[numbers[node] for node in those] for those in members]
    ways: list[list[tuple[int, Neighbour]]] = [[] for _ in numbers]
    forwards = [node in forwarding for node in numbers]
    for network, those in enumerate(inside):
        if wholes[network] < 0:
            for position, node in enumerate(those):
                ways[node].append((network, (network, position)))
    with_parts = set(wholes)
    in_reach: dict[int, bytearray] = {}
    behind: list[dict[Neighbour, list[int]]] = [{} for _ in numbers]
    for goal in order:
        crossed = bytearray(len(inside))
        crossed[goal] = 1
        reached = bytearray(len(numbers))
        waiting = list(inside[goal])
        alone = waiting[0] if len(waiting) == 1 else -1
        if wholes[goal] >= 0:
            reached[:] = in_reach[wholes[goal]]  # which is earlier in the order
        for node in waiting:
            reached[node] = 1
        left = reached.count(0)
        for through in waiting:
            if not left:
                break
            if not forwards[through] and through != alone:
                continue
            for network, neighbour in ways[through]:
                if crossed[network]:
                    continue
                crossed[network] = 1
                for node in inside[network]:
                    if not reached[node]:
                        reached[node] = 1
                        left -= 1
                        behind[node].setdefault(neighbour, []).append(goal)
                        waiting.append(node)
        if goal in with_parts:
            in_reach[goal] = reached
    return {node: behind[number] for node, number in numbers.items() if behind[number]}


def _widened(spans: Sequence[Span]) -> list[Span]:
    """Widen each automatic IPv6 network (4)."""
    near = Counter(begin >> _WIDE for begin, _ in spans)
    size = 1 << _WIDE
    return [
        (begin & -size, (begin & -size) + size)
        if begin >> 112 == 0xFD00 and end - begin < size and near[begin >> _WIDE] == 1
        else (begin, end)
        for begin, end in spans
    ]


def _routes(
    node: str,
    behind: Mapping[Neighbour, Sequence[int]],
    version: int,
    networks: Sequence[_Network],
    spans: Sequence[Span],
    forwarding: Set[str],
) -> Iterator[Route]:
    routers = [at for at in behind if networks[at[0]].nodes[at[1]] in forwarding]
    for at, goals in behind.items():
        network, position = at
        address = networks[network].addresses[position][0]
        via = IPv4Address(address) if version == 4 else IPv6Address(address)
        everything = node not in forwarding and routers == [at]
        for begin, end in [(0, 1 << _BITS[version])] if everything else prefixes(spans[goal] for goal in goals):
            yield Route(_prefix(version, begin, end), via)


def prefixes(spans: Iterable[Span]) -> Iterator[Span]:
    """Return the fewest prefixes that cover exactly these spans, which are in order and do not overlap (3)."""
    begin = end = 0
    for first, stop in spans:
        if first != end:
            yield from _cut(begin, end)
            begin = first
        end = stop
    yield from _cut(begin, end)


def _cut(begin: int, end: int) -> Iterator[Span]:
    while begin < end:
        size = 1 << ((end - begin).bit_length() - 1)
        aligned = begin & -begin
        if begin and aligned < size:
            size = aligned
        yield begin, begin + size
        begin += size


@lru_cache(maxsize=4096)  # many nodes have the same networks behind a neighbour
def _prefix(version: int, begin: int, end: int) -> IPv4Network | IPv6Network:
    length = _BITS[version] - (end - begin).bit_length() + 1
    return IPv4Network((begin, length)) if version == 4 else IPv6Network((begin, length))
