"""A topology as text: a box for each namespace, a line for each pair.

The namespace with the most pairs that are not drawn yet comes next, on the left; what it is joined to stands on the
right. So a pair is two boxes, a star is one box with its leaves, and a chain or a ring falls into such pieces.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from vethlib.session.survey import LinkAt, SurveyedLink

from .where import ref_text

__all__ = ["Edge", "draw", "edges_of"]


@dataclass(frozen=True, slots=True)
class Edge:
    """A pair: the namespace and the label of each end."""

    a: str
    a_label: str
    b: str
    b_label: str
    up: bool

    def seen_from(self, box: str) -> Edge:
        """The same pair with `box` on its left."""
        return self if self.a == box else Edge(self.b, self.b_label, self.a, self.a_label, self.up)


def edges_of(links: Iterable[SurveyedLink]) -> list[Edge]:
    """The pairs both of whose ends were surveyed."""
    everything: dict[LinkAt, SurveyedLink] = {(one.at, one.link.index): one for one in links}
    edges = []
    for at, one in everything.items():
        if one.peer is not None and one.peer in everything and at < one.peer:
            peer = everything[one.peer]
            up = one.link.operstate == peer.link.operstate == "up"
            edges.append(Edge(ref_text(one.ref), _label(one), ref_text(peer.ref), _label(peer), up))
    return edges


def _label(one: SurveyedLink) -> str:
    addresses = [str(address) for address in one.link.addresses if not address.is_link_local]
    return "  ".join([one.link.name, *addresses])


def _plain(text: str, *_styles: str) -> str:
    return text


def draw(edges: Iterable[Edge], paint: Callable[..., str] = _plain) -> list[str]:
    """The lines of the picture. `paint(text, *styles)` colours a piece of it."""
    left = list(edges)
    lines: list[str] = []
    while left:
        count: dict[str, int] = {}
        for edge in left:
            for box in {edge.a, edge.b}:
                count[box] = count.get(box, 0) + 1
        box = max(sorted(count), key=lambda name: count[name])
        lines += _draw_block(box, [edge.seen_from(box) for edge in left if box in (edge.a, edge.b)], paint)
        left = [edge for edge in left if box not in (edge.a, edge.b)]
    return lines


def _draw_block(box: str, edges: list[Edge], paint: Callable[..., str]) -> list[str]:
    wide = max(len(box) + 2, *(len(edge.a_label) for edge in edges))
    wide_right = max(max(len(edge.b) + 2, len(edge.b_label)) for edge in edges)
    lines = []
    for number, edge in enumerate(edges):
        first, last = number == 0, number == len(edges) - 1
        top = _top(box, wide, paint) if first else f"│ {' ' * wide} │"
        bottom = f"└─{'─' * wide}─┘" if last else f"│ {' ' * wide} │"
        wire = "──────────" if edge.up else "╌╌╌╌╌╌╌╌╌╌"
        middle = f"│ {_cell(edge.a_label, wide, paint)} ├{paint(wire, 'green' if edge.up else 'yellow')}┤ "
        lines.append(f"{top}{' ' * 10}{_top(edge.b, wide_right, paint)}")
        lines.append(f"{middle}{_cell(edge.b_label, wide_right, paint)} │")
        lines.append(f"{bottom}{' ' * 10}└─{'─' * wide_right}─┘")
    return lines


def _top(name: str, width: int, paint: Callable[..., str]) -> str:
    return f"┌─ {paint(name, 'magenta', 'bold')} {'─' * (width - len(name) - 1)}┐"


def _cell(label: str, width: int, paint: Callable[..., str]) -> str:
    name, _, rest = label.partition("  ")
    padding = " " * (width - len(label))
    return paint(name, "cyan") + ("  " + paint(rest, "blue") if rest else "") + padding
