"""Routes over other links whose source is an address of a changed link, and what is flushed with its last address."""

from __future__ import annotations

import errno
import subprocess
from collections.abc import Callable, Container
from typing import Any

import pytest

from tests.live.configuring import without_detection
from tests.live.older_kernel import renamed_only_while_down
from tests.live.refusals import with_names_free_at_first
from tests.witness import ip, poll, settled_routes
from vethlib import End, LinkExists, NetlinkError, Route, Session, Veth, ns
from vethlib._nl.dependents.kept import has_source
from vethlib.session.read import dependents
from vethlib.session.write.restoring import late

pytestmark = pytest.mark.usefixtures("links")

GIVEN = ["10.9.9.9/24", "10.8.8.8/24", "2001:db8:9::9/64", "2001:db8:8::8/64"]


@pytest.fixture
def links(session: Session, blue: str) -> None:
    """A link "a" with addresses, and "other" with routes of other programs and of vethlib from these addresses."""
    without_detection(blue)
    session.create(Veth(End("a", blue, addresses=GIVEN), End("b", blue)))
    other = End(
        "other", blue, addresses=["192.168.7.1/24", "2001:db8:7::1/64"], routes=[Route("10.64.0.0/24", src="10.9.9.9")]
    )
    session.create(Veth(other, End("far", blue)))
    await_addresses()
    ip("link", "add", "name", "taken", "type", "bridge", netns=blue)
    for route in ROUTES:
        ip(*route.split(), netns=blue)


def await_addresses() -> None:
    """Wait until no address is tentative: until a work queue has run, even though none is checked."""

    def states() -> list[Any]:
        return [address.get("tentative") for link in ip("address", netns="blue") for address in link["addr_info"]]

    assert poll(lambda: not any(states()))


ROUTES = [
    "-4 route add 10.60.0.0/24 via 192.168.7.2 src 10.9.9.9",
    "-4 route add 10.61.0.0/24 via 192.168.7.2 src 10.8.8.8 proto 186 metric 7",
    "-4 route add 10.62.0.0/24 src 10.9.9.9 nexthop via 192.168.7.2 weight 3 nexthop via 192.168.7.3",
    "-4 route add default dev other src 10.9.9.9 proto 187",
    "-6 route add 2001:db8:60::/64 via 2001:db8:7::2 src 2001:db8:9::9",
    "-6 route add 2001:db8:61::/64 dev other src 2001:db8:8::8 proto 186 metric 7",
    "-6 route add 2001:db8:62::/64 dev other src 2001:db8:9::9 table 88",
    "-6 route add 2001:db8:63::/64 src 2001:db8:9::9 nexthop via 2001:db8:7::2 nexthop via 2001:db8:7::3 weight 3",
    "-6 route add default via 2001:db8:7::2 src 2001:db8:9::9",
]


def routes() -> list[str]:
    found = [
        route
        for version in ("-4", "-6")
        for route in settled_routes(version, "route", "show", "table", "all", netns="blue")
        if route.get("protocol") != "kernel"
    ]
    return sorted(str({**route, "nexthops": sorted(map(str, route.get("nexthops", [])))}) for route in found)


COSTLY: list[dict[str, Any]] = [
    {"addresses": ["10.8.8.8/24", "10.9.9.9/24", "2001:db8:8::8/64", "2001:db8:9::9/64"]},
    {"addresses": ["10.9.9.9/24 brd 10.9.9.255", "10.8.8.8/24", "2001:db8:9::9/64 nodad", "2001:db8:8::8/64"]},
    {"addresses": []},
    {"remove_addresses": ["10.9.9.9/24", "2001:db8:9::9/64"]},
    {"remove_addresses": ["2001:db8:9::9/64"]},
    {"add_addresses": ["10.9.9.10/24"], "address_order": ["10.9.9.10/24", "10.9.9.9/24"]},
    {"up": False},
    {"ipv6": False, "addresses": ["10.9.9.9/24"]},
    {"mtu": 1000, "addresses": ["10.9.9.9/24"]},
]


@pytest.mark.parametrize("asked", COSTLY, ids=str)
@pytest.mark.parametrize(
    "refused",
    [{"new_name": "taken"}, {"sysctls": {"rp_filter": "x"}}, {"routes": [Route("10.1.0.0/24", via="10.99.0.1")]}],
)
def test_a_change_that_is_refused_costs_no_route_over_another_link(
    session: Session, asked: dict[str, Any], refused: dict[str, Any]
) -> None:
    before = routes()
    assert len(before) == len(ROUTES) + 1
    with pytest.raises(NetlinkError) as caught:
        session.set("a", "blue", **asked, **refused)
    assert getattr(caught.value, "__notes__", []) == []
    assert routes() == before


