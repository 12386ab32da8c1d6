"""What a layout decides (link names, addresses, forwarding), and which descriptions are refused."""

from __future__ import annotations

from collections import Counter
from ipaddress import ip_interface, ip_network
from typing import Any

import pytest
from hypothesis import given, settings

from tests.refusing import raises
from tests.unit.topologies import Walk, descriptions
from vethlib.errors import InvalidValue
from vethlib.topology.design.description import Description, Layout, Member, Port, Wire
from vethlib.topology.design.layout import lay_out
from vethlib.topology.design.shapes import line, star
from vethlib.topology.design.text import parse


def laid(text: str, **options: Any) -> Layout:
    return lay_out(parse(text), **options)


def addresses(layout: Layout) -> list[str]:
    """As text, in the order of the ports: "10.0.0.1/24 fd00::1/64"."""
    return [" ".join(map(str, port.addresses or ())) for wire in layout.wires for port in (wire.a, wire.b)]


def links(layout: Layout) -> list[str]:
    return [f"{port.node}:{port.link}" for wire in layout.wires for port in (wire.a, wire.b)]


def test_links_are_numbered_in_the_order_of_the_nodes_wires() -> None:
    assert links(laid("a -- b -- c; a -- c")) == ["a:eth0", "b:eth0", "b:eth1", "c:eth0", "a:eth1", "c:eth1"]


def test_a_number_that_is_given_to_a_link_is_left_out() -> None:
    assert links(laid("a -- b; a -- c; a:eth1 -- d"))[::2] == ["a:eth0", "a:eth2", "a:eth1"]


def test_each_wire_has_the_next_network_and_hosts_are_numbered_from_one() -> None:
    assert addresses(laid("a -- b; c -- d")) == [
        "10.0.0.1/24 fd00::1/64",
        "10.0.0.2/24 fd00::2/64",
        "10.0.1.1/24 fd00:1::1/64",
        "10.0.1.2/24 fd00:1::2/64",
    ]


def test_the_number_of_an_ipv6_network_is_in_hexadecimal() -> None:
    assert addresses(lay_out(line(300)))[2 * 298] == "10.1.42.1/24 fd00:12a::1/64"


def test_the_first_number_may_be_another() -> None:
    assert addresses(laid("a -- b", first=3))[0] == "10.0.3.1/24 fd00:3::1/64"
    assert addresses(laid("a -- b", first=300))[0] == "10.1.44.1/24 fd00:12c::1/64"


def test_a_family_can_be_left_out() -> None:
    assert addresses(laid("a -- b", ipv6=False)) == ["10.0.0.1/24", "10.0.0.2/24"]
    assert addresses(laid("a -- b", ipv4=False)) == ["fd00::1/64", "fd00::2/64"]
    assert addresses(laid("a -- b", ipv4=False, ipv6=False)) == ["", ""]


def test_all_that_is_joined_by_switches_is_one_network_and_switches_have_no_address() -> None:
    assert addresses(laid("switch s t; a -- s -- t -- b; c -- d; e -- s", ipv6=False)) == [
        *("10.0.0.1/24", "", "", "", "", "10.0.0.2/24"),
        *("10.0.1.1/24", "10.0.1.2/24"),
        *("10.0.0.3/24", ""),
    ]


@pytest.mark.parametrize(("leaves", "network"), [(254, "10.0.0.0/24"), (255, "10.0.0.0/23"), (1022, "10.0.0.0/22")])
def test_a_network_is_larger_where_there_are_more_ports(leaves: int, network: str) -> None:
    layout = lay_out(star(leaves))
    assert {port.network for wire in layout.wires for port in wire.a.addresses or () if port.version == 4} == {
        ip_network(network)
    }


def test_a_larger_network_begins_where_it_can_and_the_next_goes_on_behind_it() -> None:
    star_wires = "; ".join(f"l{number} -- s" for number in range(300))
    layout = laid(f"a -- b; switch s; {star_wires}; c -- d", ipv6=False)
    assert addresses(layout)[0] == "10.0.0.1/24"
    assert addresses(layout)[2] == "10.0.2.1/23"
    assert addresses(layout)[-1] == "10.0.4.2/24"


