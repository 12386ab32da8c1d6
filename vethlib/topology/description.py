"""What a topology is to be: its nodes, the wires between them, and what follows for each port. Pure values.

A :class:`Description` is what somebody wants, with much left open; a :class:`Layout` is the same with everything
settled: every port has its link name and its addresses, every node its routes. ``text.py`` and ``shapes.py`` make
descriptions, ``layout.py`` settles them, ``build.py`` builds layouts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from typing import Final, Literal, TypeAlias

__all__ = ["BRIDGE", "Description", "Kind", "Layout", "Member", "Port", "Route", "Wire"]

BRIDGE: Final = "br0"
"""The bridge of a switch."""

Kind: TypeAlias = Literal["node", "router", "switch"]


@dataclass(frozen=True, slots=True)
class Member:
    """One node: a plain "node", a "router" (it forwards), or a "switch" (a bridge joins its links, br0)."""

    name: str
    kind: Kind = "node"


@dataclass(frozen=True, slots=True)
class Port:
    """One end of a wire: a link in a node.

    `link` left "" is eth0, eth1, … in the order of the node's wires; `addresses` left None are chosen, () are none.
    """

    node: str
    link: str = ""
    addresses: tuple[IPv4Interface | IPv6Interface, ...] | None = None


@dataclass(frozen=True, slots=True)
class Wire:
    """A veth pair between two nodes; `mtu` (bytes) is of both ends, None leaves it to the kernel."""

    a: Port
    b: Port
    mtu: int | None = None

    def seen_from(self, node: str) -> Wire:
        """The same wire with the port of `node` as `a`."""
        return self if self.a.node == node else Wire(self.b, self.a, self.mtu)


@dataclass(frozen=True, slots=True)
class Description:
    """Nodes and wires, as they are wanted, in order."""

    members: tuple[Member, ...]
    wires: tuple[Wire, ...]


@dataclass(frozen=True, slots=True)
class Route:
    """A static route: `network` is reached through the neighbour's address `via`."""

    network: IPv4Network | IPv6Network
    via: IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class Layout:
    """A description with nothing left open.

    In `wires` every port has its link name and its addresses (never None); `routes` has the routes of each node that
    needs any; `forwarding` names the nodes that forward.
    """

    members: tuple[Member, ...]
    wires: tuple[Wire, ...]
    routes: Mapping[str, tuple[Route, ...]]
    forwarding: frozenset[str]
