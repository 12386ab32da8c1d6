"""Pictures: the positions in them, and their text."""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Callable, Iterable
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vethlib.errors import InvalidValue
from vethlib.graph import Box, Edge, Graph, Port, dot, layout, mermaid, svg
from vethlib.graph.layout import CHAR, HEAD, PlacedBox, PlacedGraph, place
from vethlib.graph.reasons import wrapped
from vethlib.text import columns

SVG = "{http://www.w3.org/2000/svg}"


def edge(a: str, b: str, number: int = 0, state: str = "up") -> Edge:
    ends = (a, f"to-{b}", 1), (b, f"to-{a}", 2)
    a_port, b_port = (Port(box, link, (f"10.{number}.0.{host}/24",), 1500, state=state) for box, link, host in ends)
    return Edge(a_port, b_port)


def graph(pairs: Iterable[tuple[str, str]]) -> Graph:
    edges = tuple(edge(a, b, number) for number, (a, b) in enumerate(pairs))
    return Graph(tuple(map(Box, dict.fromkeys(port.box for one in edges for port in (one.a, one.b)))), edges)


SHAPES = {
    "pair": [("a", "b")],
    "loop": [("a", "a")],
    "twice": [("a", "b"), ("a", "b")],
    "star": [("hub", f"leaf{n}") for n in range(150)],
    "chain": [(f"n{n}", f"n{n + 1}") for n in range(60)],
    "ring": [(f"n{n}", f"n{(n + 1) % 41}") for n in range(41)],
    "small ring": [(f"n{n}", f"n{(n + 1) % 5}") for n in range(5)],
    "ring of nine": [(f"n{n}", f"n{(n + 1) % 9}") for n in range(9)],
    "mesh": list(itertools.combinations([f"m{n}" for n in range(8)], 2)),
    "tree": [(f"t{(n - 1) // 3}", f"t{n}") for n in range(1, 200)],
    "pairs": [(f"a{n}", f"b{n}") for n in range(100)],
    "chain with leaves": [pair for n in range(40) for pair in ((f"r{n}", f"r{n + 1}"), (f"r{n}", f"h{n}"))],
    "leaves and spines": [(f"spine{s}", f"leaf{n}") for s in range(4) for n in range(12)],
}


def overlaps(a: PlacedBox, b: PlacedBox) -> bool:
    return a.x < b.x + b.width and b.x < a.x + a.width and a.y < b.y + b.height and b.y < a.y + a.height


def assert_readable(placed: PlacedGraph) -> None:
    for a, b in itertools.combinations(placed.boxes, 2):
        assert not overlaps(a, b), (a.box.name, b.box.name)
    for box in placed.boxes:
        assert box.x >= 0
        assert box.y >= 0
        assert box.x + box.width <= placed.width
        assert box.y + box.height <= placed.height
        lines: dict[float, float] = {}
        for row in box.rows:
            assert box.y + HEAD <= row.y <= box.y + box.height
            assert row.x == pytest.approx(box.x if row.side == "left" else box.x + box.width)
            lines[row.y] = lines.get(row.y, 0) + columns(row.text) * CHAR
        assert all(wide < box.width for wide in lines.values())
        assert len({(row.side, row.y) for row in box.rows}) == len(box.rows)


@pytest.mark.parametrize("shape", SHAPES)
def test_no_box_lies_on_another_and_every_text_is_in_its_box(shape: str) -> None:
    assert_readable(place(graph(SHAPES[shape])))


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), max_size=30))
def test_so_it_is_for_any_graph(pairs: list[tuple[int, int]]) -> None:
    assert_readable(place(graph((f"n{a}", f"n{b}") for a, b in pairs)))