def test_beside_given_addresses_the_open_port_has_free_ones_of_the_same_networks_and_no_other() -> None:
    assert addresses(laid("a(192.0.2.1/30) -- b"))[1] == "192.0.2.2/30"
    assert addresses(laid("a -- b(192.0.2.1/30)"))[0] == "192.0.2.2/30"
    assert addresses(laid("a(192.0.2.2/30, 2001:db8::1/64) -- b"))[1] == "192.0.2.1/30 2001:db8::2/64"


def test_free_means_that_no_port_anywhere_has_the_address() -> None:
    layout = laid("a(192.0.2.1/24) -- b; c(192.0.2.3/24) -- d; e(192.0.2.9/16) -- f", ipv6=False)
    assert addresses(layout)[1::2] == ["192.0.2.2/24", "192.0.2.4/24", "192.0.0.1/16"]


def test_a_port_that_is_to_have_no_address_has_none_and_its_neighbour_is_not_concerned() -> None:
    assert addresses(laid("a() -- b")) == ["", "10.0.0.1/24 fd00::1/64"]


def test_segments_without_an_open_port_take_no_network() -> None:
    assert addresses(laid("a() -- b(); switch s t; s -- t; c -- d"))[4] == "10.0.0.1/24 fd00::1/64"


def test_chosen_networks_keep_clear_of_given_ones() -> None:
    layout = laid("a -- b; c -- d; e(10.0.0.77/28, fd00:1::7/80) -- f")
    assert addresses(layout)[0] == "10.0.1.1/24 fd00::1/64"
    assert addresses(layout)[2] == "10.0.2.1/24 fd00:2::1/64"


def test_chosen_networks_begin_behind_a_given_one_that_is_larger() -> None:
    text = "a -- b; e(10.0.0.1/9, 10.3.0.1/24, 10.4.0.1/24) -- f"
    assert addresses(laid(text, ipv6=False))[0] == "10.128.0.1/24"
    assert addresses(laid(text, ipv6=False, first=0x500))[0] == "10.128.0.1/24"


def test_a_wire_too_narrow_for_ipv6_has_ipv4_alone_and_its_number_counts() -> None:
    layout = laid("a -- b mtu=1279; c -- d mtu=1280")
    assert addresses(layout)[0] == "10.0.0.1/24"
    assert addresses(layout)[2] == "10.0.1.1/24 fd00:1::1/64"


def test_beside_given_addresses_a_port_too_narrow_for_ipv6_has_none_of_it() -> None:
    layout = laid("switch s; a(10.0.0.1/24, fd00::1/64) -- s; b -- s mtu=1000")
    assert addresses(layout)[2] == "10.0.0.2/24"


def of_nodes(layout: Layout) -> dict[str, str]:
    """The addresses of each node with one wire, as text."""
    return {
        port.node: " ".join(map(str, port.addresses or ()))
        for wire in layout.wires
        for port in (wire.a, wire.b)
        if port.addresses
    }


def test_a_wire_without_ipv6_takes_it_from_its_own_ends_only() -> None:
    assert of_nodes(laid("switch s; a -- s; legacy -- s ipv6=off; b -- s; c -- d")) == {
        "a": "10.0.0.1/24 fd00::1/64",
        "legacy": "10.0.0.2/24",
        "b": "10.0.0.3/24 fd00::3/64",
        "c": "10.0.1.1/24 fd00:1::1/64",
        "d": "10.0.1.2/24 fd00:1::2/64",
    }
    assert of_nodes(laid("switch s t; a -- s; s -- t ipv6=off; t -- b")) == {
        "a": "10.0.0.1/24 fd00::1/64",
        "b": "10.0.0.2/24 fd00::2/64",
    }
    assert of_nodes(laid("switch s; a -- s ipv6=off; b -- s ipv6=off; c -- d"))["c"] == "10.0.1.1/24 fd00:1::1/64"
    assert of_nodes(laid("switch s; a -- s ipv6=off; b -- s", ipv4=False)) == {"b": "fd00::2/64"}


def test_with_a_wire_without_ipv6_the_others_of_its_segment_are_routed_to() -> None:
    layout = laid("switch s; legacy -- s ipv6=off; b -- s; r -- s; r -- c", routes=True)
    assert [str(route.network) for route in layout.routes["legacy"]] == ["0.0.0.0/0"]
    assert [str(route.network) for route in layout.routes["b"]] == ["0.0.0.0/0", "::/0"]


