"""The compact description: its meaning, and its errors."""

from __future__ import annotations

from ipaddress import ip_interface
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.refusing import raises
from vethlib.endfields.checks import Sysctl
from vethlib.endfields.neighbours import Neighbour
from vethlib.endfields.routes import Route
from vethlib.errors import InvalidValue
from vethlib.topology.design.description import Description, Member, Port, Wire
from vethlib.topology.design.text import check_node_name, parse


def test_a_chain_makes_its_nodes_and_a_wire_between_each_two() -> None:
    assert parse("a -- b -- c") == Description(
        (Member("a"), Member("b"), Member("c")), (Wire(Port("a"), Port("b")), Wire(Port("b"), Port("c")))
    )


def test_nodes_are_in_the_order_in_which_they_are_first_named() -> None:
    assert [member.name for member in parse("z -- y; switch s; x -- z").members] == ["z", "y", "s", "x"]


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85", "\f", "\v", "\x1c", "\x1d", "\x1e"])
def test_a_comment_ends_with_the_line_and_not_with_another_separator(separator: str) -> None:
    plain = parse("a -- b; b -- c")
    assert parse(f"a -- b # first{separator}y -- z\nb -- c # {separator}") == plain
    assert parse(f"a -- b # first{separator}y -- z\r\nb -- c # {separator}\r") == plain
    assert parse(f"a -- b{separator}b -- c") == plain
    with pytest.raises(InvalidValue) as caught:
        parse(f"a -- b # {separator}\nc")
    assert caught.value.hint.startswith("line 2: ")


def test_statements_are_lines_or_stand_between_semicolons_and_comments_end_with_the_line() -> None:
    text = """
        a -- b;; b -- c   # and so on; x -- y
        # nothing

        c -- d
    """
    assert [(wire.a.node, wire.b.node) for wire in parse(text).wires] == [("a", "b"), ("b", "c"), ("c", "d")]


@pytest.mark.parametrize("kind", ["node", "router", "switch"])
def test_a_kind_is_said_before_or_after_the_node_is_wired(kind: str) -> None:
    assert parse(f"{kind} x y; x -- y").members == parse(f"x -- y; {kind} x y").members
    assert {member.kind for member in parse(f"{kind} x y").members} == {kind}


def test_a_node_may_be_called_as_a_kind_is() -> None:
    assert parse("switch -- router").members == (Member("switch"), Member("router"))
    assert parse("switch switch; switch -- a").members == (Member("switch", "switch"), Member("a"))


def test_a_port_has_a_link_name_and_addresses_where_they_are_given() -> None:
    (wire,) = parse("a:wan0(10.0.0.1/24, fd00::1/64) -- b()").wires
    assert wire.a == Port("a", "wan0", (ip_interface("10.0.0.1/24"), ip_interface("fd00::1/64")))
    assert wire.b == Port("b", "", ())


def test_a_node_in_the_middle_of_a_chain_may_be_without_addresses_on_both_sides() -> None:
    first, second = parse("a -- b() -- c").wires
    assert first.b == second.a == Port("b", "", ())


def test_what_is_open_stays_open() -> None:
    (wire,) = parse("a -- b").wires
    assert (wire.a.link, wire.a.addresses, wire.mtu) == ("", None, None)


def test_an_mtu_is_of_every_wire_of_its_statement_and_of_no_other() -> None:
    assert [wire.mtu for wire in parse("a -- b -- c  mtu=1400; c -- d").wires] == [1400, 1400, None]


def test_fields_are_of_both_links_of_every_wire_of_their_statement() -> None:
    first, second, other = parse(
        "a -- b -- c txqlen=500 gso_max_size=4096 offload=off sysctl.rp_filter=0; c -- d"
    ).wires
    expected = {"txqlen": 500, "gso_max_size": 4096, "offload": False, "sysctls": (Sysctl("ipv4.rp_filter", "0"),)}
    assert [port.fields for wire in (first, second) for port in (wire.a, wire.b)] == [expected] * 4
    assert (other.a.fields, other.b.fields) == ({}, {})


def test_fields_may_be_of_one_end_or_different_at_each() -> None:
    (wire,) = parse(
        "a -- b mac=/02-00-00-00-00-02 alias=up/down altname=uplink,wan/ offload=on/off sysctl.ipv6.accept_ra=/0 "
        "master=/lan"
    ).wires
    assert wire.a.fields == {"alias": "up", "altnames": ("uplink", "wan"), "offload": True}
    settings = (Sysctl("ipv6.accept_ra", "0"),)
    expected = {"mac": "02:00:00:00:00:02", "alias": "down", "offload": False, "sysctls": settings, "master": "lan"}
    assert wire.b.fields == expected


