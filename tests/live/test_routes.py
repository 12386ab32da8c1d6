"""Routes of an end: added with it, replaced, restored, and distinguished from foreign ones by their protocol."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from tests.live.applying import applied, interface, on_trial, planned
from tests.live.configuring import without_detection
from tests.witness import ip, names, seen, settled_routes
from vethlib import End, InvalidValue, LinkExists, Neighbour, NetlinkError, Route, Session, Veth
from vethlib.agent.host.execution import execute

ADDRESSES = ["10.0.0.1/24", "fd00::1/64"]
ROUTES = [
    Route("default", via="10.0.0.254"),
    Route("10.7.0.0/16", via="10.0.0.2", metric=100, src="10.0.0.1", mtu=1400),
    Route("10.8.0.1", table=1000),
    Route("default", via="fd00::2", metric=7),
    Route("fd01::/48", via="fd00::2"),
]


@pytest.fixture
def blue(blue: str) -> str:
    without_detection(blue)
    return blue


def routes(proto: str = "118") -> set[str]:
    """Return the routes of that protocol in blue, in the words of `Route`."""
    found = set()
    for family in ("-4", "-6"):
        for each in ip(family, "route", "show", "table", "all", "proto", proto, netns="blue"):
            each["metric"] = each.get("metric", 0)
            words = [each["dst"] if each["dst"] != "default" or family == "-4" else "default"]
            words += ["via", each["gateway"]] if "gateway" in each else []
            words += ["metric", str(each["metric"])] if each["metric"] != (0 if family == "-4" else 1024) else []
            words += ["src", each["prefsrc"]] if "prefsrc" in each else []
            words += ["mtu", str(each["metrics"][0]["mtu"])] if each.get("metrics") else []
            words += ["table", str(each["table"])] if each.get("table", "main") != "main" else []
            found.add(" ".join(words))
    return found


def words(given: list[Route]) -> set[str]:
    return set(map(str, given))


def make(session: Session, given: list[Route] | tuple[()] = ()) -> None:
    session.create(Veth(End("a", "blue", addresses=ADDRESSES, routes=given), End("b", "blue")))


OURS = Route("fd07::/48", via="fd00::9")
HOPS = [["via", "fd02::9", "dev", "other"], ["via", "fd00::8", "dev", "a"]]


def make_with_hops(session: Session, *hops: list[str]) -> None:
    """Give another program's hops to a route of ours: to the kernel, all of IPv6 with one key are one route."""
    ip("link", "add", "name", "other", "type", "bridge", netns="blue")
    ip("link", "set", "dev", "other", "up", netns="blue")
    ip("address", "add", "fd02::1/64", "dev", "other", "nodad", netns="blue")
    make(session, [OURS])
    for hop in hops:
        ip("-6", "route", "append", str(OURS.network), *hop, "proto", "static", "metric", "1024", netns="blue")
    assert len(hops_there()) == 1 + len(hops)


def hops_there() -> list[str]:
    """Return the gateways of that route."""
    found = ip("-6", "route", "show", str(OURS.network), netns="blue")
    return [hop["gateway"] for route in found for hop in route.get("nexthops", [route])]


@pytest.mark.parametrize("hops", [HOPS[:1], HOPS[1:], HOPS, HOPS[::-1]])
def test_a_route_that_gets_hops_of_another_program_is_still_there(
    session: Session, blue: str, hops: list[list[str]]
) -> None:
    make_with_hops(session, *hops)
    others = hops_there()[1:]
    assert session.fields("a", "blue")["routes"] == (OURS,)
    asked = [("blue", session.index(name, "blue"), {"routes": ()}) for name in ("a", "other")]
    assert [each["routes"] for each in session.fields_many(asked) if isinstance(each, dict)] == [(OURS,), ()]
    session.set("a", "blue", routes=[OURS])
    assert hops_there() == ["fd00::9", *others]
    session.set("a", "blue", routes=[OURS, ROUTES[4]])
    assert hops_there() == ["fd00::9", *others]
    session.set("a", "blue", routes=[])
    assert sorted(hops_there()) == sorted(others)


