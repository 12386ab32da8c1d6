"""Routes and neighbours over a link that is changed: a failed change loses none, and a successful one none of ours."""

from __future__ import annotations

import errno
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.live.configuring import without_detection
from tests.live.interrupted_exchanges import interrupt_after
from tests.live.older_kernel import renamed_only_while_down
from tests.live.over_links import NEIGHBOURS, ROUTES, dependents
from tests.live.refusals import refused
from tests.patience import Patience
from tests.witness import addresses, ip, poll, settled_routes
from vethlib import End, LinkExists, Neighbour, NetlinkError, Route, Session, Veth
from vethlib._nl.batch import Exchange, Outcome
from vethlib._nl.const import RTM_GETROUTE, RTM_NEWROUTE
from vethlib.session.core.namespaces import Namespaces, OpenNetns

MAC, OTHER = "02:00:00:00:00:09", "02:00:00:00:00:55"


@pytest.fixture
def blue(blue: str) -> str:
    without_detection(blue)
    return blue


def make(session: Session) -> None:
    """Make a link with routes and neighbours of vethlib and of another program, and one called "taken"."""
    given = ["10.0.0.1/24", "fd00::1/64"]
    session.create(Veth(End("a", "blue", addresses=given, routes=ROUTES, neighbours=NEIGHBOURS), End("b", "blue")))
    ip("link", "add", "name", "taken", "type", "bridge", netns="blue")
    ip("route", "add", "10.70.0.0/16", "via", "10.0.0.2", "dev", "a", "proto", "186", "metric", "5", netns="blue")
    ip("route", "add", "10.71.0.0/16", "via", "172.16.0.1", "dev", "a", "onlink", "table", "300", netns="blue")
    for number, protocol in enumerate(("kernel", "ra", "redirect")):
        ip("route", "add", f"10.8{number}.0.0/16", "dev", "a", "proto", protocol, netns="blue")
    ip("route", "add", "unreachable", "10.72.0.0/16", netns="blue")
    ip("route", "add", "fd70::/64", "via", "fd00::2", "dev", "a", "proto", "186", netns="blue")
    ip("neighbour", "add", "10.0.0.7", "lladdr", MAC, "dev", "a", "nud", "permanent", netns="blue")
    ip("neighbour", "add", "10.0.0.8", "lladdr", MAC, "dev", "a", "nud", "noarp", "protocol", "186", netns="blue")
    ip("neighbour", "add", "fd00::8", "lladdr", MAC, "router", "dev", "a", "nud", "permanent", netns="blue")


COSTLY: list[dict[str, Any]] = [
    {"up": False},
    {"mac": OTHER},
    {"mtu": 1000, "addresses": ["10.0.0.1/24"]},
    {"ipv6": False, "addresses": ["10.0.0.1/24"]},
    {"master": "taken"},
    {"addresses": ["10.0.0.1/24 brd 10.0.0.255"]},
    {"addresses": []},
    {"remove_addresses": ["10.0.0.1/24"]},
    {"add_addresses": ["10.0.0.3/24"]},
    {"routes": [], "neighbours": []},
    {"routes": [Route("10.7.0.0/16")], "mac": OTHER},
    {"neighbours": [Neighbour("10.0.0.8", OTHER), Neighbour("fd00::8", OTHER), Neighbour("10.0.0.7", MAC)]},
]


@pytest.mark.parametrize("asked", [*COSTLY, {"ipv6": False}], ids=lambda asked: " ".join(asked))
@pytest.mark.parametrize("refused", [{"new_name": "taken"}, {"altnames": ["taken"]}, {"sysctls": {"rp_filter": "x"}}])
def test_a_change_that_is_refused_leaves_every_route_and_neighbour(
    session: Session, blue: str, asked: dict[str, Any], refused: dict[str, Any]
) -> None:
    make(session)
    before, had = dependents(), addresses("a", "blue")
    with pytest.raises(NetlinkError):
        session.set("a", "blue", **asked, **refused)
    assert dependents() == before
    assert addresses("a", "blue") == had
    # Before Linux 5.14, the lowest address of a network is a broadcast address, too.
    assert len([one for one in before if not one.startswith("dst 10.0.0.0 ")]) == 3 + 2 + 3 + 3 + 3 + 3


