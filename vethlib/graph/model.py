"""The content of a diagram: boxes, the ports in them, and the edges between ports. Values only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

from vethlib.errors import InvalidValue, check_type

__all__ = ["COLORS", "MOODS_BY_SEVERITY", "WARNED", "Box", "Edge", "Graph", "Mood", "Port", "check_graph"]

Mood: TypeAlias = Literal["good", "bad", "waiting", "planned", "plain"]

_MOODS: dict[str, Mood] = {
    "": "plain",
    "up": "good",
    "CONFIGURED": "good",
    "PENDING": "waiting",
    "RETRYING": "bad",
    "FAILED": "bad",
    "INVALID": "bad",
    "disabled": "plain",
    "to be created": "planned",
    "to be changed": "planned",
}


MOODS_BY_SEVERITY: Final[tuple[Mood, ...]] = ("bad", "waiting", "planned", "plain", "good")
"""From worst to best."""

COLORS: Final[Mapping[Mood, str]] = {
    "good": "#2e7d32",
    "bad": "#c62828",
    "waiting": "#9a6700",
    "planned": "#1565c0",
    "plain": "#666666",
}
"""Colours for drawings without a background of their own: readable on light and dark."""


WARNED: Final = "⚠"
"""The mark of a port that has a warning."""


@dataclass(frozen=True, slots=True)
class Port:
    """A link in a box; `box` is the name of the box. Raises InvalidValue, as all classes here do.

    `state` is an operational state ("up", "down", or "lowerlayerdown" and "no-carrier" if the peer is down), the state
    of an interface ("PENDING", …), or a planned operation ("to be created"); "" if nothing is known. `reason` explains
    the state. `warnings` are about the configuration, and are marked in the diagram. `address_states` has the state of
    each address that is "tentative", "dadfailed", "deprecated" or "expiring".
    """

    box: str
    name: str
    addresses: tuple[str, ...] = ()
    mtu: int | None = None
    mac: str = ""
    state: str = ""
    reason: str = ""
    warnings: tuple[str, ...] = ()
    address_states: Mapping[str, str] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        check_type(self.box, str, "box", "must be the name of a box")
        check_type(self.name, str, "name", "must be the name of a link")
        _check_each(self.addresses, str, "addresses", "must be a tuple of texts, such as ('10.0.0.1/24',)")

    @property
    def marked_name(self) -> str:
        """The name, followed by a mark if there is a warning."""
        return f"{self.name} {WARNED}" if self.warnings else self.name

    @property
    def mood(self) -> Mood:
        """The severity of the state."""
        return _MOODS.get(self.state, "bad")

    def address_texts(self) -> list[str]:
        """Return the addresses, each followed by its state if that is not the usual one."""
        states = self.address_states
        return [f"{address} ({states[address]})" if address in states else address for address in self.addresses]

    def lines(self) -> list[str]:
        """Return all details, one per line."""
        words = [self.name, *self.address_texts()]
        words += [f"mtu {self.mtu}"] if self.mtu else []
        words += [self.mac] if self.mac else []
        words += [f"{self.state}: {self.reason}" if self.reason else self.state] if self.state else []
        words += [f"{WARNED} {warning}" for warning in self.warnings]
        return words


@dataclass(frozen=True, slots=True)
class Edge:
    """A pair of links. Its mood is that of the worse end."""

    a: Port
    b: Port

    def __post_init__(self) -> None:
        for which, port in (("a", self.a), ("b", self.b)):
            check_type(port, Port, which, "must be a Port")

    @property
    def mood(self) -> Mood:
        """The mood of the worse end."""
        return min(self.a.mood, self.b.mood, key=MOODS_BY_SEVERITY.index)


@dataclass(frozen=True, slots=True)
class Box:
    """A namespace. `loose` are its ports without an edge, whose peer is unknown or missing.

    `missing` is True if the namespace does not exist.
    """

    name: str
    loose: tuple[Port, ...] = ()
    missing: bool = False

    def __post_init__(self) -> None:
        check_type(self.name, str, "name", "must be the name of a namespace")
        _check_each(self.loose, Port, "loose", "must be a tuple of Ports")


@dataclass(frozen=True, slots=True)
class Graph:
    """Boxes and the edges between them; every port of an edge is in one of the boxes."""

    boxes: tuple[Box, ...]
    edges: tuple[Edge, ...] = ()

    def __post_init__(self) -> None:
        _check_each(self.boxes, Box, "boxes", "must be a tuple of Boxes")
        _check_each(self.edges, Edge, "edges", "must be a tuple of Edges")
        names: set[str] = set()
        for box in self.boxes:
            if box.name in names:
                raise InvalidValue("boxes", box.name, "there are two boxes with this name")
            names.add(box.name)
        for edge in self.edges:
            for port in (edge.a, edge.b):
                if port.box not in names:
                    raise InvalidValue("edges", port.box, f"there is no such box, which has the port {port.name!r}")

    def as_dict(self) -> dict[str, Any]:
        """Return the graph as a dictionary for JSON."""
        return {
            "boxes": [
                {"name": box.name, "missing": box.missing, "links": [_port(port) for port in box.loose]}
                for box in self.boxes
            ],
            "edges": [{"a": _port(edge.a), "b": _port(edge.b)} for edge in self.edges],
        }

    def components(self) -> Iterator[Graph]:
        """Yield the connected parts of the graph, each with its boxes in order."""
        joined: dict[str, set[str]] = {box.name: {box.name} for box in self.boxes}
        for edge in self.edges:
            a, b = joined[edge.a.box], joined[edge.b.box]
            if a is not b:
                if len(a) < len(b):
                    a, b = b, a
                a |= b
                joined.update(dict.fromkeys(b, a))
        parts = {id(part): part for part in joined.values()}
        edges: dict[int, list[Edge]] = {key: [] for key in parts}
        boxes: dict[int, list[Box]] = {key: [] for key in parts}
        for edge in self.edges:
            edges[id(joined[edge.a.box])].append(edge)
        for box in self.boxes:
            boxes[id(joined[box.name])].append(box)
        for key in parts:
            yield Graph(tuple(boxes[key]), tuple(edges[key]))


def _check_each(values: object, cls: type, field: str, hint: str) -> None:
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise InvalidValue(field, values, hint)
    for value in values:
        check_type(value, cls, field, hint)


def check_graph(graph: Graph) -> Graph:
    """Return `graph` if it is a Graph. Raises InvalidValue."""
    return check_type(graph, Graph, "graph", "must be a Graph, such as that of Topology.graph()")


def _port(port: Port) -> dict[str, Any]:
    return {
        "netns": port.box,
        "name": port.name,
        "addresses": list(port.addresses),
        "address_states": dict(port.address_states),
        "mtu": port.mtu,
        "mac": port.mac,
        "state": port.state,
        "reason": port.reason,
        "warnings": list(port.warnings),
    }
