"""Topologies as pure values: nodes, the wires between them, and the details of each port.

A :class:`Description` leaves many details open. A :class:`Layout` has all of them: every port has a link name and
addresses, every node its routes. ``text.py`` and ``shapes.py`` create descriptions, ``layout.py`` completes them, and
``build.py`` builds layouts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from typing import Any, Final, Literal, TypeAlias

from vethlib.errors import InvalidValue

from .impairment import Impairment

__all__ = ["BRIDGE", "Description", "Kind", "Layout", "Member", "Port", "Route", "Wire", "placed"]

BRIDGE: Final = "br0"
"""The name of the bridge of a switch."""

Kind: TypeAlias = Literal["node", "router", "switch"]


@dataclass(frozen=True, slots=True)
class Member:
    """A node: a plain "node", a "router" (which forwards), or a "switch" (whose links are in a bridge, br0)."""

    name: str
    kind: Kind = "node"


@dataclass(frozen=True, slots=True)
class Port:
    """One end of a wire: a link in a node.

    If `link` is "", it becomes eth0, eth1, … in the order of the node's wires. If `addresses` is None, addresses are
    chosen; () means no addresses. `fields` has further fields of its :class:`~vethlib.End`: mac, txqlen, gso_max_size,
    altnames, alias, master, offload, sysctls, routes and neighbours.
    """

    node: str
    link: str = ""
    addresses: tuple[IPv4Interface | IPv6Interface, ...] | None = None
    fields: Mapping[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class Wire:
    """A veth pair between two nodes. `mtu` (bytes) applies to both ends; None means the kernel's default.

    With ipv6=False, neither end has IPv6, not even a link-local address. `a_to_b` is the impairment of packets from `a`
    to `b`, `b_to_a` that of packets in the other direction; None means none. `where` is its place in a text, such as
    "line 3", for errors; it does not distinguish wires.
    """

    a: Port
    b: Port
    mtu: int | None = None
    ipv6: bool | None = None
    a_to_b: Impairment | None = None
    b_to_a: Impairment | None = None
    where: str = field(default="", compare=False, repr=False)

    def seen_from(self, node: str) -> Wire:
        """Return the same wire with the port of `node` as `a`."""
        if self.a.node == node:
            return self
        return Wire(self.b, self.a, self.mtu, self.ipv6, self.b_to_a, self.a_to_b, self.where)


def placed(error: InvalidValue, wire: Wire) -> InvalidValue:
    """Return an error about a wire, with the place of the wire in the text if it is known."""
    return InvalidValue(error.field, error.value, f"{wire.where}: {error.hint}") if wire.where else error


@dataclass(frozen=True, slots=True)
class Description:
    """The nodes and wires of a topology to build, in order."""

    members: tuple[Member, ...]
    wires: tuple[Wire, ...]


@dataclass(frozen=True, slots=True)
class Route:
    """A static route: `network` is reached through the neighbour's address `via`."""

    network: IPv4Network | IPv6Network
    via: IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class Layout:
    """A complete description.

    In `wires`, every port has a link name and addresses (never None). `routes` has the routes of each node that needs
    any, and `forwarding` the names of the nodes that forward.
    """

    members: tuple[Member, ...]
    wires: tuple[Wire, ...]
    routes: Mapping[str, tuple[Route, ...]] = field(hash=False)
    forwarding: frozenset[str]
