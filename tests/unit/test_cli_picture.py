"""Pictures of topologies."""

from __future__ import annotations

from tests.proportion import is_proportional
from vethlib.cli.render.picture import draw
from vethlib.cli.term.text import render, width
from vethlib.graph import Box, Edge, Graph, Port


def edge(a: str, a_link: str, b: str, b_link: str, *, up: bool = True, a_addr: str = "", b_addr: str = "") -> Edge:
    ends = ((a, a_link, a_addr), (b, b_link, b_addr))
    state = "up" if up else "down"
    return Edge(*(Port(box, link, tuple(filter(None, [address])), state=state) for box, link, address in ends))


def graph(*edges: Edge) -> Graph:
    names = dict.fromkeys(port.box for edge in edges for port in (edge.a, edge.b))
    return Graph(tuple(map(Box, names)), edges)


def picture(*edges: Edge) -> str:
    lines = [render(line, colored=False) for line in draw(graph(*edges))]
    assert {line.rstrip() for line in lines} == set(lines)
    return "\n".join(["", *lines, ""])


def boxes(text: str) -> list[str]:
    """The names of the boxes from top to bottom, those on the left first in their line."""
    return [piece.split(" ")[0] for piece in text.split("┌─ ")[1:]]


def test_a_pair_is_two_boxes_and_a_line() -> None:
    assert (
        picture(edge("ns1", "veth1", "ns2", "veth2", a_addr="10.0.0.1/24"))
        == """
┌─ ns1 ──────────────┐          ┌─ ns2 ─┐
│ veth1  10.0.0.1/24 ├──────────┤ veth2 │
└────────────────────┘          └───────┘
"""
    )


def test_a_pair_that_is_not_up_has_a_broken_line() -> None:
    assert "├╌╌╌╌╌╌╌╌╌╌┤" in picture(edge("ns1", "a", "ns2", "b", up=False))


def test_a_star_is_one_box_with_its_leaves_in_the_order_people_count() -> None:
    leaves = [edge(f"leaf{number}", "eth0", "hub", f"to{number}") for number in (10, 2, 1)]
    assert (
        picture(*leaves)
        == """
┌─ hub ─┐          ┌─ leaf1 ──┐
│ to1   ├──────────┤ eth0     │
│       │          └──────────┘
│       │          ┌─ leaf2 ──┐
│ to2   ├──────────┤ eth0     │
│       │          └──────────┘
│       │          ┌─ leaf10 ─┐
│ to10  ├──────────┤ eth0     │
└───────┘          └──────────┘
"""
    )
    assert boxes(picture(*leaves)) == ["hub", "leaf1", "leaf2", "leaf10"]


def test_a_chain_is_drawn_around_its_middle() -> None:
    assert boxes(picture(edge("left", "a", "middle", "b"), edge("middle", "c", "right", "d"))) == [
        *("middle", "left", "right"),
    ]


def test_a_ring_falls_into_pieces_with_every_pair_drawn_once() -> None:
    text = picture(*(edge(f"n{number}", f"r{number}", f"n{(number + 1) % 4}", f"l{number}") for number in range(4)))
    assert text.count("──────────┤") == 4
    assert all(text.count(f" {side}{number} ") == 1 for number in range(4) for side in "rl")


def test_parallel_pairs_share_both_boxes() -> None:
    assert (
        picture(edge("n1", "a0", "n2", "b0"), edge("n2", "b1", "n1", "a1"))
        == """
┌─ n1 ─┐          ┌─ n2 ─┐
│ a0   ├──────────┤ b0   │
│ a1   ├──────────┤ b1   │
└──────┘          └──────┘
"""
    )


def test_a_namespace_joined_to_itself_stands_on_both_sides() -> None:
    assert (
        picture(edge("home", "a", "home", "b"))
        == """
┌─ home ─┐          ┌─ home ─┐
│ a      ├──────────┤ b      │
└────────┘          └────────┘
"""
    )


def test_separate_pairs_stand_below_each_other_in_order() -> None:
    assert boxes(picture(edge("n9", "a", "n10", "b"), edge("n1", "a", "n2", "b"))) == ["n1", "n2", "n9", "n10"]


def test_names_that_count_the_same_are_drawn_in_one_order() -> None:
    assert boxes(picture(edge("n01", "a", "n1", "b"), edge("n001", "a", "m", "b"))) == ["m", "n001", "n01", "n1"]


def test_many_pairs_take_time_in_proportion() -> None:
    """Each in two boxes of its own, or all around one, or a chain, which loses one box after the other."""

    def work(size: int) -> None:
        pairs = [edge(f"a{number}", "x", f"b{number}", "y") for number in range(size)]
        star = [edge("hub", f"x{number}", f"leaf{number}", "y") for number in range(size)]
        chain = [edge(f"c{number}", "x", f"c{number + 1}", "y") for number in range(size)]
        draw(graph(*pairs, *star, *chain))

    assert is_proportional(work, 100)


def test_every_line_is_as_wide_as_it_looks_whatever_the_names() -> None:
    lines = draw(graph(edge("龙龙龙", "龙", "n\033[31m", "x\udcff"), edge("a" * 40, "y", "龙龙龙", "e\u0301")))
    assert len({width(line) for line in lines}) == 1
    assert "\\x1b[31m" in render(lines[0] + lines[3], colored=True)


def test_nothing_is_an_empty_picture() -> None:
    assert draw(graph()) == []


def test_names_addresses_and_lines_have_colours_of_their_own() -> None:
    (top, middle, _) = (
        render(line, colored=True) for line in draw(graph(edge("n1", "a", "n2", "b", a_addr="10.0.0.1/8")))
    )
    assert "\033[1mn1\033[0m" in top
    assert "\033[36ma\033[0m  \033[35m10.0.0.1/8\033[0m" in middle
    assert "\033[32m──────────\033[0m" in middle
