"""A topology as text, for people."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings

from tests.unit.topologies import descriptions
from vethlib.topology.design.description import Description
from vethlib.topology.design.layout import lay_out
from vethlib.topology.design.picture import draw
from vethlib.topology.design.shapes import line, ring, star
from vethlib.topology.design.text import parse


def drawn(description: str | Description, **options: Any) -> list[str]:
    return draw(lay_out(parse(description) if isinstance(description, str) else description, **options))


def test_fields_of_links_are_behind_their_wire() -> None:
    layout = lay_out(parse("a -- b mtu=1400 txqlen=7 alias=x/y offload=off; c(default via 10.0.1.2) -- d"))
    first, second = draw(layout)
    assert first.endswith("mtu 1400  txqlen 7  alias x/y  offload off")
    assert second.endswith("routes default via 10.0.1.2/")


def test_two_nodes_are_one_line() -> None:
    assert drawn(line(2)) == ["n0  eth0  10.0.0.1/24  fd00::1/64  ──  eth0  10.0.0.2/24  fd00::2/64  n1"]


def test_wires_are_in_order_and_columns_aligned() -> None:
    assert drawn("client -- r -- s; router r; r:long-name -- s mtu=1400") == [
        "client      eth0       10.0.0.1/24  fd00::1/64    ──  eth0  10.0.0.2/24  fd00::2/64    r (router)",
        "r (router)  eth1       10.0.1.1/24  fd00:1::1/64  ──  eth0  10.0.1.2/24  fd00:1::2/64  s",
        "r (router)  long-name  10.0.2.1/24  fd00:2::1/64  ──  eth1  10.0.2.2/24  fd00:2::2/64  s           mtu 1400",
    ]


def test_a_column_that_is_empty_throughout_is_left_out() -> None:
    assert drawn("a -- b", ipv6=False) == ["a  eth0  10.0.0.1/24  ──  eth0  10.0.0.2/24  b"]
    assert drawn("a -- b", ipv4=False, ipv6=False) == ["a  eth0  ──  eth0  b"]


def test_several_addresses_of_a_port_stand_together() -> None:
    assert drawn("a(192.0.2.1/24, fd00::1/64, 192.0.2.2/24) -- b()") == [
        "a  eth0  192.0.2.1/24, 192.0.2.2/24  fd00::1/64  ──  eth0  b"
    ]


def test_a_switch_is_named_once_with_all_that_is_on_it() -> None:
    assert drawn("switch s; a -- s; x -- y; s -- b", ipv6=False) == [
        "x  eth0  10.0.1.1/24  ──  eth0  10.0.1.2/24  y",
        "s (switch)  eth0  ──  eth0  10.0.0.1/24  a",
        "            eth1  ──  eth0  10.0.0.2/24  b",
    ]


def test_a_wire_between_two_switches_is_drawn_once() -> None:
    assert drawn("switch s t; a -- s -- t -- b", ipv6=False) == [
        "s (switch)  eth0  ──  eth0  10.0.0.1/24  a",
        "            eth1  ──  eth0               t (switch)",
        "t (switch)  eth1  ──  eth0  10.0.0.2/24  b",
    ]


def test_a_wire_between_two_switches_is_with_the_one_that_is_drawn_already() -> None:
    assert drawn("switch s t; a -- s; t -- s; t -- b", ipv6=False) == [
        "s (switch)  eth0  ──  eth0  10.0.0.1/24  a",
        "            eth1  ──  eth0               t (switch)",
        "t (switch)  eth1  ──  eth0  10.0.0.2/24  b",
    ]


def test_nodes_without_a_wire_are_named() -> None:
    assert drawn("node a; router r; b -- c")[1:] == ["without a wire: a, r (router)"]
    assert drawn("node a; switch s") == ["without a wire: a, s (switch)"]


def test_a_node_alone_is_a_line() -> None:
    assert drawn("node a") == ["without a wire: a"]


@pytest.mark.parametrize(
    ("shape", "rest"),
    [(ring(1000), "… and 940 more wires"), (ring(61), "… and 1 more wire"), (star(1000), "… and 940 more wires")],
)
def test_of_many_wires_the_first_are_drawn_and_the_others_counted(shape: Description, rest: str) -> None:
    assert len(drawn(shape)) == 61
    assert drawn(shape)[-1] == rest


def test_sixty_wires_are_drawn_whole() -> None:
    assert len(drawn(ring(60))) == 60
    assert "n0" in drawn(ring(60))[-1]


def test_of_many_nodes_without_a_wire_the_first_are_named() -> None:
    (only,) = drawn("node " + " ".join(f"n{number}" for number in range(100)))
    assert only.endswith("n59, … and 40 more nodes")


@given(descriptions(connected=False))
@settings(deadline=None)
def test_every_wire_and_every_node_is_in_it(description: Description) -> None:
    layout = lay_out(description)
    lines = draw(layout)
    assert sum("──" in line for line in lines) == len(layout.wires)
    text = " ".join(lines)
    for member in layout.members:
        assert member.name in text.replace(",", " ").split()
    for wire in layout.wires:
        for port in (wire.a, wire.b):
            assert all(str(one) in text for one in port.addresses or ())
