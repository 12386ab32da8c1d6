"""A topology as text: one box per namespace, one line per pair.

The next box on the left is always the namespace with the most pairs that are not drawn yet; the namespaces that it is
connected to are on its right. So a pair is two boxes, a star is one box with its leaves, and a chain or a ring is split
into such pieces. Interfaces without a pair are last, one per line.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from heapq import heapify, heappop, heappush
from itertools import groupby

from vethlib.cli.term.text import natural, paint, width
from vethlib.graph import Edge, Graph, Port
from vethlib.graph.model import WARNED

__all__ = ["draw"]

_GAP = 10
_ROLES = {"good": "good", "bad": "bad", "waiting": "warning", "planned": "link", "plain": ""}
_SOLID = ("good", "plain")


def draw(graph: Graph) -> list[str]:
    """Return the lines of the picture, painted."""
    lines: list[str] = []
    for box, block in _blocks(graph):
        lines += _block(box, block)
    for netns in graph.boxes:
        for port in netns.loose:
            lines.append(f"{paint(netns.name, 'heading')}  {_painted(port)}")
    return lines + _warnings(graph)


def _blocks(graph: Graph) -> Iterator[tuple[str, list[Edge]]]:
    """Yield each box on the left with its pairs that are not drawn yet, seen from it and in order."""
    edges: dict[str, list[int]] = {}  # indexes in graph.edges, by box
    for number, edge in enumerate(graph.edges):
        for name in {edge.a.box, edge.b.box}:
            edges.setdefault(name, []).append(number)
    # Names that natural() takes for equal, such as a1 and a01, have an order, too.
    rank = {name: number for number, name in enumerate(sorted(edges, key=lambda name: (natural(name), name)))}
    counts = {name: len(numbers) for name, numbers in edges.items()}
    heap = [(-count, rank[name], name) for name, count in counts.items()]
    heapify(heap)
    drawn: set[int] = set()
    while heap:
        count, _, box = heappop(heap)
        if count != -counts[box] or not count:
            continue  # some of its pairs are drawn meanwhile
        numbers = [number for number in edges[box] if number not in drawn]
        drawn.update(numbers)
        block = [_seen_from(graph.edges[number], box) for number in numbers]
        block.sort(key=lambda edge: (rank[edge.b.box], natural(edge.a.name)))
        counts[box] = 0
        for other, joined in Counter(edge.b.box for edge in block if edge.b.box != box).items():
            counts[other] -= joined
            heappush(heap, (-counts[other], rank[other], other))
        yield box, block


def _warnings(graph: Graph) -> list[str]:
    """Return one line per warning: those about a pair are at both of its ends."""
    ports = [port for edge in graph.edges for port in (edge.a, edge.b)]
    ports += [port for box in graph.boxes for port in box.loose]
    warnings = dict.fromkeys(text for port in ports for text in port.warnings)
    return [f"{paint(WARNED, 'warning')} {text}" for text in warnings]


def _seen_from(edge: Edge, box: str) -> Edge:
    """Return a pair with `box` on the left."""
    return edge if edge.a.box == box else Edge(edge.b, edge.a)


def _block(box: str, edges: list[Edge]) -> Iterator[str]:
    """Yield a box on the left, and on the right one per connected namespace, with all pairs between them."""
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
    words = [paint(port.name, "link") + (f" {paint(WARNED, 'warning')}" if port.warnings else "")]
    words += [paint("  ".join(port.address_texts()), "address")] if port.addresses else []
    words += [f"mtu {port.mtu}"] if port.mtu not in (None, 1500) else []
    if port.state not in ("", "up"):
        words.append(paint(port.state, _ROLES[port.mood]) + (f": {port.reason}" if port.reason else ""))
    elif port.reason:
        words.append(f"⇄ {port.reason}")
    return "  ".join(words)
