"""Lay out a picture: pure geometry, in pixels, of text in a monospaced font.

1. Connected parts are laid out separately, and then packed in rows.
2. A part is drawn in columns. The box with the most edges is in the middle, and the pieces into which the part falls
   without it are distributed evenly to its left and right; each further column has the neighbours of the one before. So
   an edge joins neighbouring columns, or two boxes of one column: it runs in the gap beside them, and through no box.
3. Long chains and rings would be one row, or two columns of a hundred, so they are wound: each row runs in the opposite
   direction of the one before.
4. In a box, every port has its own row, on the side where its edge leaves, in the order of the other ends. So all texts
   are in boxes, and edges need none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil, sqrt
from typing import Final, Literal, TypeAlias

from vethlib.text import columns, natural

from .labels import row_text, title_of
from .model import Box, Edge, Graph, Port
from .order import spread, untangled

__all__ = ["Curve", "PlacedBox", "PlacedGraph", "Row", "place"]

Side: TypeAlias = Literal["left", "right"]
_SIDES: Final[tuple[Side, ...]] = ("left", "right")

CHAR: Final = 7.3  # width of a character at 12 px: DejaVu Sans Mono 7.22, Liberation Mono 7.2, Menlo 7.22
ROW: Final = 18.0
HEAD: Final = 24.0
PAD: Final = 10.0
BETWEEN: Final = 16.0  # between the boxes of a column
_GAP: Final = (70.0, 260.0)  # between columns, at least and at most
_APART: Final = 44.0  # between the parts of a picture
_MARGIN: Final = 24.0
_GRID: Final = 60.0
_WIDTH: Final = 1500.0  # width of a row of parts, unless a part is wider
_WOUND: Final = 9  # the least number of boxes of a wound chain


@dataclass(slots=True)
class Row:
    """The text of a port, and the point where its edge leaves."""

    port: Port
    text: str
    side: Side
    x: float = 0.0
    y: float = 0.0  # the middle


@dataclass(slots=True)
class PlacedBox:
    """A box with its corner and its size, and the `rows` of its ports on both sides."""

    box: Box
    width: float
    height: float = 0.0
    x: float = 0.0
    y: float = 0.0
    rows: list[Row] = field(default_factory=list)

    @property
    def middle(self) -> float:
        """The vertical middle."""
        return self.y + self.height / 2


@dataclass(slots=True)
class Curve:
    """An edge between the rows of its ends. `bulge` is its distance from the column beside which it runs."""

    edge: Edge
    a: Row
    b: Row
    bulge: float = 0.0


@dataclass(slots=True)
class PlacedGraph:
    """A picture; all coordinates are 0 or greater."""

    boxes: list[PlacedBox]
    curves: list[Curve]
    width: float
    height: float


def place(graph: Graph) -> PlacedGraph:
    """Lay out a graph. The same graph always yields the same picture."""
    parts = [_Part(part).place() for part in graph.components()]
    return _pack(parts)


def _pack(parts: list[PlacedGraph]) -> PlacedGraph:
    """Pack the parts side by side in rows, the tallest first."""
    whole = max([_WIDTH, *(part.width for part in parts)])
    area = sum((part.width + _APART) * (part.height + _APART) for part in parts)
    whole = max(whole, min(sqrt(area) * 1.3, 2 * whole))
    boxes: list[PlacedBox] = []
    curves: list[Curve] = []
    x = y = _MARGIN
    tall = right = 0.0
    order = sorted(parts, key=lambda part: (-round(part.height), natural(part.boxes[0].box.name)))
    for part in order:
        if x > _MARGIN and x + part.width > whole:
            x, y, tall = _MARGIN, y + tall + _APART, 0.0
        for box in part.boxes:
            box.x, box.y = box.x + x, box.y + y
            for row in box.rows:
                row.x, row.y = row.x + x, row.y + y
        boxes += part.boxes
        curves += part.curves
        right, tall = max(right, x + part.width), max(tall, part.height)
        x += ceil((part.width + _APART) / _GRID) * _GRID  # so that parts of nearly the same width are aligned
    return PlacedGraph(boxes, curves, right + _MARGIN, y + tall + _MARGIN)


class _Part:
    """A connected part."""

    def __init__(self, graph: Graph) -> None:
        self._boxes = {box.name: box for box in graph.boxes}
        self._edges = graph.edges
        self._near: dict[str, list[str]] = {name: [] for name in self._boxes}
        for edge in graph.edges:
            self._near[edge.a.box].append(edge.b.box)
            if edge.a.box != edge.b.box:
                self._near[edge.b.box].append(edge.a.box)
        self._neighbours = {name: sorted(set(near) - {name}, key=natural) for name, near in self._near.items()}
        self._placed: dict[str, PlacedBox] = {}
        self._curves: list[Curve] = []
        self._middle = ""

    def place(self) -> PlacedGraph:
        if len(self._boxes) >= _WOUND and all(len(near) <= 2 for near in self._neighbours.values()):
            self._wind()
        else:
            self._stand(self._columns())
        return self._cropped()

    # --- in columns

    def _columns(self) -> list[list[str]]:
        """Assign the boxes to columns, from left to right."""
        middle = min(
            self._boxes, key=lambda name: (-len(self._neighbours[name]), -len(self._near[name]), natural(name))
        )
        self._middle = middle
        right = [[middle]]
        left: list[list[str]] = []
        groups = self._without(middle)
        half, size = (len(self._boxes) - 1) / 2, 0
        for group in groups:
            # In reading order: the first pieces, which are the larger ones, to the left; but a single one to the right.
            to_right = size >= half or len(groups) == 1
            size += len(group)
            columns, offset = (right, 1) if to_right else (left, 0)
            for depth, names in enumerate(self._depths(middle, group)):
                while len(columns) <= depth + offset:
                    columns.append([])
                columns[depth + offset] += names
        return [*reversed(left), *right]

    def _without(self, middle: str) -> list[set[str]]:
        """Return the pieces into which the part falls without that box."""
        groups: list[set[str]] = []
        seen = {middle}
        for name in self._neighbours[middle]:
            if name in seen:
                continue
            group = {name}
            queue = [name]
            while queue:
                for other in self._neighbours[queue.pop()]:
                    if other not in group and other != middle:
                        group.add(other)
                        queue.append(other)
            seen |= group
            groups.append(group)
        groups.sort(key=lambda group: (-len(group), natural(min(group, key=natural))))
        return groups

    def _depths(self, middle: str, group: set[str]) -> list[list[str]]:
        """Return the group in columns by distance, each in the order of the one before."""
        columns: list[list[str]] = []
        column = [name for name in self._neighbours[middle] if name in group]
        seen = {middle, *column}
        while column:
            columns.append(column)
            following = [
                other for name in column for other in self._neighbours[name] if other in group and other not in seen
            ]
            column = list(dict.fromkeys(following))
            seen.update(column)
        return columns

    def _stand(self, columns: Sequence[Sequence[str]]) -> None:
        at = {name: number for number, column in enumerate(columns) for name in column}
        order = untangled(columns, self._neighbours)

        def sides_of(edge: Edge) -> tuple[Side, Side]:
            a, b = at[edge.a.box], at[edge.b.box]
            if a == b:
                return "right", "right"
            return ("right", "left") if a < b else ("left", "right")

        self._make_boxes(sides_of)
        self._align(order)
        self._sort_rows()
        gaps = self._gaps(at)
        x = 0.0
        for number, column in enumerate(order):
            wide = max(self._placed[name].width for name in column)
            for name in column:
                self._placed[name].width = wide  # equal widths in a column look calmer
                self._placed[name].x = x
            x += wide + gaps.get(number, _GAP[0])
        self._place_rows()

    def _align(self, order: Sequence[Sequence[str]]) -> None:
        """Place each box at the average height of its neighbours, as far as there is room in its column.

        The columns on the two sides of the middle are independent: the tallest has no gaps, and the others are placed
        outwards from it.
        """
        middle = next(number for number, column in enumerate(order) if self._middle in column)
        for half in (range(middle), range(middle + 1, len(order))):
            if half:
                tallest = max(half, key=lambda number: sum(map(self._room, order[number])))
                self._put(order[tallest], [0.0] * len(order[tallest]))
                for number in range(tallest - 1, half.start - 1, -1):
                    self._follow(order[number], order[number + 1])
                for number in range(tallest + 1, half.stop):
                    self._follow(order[number], order[number - 1])
        self._follow(order[middle], [name for column in order for name in column])

    def _room(self, name: str) -> float:
        return self._placed[name].height + BETWEEN

    def _follow(self, column: Sequence[str], others: Iterable[str]) -> None:
        """Place a column beside others that are already placed."""
        placed = set(others) - set(column)
        desired: list[float] = []
        for name in column:
            near = [self._placed[neighbour].middle for neighbour in self._neighbours[name] if neighbour in placed]
            desired.append(sum(near) / len(near) if near else 0.0)
        self._put(column, desired)

    def _put(self, column: Sequence[str], middles: Sequence[float]) -> None:
        tops = [middle - self._placed[name].height / 2 for name, middle in zip(column, middles, strict=True)]
        for name, top in zip(column, spread(tops, list(map(self._room, column))), strict=True):
            self._placed[name].y = top

    def _gaps(self, at: Mapping[str, int]) -> dict[int, float]:
        """Return the width of the gap after each column with edges there: wider for steep ones, and within a column."""
        gaps: dict[int, float] = {}
        for curve in self._curves:
            a, b = at[curve.edge.a.box], at[curve.edge.b.box]
            rise = abs(curve.a.y - curve.b.y)
            if a == b:
                curve.bulge = 30 + min(rise * 0.12, 180)
                needed = curve.bulge + 30
            else:
                needed = min(max(_GAP[0], rise * 0.12), _GAP[1])
            number = min(a, b)
            gaps[number] = max(gaps.get(number, _GAP[0]), needed)
        return gaps

    # --- wound

    def _wind(self) -> None:
        """Place a chain or a ring in rows, every second one from right to left."""
        names, closed = self._in_order()
        count = len(names)
        per_row = max(3, ceil(sqrt(count * 0.45)))
        if closed:  # an even number of rows ends on the left, below the beginning, if the last has two boxes or more
            few = per_row
            per_row = min(range(2, count), key=lambda n: (ceil(count / n) % 2, count % n == 1, abs(n - few)))
        rows = ceil(count / per_row)
        at: dict[str, tuple[int, int]] = {}
        for number, name in enumerate(names):
            row, step = divmod(number, per_row)
            at[name] = row, step if row % 2 == 0 else per_row - 1 - step
        if closed:  # in a shorter last row, only the last box is at the left border: the row begins on the right
            at[names[-1]] = rows - 1, 0
        self._make_boxes(lambda edge: self._wound_sides(edge, at, {names[0], names[-1]} if closed else set()))
        widths = [max((self._placed[n].width for n in names if at[n][1] == c), default=0.0) for c in range(per_row)]
        heights = [max((self._placed[n].height for n in names if at[n][0] == r), default=0.0) for r in range(rows)]
        gap = _GAP[0]
        for name in names:
            row, column = at[name]
            box = self._placed[name]
            box.x = 60 + sum(widths[:column]) + gap * column + (widths[column] - box.width) / 2
            box.y = sum(heights[:row]) + 40 * row + (heights[row] - box.height) / 2
        self._sort_rows()
        self._place_rows()
        for curve in self._curves:
            (row_a, _), (row_b, _) = at[curve.edge.a.box], at[curve.edge.b.box]
            if row_a != row_b:
                curve.bulge = 45.0 if abs(row_a - row_b) > 1 else 30.0

    def _in_order(self) -> tuple[list[str], bool]:
        ends = [name for name, near in self._neighbours.items() if len(near) == 1]
        names = [min(ends or self._boxes, key=natural)]
        seen = set(names)
        while following := [neighbour for neighbour in self._neighbours[names[-1]] if neighbour not in seen]:
            names.append(following[0])
            seen.add(following[0])
        return names, not ends

    def _wound_sides(self, edge: Edge, at: Mapping[str, tuple[int, int]], ends: set[str]) -> tuple[Side, Side]:
        (row_a, column_a), (row_b, column_b) = at[edge.a.box], at[edge.b.box]
        if row_a == row_b:
            return ("right", "left") if column_a <= column_b else ("left", "right")
        if {edge.a.box, edge.b.box} == ends:
            return "left", "left"
        side: Side = "right" if min(row_a, row_b) % 2 == 0 else "left"
        return side, side

    # --- the boxes

    def _make_boxes(self, sides_of: Callable[[Edge], tuple[Side, Side]]) -> None:
        rows: dict[str, dict[Side, list[Row]]] = {name: {"left": [], "right": []} for name in self._boxes}
        self._curves = []
        for edge in self._edges:
            side_a, side_b = sides_of(edge)
            a, b = Row(edge.a, row_text(edge.a), side_a), Row(edge.b, row_text(edge.b), side_b)
            rows[edge.a.box][side_a].append(a)
            rows[edge.b.box][side_b].append(b)
            self._curves.append(Curve(edge, a, b))
        for name, box in self._boxes.items():
            left, right = rows[name]["left"], rows[name]["right"]
            for port in box.loose:
                shorter: Side = "left" if len(left) < len(right) else "right"
                rows[name][shorter].append(Row(port, row_text(port), shorter))
            wide_left = max((columns(row.text) for row in left), default=0)
            wide_right = max((columns(row.text) for row in right), default=0)
            between = 3 if left and right else 0
            wide = max(wide_left + wide_right + between, columns(title_of(box)))
            count = max(len(left), len(right))
            height = HEAD + (count * ROW + PAD if count else 0)
            self._placed[name] = PlacedBox(box, wide * CHAR + 2 * PAD, height, rows=[*left, *right])

    def _sort_rows(self) -> None:
        """Order the ports of each box like their other ends."""
        other: dict[int, Port] = {}
        for curve in self._curves:
            other[id(curve.a)], other[id(curve.b)] = curve.b.port, curve.a.port
        for box in self._placed.values():

            def key(row: Row) -> tuple[float, list[str | tuple[int, str]]]:
                far = other.get(id(row))
                return (float("inf") if far is None else self._placed[far.box].middle, natural(row.port.name))

            box.rows.sort(key=key)
            self._number_rows(box)

    def _number_rows(self, box: PlacedBox) -> None:
        count: dict[Side, int] = {"left": 0, "right": 0}
        for row in box.rows:
            row.y = box.y + HEAD + (count[row.side] + 0.5) * ROW
            count[row.side] += 1

    def _place_rows(self) -> None:
        for box in self._placed.values():
            self._number_rows(box)
            for row in box.rows:
                row.x = box.x if row.side == "left" else box.x + box.width

    def _cropped(self) -> PlacedGraph:
        boxes = list(self._placed.values())
        beside = {side: [curve for curve in self._curves if curve.a.side == curve.b.side == side] for side in _SIDES}
        left = min(box.x for box in boxes) - max((curve.bulge for curve in beside["left"]), default=0.0)
        top = min(box.y for box in boxes)
        for box in boxes:
            box.x, box.y = box.x - left, box.y - top
            for row in box.rows:
                row.x, row.y = row.x - left, row.y - top
        furthest = [max(curve.a.x, curve.b.x) + curve.bulge for curve in beside["right"]]
        width = max([*(box.x + box.width for box in boxes), *furthest])
        return PlacedGraph(boxes, self._curves, width, max(box.y + box.height for box in boxes))