@pytest.mark.parametrize(
    "asked",
    [
        *COSTLY[:2],
        {"mtu": 1400},
        {"mac": "02:00:00:00:00:09"},
        {"new_name": "c", "mtu": 1400},
        {"addresses": list(reversed(GIVEN)), "new_name": "c", "altnames": ["a"]},
    ],
    ids=str,
)
def test_a_change_after_which_the_addresses_are_still_there_costs_no_route_over_another_link(
    session: Session, asked: dict[str, Any]
) -> None:
    before = routes()
    session.set("a", "blue", **asked)
    assert routes() == before


@pytest.mark.parametrize("gone", ["10.9.9.9/24", "2001:db8:9::9/64"])
def test_the_kernel_removes_routes_whose_source_is_gone_and_no_others(session: Session, gone: str) -> None:
    ip("address", "delete", gone, "dev", "a", netns="blue")
    left = routes()
    ip("address", "add", gone, "dev", "a", netns="blue")
    await_addresses()
    for route in ROUTES:
        version, _, _, *rest = route.split()
        if gone.partition("/")[0] in rest:
            ip(version, "route", "replace", *rest, netns="blue")
    if "." in gone:
        session.set("other", "blue", routes=[Route("10.64.0.0/24", src="10.9.9.9")])
    session.set("a", "blue", remove_addresses=[gone])
    assert routes() == left