def test_a_port_lists_routes_and_neighbours_with_its_addresses() -> None:
    (wire,) = parse(
        "a(10.0.0.1/24, default via 10.0.0.2 metric 7, route 10.9.0.0/16, 10.0.0.9 lladdr 02:00:00:00:00:09) -- "
        "b:x(default via 10.0.0.1) mtu=1400 txqlen=7"
    ).wires
    assert wire.a.addresses == (ip_interface("10.0.0.1/24"),)
    assert wire.a.fields == {
        "routes": (Route("default", via="10.0.0.2", metric=7), Route("10.9.0.0/16")),
        "neighbours": (Neighbour("10.0.0.9", "02:00:00:00:00:09"),),
        "txqlen": 7,
    }
    assert wire.b == Port("b", "x", None, {"routes": (Route("default", via="10.0.0.1"),), "txqlen": 7})
    assert wire.mtu == 1400


def test_a_port_lists_addresses_with_attributes() -> None:
    (wire,) = parse("a(10.0.0.1/24 brd + label eth0:x, 2001:db8::1/64 nodad, default via 10.0.0.2) -- b").wires
    assert list(map(str, wire.a.addresses or ())) == ["10.0.0.1/24 brd 10.0.0.255 label eth0:x", "2001:db8::1/64 nodad"]
    assert wire.a.fields == {"routes": (Route("default", via="10.0.0.2"),)}


def test_dashes_in_names_are_no_wires() -> None:
    (wire,) = parse("a-b:x--y -- c-").wires
    assert wire == Wire(Port("a-b", "x--y"), Port("c-"))


def test_an_empty_text_describes_nothing() -> None:
    assert parse(" \n # only this\n ;") == Description((), ())


WRONG: list[tuple[str, int, str, str]] = [
    ("a", 1, "a", 'write a wire as "a -- b", or "node a" for a node without one'),
    ("a b", 1, "a b", "'a b' is not a port"),
    ("a, b", 1, "a, b", "is not a port: write node, node:link or node:link(10.0.0.1/24)"),
    ("a - b", 1, "a - b", 'a wire is written "--", with a space on either side'),
    ("a -> b", 1, "a -> b", 'a wire is written "--", with a space on either side'),
    ("swich s1", 1, "swich s1", "did you mean 'switch s1'?"),
    ("Router r", 1, "Router r", "did you mean 'router r'?"),
    ("switch s -- a", 1, "switch s -- a", "declare the kind of a node in a separate statement"),
    ("a -- b mtu 1400", 1, "a -- b mtu 1400", "write the attribute as mtu=1400"),
    ("a -- b\na--c", 2, "a--c", 'put a space on either side of "--"'),
    ("a --b", 1, "a --b", 'put a space on either side of "--"'),
    ("a --", 1, "a --", 'a node is missing beside "--"'),
    ("-- a", 1, "-- a", 'a node is missing beside "--"'),
    ("a -- -- b", 1, "a -- -- b", 'a node is missing beside "--"'),
    ("a -- a", 1, "a -- a", "begins and ends at a"),
    ("a -- b:x -- b:y", 1, "a -- b:x -- b:y", "begins and ends at b"),
    ("a -- b:x -- c", 1, "a -- b:x -- c", "b is in the middle of a chain"),
    ("a -- b(10.0.0.1/24) -- c", 1, "a -- b(10.0.0.1/24) -- c", "split it into two statements"),
    ("switch", 1, "switch", "write a wire"),
    ("switch s\n\nrouter s", 3, "router s", "s is already a switch: a node can have only one kind"),
    ("switch s, t", 1, "switch s, t", "a name must be 1 to 64"),
    ("ä -- b", 1, "ä -- b", "a name must be 1 to 64"),
    ("_a -- b", 1, "_a -- b", "a letter or digit first"),
    (f"{'n' * 65} -- b", 1, f"{'n' * 65} -- b", "1 to 64"),
    ("a: -- b", 1, "a: -- b", "a link name has 1 to 15 bytes"),
    ("a:sixteen-letters- -- b", 1, "a:sixteen-letters- -- b", "a link name has 1 to 15 bytes"),
    ("a:x:y -- b", 1, "a:x:y -- b", "no '/', ':'"),
    ("a(10.0.0.1) -- b", 1, "a(10.0.0.1) -- b", "must have a prefix length"),
    ("a(10.0.0.1/33) -- b", 1, "a(10.0.0.1/33) -- b", "address with a prefix length"),
    ("a(10.0.0.1/24 -- b", 1, "a(10.0.0.1/24 -- b", "is not a port"),
    ("a(10.0.0.1/24,10.0.0.1/24) -- b", 1, "a(10.0.0.1/24,10.0.0.1/24) -- b", "the same address is given twice"),
    ("a -- b mtu=big", 1, "a -- b mtu=big", "must be a number of bytes"),
    ("a -- b txqlen=long", 1, "a -- b txqlen=long", "txqlen 'long'"),
    ("a -- b\na -- c txqlen=-1", 2, "a -- c txqlen=-1", "txqlen '-1'"),
    ("a -- b gso_max_size=0", 1, "a -- b gso_max_size=0", "gso_max_size 0"),
    ("a -- b offload=no", 1, "a -- b offload=no", "offload 'no': must be on or off"),
    ("a -- b mac=02:00:00:00:00:01", 1, "a -- b mac=02:00:00:00:00:01", "must be the MAC of one end"),
    ("a -- b mac=02:00:00:00:00:01/02-00-00-00-00-01", 1, "a -- b mac=02:00:00:00:00:01/02-00-00-00-00-01", "each end"),
    ("a -- b mac=03:00:00:00:00:01/", 1, "a -- b mac=03:00:00:00:00:01/", "unicast"),
    ("a -- b -- c mac=02:00:00:00:00:01/", 1, "a -- b -- c mac=02:00:00:00:00:01/", "several links"),
    ("a -- b alias=/", 1, "a -- b alias=/", "alias=LEFT/RIGHT"),
    ("a -- b alias=", 1, "a -- b alias=", "alias=LEFT/RIGHT"),
    ("a -- b altname=x,", 1, "a -- b altname=x,", "1 to 127 bytes"),
    ("a -- b sysctl.disable_ipv6=1", 1, "a -- b sysctl.disable_ipv6=1", "sysctls 'disable_ipv6'"),
    ("a -- b sysctl.=1", 1, "a -- b sysctl.=1", "a setting of a link"),
    ("a(default via) -- b", 1, "a(default via) -- b", "routes 'default via': must be a route"),
    ("a(10.0.0.9/8 via 10.0.0.1) -- b", 1, "a(10.0.0.9/8 via 10.0.0.1) -- b", "host bits"),
    ("a(10.0.0.1/24 label) -- b", 1, "a(10.0.0.1/24 label) -- b", "needs a value"),
    ("a(10.0.0.9 lladdr) -- b", 1, "a(10.0.0.9 lladdr) -- b", "neighbours"),
    ("a -- b(default via 10.0.0.1) -- c", 1, "a -- b(default via 10.0.0.1) -- c", "in the middle of a chain"),
    ("a -- b mtu=67", 1, "a -- b mtu=67", "68 to 65535"),
    ("a -- b mtu=65536", 1, "a -- b mtu=65536", "68 to 65535"),
    ("a -- b mtu=1400 mtu=1500", 1, "a -- b mtu=1400 mtu=1500", "mtu is given twice"),
    ("a -- b\n  a -- c lost=1", 2, "a -- c lost=1", "'lost': a wire can have mtu=BYTES, ipv6=on|off, delay"),
]