@pytest.mark.parametrize("hops", [HOPS[:1], HOPS[1:]])
def test_it_is_as_configured_and_is_removed_when_it_is_not(session: Session, blue: str, hops: list[list[str]]) -> None:
    def ends(*routes: dict[str, str]) -> list[Any]:
        a = interface("a", "b", "blue", ip_addresses=ADDRESSES, routes=list(routes))
        return [a, interface("b", "a", "blue")]

    applied(session, *ends(OURS.as_dict()))
    ip("link", "add", "name", "other", "type", "bridge", netns="blue")
    ip("link", "set", "dev", "other", "up", netns="blue")
    ip("address", "add", "fd02::1/64", "dev", "other", "nodad", netns="blue")
    for hop in hops:
        ip("-6", "route", "append", str(OURS.network), *hop, "proto", "static", "metric", "1024", netns="blue")
    assert planned(session, *ends(OURS.as_dict())).operations == ()
    applied(session, *ends())
    assert hops_there() == [hop[1] for hop in hops]


def test_a_route_of_another_program_with_a_hop_over_the_link_is_foreign(session: Session, blue: str) -> None:
    make(session)
    ip(
        "-6",
        "route",
        "add",
        "fd07::/48",
        "proto",
        "static",
        "nexthop",
        "via",
        "fd00::8",
        "nexthop",
        "via",
        "fd00::9",
        netns="blue",
    )
    assert session.fields("a", "blue")["routes"] == ()
    with pytest.raises(NetlinkError) as caught:
        session.set("a", "blue", routes=[OURS])
    assert caught.value.errno == errno.EEXIST
    session.set("a", "blue", routes=[])
    assert hops_there() == ["fd00::8", "fd00::9"]


def test_an_end_is_created_with_its_routes(session: Session, blue: str) -> None:
    make(session, ROUTES)
    assert routes() == words(ROUTES)
    assert set(session.fields("a", "blue")["routes"]) == set(ROUTES)


def test_routes_are_replaced_and_those_of_others_stay(session: Session, blue: str) -> None:
    make(session, ROUTES)
    ip("route", "add", "10.9.0.0/16", "via", "10.0.0.2", "proto", "static", netns="blue")
    other = [Route("10.7.0.0/16", via="10.0.0.3", metric=100), *ROUTES[2:]]
    session.set("a", "blue", routes=other)
    assert routes() == words(other)
    session.set("a", "blue", routes=[])
    assert routes() == set()
    assert routes("static") == {"10.9.0.0/16 via 10.0.0.2"}


# Each of our protocol, as a tenant may add them to its end; the kernel takes more than a Route may have.
ODD = [
    [("-4", "add", "10.9.0.0/24", "mtu", "50")],
    [("-6", "add", "fd09::/64", "mtu", "1000")],
    [("-4", "add", "10.9.0.0/24", "via", "10.0.0.8"), ("-4", "append", "10.9.0.0/24", "via", "10.0.0.9")],
    [("-4", "add", "10.9.0.0/24", "via", "10.0.0.8"), ("-4", "append", "10.9.0.0/24")],
    [("-4", "append", "10.8.0.1", "via", "10.0.0.9", "table", "1000")],
    [("-4", "add", "10.9.0.0/24", "table", "4294967295")],
    [("-6", "add", "fd09::/64", "metric", "1"), ("-6", "append", "fd09::/64", "metric", "1", "via", "fd00::9")],
]


@pytest.mark.parametrize("odd", ODD)
def test_routes_of_our_protocol_that_no_configuration_may_have_are_read_and_removed(
    session: Session, blue: str, odd: list[tuple[str, ...]]
) -> None:
    make(session, ROUTES)
    for family, verb, *rest in odd:
        ip(family, "route", verb, *rest, "dev", "a", "proto", "118", netns="blue")
    read = session.fields("a", "blue")["routes"]
    assert len(set(read) - set(ROUTES)) == len(odd)
    for _ in range(2):  # what is on the link itself may stand for what leads over it, to the kernel
        session.set("a", "blue", routes=ROUTES, mtu=1400)
    assert routes() == words(ROUTES)
    session.set("a", "blue", routes=[])
    assert routes() == set()