@pytest.mark.parametrize("shape", SHAPES)
def test_edges_run_in_the_gaps_between_columns_and_through_no_box(shape: str) -> None:
    placed = place(graph(SHAPES[shape]))
    for curve in placed.curves:
        if curve.a.side == curve.b.side:
            continue
        left, right = sorted((curve.a, curve.b), key=lambda row: row.x)
        assert left.side == "right"
        for box in placed.boxes:
            between = left.x < box.x + box.width and box.x < right.x
            assert not (between and box.y < max(left.y, right.y) and min(left.y, right.y) < box.y + box.height)


@pytest.mark.parametrize("count", range(9, 61))
def test_an_edge_beside_a_column_of_a_wound_ring_or_chain_runs_through_no_box(count: int) -> None:
    ring = [(f"n{n}", f"n{(n + 1) % count}") for n in range(count)]
    for pairs in (ring, ring[:-1]):
        placed = place(graph(pairs))
        assert_readable(placed)
        for curve in placed.curves:
            if curve.a.side != curve.b.side:
                continue
            (left, right), (top, bottom) = sorted((curve.a.x, curve.b.x)), sorted((curve.a.y, curve.b.y))
            for box in placed.boxes:
                if box.box.name in (curve.a.port.box, curve.b.port.box):
                    continue
                # The edge keeps a distance from the column, in which boxes may be of different widths.
                between = left < box.x + box.width - 20 and box.x + 20 < right
                assert not (between and box.y < bottom and top < box.y + box.height), (curve.edge, box.box.name)


def test_the_same_graph_is_the_same_picture_and_names_are_in_the_order_of_people() -> None:
    assert svg(graph(SHAPES["mesh"])) == svg(graph(SHAPES["mesh"]))
    placed = place(graph(SHAPES["star"]))
    left = sorted((box for box in placed.boxes if box.x < placed.width / 4), key=lambda box: box.y)
    assert [box.box.name for box in left][:3] == ["leaf0", "leaf1", "leaf2"]
    assert len(left) == 75


def test_two_hundred_namespaces_are_drawn_in_a_moment() -> None:
    began = time.process_time()
    svg(graph(SHAPES["tree"]))
    assert time.process_time() - began < 1


def test_an_svg_is_whole_and_says_all_there_is_to_know_where_one_points() -> None:
    one = Graph(
        (Box("ns1"), Box("ns2", missing=True), Box("x", (Port("x", "v9", state="PENDING", reason="peer <v8> & co"),))),
        (edge("ns1", "ns2", state="PENDING"),),
    )
    root = ElementTree.fromstring(svg(one))
    titles = ["".join(title.itertext()) for title in root.iter(f"{SVG}title")]
    assert any("x: v9\n  PENDING: peer <v8> & co" in title for title in titles)
    texts = ["".join(text.itertext()) for text in root.iter(f"{SVG}text")]
    assert "ns2 (missing)" in texts
    assert "to-ns2  10.0.0.1/24  mtu 1500  … PENDING" in texts
    assert [path.get("class") for path in root.iter(f"{SVG}path")].count("e waiting") == 1
    assert root.get("role") == "img"
    assert "prefers-color-scheme:dark" in svg(one)


SHAPES_OF_SVG = ("rect", "path", "circle", "text", "tspan")


def without_style(text: str) -> ElementTree.Element:
    """Return a picture as a converter without support for style sheets sees it."""
    root = ElementTree.fromstring(text)
    for parent in list(root.iter()):
        for style in parent.findall(f"{SVG}style"):
            parent.remove(style)
    return root


MOODY = Graph(
    (Box("a"), Box("b", missing=True), Box("c", (Port("c", "v9", state="INVALID", reason="mtu 20: <too> small"),))),
    tuple(edge("a", "b", state=state) for state in ("up", "down", "PENDING", "to be created", "disabled")),
)