@pytest.mark.needs_kernel("5.12")  # which gives a link that is moved back its ifindex
def test_a_move_that_is_refused_costs_no_route_over_another_link(
    session: Session, red: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = routes()
    ip("link", "add", "name", "taken", "type", "bridge", netns=red)
    with_names_free_at_first(monkeypatch)
    with pytest.raises(LinkExists) as caught:
        session.move("a", "blue", to=red, name="taken")
    assert getattr(caught.value, "__notes__", []) == []
    assert routes() == before


FLUSHED = ["10.9.9.9/24 brd 10.9.9.255", "2001:db8:9::9/64", "2001:db8:8::8/64"]


@pytest.mark.parametrize(
    "asked",
    [{"addresses": FLUSHED}, {"addresses": FLUSHED, "routes": [], "neighbours": []}, {"addresses": FLUSHED[:1]}],
    ids=str,
)
def test_what_other_programs_have_on_a_link_survives_another_form_of_its_only_ipv4_address(
    session: Session, asked: dict[str, Any]
) -> None:
    session.set("a", "blue", remove_addresses=["10.8.8.8/24"])
    ip("route", "add", "10.50.0.0/24", "dev", "a", netns="blue")
    ip("route", "add", "10.51.0.0/24", "via", "10.9.9.2", "table", "88", netns="blue")
    ip("neighbour", "add", "10.77.0.1", "lladdr", "02:00:00:00:77:01", "nud", "permanent", "dev", "a", netns="blue")
    ip("neighbour", "add", "proxy", "10.77.0.2", "dev", "a", netns="blue")
    before = [each for each in routes() if "2001:" not in each]
    session.set("a", "blue", **asked)
    assert [each for each in routes() if "2001:" not in each] == before
    found = ip("neighbour", "show", "dev", "a", "nud", "permanent", netns="blue")
    assert "10.77.0.1" in [each["dst"] for each in found]


def test_what_other_programs_have_on_a_link_is_flushed_with_its_last_ipv4_address(session: Session) -> None:
    session.set("a", "blue", remove_addresses=["10.8.8.8/24"])
    ip("route", "add", "10.50.0.0/24", "dev", "a", netns="blue")
    session.set("a", "blue", remove_addresses=["10.9.9.9/24"])
    assert not [each for each in routes() if "10.50.0.0" in each]


def test_a_route_over_the_link_itself_keeps_its_source_if_a_change_is_refused(session: Session) -> None:
    ip("-6", "route", "add", "2001:db8:70::/64", "via", "2001:db8:9::2", "src", "2001:db8:9::9", netns="blue")
    before = routes()
    with pytest.raises(LinkExists) as caught:
        session.set("a", "blue", addresses=["2001:db8:9::9/64 nodad"], new_name="taken")
    assert getattr(caught.value, "__notes__", []) == []
    assert routes() == before


@pytest.mark.parametrize("fails", [False, True])
def test_a_link_that_has_to_be_down_to_be_renamed_costs_no_route_over_another_link(
    session: Session, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    before = routes()
    renamed_only_while_down(monkeypatch)
    if fails:
        with pytest.raises(NetlinkError) as caught:
            session.set("a", "blue", new_name="c", routes=[Route("10.9.0.0/16", via="192.0.2.1")])
        assert getattr(caught.value, "__notes__", []) == []
    else:
        session.set("a", "blue", new_name="c")
    assert routes() == before


def add_many_routes(count: int) -> None:
    """Add this many routes of each IP version without a source over the other link."""
    lines = {
        "-4": [f"route add 20.{n // 256}.{n % 256}.0/24 via 192.168.7.2 dev other\n" for n in range(count)],
        "-6": [f"route add 2001:db8:{n:x}:1::/64 via 2001:db8:7::2 dev other\n" for n in range(count)],
    }
    with ns.entered("blue"):
        for version in lines:
            subprocess.run(["ip", version, "-batch", "-"], input="".join(lines[version]), text=True, check=True)


MANY = 5000


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The routes whose sources are looked at, one by one."""
    found: list[bytes] = []

    def noting(body: bytes, sources: Container[bytes]) -> bool:
        found.append(body)
        return has_source(body, sources)

    monkeypatch.setattr(late, "has_source", noting)
    monkeypatch.setattr(dependents, "has_source", noting)
    return found


CALLS: dict[str, Callable[[Session], object]] = {
    "addresses": lambda session: session.set("a", "blue", addresses=["10.9.9.9/25", "2001:db8:9::9/80"]),
    "remove_addresses": lambda session: session.set("a", "blue", remove_addresses=["10.9.9.9/24"]),
    "many addresses": lambda session: session.set("a", "blue", addresses=[]),
    "down": lambda session: session.set("a", "blue", up=False),
    "dependents": lambda session: session.dependents([session.lookup("a", "blue")]),
}


@pytest.mark.parametrize("call", CALLS)
def test_routes_without_a_source_are_not_looked_at_one_by_one(
    session: Session, looked_at: list[bytes], call: str
) -> None:
    """On a router, there may be a million, and a change of one address would wait for all of them."""
    for route in ROUTES:
        ip(*route.replace("add", "del").split(), netns="blue")
    if call == "many addresses":
        session.set("a", "blue", add_addresses=[f"10.9.{n}.1/24" for n in range(10, 40)])
    add_many_routes(MANY)
    CALLS[call](session)
    assert len(looked_at) < MANY


@pytest.mark.parametrize("surplus", [None, 10 * MANY])
@pytest.mark.parametrize(
    "asked", [COSTLY[0], COSTLY[1], {"addresses": [f"10.9.{n}.1/24" for n in range(9)]}], ids=["order", "form", "many"]
)
def test_a_refused_change_costs_no_route_over_another_link_that_has_many(
    session: Session, asked: dict[str, Any], surplus: int | None
) -> None:
    add_many_routes(MANY)
    before = routes()
    with pytest.raises(LinkExists) as caught:
        session.set("a", "blue", **asked, new_name="taken", surplus=surplus)
    assert getattr(caught.value, "__notes__", []) == []
    assert routes() == before


@pytest.mark.needs_kernel("4.20")
@pytest.mark.parametrize(("surplus", "is_known"), [(400, True), (20, False)])
def test_a_limit_is_reached_later_by_routes_that_have_no_source(session: Session, surplus: int, is_known: bool) -> None:
    assert 8 * surplus < MANY
    add_many_routes(MANY)
    before = routes()
    with pytest.raises(NetlinkError) as caught:
        session.set("a", "blue", **COSTLY[0], routes=[Route("10.1.0.0/24", via="10.99.0.1")], surplus=surplus)
    assert (caught.value.errno != errno.EFBIG) is is_known
    assert not hasattr(caught.value, "__notes__")
    assert routes() == before


@pytest.mark.parametrize("count", [5, 9, 1000])
def test_any_number_of_routes_over_another_link_gets_its_source_back(session: Session, count: int) -> None:
    lines = [f"route add 2001:db8:{n:x}:2::/64 dev other src 2001:db8:8::8 metric {n + 1}\n" for n in range(count)]
    with ns.entered("blue"):
        subprocess.run(["ip", "-6", "-batch", "-"], input="".join(lines), text=True, check=True)
    before = routes()
    session.set("a", "blue", addresses=["10.9.9.9/24", "10.8.8.8/24", "2001:db8:8::8/80", "2001:db8:9::9/80"])
    assert routes() == before
