"""Convert a layout to a graph for drawing."""

from __future__ import annotations

from vethlib.graph import Box, Edge, Graph
from vethlib.graph import Port as GraphPort

from .description import Layout, Port

__all__ = ["graph_of"]


def graph_of(layout: Layout) -> Graph:
    """Return a graph with a box for each member and an edge for each wire."""
    boxes = tuple(Box(member.name) for member in layout.members)
    return Graph(boxes, tuple(Edge(_port(wire.a, wire.mtu), _port(wire.b, wire.mtu)) for wire in layout.wires))


def _port(port: Port, mtu: int | None) -> GraphPort:
    return GraphPort(port.node, port.link, tuple(map(str, port.addresses or ())), mtu)