def test_every_shape_has_its_colours_without_a_style_sheet() -> None:
    root = without_style(svg(MOODY))
    for kind in SHAPES_OF_SVG:
        shapes = list(root.iter(f"{SVG}{kind}"))
        assert shapes, kind
        for shape in shapes:
            colors = [shape.get("fill"), *([shape.get("stroke")] if kind in ("path", "circle") else [])]
            assert all(re.fullmatch("#[0-9a-f]{6}|none", color or "") for color in colors), ElementTree.tostring(shape)
            assert kind not in ("text", "tspan", "rect") or shape.get("fill") != "none"
    assert "monospace" in str(root.get("font-family"))
    grounds = {shape.get("fill") for shape in root.iter(f"{SVG}rect")}
    assert grounds.isdisjoint(shape.get("fill") for shape in root.iter(f"{SVG}text"))


def test_moods_differ_in_colour_and_in_dashes_without_a_style_sheet() -> None:
    edges = [path for path in without_style(svg(MOODY)).iter(f"{SVG}path") if "e " in path.get("class", "")]
    looks = {(path.get("stroke"), path.get("stroke-dasharray")) for path in edges}
    assert len(looks) == 5


def test_variables_are_only_where_they_are_known() -> None:
    style = "".join(part.text or "" for part in ElementTree.fromstring(svg(MOODY)).iter(f"{SVG}style"))
    before, known, rest = style.partition("@supports (fill:var(--bg)){")
    assert known
    assert "var(" not in before
    assert "prefers-color-scheme:dark" in rest
    assert rest.count("{") + 1 == rest.count("}")


def test_the_reasons_are_in_the_picture_the_worst_first_and_few() -> None:
    ports = [Port("x", f"v{number}", state="PENDING", reason=f"reason {number}") for number in range(100)]
    bad = Port("x", "v200", state="RETRYING", reason="the <worst> " + "long " * 1000)
    one = Graph((Box("x", (*ports, bad)),))
    texts = ["".join(text.itertext()) for text in ElementTree.fromstring(svg(one)).iter(f"{SVG}text")]
    told = [text for text in texts if "reason " in text or "<worst>" in text]
    assert "v200 in x  RETRYING: the <worst> long" in told[0]
    assert 1 < len(told) <= 25
    assert any("81 more" in text for text in texts)
    assert all(len(text) < 400 for text in texts)
    for text in (dot(one), mermaid(one)):
        assert text.count("reason ") <= 25
        assert "RETRYING" in text
        assert len(text) < 100_000


def test_one_reason_of_many_ports_is_told_once() -> None:
    ports = tuple(Port("x", f"v{number}", state="PENDING", reason="no namespace") for number in range(9))
    texts = [
        "".join(text.itertext()) for text in ElementTree.fromstring(svg(Graph((Box("x", ports),)))).iter(f"{SVG}text")
    ]
    assert [text for text in texts if "no namespace" in text] == [
        "… v0 in x, v1 in x, v2 in x and 6 more  PENDING: no namespace"
    ]


@pytest.mark.parametrize(
    ("text", "wide", "lines"),
    [
        ("a b c", 10, ["a b c"]),
        ("aaa bbb ccc", 7, ["aaa bbb", "  ccc"]),
        ("", 10, [""]),
        ("x" * 30, 12, ["x" * 5, "  " + "x" * 5]),
    ],
)
def test_reasons_are_wrapped(text: str, wide: int, lines: list[str]) -> None:
    found = wrapped(text, wide)
    assert found[: len(lines)] == lines
    assert all(len(line) <= wide for line in found)
    assert "".join(found).replace(" ", "") == text.replace(" ", "")


@pytest.mark.parametrize("name", ["<b>&\"'", "a\x1b[31m", "龙龙龙", "e\u0301", 'a"b\\', "a]b|c", "-->"])
def test_any_name_can_be_written(name: str) -> None:
    one = Graph((Box(name), Box("b", (Port("b", name),))), (Edge(Port(name, name), Port("b", name)),))
    ElementTree.fromstring(svg(one))
    assert dot(one).count("\n") == 7
    assert mermaid(one).count("\n") == 5
    label = mermaid(one).splitlines()[1]
    assert label.count('"') == 2