@pytest.mark.parametrize("asked", COSTLY, ids=lambda asked: " ".join(asked))
def test_a_change_that_is_interrupted_leaves_every_route_and_neighbour(
    session: Session, blue: str, asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    make(session)
    before = dependents()
    interrupt_after(monkeypatch, 0)
    with pytest.raises(KeyboardInterrupt):
        session.set("a", "blue", **asked)
    assert dependents() == before


@pytest.mark.parametrize("asked", [{}, {"mac": OTHER}, {"neighbours": []}], ids=lambda asked: " ".join(asked))
def test_a_link_that_has_to_be_down_to_be_renamed_loses_no_route_if_the_rest_fails(
    session: Session, blue: str, asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    make(session)
    before, had = dependents(), addresses("a", "blue")
    renamed_only_while_down(monkeypatch)
    with pytest.raises(NetlinkError):
        session.set("a", "blue", new_name="c", routes=[Route("10.9.0.0/16", via="192.0.2.1")], **asked)
    assert (dependents(), addresses("a", "blue")) == (before, had)


def test_an_address_that_is_added_in_vain_to_a_link_without_any_costs_no_route(session: Session, blue: str) -> None:
    session.create(Veth(End("a", "blue"), End("b", "blue")))
    ip("link", "add", "name", "taken", "type", "bridge", netns="blue")
    ip("route", "add", "10.70.0.0/16", "dev", "a", "proto", "186", netns="blue")
    session.set("a", "blue", routes=[Route("10.8.0.0/16")])
    before = dependents()
    assert len(before) == 2
    with pytest.raises(LinkExists):
        session.set("a", "blue", add_addresses=["10.0.0.1/24"], new_name="taken")
    assert dependents() == before


def test_one_route_that_cannot_be_restored_costs_no_neighbour_and_no_other_route(
    session: Session, blue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(session)
    before = dependents()
    run = Namespaces.run
    done: list[int] = []

    def meddling(self: Namespaces, place: OpenNetns, exchange: Exchange) -> None:
        run(self, place, exchange)
        if not done:
            done.append(1)
            ip("link", "set", "taken", "up", netns="blue")
            ip("route", "add", "10.8.0.0/16", "metric", "7", "table", "77", "dev", "taken", netns="blue")

    monkeypatch.setattr(Namespaces, "run", meddling)
    with pytest.raises(LinkExists):
        session.set("a", "blue", up=False, new_name="taken")
    kept = dependents()
    assert [each for each in before if each not in kept and "10.8.0.0/16" not in each] == []


@pytest.mark.parametrize(
    ("asked", "lost"),
    [
        ({"mac": OTHER}, lambda each: False),
        ({"mac": OTHER, "alias": "x"}, lambda each: False),
        ({"mtu": 1000, "addresses": ["10.0.0.1/24"]}, lambda each: "fd0" in each),
        ({"ipv6": False, "addresses": ["10.0.0.1/24"]}, lambda each: "fd0" in each),
        ({"addresses": ["10.0.0.1/24 brd 10.0.0.255", "fd00::1/64"]}, lambda each: False),
        ({"addresses": ["10.0.0.1/24", "fd00::1/64"], "master": "taken"}, lambda each: False),
        ({"mtu": 1400}, lambda each: False),
        ({"addresses": ["10.0.0.3/24"]}, lambda each: "10.7.0.0" in each),
        ({"up": False}, lambda each: True),
    ],
    ids=lambda each: " ".join(each) if isinstance(each, dict) else "",
)
def test_a_change_keeps_the_routes_and_neighbours_of_vethlib_that_the_link_can_still_have(
    session: Session, blue: str, asked: dict[str, Any], lost: Callable[[str], bool]
) -> None:
    make(session)
    before = [each for each in dependents() if "protocol 118" in each]
    assert len(before) == 5
    session.set("a", "blue", **asked)
    kept = [each for each in dependents() if "protocol 118" in each]
    assert kept == [each for each in before if not lost(each)]


SEVERAL = [
    "proto 186 nexthop via fd00::2 dev a nexthop via fd02::2 dev b",
    "nexthop via fd02::2 dev b weight 5 nexthop via fd00::2 dev a",
    "nexthop via fd00::3 dev a nexthop via fd00::2 dev a weight 9",
    "metric 7 nexthop via fd00::3 dev a nexthop via fd02::2 dev b nexthop via fd00::2 dev a weight 3",
]


def routes_to(destination: str) -> list[Any]:
    """Return the routes to a destination, each with its hops in any order."""
    found = settled_routes("-6", "route", "show", destination, netns="blue")
    for route in found:
        route["nexthops"] = sorted(route.get("nexthops", []), key=str)
    return found


@pytest.mark.parametrize("asked", [{"mtu": 1000, "addresses": []}, {"up": False}, {"ipv6": False}], ids=str)
@pytest.mark.parametrize("route", SEVERAL)
def test_a_route_that_has_lost_some_of_its_hops_has_all_of_them_again(
    session: Session, blue: str, route: str, asked: dict[str, Any]
) -> None:
    a, b = End("a", "blue", addresses=["fd00::1/64"]), End("b", "blue", addresses=["fd02::1/64"])
    session.create(Veth(a, b))
    ip("-6", "route", "add", "fd71::/64", *route.split(), netns="blue")
    before = routes_to("fd71::/64")
    assert len(before[0]["nexthops"]) > 1
    with pytest.raises(NetlinkError) as caught:
        session.set("a", "blue", **asked, sysctls={"rp_filter": "x"})
    assert getattr(caught.value, "__notes__", []) == []
    assert routes_to("fd71::/64") == before


@pytest.mark.parametrize("second", ["10.72.0.0/16 nexthop dev a nexthop dev b", "10.71.0.0/16 proto 186 dev a"])
def test_a_hop_over_a_link_without_an_ipv4_address_stays_alive(session: Session, blue: str, second: str) -> None:
    """The kernel marks it as dead when the link loses an address that was its only one."""
    session.create(Veth(End("a", "blue", addresses=["fd00::1/64"]), End("b", "blue", addresses=["10.2.0.1/24"])))
    ip("route", "add", "10.71.0.0/16", "nexthop", "dev", "a", "weight", "3", "nexthop", "dev", "b", netns="blue")
    ip("route", "append", *second.split(), netns="blue")
    ip("route", "add", "10.73.0.0/16", "metric", "7", "nexthop", "dev", "b", "nexthop", "dev", "b", netns="blue")
    before = ip("route", netns="blue")
    assert "dead" not in str(before)
    with pytest.raises(NetlinkError) as caught:
        session.set("a", "blue", addresses=["10.0.0.1/24"], routes=[Route("10.70.0.0/16", via="192.168.3.3")])
    assert getattr(caught.value, "__notes__", []) == []
    assert ip("route", netns="blue") == before


def test_a_route_beside_one_over_another_link_is_restored(session: Session, blue: str) -> None:
    session.create(Veth(End("a", "blue", addresses=["fd00::1/64"]), End("b", "blue", addresses=["fd02::1/64"])))
    for name in ("a", "b"):
        ip("-6", "route", "append", "fd71::/64", "dev", name, netns="blue")
    before = sorted(map(str, routes_to("fd71::/64")))
    assert len(before) == 2
    with pytest.raises(NetlinkError):
        session.set("a", "blue", ipv6=False, sysctls={"rp_filter": "x"})
    assert sorted(map(str, routes_to("fd71::/64"))) == before


@pytest.mark.parametrize("asked", [{"up": False}, {"ipv6": False}], ids=str)
def test_a_route_that_expires_still_does_when_it_is_restored(
    session: Session, blue: str, asked: dict[str, Any]
) -> None:
    session.create(Veth(End("a", "blue", addresses=["fd00::1/64"]), End("b", "blue")))
    ip("-6", "route", "add", "fd71::/64", "via", "fd00::2", "expires", "600", netns="blue")
    ip("-6", "route", "add", "fd72::/64", "via", "fd00::2", netns="blue")
    with pytest.raises(NetlinkError):
        session.set("a", "blue", **asked, sysctls={"rp_filter": "x"})
    (expiring,), (other,) = (ip("-6", "route", "show", to, netns="blue") for to in ("fd71::/64", "fd72::/64"))
    assert 300 < expiring["expires"] <= 600
    assert "expires" not in other


@pytest.mark.parametrize("asked", [{"up": False}, {"ipv6": False}, {"mtu": 1000, "addresses": []}], ids=str)
def test_an_ipv6_route_that_a_program_has_called_one_of_the_kernel_is_restored_once(
    session: Session, blue: str, asked: dict[str, Any]
) -> None:
    session.create(Veth(End("a", "blue", addresses=["fd00::1/64", "fd01::1/64"]), End("b", "blue")), wait=30)
    # When no address is tentative any more, the kernel has added all of its own routes.
    assert poll(lambda: not any("tentative" in info for link in ip("addr", netns=blue) for info in link["addr_info"]))
    ip("-6", "route", "add", "fd71::/64", "dev", "a", "proto", "kernel", "metric", "100", netns="blue")

    def routes() -> list[str]:
        return sorted(map(str, ip("-6", "route", "show", "table", "all", netns="blue")))

    before = routes()
    with pytest.raises(NetlinkError):
        session.set("a", "blue", **asked, sysctls={"rp_filter": "x"})
    patience = Patience(20)
    while routes() != before and not patience.is_over():  # the kernel adds some of its own later
        time.sleep(0.05)
    assert routes() == before


@pytest.mark.parametrize("number", [3, 20])
def test_every_route_that_cannot_be_restored_is_named_up_to_a_limit(
    session: Session, blue: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    session.create(Veth(End("a", "blue", addresses=["fd00::1/64"]), End("b", "blue")))
    for each in range(number):
        ip("-6", "route", "add", f"fd70:{each:x}::/64", "via", "fd00::2", netns="blue")
    with refused(monkeypatch, errno.ENOMEM, RTM_NEWROUTE), pytest.raises(NetlinkError) as caught:
        session.set("a", "blue", ipv6=False, sysctls={"rp_filter": "x"})
    (note,) = caught.value.__notes__
    assert note.count("the route fd70:") == min(number, 8)
    assert ("12 more" in note) is (number == 20)


@pytest.mark.parametrize(
    ("asked", "reads"),
    [
        ({"addresses": ["10.0.0.1/24", "fd00::1/64"]}, False),
        ({"addresses": ["10.0.0.1/24", "10.0.0.2/24", "fd00::1/64"]}, False),
        ({"addresses": ["10.0.0.1/24", "192.0.2.1/24", "fd00::2/64", "fd00::1/64"]}, False),
        ({"add_addresses": ["10.0.0.2/24"]}, False),
        ({"addresses": ["10.0.0.2/24", "10.0.0.1/24", "fd00::1/64"]}, True),
        ({"addresses": ["10.0.0.1/24 brd 10.0.0.255", "fd00::1/64"]}, True),
        ({"remove_addresses": ["fd00::1/64"]}, True),
    ],
)
def test_routes_are_read_only_for_a_change_that_removes_an_address(
    session: Session, blue: str, asked: dict[str, Any], reads: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(session)
    asks: list[int] = []
    dump = Namespaces.dump

    def dumping(self: Namespaces, place: OpenNetns, request: bytes, *rest: Any, **more: Any) -> Outcome:
        asks.append(int.from_bytes(request[4:6], sys.byteorder))
        return dump(self, place, request, *rest, **more)

    monkeypatch.setattr(Namespaces, "dump", dumping)
    session.set("a", "blue", **asked)
    assert (RTM_GETROUTE in asks) is reads


def test_a_route_is_restored_when_its_source_has_been_checked_for_duplicates(session: Session, red: str) -> None:
    given = End("a", red, addresses=["fd00::1/64"], routes=[Route("fd07::/64", via="fd00::2", src="fd00::1")])
    session.create(Veth(given, End("b", red)), wait=10)
    ip("link", "add", "name", "taken", "type", "bridge", netns=red)
    with pytest.raises(LinkExists) as caught:
        session.set("a", red, up=False, new_name="taken")
    assert getattr(caught.value, "__notes__", []) == []
    (route,) = ip("-6", "route", "show", "proto", "118", netns=red)
    assert (route["dst"], route["prefsrc"]) == ("fd07::/64", "fd00::1")