@pytest.mark.parametrize(("text", "line", "statement", "hint"), WRONG, ids=[one[0][:20] for one in WRONG])
def test_an_error_names_line_and_statement_and_says_what_would_do(
    text: str, line: int, statement: str, hint: str
) -> None:
    with pytest.raises(InvalidValue) as caught:
        parse(text)
    assert caught.value.field == "topology"
    assert caught.value.value == statement
    assert caught.value.hint.startswith(f"line {line}: ")
    assert hint in caught.value.hint


@pytest.mark.parametrize("text", [None, 7, b"a -- b", ["a", "b"]])
def test_what_is_no_text_is_refused(text: Any) -> None:
    with raises(InvalidValue, field="topology", value=text):
        parse(text)


@pytest.mark.parametrize("name", ["a", "9", "r1.lab_2-x", "n" * 64, "a-"])
def test_names_a_node_can_have(name: str) -> None:
    assert check_node_name(name) == name


@pytest.mark.parametrize("name", ["", "-a", ".", "a--b", "a b", "a/b", "a\n", "n" * 65, 7, None])
def test_names_a_node_cannot_have(name: Any) -> None:
    with raises(InvalidValue, field="topology", value=name):
        check_node_name(name)


@given(st.text(alphabet="ab1-:()./ ,;#=\nmtuswich", max_size=40))
def test_any_text_is_a_description_or_an_invalid_value(text: str) -> None:
    try:
        described = parse(text)
    except InvalidValue:
        return  # and no other error
    names = {member.name for member in described.members}
    assert {port.node for wire in described.wires for port in (wire.a, wire.b)} <= names


@pytest.mark.parametrize("text", ["a -- b ipv6=no", "a -- b ipv6=", "a -- b ipv6=off ipv6=off", "a -- b ipv4=off"])
def test_an_attribute_that_no_wire_has_is_refused(text: str) -> None:
    with pytest.raises(InvalidValue) as refused:
        parse(text)
    assert refused.value.field == "topology"
