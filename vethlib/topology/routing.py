"""Static routes by the shortest paths, in as few entries as say the same.

1. From each network outwards, breadth first, through nodes that forward: whoever is reached has that network behind
   the node it was reached from. Where two ways are as short, the first wire that was described wins.
2. IPv4 and IPv6 go their own ways, since a segment may have but one of them; mostly they are the same.
3. What a node has behind one neighbour becomes as few prefixes as cover just that: two halves of a larger network
   become that network. A node that has everything behind one neighbour has a default route, and no other.
4. The automatic IPv6 networks are far apart (fd00:N::/64), so a route to one takes the whole fd00:N::/32, if there is
   nothing else in it: halves become one, here too.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final, NamedTuple, TypeAlias

from ..errors import InvalidValue
from .addressing import Segment
from .description import Route, Wire

__all__ = ["collapse", "find_routes"]

Block: TypeAlias = tuple[int, int]
"""A network: its first address, and how many bits its hosts have."""

Neighbour: TypeAlias = tuple[int, int]
"""A node in a network: the number of the network, and which of its members."""

_BITS: Final = {4: 32, 6: 128}
_WIDE: Final = 96  # bits of the hosts in fd00:N::/32


class _Network(NamedTuple):
    """A network as it is on one segment: who has an address in it."""

    block: Block
    nodes: tuple[str, ...]
    addresses: tuple[int, ...]


def find_routes(
    wires: Sequence[Wire], segments: Sequence[Segment], forwarding: Set[str]
) -> dict[str, tuple[Route, ...]]:
    """The routes of every node that needs any. All ports have addresses, or () for none.

    InvalidValue if one network is in two places.
    """
    found: dict[str, list[Route]] = {}
    known: dict[tuple[tuple[str, ...], ...], Mapping[str, Mapping[Neighbour, list[int]]]] = {}
    for version in (4, 6):
        networks = [one for segment in segments for one in _networks(wires, segment, version)]
        _check_once(networks)
        members = tuple(network.nodes for network in networks)
        if members not in known:
            known[members] = _behind(members, forwarding)
        blocks = _widened([network.block for network in networks]) if version == 6 else [one.block for one in networks]
        for node, behind in known[members].items():
            found.setdefault(node, []).extend(_routes(behind, version, networks, blocks))
    return {node: tuple(routes) for node, routes in found.items()}


def _check_once(networks: Iterable[_Network]) -> None:
    places: dict[Block, _Network] = {}
    for one in networks:
        if (other := places.setdefault(one.block, one)) is not one:
            where = f"between {' and '.join(other.nodes[:2])}, and between {' and '.join(one.nodes[:2])}"
            hint = f"this network is in two places, {where}: no route can tell them apart"
            version = 6 if one.addresses[0] >> 32 else 4
            raise InvalidValue("topology", str(_route(version, one.block, 0).network), hint)


def _networks(wires: Sequence[Wire], segment: Segment, version: int) -> Iterator[_Network]:
    of_block: dict[Block, dict[str, int]] = {}
    for number, end in segment.ports:
        port = wires[number].b if end else wires[number].a
        for one in port.addresses or ():
            if one.version == version:
                bits = one.max_prefixlen - one.network.prefixlen
                of_block.setdefault((int(one) >> bits << bits, bits), {}).setdefault(port.node, int(one))
    for block, members in of_block.items():
        yield _Network(block, tuple(members), tuple(members.values()))


def _behind(members: Sequence[Sequence[str]], forwarding: Set[str]) -> dict[str, dict[Neighbour, list[int]]]:
    """For each node, the networks it is not in by the neighbour that they are behind (1)."""
    numbers = {node: number for number, node in enumerate(dict.fromkeys(node for those in members for node in those))}
    inside = [[numbers[node] for node in those] for those in members]
    neighbours: list[list[tuple[int, Neighbour]]] = [[] for _ in numbers]  # of those that forward
    forwards = [node in forwarding for node in numbers]
    for network, those in enumerate(inside):
        for position, node in enumerate(those):
            if forwards[node]:
                neighbours[node].append((network, (network, position)))
    behind: list[defaultdict[Neighbour, list[int]]] = [defaultdict(list) for _ in numbers]
    for goal, those in enumerate(inside):
        crossed = bytearray(len(inside))
        crossed[goal] = 1
        reached = bytearray(len(numbers))
        for node in those:
            reached[node] = 1
        waiting = [node for node in those if forwards[node]]
        for router in waiting:
            for network, neighbour in neighbours[router]:
                if crossed[network]:
                    continue
                crossed[network] = 1
                for node in inside[network]:
                    if not reached[node]:
                        reached[node] = 1
                        behind[node][neighbour].append(goal)
                        if forwards[node]:
                            waiting.append(node)
    return {node: behind[number] for node, number in numbers.items() if behind[number]}


def _widened(blocks: Sequence[Block]) -> list[Block]:
    """The same, each automatic IPv6 network with all that is near it (4)."""
    near = Counter(start >> _WIDE for start, _ in set(blocks))
    return [
        (start >> _WIDE << _WIDE, _WIDE) if start >> 112 == 0xFD00 and near[start >> _WIDE] == 1 else (start, bits)
        for start, bits in blocks
    ]


def _routes(
    behind: Mapping[Neighbour, Sequence[int]], version: int, networks: Sequence[_Network], blocks: Sequence[Block]
) -> Iterator[Route]:
    for (network, position), goals in behind.items():
        via = networks[network].addresses[position]
        everything = [(0, _BITS[version])] if len(behind) == 1 else collapse(blocks[goal] for goal in goals)
        for block in everything:
            yield _route(version, block, via)


def collapse(blocks: Iterable[Block]) -> list[Block]:
    """The fewest blocks that cover the same (3)."""
    merged: list[Block] = []
    for start, bits in sorted(blocks, key=lambda block: (block[0], -block[1])):
        if merged and start < merged[-1][0] + (1 << merged[-1][1]):
            continue  # it is inside the one before
        while merged and merged[-1] == (start - (1 << bits), bits) and not merged[-1][0] & (1 << bits):
            start, _ = merged.pop()
            bits += 1
        merged.append((start, bits))
    return merged


def _route(version: int, block: Block, via: int) -> Route:
    start, bits = block
    if version == 4:
        return Route(IPv4Network((start, 32 - bits)), IPv4Address(via))
    return Route(IPv6Network((start, 128 - bits)), IPv6Address(via))