@pytest.mark.parametrize(
    "text",
    [
        "switch s; a -- s; b -- s mtu=1000",
        "switch s t; a -- s; s -- t mtu=1279; t -- b",
        "switch s t u; a -- s; s -- t; t -- u mtu=68; u -- b",
    ],
)
def test_a_segment_with_a_wire_too_narrow_for_ipv6_has_ipv4_alone(text: str) -> None:
    assert of_nodes(laid(text)) == {"a": "10.0.0.1/24", "b": "10.0.0.2/24"}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, "10.9.0.2/24 fd09::2/64"),
        ({"ipv6": False}, "10.9.0.2/24"),
        ({"ipv4": False}, "fd09::2/64"),
        ({"ipv4": False, "ipv6": False}, ""),
    ],
)
@pytest.mark.parametrize("wires", ["a({}) -- b", "switch s; a({}) -- s; b -- s", "switch s; b -- s; c({}) -- s"])
def test_beside_given_addresses_no_address_of_a_family_is_chosen_that_is_left_out(
    wires: str, options: dict[str, bool], expected: str
) -> None:
    layout = laid(wires.format("10.9.0.1/24, fd09::1/64"), **options)
    chosen = {port.node: port.addresses for wire in layout.wires for port in (wire.a, wire.b)}
    assert " ".join(map(str, chosen["b"] or ())) == expected
    assert [str(address) for address in chosen.get("a") or chosen["c"] or ()] == ["10.9.0.1/24", "fd09::1/64"]


def test_a_full_network_of_a_family_that_is_left_out_is_no_error() -> None:
    assert addresses(laid("a(10.9.0.1/32, fd09::1/64) -- b", ipv4=False))[1] == "fd09::2/64"
    assert addresses(laid("a(10.9.0.1/24, fd09::1/128) -- b", ipv6=False))[1] == "10.9.0.2/24"


def test_link_local_addresses_may_be_the_same_on_every_wire() -> None:
    assert addresses(laid("a(fe80::1/64) -- b(fe80::2/64); c(fe80::1/64) -- d(fe80::2/64)", routes=True))[2] == (
        "fe80::1/64"
    )


def test_links_of_one_node_may_share_an_address() -> None:
    assert addresses(laid("a(192.0.2.1/32) -- b(); a(192.0.2.1/32) -- c()"))[::2] == ["192.0.2.1/32", "192.0.2.1/32"]


def test_routers_forward_and_with_routes_those_in_two_segments() -> None:
    text = "router r; a -- b -- c; r -- c; switch s; x -- s -- y; x -- s"
    assert laid(text).forwarding == {"r"}
    assert laid(text, routes=True).forwarding == {"r", "b", "c"}


def test_a_description_without_wires_can_be_laid_out() -> None:
    layout = laid("node a; switch s", routes=True)
    assert (layout.wires, layout.routes) == ((), {})


def wire(a: str = "a", b: str = "b", **port: Any) -> Wire:
    return Wire(Port(a, **port), Port(b))


def by_hand(*wires: Wire, members: tuple[Member, ...] = (Member("a"), Member("b"))) -> Description:
    return Description(members, wires)


