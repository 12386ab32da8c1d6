"""A topology as text: a box for each namespace, a line for each pair.

The namespace with the most pairs that are not drawn yet comes next, on the left; what it is joined to stands on the
right. So a pair is two boxes, a star is one box with its leaves, and a chain or a ring falls into such pieces.
What has no pair comes last, a line each.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import groupby

from vethlib.graph import Edge, Graph, Port

from .text import natural, paint, width

__all__ = ["draw"]

_GAP = 10
_ROLES = {"good": "good", "bad": "bad", "waiting": "warning", "planned": "link", "plain": ""}
_SOLID = ("good", "plain")


def draw(graph: Graph) -> list[str]:
    """The lines of the picture, painted."""
    left = list(graph.edges)
    lines: list[str] = []
    while left:
        counts = Counter(box for edge in left for box in {edge.a.box, edge.b.box})
        box = min(counts, key=lambda name: (-counts[name], natural(name)))
        block = [_seen_from(edge, box) for edge in left if box in (edge.a.box, edge.b.box)]
        block.sort(key=lambda edge: (natural(edge.b.box), natural(edge.a.name)))
        lines += _block(box, block)
        left = [edge for edge in left if box not in (edge.a.box, edge.b.box)]
    for one in graph.boxes:
        for port in one.loose:
            lines.append(f"{paint(one.name, 'heading')}  {_painted(port)}")
    return lines


def _seen_from(edge: Edge, box: str) -> Edge:
    """The same pair with `box` on its left."""
    return edge if edge.a.box == box else Edge(edge.b, edge.a)


def _block(box: str, edges: list[Edge]) -> Iterator[str]:
    """One box on the left, and on the right one for each namespace it is joined to, with all pairs between them."""
    wide = max(width(box) + 2, *(width(_painted(edge.a)) for edge in edges))
    right = max(max(width(edge.b.box) + 2, width(_painted(edge.b))) for edge in edges)
    blank = f"│ {' ' * wide} │{' ' * _GAP}"
    edge_above = f"{_top(box, wide)}{' ' * _GAP}"
    groups = [list(group) for _, group in groupby(edges, key=lambda edge: edge.b.box)]
    for number, group in enumerate(groups):
        yield f"{edge_above if number == 0 else blank}{_top(group[0].b.box, right)}"
        for edge in group:
            wire = paint(("─" if edge.mood in _SOLID else "╌") * _GAP, _ROLES[edge.mood])
            yield f"│ {_cell(edge.a, wide)} ├{wire}┤ {_cell(edge.b, right)} │"
        last = number == len(groups) - 1
        yield f"{_bottom(wide) + ' ' * _GAP if last else blank}{_bottom(right)}"


def _top(name: str, wide: int) -> str:
    return f"┌─ {paint(name, 'heading')} {'─' * (wide - width(name) - 1)}┐"


def _bottom(wide: int) -> str:
    return f"└─{'─' * wide}─┘"


def _cell(port: Port, wide: int) -> str:
    text = _painted(port)
    return text + " " * (wide - width(text))


def _painted(port: Port) -> str:
    words = [paint(port.name, "link")]
    words += [paint("  ".join(port.addresses), "address")] if port.addresses else []
    words += [f"mtu {port.mtu}"] if port.mtu not in (None, 1500) else []
    if port.state not in ("", "up"):
        words.append(paint(port.state, _ROLES[port.mood]) + (f": {port.reason}" if port.reason else ""))
    elif port.reason:
        words.append(f"⇄ {port.reason}")
    return "  ".join(words)
