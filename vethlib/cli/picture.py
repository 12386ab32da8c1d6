"""A topology as text: a box for each namespace, a line for each pair.

The namespace with the most pairs that are not drawn yet comes next, on the left; what it is joined to stands on the
right. So a pair is two boxes, a star is one box with its leaves, and a chain or a ring falls into such pieces.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby

from vethlib.session.survey import SurveyedLink

from .text import natural, paint, width
from .where import ref_text

__all__ = ["Edge", "draw", "edge_of"]

_GAP = 10


@dataclass(frozen=True, slots=True)
class Edge:
    """A pair: the namespace, the link's name and its addresses at each end."""

    a: str
    a_link: str
    a_addresses: str
    b: str
    b_link: str
    b_addresses: str
    up: bool

    def seen_from(self, box: str) -> Edge:
        """The same pair with `box` on its left."""
        if self.a == box:
            return self
        return Edge(self.b, self.b_link, self.b_addresses, self.a, self.a_link, self.a_addresses, self.up)


def edge_of(a: SurveyedLink, b: SurveyedLink) -> Edge:
    """The pair with these ends."""
    up = a.link.operstate == b.link.operstate == "up"
    return Edge(ref_text(a.ref), a.link.name, _addresses(a), ref_text(b.ref), b.link.name, _addresses(b), up)


def _addresses(one: SurveyedLink) -> str:
    return "  ".join(str(address) for address in one.link.addresses if not address.is_link_local)


def draw(edges: Iterable[Edge]) -> list[str]:
    """The lines of the picture, painted."""
    left = list(edges)
    lines: list[str] = []
    while left:
        counts = Counter(box for edge in left for box in {edge.a, edge.b})
        box = min(counts, key=lambda name: (-counts[name], natural(name)))
        block = [edge.seen_from(box) for edge in left if box in (edge.a, edge.b)]
        block.sort(key=lambda edge: (natural(edge.b), natural(edge.a_link)))
        lines += _block(box, block)
        left = [edge for edge in left if box not in (edge.a, edge.b)]
    return lines


def _block(box: str, edges: list[Edge]) -> Iterator[str]:
    """One box on the left, and on the right one for each namespace it is joined to, with all pairs between them."""
    wide = max(width(box) + 2, *(width(_label(edge.a_link, edge.a_addresses)) for edge in edges))
    right = max(max(width(edge.b) + 2, width(_label(edge.b_link, edge.b_addresses))) for edge in edges)
    blank = f"│ {' ' * wide} │{' ' * _GAP}"
    edge_above = f"{_top(box, wide)}{' ' * _GAP}"
    groups = [list(group) for _, group in groupby(edges, key=lambda edge: edge.b)]
    for number, group in enumerate(groups):
        yield f"{edge_above if number == 0 else blank}{_top(group[0].b, right)}"
        for edge in group:
            wire = paint("─" * _GAP, "good") if edge.up else paint("╌" * _GAP, "bad")
            a, b = _cell(edge.a_link, edge.a_addresses, wide), _cell(edge.b_link, edge.b_addresses, right)
            yield f"│ {a} ├{wire}┤ {b} │"
        last = number == len(groups) - 1
        yield f"{_bottom(wide) + ' ' * _GAP if last else blank}{_bottom(right)}"


def _top(name: str, wide: int) -> str:
    return f"┌─ {paint(name, 'heading')} {'─' * (wide - width(name) - 1)}┐"


def _bottom(wide: int) -> str:
    return f"└─{'─' * wide}─┘"


def _label(link: str, addresses: str) -> str:
    return f"{link}  {addresses}" if addresses else link


def _cell(link: str, addresses: str, wide: int) -> str:
    padding = " " * (wide - width(_label(link, addresses)))
    return _label(paint(link, "link"), paint(addresses, "address")) + padding