def test_routes_that_a_message_of_ours_would_not_delete_are_others(session: Session, blue: str) -> None:
    make(session, ROUTES[:1])
    ip("-4", "route", "add", "10.9.0.0/24", "tos", "0x10", "dev", "a", "proto", "118", netns="blue")
    ip("-6", "route", "add", "fd09::/64", "from", "fd00::/64", "dev", "a", "proto", "118", netns="blue")
    ip("nexthop", "add", "id", "7", "via", "10.0.0.9", "dev", "a", netns="blue")
    ip("-4", "route", "add", "10.10.0.0/24", "nhid", "7", "proto", "118", netns="blue")
    assert session.fields("a", "blue")["routes"] == tuple(ROUTES[:1])
    session.set("a", "blue", routes=[])
    assert session.fields("a", "blue")["routes"] == ()
    assert len(routes()) == 3


# Each leads to its destination in another way than a `Route` to it would.
UNLIKE = [
    ("10.9.0.0/24", ["-4", "route", "add", "10.9.0.0/24", "via", "inet6", "fe80::1", "dev", "a"]),
    ("10.9.0.0/24", ["-4", "route", "add", "local", "10.9.0.0/24", "dev", "a", "table", "main"]),
    ("10.9.0.0/24", ["-4", "route", "add", "broadcast", "10.9.0.0/24", "dev", "a", "table", "main"]),
    ("fd09::/64", ["-6", "route", "add", "local", "fd09::/64", "dev", "a", "table", "main"]),
    ("fd09::/64", ["-6", "route", "add", "anycast", "fd09::/64", "dev", "a", "table", "main"]),
]


@pytest.mark.parametrize(("network", "command"), UNLIKE)
def test_a_route_of_another_type_or_with_a_gateway_of_the_other_family_is_not_taken_for_a_wanted_one(
    session: Session, blue: str, network: str, command: list[str]
) -> None:
    make(session, ROUTES[:1])
    ip(*command, "proto", "118", netns="blue")
    before = settled_routes(command[0], "route", "show", "dev", "a", netns="blue")
    assert session.fields("a", "blue")["routes"] == tuple(ROUTES[:1])
    with pytest.raises(NetlinkError) as refused:
        session.set("a", "blue", routes=[ROUTES[0], Route(network)])
    assert refused.value.errno == errno.EEXIST
    session.set("a", "blue", routes=ROUTES[:1])
    assert settled_routes(command[0], "route", "show", "dev", "a", netns="blue") == before


def test_routes_survive_a_change_of_the_addresses_that_they_need(session: Session, blue: str) -> None:
    make(session, ROUTES[:1])
    session.set("a", "blue", addresses=["10.0.0.3/24"], routes=ROUTES[:1])
    assert routes() == words(ROUTES[:1])


def test_a_change_that_is_refused_leaves_the_routes_as_they_were(session: Session, blue: str) -> None:
    make(session, ROUTES)
    with pytest.raises(LinkExists):
        session.set("a", "blue", new_name="b", routes=[], addresses=[])
    assert routes() == words(ROUTES)
    with pytest.raises(NetlinkError) as refused:
        session.set("a", "blue", routes=[ROUTES[1], Route("10.1.0.0/16", via="192.0.2.1")], mtu=1300)
    assert "10.1.0.0/16 via 192.0.2.1" in str(refused.value)
    assert routes() == words(ROUTES)


# The gateway can be reached by another of the routes only. Sorted by destination, that one comes last or first.
GATEWAYS_BY_ROUTE = [
    (["10.0.0.5/32"], [Route("169.254.1.1"), Route("default", via="169.254.1.1")]),
    (["10.0.0.5/32"], [Route("default", via="10.9.0.1"), Route("10.9.0.0/24"), Route("10.8.0.0/16", via="10.9.0.2")]),
    (["10.0.0.5/32"], [Route("200.1.0.0/24", via="9.9.9.9"), Route("9.9.9.9")]),
    (["fd00::5/128"], [Route("default", via="fe80:1::1"), Route("fe80:1::1")]),
    (["fd00::5/128"], [Route("fd10::/64"), Route("fd01::/64", via="fd10::1"), Route("fd11::/64", via="fd10::1")]),
]


