"""Routes: packets that follow them arrive by a shortest path, and there are no more routes than necessary."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Network, collapse_addresses, ip_interface
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.topologies import Walk, descriptions, with_further_networks
from vethlib.errors import InvalidValue
from vethlib.topology.design.description import Description
from vethlib.topology.design.layout import lay_out
from vethlib.topology.design.routing import prefixes
from vethlib.topology.design.shapes import fat_tree, line, mesh, ring, star
from vethlib.topology.design.text import parse


def routes(text: str | Description, node: str, **options: Any) -> list[str]:
    layout = lay_out(parse(text) if isinstance(text, str) else text, routes=True, **options)
    return [f"{route.network} via {route.via}" for route in layout.routes.get(node, ())]


def all_arrive(description: Description, **options: Any) -> None:
    seen = Walk(lay_out(description, routes=True, **options))
    for node in seen.nodes:
        for address in seen.addresses:
            assert seen.hops(node, address) <= seen.distance(node, address)


@given(descriptions())
@settings(deadline=None, max_examples=50)
def test_every_node_reaches_every_address_of_a_connected_topology_by_a_shortest_way(description: Description) -> None:
    all_arrive(description)


@given(with_further_networks())
@settings(deadline=None, max_examples=100)
def test_every_node_reaches_every_address_of_each_node_to_which_networks_lead(description: Description) -> None:
    seen = Walk(lay_out(description, routes=True))
    for node in seen.nodes:
        for version in (4, 6):
            for other in seen.in_reach(node, version):
                for port in seen.ports:
                    if port.node == other:
                        for address in port.addresses or ():
                            if address.version == version:
                                seen.hops(node, address)


SHAPES = [line(7), ring(8), ring(9), star(4), star(4, hub="router"), star(4, hub="node"), mesh(6), fat_tree(4)]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: f"{len(shape.members)}-{len(shape.wires)}")
def test_every_node_reaches_every_address_of_the_shapes(shape: Description) -> None:
    all_arrive(shape, ipv6=False)


@given(descriptions(connected=False))
@settings(deadline=None, max_examples=50)
def test_no_route_but_the_default_covers_a_network_the_node_is_in(description: Description) -> None:
    layout = lay_out(description, routes=True)
    seen = Walk(layout)
    for node, those in layout.routes.items():
        inside = [one.network for port in seen.ports if port.node == node for one in port.addresses or ()]
        for route in those:
            if route.network.prefixlen:
                assert not any(one.version == route.network.version and one.overlaps(route.network) for one in inside)


@given(descriptions())
@settings(deadline=None, max_examples=50)
def test_routes_of_ipv4_cover_just_the_networks_there_are(description: Description) -> None:
    layout = lay_out(description, routes=True, ipv6=False)
    networks = {one.network for one in Walk(layout).addresses}
    for those in layout.routes.values():
        for route in those:
            if route.network.prefixlen:
                assert set(route.network.subnets(new_prefix=24)) <= networks


def test_a_node_with_everything_behind_one_neighbour_has_a_default_route() -> None:
    assert routes("a -- r1 -- r2 -- b", "a") == ["0.0.0.0/0 via 10.0.0.2", "::/0 via fd00::2"]


def test_a_node_that_forwards_has_no_default_route_so_that_nothing_circles() -> None:
    assert routes("a -- r1 -- r2 -- b", "r1", ipv6=False) == ["10.0.2.0/24 via 10.0.1.2"]


def test_networks_side_by_side_behind_one_neighbour_become_one_prefix() -> None:
    # n1 has the networks 2 to 5 behind n2, and 6 to 8 behind n0.
    assert routes(ring(9), "n1", ipv6=False) == [
        "10.0.2.0/23 via 10.0.1.2",
        "10.0.4.0/23 via 10.0.1.2",
        "10.0.6.0/23 via 10.0.0.1",
        "10.0.8.0/24 via 10.0.0.1",
    ]


def test_so_they_do_in_whatever_order_they_are_described_and_in_each_family_by_itself() -> None:
    first = "b(192.0.2.1/25, 2001:db8:0:1::1/64) -- c(192.0.2.2/25, 2001:db8:0:1::2/64)"
    second = "b(192.0.2.129/25, 2001:db8::1/64) -- d(192.0.2.130/25, 2001:db8::2/64)"
    found = routes(f"a -- b; {first}; {second}; a -- e -- f", "a")
    assert {"192.0.2.0/24 via 10.0.0.2", "2001:db8::/63 via fd00::2"} <= set(found)


def test_so_do_automatic_networks_of_ipv6_though_there_is_room_between_them() -> None:
    assert routes(ring(9), "n1", ipv4=False)[0] == "fd00:2::/31 via fd00:1::2"


def test_a_network_of_ipv6_that_is_not_alone_in_its_room_has_a_route_of_its_own() -> None:
    text = "a(fd00:9:1::1/64) -- b(fd00:9:1::2/64); b(fd00:9:2::1/64) -- c(fd00:9:2::2/64); a -- x -- y"
    assert routes(text, "a", ipv4=False) == ["fd00:1::/32 via fd00::2", "fd00:9:2::/64 via fd00:9:1::2"]


def test_a_given_network_that_is_wider_than_the_room_of_a_number_keeps_its_length() -> None:
    text = "a(fd00:10::1/28) -- b(fd00:10::2/28); b -- c; c -- d -- e"
    assert "fd00:10::/28 via fd00::1" in routes(text, "c")


def test_the_first_wire_wins_where_two_ways_are_as_short() -> None:
    # r1 and r2 are in 10.0.0.0/24 and 10.0.2.0/24 with a, and 10.0.4.0/24 is behind both.
    assert "10.0.4.0/24 via 10.0.0.2" in routes("a -- r1 -- b; a -- r2 -- b; b -- c", "a")
    assert "10.0.4.0/24 via 10.0.0.2" in routes("a -- r2 -- b; a -- r1 -- b; b -- c", "a")


def test_neighbours_alone_need_no_route() -> None:
    assert lay_out(parse("a -- b; switch s; c -- s; d -- s"), routes=True).routes == {}
    assert lay_out(parse("a -- r -- b"), routes=True).routes.keys() == {"a", "b"}


def test_parts_that_are_not_joined_have_no_routes_to_each_other() -> None:
    text = "a -- b -- c -- d; a -- e -- f; x -- y -- z"
    assert routes(text, "b", ipv6=False) == [
        "10.0.2.0/24 via 10.0.1.2",
        "10.0.3.0/24 via 10.0.0.1",
        "10.0.4.0/24 via 10.0.0.1",
    ]
    assert routes(text, "y") == []


def test_no_way_leads_through_a_node_that_is_in_one_segment_only() -> None:
    # b has two links, both on the switch; it is not in between.
    layout = lay_out(parse("switch s; a -- s; b -- s; b -- s; c -- s; c -- d"), routes=True)
    assert layout.forwarding == {"c"}
    assert {str(route.via) for route in layout.routes["a"]} == {"10.0.0.4", "fd00::4"}


@pytest.mark.parametrize(
    ("kind", "expected"), [("router", ["0.0.0.0/0 via 192.0.2.3"]), ("node", ["198.51.100.3/32 via 192.0.2.3"])]
)
def test_between_two_networks_of_one_segment_a_router_leads_and_no_other_node(kind: str, expected: list[str]) -> None:
    text = "switch s; a(192.0.2.1/24) -- s; b(198.51.100.1/24) -- s; c(192.0.2.3/24, 198.51.100.3/24) -- s"
    assert routes(f"{text}; {kind} c", "a") == expected


@pytest.mark.parametrize("further", ["198.51.100.1/32", "198.51.100.1/24", "2001:db8::1/128", "2001:db8::1/64"])
def test_an_address_in_a_network_that_only_a_host_has_is_reached_through_that_host(further: str) -> None:
    network, host = ip_interface(further).network, "fd00:9::2" if ":" in further else "10.9.0.2"
    given = f"10.9.0.2/24, fd00:9::2/64, {further}"
    assert routes(f"a(10.9.0.1/24, fd00:9::1/64) -- b({given})", "a") == [f"{network} via {host}"]
    assert routes(f"a(10.9.0.1/24, fd00:9::1/64) -- b({given})", "b") == []
    text = f"a -- r; r(10.9.0.1/24, fd00:9::1/64) -- b({given})"
    assert routes(text, "r") == [f"{network} via {host}"]
    assert routes(text, "a") == ["0.0.0.0/0 via 10.0.0.2", "::/0 via fd00::2"]


def test_a_host_with_a_network_of_its_own_does_not_take_the_default_route_from_a_router() -> None:
    text = "switch s; a(10.9.0.1/24) -- s; b(10.9.0.2/24, 192.0.2.1/32) -- s; r(10.9.0.3/24) -- s; r -- c"
    assert routes(text, "a", ipv6=False) == ["0.0.0.0/0 via 10.9.0.3", "192.0.2.1/32 via 10.9.0.2"]
    assert routes(text, "c", ipv6=False) == ["0.0.0.0/0 via 10.0.0.1"]
    assert routes(text, "r", ipv6=False) == ["192.0.2.1/32 via 10.9.0.2"]


def test_each_address_of_a_host_in_two_networks_is_reached_by_those_that_are_in_one_of_them() -> None:
    text = "switch s; a(10.7.0.1/24) -- s; b(10.7.0.2/24, 10.8.0.2/24, 10.8.0.4/24) -- s; c(10.8.0.3/24) -- s; a -- d"
    assert routes(text, "a", ipv6=False) == ["10.8.0.2/32 via 10.7.0.2", "10.8.0.4/32 via 10.7.0.2"]
    assert routes(text, "c", ipv6=False) == ["10.7.0.2/32 via 10.8.0.2"]
    assert routes(text, "d", ipv6=False) == ["0.0.0.0/0 via 10.0.0.1"]
    assert routes(text, "b", ipv6=False) == ["0.0.0.0/0 via 10.7.0.1"]


def test_each_family_goes_where_it_has_addresses() -> None:
    text = "a -- b mtu=1000; b -- d; a -- c -- d; d -- e"
    seen = Walk(lay_out(parse(text), routes=True))
    (v4, v6) = [address for port in seen.ports if port.node == "e" for address in port.addresses or ()]
    assert (seen.hops("a", v4), seen.hops("a", v6)) == (3, 3)
    assert routes(text, "a")[0].endswith("via 10.0.0.2")
    assert all(line.endswith("via fd00:2::2") for line in routes(text, "a") if ":" in line)


def test_of_two_addresses_in_one_network_the_first_is_the_next_hop() -> None:
    text = "a -- r(192.0.2.1/24, 192.0.2.2/24); r -- b"
    assert routes(text, "a") == ["0.0.0.0/0 via 192.0.2.1"]


@pytest.mark.parametrize(
    ("text", "value", "other"),
    [
        ("a(192.0.2.1/24) -- b; b -- c; c(192.0.2.7/24) -- d", "192.0.2.0/24 (of c)", "192.0.2.0/24 (of a)"),
        ("a(192.0.2.1/24) -- b; b -- c; c(192.0.2.129/25) -- d", "192.0.2.128/25 (of c)", "192.0.2.0/24 (of a)"),
        ("a(2001:db8::1/64) -- b; b -- c(2001:db8::7/48)", "2001:db8::/48 (of b)", "2001:db8::/64 (of a)"),
        ("a(192.0.2.1/24) -- b(192.0.2.2/25)", "192.0.2.0/24 (of a)", "192.0.2.0/25 (of b)"),
    ],
)
def test_networks_that_overlap_are_refused_where_routes_are_wanted(text: str, value: str, other: str) -> None:
    lay_out(parse(text))
    with pytest.raises(InvalidValue) as caught:
        lay_out(parse(text), routes=True)
    assert (caught.value.field, caught.value.value) == ("topology", value)
    assert caught.value.hint.startswith(f"line 1: must not overlap with {other}: change one of the networks")


def test_the_line_of_a_network_that_overlaps_is_named() -> None:
    text = "a(192.0.2.1/24) -- b\nb -- c\n\nc(192.0.2.7/24) -- d"
    with pytest.raises(InvalidValue) as caught:
        lay_out(parse(text), routes=True)
    assert caught.value.hint.startswith("line 4: ")


def test_layouts_of_one_description_are_equal() -> None:
    assert lay_out(fat_tree(4), routes=True) == lay_out(fat_tree(4), routes=True)


NETWORKS = st.sets(st.tuples(st.integers(0, 63), st.integers(0, 6)), max_size=20)


@given(NETWORKS)
def test_prefixes_are_as_few_as_those_of_the_standard_library(wanted: set[tuple[int, int]]) -> None:
    blocks = sorted({(number >> bits << bits, bits) for number, bits in wanted})
    spans: list[tuple[int, int]] = []
    for start, bits in blocks:
        if not spans or start >= spans[-1][1]:
            spans.append((start, start + (1 << bits)))
    assert _networks(list(prefixes(spans))) == list(collapse_addresses(_networks(spans)))


def _networks(spans: Sequence[tuple[int, int]]) -> list[IPv4Network]:
    return [IPv4Network((begin, 33 - (end - begin).bit_length())) for begin, end in spans]