def test_mermaid_has_a_node_for_each_namespace_and_a_dotted_line_for_what_is_not_up() -> None:
    one = Graph((Box("ns1"), Box("ns2", missing=True)), (edge("ns1", "ns2", state="down"), edge("ns1", "ns2")))
    assert mermaid(one).splitlines() == [
        "flowchart LR",
        '  n0["ns1"]',
        '  n1["ns2 (missing)"]',
        "  style n1 stroke-dasharray: 4 4",
        '  n0 -.-|"to-ns2 10.0.0.1/24 mtu 1500 down ⇄ to-ns1 10.0.0.2/24 mtu 1500 down"| n1',
        '  n0 ---|"to-ns2 10.0.0.1/24 mtu 1500 ⇄ to-ns1 10.0.0.2/24 mtu 1500"| n1',
        "  linkStyle 0 stroke:#c62828",
        "  linkStyle 1 stroke:#2e7d32",
    ]


def test_dot_escapes_what_a_string_cannot_have() -> None:
    one = Graph((Box('a"\\'),), (Edge(Port('a"\\', "x"), Port('a"\\', "y")),))
    assert 'edgetooltip="x in a\\"\\\\\\n⇄\\ny in a\\"\\\\"]' in dot(one)
    assert "<B>a&quot;\\</B>" in dot(one)


def test_namespaces_whose_names_look_the_same_in_dot_are_two_nodes() -> None:
    """The bytes in which they differ cannot be shown, and are replaced."""
    one = Graph((Box("n\udcfe"), Box("n\udcff"), Box("h")), (edge("n\udcfe", "h"), edge("h", "n\udcff")))
    nodes = re.findall(r"^  (\S+) \[label=<.*<B>n�</B>", dot(one), re.MULTILINE)
    assert nodes == ["n0", "n1"]
    assert re.findall(r"^  (\S+) -- (\S+) ", dot(one), re.MULTILINE) == [("n0:p0", "n2:p0"), ("n2:p1", "n1:p0")]


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: Graph((Box("a"),), (Edge(Port("a", "x"), Port("b", "y")),)), "edges"),
        (lambda: Graph((Box("a"), Box("a"))), "boxes"),
        (lambda: Graph(("a",)), "boxes"),  # type: ignore[arg-type]
        (lambda: Graph((), ("a",)), "edges"),  # type: ignore[arg-type]
        (lambda: Graph(None), "boxes"),  # type: ignore[arg-type]
        (lambda: Box("a", ("x",)), "loose"),  # type: ignore[arg-type]
        (lambda: Box(1), "name"),  # type: ignore[arg-type]
        (lambda: Edge(Port("a", "x"), "y"), "b"),  # type: ignore[arg-type]
        (lambda: Port("a", "x", "10.0.0.1/24"), "addresses"),  # type: ignore[arg-type]
        (lambda: Port("a", "x", (1,)), "addresses"),  # type: ignore[arg-type]
        (lambda: Port("a", None), "name"),  # type: ignore[arg-type]
    ],
)
def test_a_graph_that_cannot_be_drawn_cannot_be_made(make: Callable[[], object], field: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        make()
    assert caught.value.field == field


@pytest.mark.parametrize("leaves", [0, 1, 3])
def test_the_work_for_an_edge_does_not_depend_on_how_many_columns_there_are(
    leaves: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = 0

    class CountedCurve(layout.Curve):
        def __getattribute__(self, name: str) -> object:
            nonlocal read
            read += 1
            return super().__getattribute__(name)

    def reads(number: int) -> int:
        nonlocal read
        read = 0
        routers = [(f"r{n}", f"r{n + 1}") for n in range(number)]
        place(graph([*routers, *((f"r{n}", f"h{n}-{leaf}") for n in range(number) for leaf in range(leaves))]))
        return read

    monkeypatch.setattr(layout, "Curve", CountedCurve)
    assert reads(200) <= 2.2 * reads(100)