@pytest.mark.parametrize(("addresses", "given"), GATEWAYS_BY_ROUTE)
@pytest.mark.parametrize("order", [list, reversed])
def test_a_gateway_may_be_reached_by_another_of_the_routes(
    session: Session, blue: str, addresses: list[str], given: list[Route], order: Any
) -> None:
    session.create(Veth(End("a", "blue", addresses=addresses, routes=order(given)), End("b", "blue")))
    assert routes() == words(given)
    session.set("a", "blue", routes=[])
    assert routes() == set()
    session.set("a", "blue", routes=order(given))
    assert routes() == words(given)


@pytest.mark.parametrize(("addresses", "given"), GATEWAYS_BY_ROUTE)
def test_routes_that_others_lead_over_are_restored_before_those(
    session: Session, blue: str, addresses: list[str], given: list[Route]
) -> None:
    session.create(Veth(End("a", "blue", addresses=addresses, routes=given), End("b", "blue")))
    changes: list[dict[str, Any]] = [{"routes": []}, {"routes": [], "addresses": []}, {"routes": given, "up": False}]
    for change in changes:
        with pytest.raises(LinkExists):
            session.set("a", "blue", new_name="b", **change)
        assert routes() == words(given)
    with pytest.raises(NetlinkError):
        session.set("a", "blue", routes=[Route("10.1.0.0/16", via="192.0.2.1")])
    assert routes() == words(given)


@pytest.mark.parametrize(("addresses", "given"), GATEWAYS_BY_ROUTE)
def test_an_agent_adds_routes_in_the_order_that_they_need(
    session: Session, blue: str, addresses: list[str], given: list[Route]
) -> None:
    applied(session, *ends(given, ip_addresses=addresses))
    assert routes() == words(given)
    applied(session, *ends(ip_addresses=addresses))
    applied(session, *ends(given, ip_addresses=addresses))
    assert routes() == words(given)


def test_a_pair_whose_route_is_refused_is_not_created(session: Session, blue: str) -> None:
    ip("link", "add", "other", "type", "bridge", netns="blue")
    with pytest.raises(NetlinkError) as refused:
        make(session, [Route("10.1.0.0/16", via="192.0.2.1")])
    assert "10.1.0.0/16 via 192.0.2.1" in str(refused.value)
    assert names("blue") == {"other"}


# Each with the options of the other one, which may be over the link itself, and of another protocol.
OTHERS = [
    (Route("default", via="10.0.0.2"), ("-4", "default", "via", "10.1.0.2", "dev", "c")),
    (Route("10.7.0.0/16", metric=7), ("-4", "10.7.0.0/16", "metric", "7", "dev", "a")),
    (Route("fd07::/64", via="fd00::2"), ("-6", "fd07::/64", "dev", "c")),
    (Route("fd08::1", table=77), ("-6", "fd08::1", "via", "fd00::9", "dev", "a", "table", "77")),
]


@pytest.mark.parametrize(("route", "other"), OTHERS)
def test_a_route_that_exists_is_refused_as_such_and_not_as_a_link(
    session: Session, blue: str, route: Route, other: tuple[str, ...]
) -> None:
    session.create(Veth(End("c", "blue", addresses=["10.1.0.1/24"]), End("d", "blue")))
    make(session)
    family, *rest = other
    ip(family, "route", "add", *rest, netns="blue")
    says = f"{route}: another route has this destination, metric and table"
    with pytest.raises(NetlinkError) as refused:
        session.set("a", "blue", routes=[route], mtu=1400)
    assert (type(refused.value), refused.value.errno) == (NetlinkError, errno.EEXIST)
    assert says in str(refused.value)
    assert seen("a", "blue")["mtu"] == 1500
    if "a" not in other:
        session.delete("a", "blue")
        with pytest.raises(NetlinkError) as refused:
            make(session, [route])
        assert (type(refused.value), refused.value.errno) == (NetlinkError, errno.EEXIST)
        assert says in str(refused.value)
        assert names("blue") == {"c", "d"}