NO_KIND: Any = "hub"
WRONG: list[tuple[Description, str, str]] = [
    (parse("a:x -- b; a:x -- c"), "a:x", "two links of this node have this name"),
    (parse("a:lo -- b"), "a:lo", "the node's loopback has this name"),
    (parse("switch s; a -- s:br0"), "s:br0", "the node's bridge has this name"),
    (parse("switch s; a -- s:lo"), "s:lo", "the node's loopback has this name"),
    (parse("switch s; a -- s:x(10.0.0.1/24)"), "s:x", "must have no addresses"),
    (parse("a(10.0.0.1/24) -- b(10.0.0.1/24)"), "10.0.0.1/24", "two nodes have this address, a and b"),
    (parse("a(fd00::1/64) -- b; c(fd00::1/48) -- d"), "fd00::1/48", "two nodes have this address, a and c"),
    (parse("a(fe80::1/64) -- b(fe80::1/64)"), "fe80::1/64", "two nodes have this address, a and b"),
    (parse("a(10.0.0.1/32) -- b:x"), "b:x", "10.0.0.1/32 has no free address for it"),
    (parse("switch s; a(10.0.0.1/30) -- s; b -- s; c -- s"), "c", "10.0.0.0/30 has no free address for it"),
    (parse("a(fd00::1/64) -- b mtu=1279"), "mtu=1279", "must be at least 1280 for IPv6, because a has an IPv6 address"),
    (parse("a -- b; c(10.0.0.1/8) -- d"), "2 ports", "10.0.0.0/8 is exhausted: give addresses"),
    (parse("a -- b; c(fd00::1/16) -- d"), "65536 segments", "fd00::/16 is exhausted: give addresses"),
    (parse("switch s t; s -- t; s -- t"), "s -- t", "must not close a loop of switches"),
    (parse("switch s t u; s -- t -- u -- s"), "u -- s", "frames would circle for ever: leave out this wire"),
    (star(1024), "hub", "has 1024 wires, but a bridge can have 1023 ports at most"),
    (by_hand(wire("a", "c")), "c", "must be the name of a node"),
    (by_hand(wire("a", "a")), "a -- a", "must connect two different nodes"),
    (by_hand(members=(Member("a"), Member("a"))), "a", "two nodes have this name"),
    (by_hand(members=(Member("a b"),)), "a b", "a name must be 1 to 64"),
    (by_hand(members=(Member("a", NO_KIND),)), "hub", "the kind of a must be node, router or switch"),
    (by_hand(wire(link="a b")), "a b", "a link name has no"),
    (by_hand(wire(addresses=(ip_interface("224.0.0.1/4"),))), "224.0.0.1/4", "a multicast address"),
]


NONE_OF_THEM = [None, 0, 1.5, True, "", "a", b"a", [], ["a"], {}, {"a": 1}, set(), object(), int, "\udc80"]
FITTING: dict[str, list[Any]] = {
    "wires": ["", [], {}, set()],
    "node": ["a"],
    "link": [None, "", "a", "\udc80"],
    "addresses": [None, [], {}, set()],
    "fields": [{}],
}


@pytest.mark.parametrize("value", NONE_OF_THEM, ids=lambda value: "an object" if type(value) is object else repr(value))
@pytest.mark.parametrize("place", ["members", "member", "wires", "wire", "port", "node", "link", "addresses", "fields"])
@pytest.mark.parametrize("mtu", [None, 1400])
def test_a_description_with_a_value_of_another_kind_is_refused(place: str, value: Any, mtu: int | None) -> None:
    members: Any = (Member("a"), Member("b"))
    wires: Any = (Wire(Port("a"), Port("b")),)
    if place == "members":
        members = value
    elif place == "member":
        members = (*members, value)
    elif place == "wires":
        wires = value
    elif place == "wire":
        wires = (value,)
    elif place == "port":
        wires = (Wire(Port("a"), value),)
    else:
        wires = (Wire(Port("b"), Port(**{"node": "a", place: value})),)
    description = Description(members, wires)
    if value in FITTING.get(place, ()):
        lay_out(description, mtu=mtu)
        return
    with raises(InvalidValue, field="topology"):
        lay_out(description, mtu=mtu)


@pytest.mark.parametrize("of", [list, tuple, iter, lambda values: dict.fromkeys(values).keys()])
def test_members_and_wires_may_be_any_iterable(of: Any) -> None:
    described = parse("a -- b -- c")
    assert lay_out(Description(of(described.members), of(described.wires))) == lay_out(described)


