"""What a picture shows: boxes, the ports in them, and the edges between those. Values only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

__all__ = ["COLORS", "Box", "Edge", "Graph", "Mood", "Port"]

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


COLORS: Final[Mapping[Mood, str]] = {
    "good": "#2e7d32",
    "bad": "#c62828",
    "waiting": "#9a6700",
    "planned": "#1565c0",
    "plain": "#666666",
}
"""For those who draw on a ground of their own, light or dark: they can be read on both."""


@dataclass(frozen=True, slots=True)
class Port:
    """A link in a box, by the box's name.

    `state` is a word: an operational state of the kernel ("up", "down", "lowerlayerdown"), a state of an interface
    ("PENDING", …), or what is to be done ("to be created"); "" where nothing is known of it. `reason` says more.
    """

    box: str
    name: str
    addresses: tuple[str, ...] = ()
    mtu: int | None = None
    mac: str = ""
    state: str = ""
    reason: str = ""

    @property
    def mood(self) -> Mood:
        """What the state means."""
        return _MOODS.get(self.state, "bad")

    def lines(self) -> list[str]:
        """All that is known of it, a line each."""
        words = [self.name, *self.addresses]
        words += [f"mtu {self.mtu}"] if self.mtu else []
        words += [self.mac] if self.mac else []
        words += [f"{self.state}: {self.reason}" if self.reason else self.state] if self.state else []
        return words


@dataclass(frozen=True, slots=True)
class Edge:
    """A pair. The worse of its ends says how it is."""

    a: Port
    b: Port

    @property
    def mood(self) -> Mood:
        """The worst of both ends."""
        order: tuple[Mood, ...] = ("bad", "waiting", "planned", "plain", "good")
        return min(self.a.mood, self.b.mood, key=order.index)


@dataclass(frozen=True, slots=True)
class Box:
    """A namespace. `loose` are ports without an edge: the other end is unknown, or not there; `missing` that it is not
    there itself.
    """

    name: str
    loose: tuple[Port, ...] = ()
    missing: bool = False


@dataclass(frozen=True, slots=True)
class Graph:
    """Boxes and the edges between them; every port of an edge is in one of the boxes."""

    boxes: tuple[Box, ...]
    edges: tuple[Edge, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The graph for JSON."""
        return {
            "boxes": [
                {"name": one.name, "missing": one.missing, "links": [_port(port) for port in one.loose]}
                for one in self.boxes
            ],
            "edges": [{"a": _port(edge.a), "b": _port(edge.b)} for edge in self.edges],
        }

    def components(self) -> Iterator[Graph]:
        """The parts that no edge joins, each in the order of the boxes."""
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


def _port(port: Port) -> dict[str, Any]:
    return {
        "netns": port.box,
        "name": port.name,
        "addresses": list(port.addresses),
        "mtu": port.mtu,
        "mac": port.mac,
        "state": port.state,
        "reason": port.reason,
    }