@pytest.mark.parametrize("altnames", [(), ("x", "c")])
def test_a_name_that_is_taken_is_still_reported_as_a_link(session: Session, blue: str, altnames: Any) -> None:
    session.create(Veth(End("c", "blue"), End("d", "blue")))
    make(session)
    with pytest.raises(LinkExists):
        session.set("a", "blue", routes=ROUTES[:1], altnames=altnames, new_name="e" if altnames else "c")
    assert routes() == set()


@pytest.mark.parametrize(
    "given",
    [
        "default",
        [1],
        [{"dst": "10.0.0.0/8", "gateway": "10.0.0.1"}],
        [{"via": "10.0.0.1"}],
        [{"dst": "10.0.0.1/8"}],
        [{"dst": "10.0.0.0/8", "via": "fd00::1"}],
        [{"dst": "10.0.0.0/8", "via": "here"}],
        [{"dst": "10.0.0.0/8", "mtu": 10}],
        [{"dst": "10.0.0.0/8", "via": "10.0.0.1"}, {"dst": "10.0.0.0/8", "via": "10.0.0.2"}],
    ],
)
def test_routes_that_make_no_sense_are_refused(given: Any) -> None:
    with pytest.raises(InvalidValue) as refused:
        End("a", routes=given)
    assert refused.value.field == "routes"


def ends(given: list[Route] | tuple[()] = (), **fields: Any) -> list[Any]:
    listed = [route.as_dict() for route in given]
    return [
        interface("a", "b", "blue", **{"ip_addresses": ADDRESSES, "routes": listed} | fields),
        interface("b", "a", "blue"),
    ]


def test_an_agent_adds_changes_and_removes_routes_and_leaves_those_of_others(session: Session, blue: str) -> None:
    applied(session, *ends(ROUTES))
    assert routes() == words(ROUTES)
    ip("route", "add", "10.9.0.0/16", "via", "10.0.0.2", "proto", "static", netns="blue")
    ip("route", "del", "10.7.0.0/16", netns="blue")
    applied(session, *ends(ROUTES))
    assert routes() == words(ROUTES)
    applied(session, *ends())
    assert (routes(), routes("static")) == (set(), {"10.9.0.0/16 via 10.0.0.2"})


def test_a_disabled_interface_has_no_routes_and_gets_them_when_it_is_enabled(session: Session, blue: str) -> None:
    applied(session, *ends(ROUTES, enabled=False))
    assert routes() == set()
    applied(session, *ends(ROUTES))
    assert routes() == words(ROUTES)


@pytest.mark.parametrize(
    "tried",
    [
        ends,
        lambda: ends(ROUTES[1:]),
        lambda: ends(ROUTES[:1], ip_addresses=["10.0.0.5/24"]),
        lambda: ends(enabled=False),
    ],
)
def test_what_was_tried_with_routes_is_undone(session: Session, blue: str, tried: Any) -> None:
    applied(session, *ends(ROUTES))
    desired = tried()
    done, undo = on_trial(session, "blue", *desired)
    assert done
    assert execute(session, undo.plan).errors == []
    assert routes() == words(ROUTES)


@pytest.mark.parametrize("count", [3, 40])
def test_the_fields_of_many_links_are_those_of_each(session: Session, blue: str, count: int) -> None:
    ends = [
        End(
            f"r{n}",
            blue,
            up=True,
            addresses=[f"10.{n}.0.1/24"],
            routes=[Route(f"11.{n}.0.0/16"), Route(f"12.{n}.0.0/16", via=f"10.{n}.0.2")],
            neighbours=[Neighbour(f"10.{n}.0.9", "02:00:00:00:00:09")],
        )
        for n in range(count)
    ]
    pairs = session.create_many([Veth(end, End(f"s{n}", up=True)) for n, end in enumerate(ends)])
    ip("route", "add", "13.0.0.0/8", "dev", "r1", netns=blue)
    ip("neighbour", "add", "10.1.0.8", "lladdr", "02:00:00:00:00:08", "dev", "r1", netns=blue)
    asked = [(f"netns:{blue}", pair.a.index, {"routes": (), "neighbours": ()}) for pair in pairs]
    read = session.fields_many([*asked, (f"netns:{blue}", 9999, {"routes": ()})])
    assert read[:-1] == [{"routes": end.routes, "neighbours": end.neighbours} for end in ends]
    assert read[-1] is None