def test_the_fields_of_a_port_are_checked_and_kept() -> None:
    layout = lay_out(
        Description((Member("a"), Member("b")), (Wire(Port("a", fields={"sysctls": [("rp_filter", 0)]}), Port("b")),))
    )
    assert layout.wires[0].a.fields == {"sysctls": (("ipv4.rp_filter", "0"),)}
    for fields, field in (({"txqlen": -1}, "txqlen"), ({"mtu": 1400}, "topology"), ([("txqlen", 1)], "topology")):
        wire = Wire(Port("a", fields=fields), Port("b"))  # type: ignore[arg-type]
        with pytest.raises(InvalidValue) as caught:
            lay_out(Description((Member("a"), Member("b")), (wire,)))
        assert caught.value.field == field


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a -- b; a -- c altname=x; a -- d altname=x", "altname=x"),
        ("a:x -- b; a -- c altname=x", "altname=x"),
        ("switch s; s(default via 10.0.0.1) -- a", "s"),
        ("switch s; s(10.0.0.9 lladdr 02:00:00:00:00:09) -- a", "s"),
        ("switch s; s -- a master=br1/", "s"),
    ],
)
def test_fields_that_do_not_fit_are_refused(text: str, value: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        lay_out(parse(text))
    assert (caught.value.field, caught.value.value) == ("topology", value)


def test_a_link_is_not_numbered_like_an_alternative_name() -> None:
    wires = lay_out(parse("a -- b altname=eth1/; a -- c")).wires
    assert [wire.a.link for wire in wires] == ["eth0", "eth2"]


def test_a_route_of_a_port_takes_the_place_of_one_that_was_found() -> None:
    text = "a{} -- r1; a -- r2; r1 -- c; r2 -- c"
    found = lay_out(parse(text.format("")), routes=True).routes["a"]
    network = found[0].network
    given = lay_out(parse(text.format(f"({network} via 10.0.1.2)")), routes=True).routes["a"]
    assert given == tuple(route for route in found if route.network != network)


@pytest.mark.parametrize("attributes", ["metric 9", "table 100", "table 255", "table 100 metric 9"])
@pytest.mark.parametrize("text", ["a{} -- r -- c", "router a; a{} -- r -- c"])
def test_a_route_of_a_port_stands_beside_one_with_another_metric_or_table(text: str, attributes: str) -> None:
    found = lay_out(parse(text.format("")), routes=True).routes["a"]
    assert {route.network.version for route in found} == {4, 6}
    listed = ", ".join(f"{route.network} via {route.via} {attributes}" for route in found)
    assert lay_out(parse(text.format(f"({listed})")), routes=True).routes["a"] == found


@pytest.mark.parametrize(("description", "value", "hint"), WRONG, ids=[one[2][:30] for one in WRONG])
def test_what_cannot_be_built_is_refused_with_what_and_why(description: Description, value: str, hint: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        lay_out(description)
    assert (caught.value.field, caught.value.value) == ("topology", value)
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("text", "line", "value"),
    [
        ("a:x -- b\na:x -- c", 2, "a:x"),
        ("a:x -- b\na -- c altname=x", 2, "altname=x"),
        ("a -- b\n\na:lo -- c", 3, "a:lo"),
        ("switch s\na -- s(10.0.0.1/24)", 2, "s"),
        ("switch s\na -- s:br0", 2, "s:br0"),
        ("switch s\na -- b; b -- s master=/lan", 2, "s"),
        ("a(10.0.0.1/24) -- b\nc(10.0.0.1/24) -- d", 2, "10.0.0.1/24"),
        ("a -- b\nc(10.0.0.1/32) -- d", 2, "d"),
        ("a -- b\na(fd00::1/64) -- c ipv6=off", 2, "ipv6=off"),
        ("a -- b\na(fd00::1/64) -- c mtu=1000", 2, "mtu=1000"),
        ("a -- b\na -- c ipv6=on mtu=1000", 2, True),
        ("switch s t\ns -- t\ns -- t", 3, "s -- t"),
    ],
)
def test_a_mistake_that_only_the_layout_shows_is_reported_with_its_line(text: str, line: int, value: object) -> None:
    with raises(InvalidValue, value=value) as caught:
        lay_out(parse(text))
    assert caught.value.hint.startswith(f"line {line}: ")


@pytest.mark.parametrize(
    ("text", "value", "port"),
    [
        ("a(default via fd00::2) -- b ipv6=off", "ipv6=off", "a"),
        ("a -- b:x(10.0.0.1/24, fd00::9 lladdr 02:00:00:00:00:09) ipv6=off", "ipv6=off", "b:x"),
        ("a(default via fd00::2) -- b mtu=1279", "mtu=1279", "a"),
        ("a(fd00::9 lladdr 02:00:00:00:00:09) -- b mtu=1279", "mtu=1279", "a"),
        ("a -- b mtu=1279 sysctl.ipv6.forwarding=1", "mtu=1279", "a"),
        ("a -- b mtu=1279 ipv6=off sysctl.ipv6.forwarding=/1", "mtu=1279", "b"),
    ],
)
def test_what_needs_ipv6_is_refused_on_a_wire_without_it(text: str, value: str, port: str) -> None:
    with raises(InvalidValue, field="topology", value=value) as caught:
        lay_out(parse(text))
    assert f" {port} has IPv6 in its " in caught.value.hint


@pytest.mark.parametrize(
    "text",
    [
        "a(default via 10.0.0.2, 10.0.0.9 lladdr 02:00:00:00:00:09) -- b ipv6=off",
        "a(default via 10.0.0.2) -- b mtu=1279 sysctl.rp_filter=0",
        "a -- b ipv6=off sysctl.ipv6.forwarding=1",  # exists where IPv6 is disabled
        "a(default via fd00::2) -- b mtu=1280",
    ],
)
def test_what_a_wire_without_ipv6_can_have_is_kept(text: str) -> None:
    assert lay_out(parse(text)).wires[0].a.fields


def test_the_line_of_a_wire_does_not_distinguish_it() -> None:
    one, other = (lay_out(parse(text)).wires[0] for text in ("a -- b", "\n\na -- b"))
    assert (one.where, other.where, other.seen_from("b").where) == ("line 1", "line 3", "line 3")
    assert (one, hash(one)) == (other, hash(other))
    assert lay_out(by_hand(wire())).wires[0].where == ""


def test_as_many_ports_as_a_bridge_has_are_taken() -> None:
    assert len(lay_out(star(1023)).wires) == 1023


def test_an_mtu_no_link_can_have_is_refused() -> None:
    with raises(InvalidValue, field="mtu", value=9):
        lay_out(by_hand(Wire(Port("a"), Port("b"), 9)))


@pytest.mark.parametrize("first", [-1, 65536, "0", 1.0, None])
def test_a_first_number_that_no_segment_has_is_refused(first: Any) -> None:
    with raises(InvalidValue, field="first", value=first):
        laid("a -- b", first=first)


def test_text_has_to_be_parsed_first() -> None:
    text: Any = "a -- b"
    with raises(InvalidValue, field="topology", value=text):
        lay_out(text)


@given(descriptions(connected=False))
@settings(deadline=None)
def test_every_port_has_a_link_of_its_own_and_every_node_unique_addresses(description: Description) -> None:
    layout = lay_out(description)
    kinds = {member.name: member.kind for member in layout.members}
    assert max(Counter(links(layout)).values(), default=1) == 1
    seen = Walk(layout)
    for port in seen.ports:
        families = [one.version for one in port.addresses or ()]
        assert families == ([] if kinds[port.node] == "switch" else [4, 6])
    assert len({one.ip for one in seen.addresses}) == len(seen.addresses)


@given(descriptions(connected=False))
@settings(deadline=None)
def test_ports_are_in_one_network_just_where_frames_go_between_them(description: Description) -> None:
    seen = Walk(lay_out(description))
    addressed = [port for port in seen.ports if port.addresses]
    for one in addressed:
        for other in addressed:
            joined = seen.domains[one.node, one.link] == seen.domains[other.node, other.link]
            networks = [[each.network for each in port.addresses or ()] for port in (one, other)]
            assert (networks[0] == networks[1]) is joined
            assert any(a.overlaps(b) for a, b in zip(*networks, strict=True)) is joined


def test_a_wire_without_ipv6_between_two_nodes_has_ipv4_alone() -> None:
    layout = laid("a -- b ipv6=off; b -- c ipv6=on mtu=1400; a -- c")
    assert [wire.ipv6 for wire in layout.wires] == [False, True, None]
    versions = [
        {address.version for port in (wire.a, wire.b) for address in port.addresses or ()} for wire in layout.wires
    ]
    assert versions == [{4}, {4, 6}, {4, 6}]
    with raises(InvalidValue, field="topology", value="ipv6=off"):
        laid("a(fd00::1/64) -- b ipv6=off")
    with raises(InvalidValue, field="ipv6", value=True):
        laid("a -- b ipv6=on mtu=1000")
