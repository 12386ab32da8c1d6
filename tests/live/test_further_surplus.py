"""However much a tenant adds to its links, an agent reads no more of it than it needs."""

from __future__ import annotations

import errno
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.refusing import raises
from tests.witness import addresses, ip, seen
from vethlib import End, LinkExists, Neighbour, NetlinkError, Route, Session, Veth
from vethlib._nl import direct
from vethlib._nl.dependents.neighbour import parse_neighbour
from vethlib._nl.dependents.route import parse_route
from vethlib.session.read import further

SURPLUS = 20
MANY = 5000
MOST = 8 * SURPLUS  # that are read of a namespace, and a datagram more
IN_A_DATAGRAM = 1000
MAC = "02:00:00:00:00:07"
OURS, FOREIGN = 118, 99


def address(number: int) -> str:
    return f"10.{16 + (number >> 16)}.{number >> 8 & 255}.{number & 255}"


def add(kind: str, link: str, count: int, proto: int, netns: str = "blue", first: int = 0) -> None:
    """Have ip(8) add so many, also of IPv6: half of them."""
    what = "route add {address}/{length}" if kind == "routes" else f"neighbour add {{address}} lladdr {MAC}"
    lines = []
    for number in range(first, first + count // 2):
        for ip_address, length in ((address(number), 32), (f"2001:db8::{number + 1:x}", 128)):
            lines.append(f"{what.format(address=ip_address, length=length)} dev {link} proto {proto}")
    subprocess.run(["ip", "-n", netns, "-batch", "-"], input="\n".join(lines), text=True, check=True)


WANTED: dict[str, Any] = {
    "routes": (Route("10.9.0.0/24"), Route("10.9.1.0/24")),
    "neighbours": (Neighbour("10.0.0.9", MAC), Neighbour("10.0.0.10", MAC)),
}


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[object]]:
    """What has been parsed."""
    parsed: list[object] = []

    def noting(parse: Callable[[bytes], object]) -> Callable[[bytes], object]:
        def noted(body: bytes) -> object:
            parsed.append(None)
            return parse(body)

        return noted

    monkeypatch.setattr(further, "parse_route", noting(parse_route))
    monkeypatch.setattr(further, "parse_neighbour", noting(parse_neighbour))
    return parsed  # type: ignore[return-value]


@pytest.fixture
def link(session: Session, blue: str) -> int:
    session.create(Veth(End("a"), End("b", blue, addresses=["10.0.0.1/8"], **WANTED)))
    return int(seen("b", blue)["ifindex"])


@pytest.mark.parametrize("field", WANTED)
def test_a_part_is_read_that_is_more_than_what_is_wanted(
    session: Session, link: int, parsed: list[object], field: str
) -> None:
    add(field, "b", MANY, OURS)
    (values,) = session.fields_many([("blue", link, {field: WANTED[field]})], surplus=SURPLUS)
    assert isinstance(values, dict)
    assert len(values[field]) >= len(WANTED[field]) + SURPLUS
    assert len(parsed) <= MOST + len(WANTED[field]) + IN_A_DATAGRAM
    (values,) = session.fields_many([("blue", link, {field: WANTED[field]})])
    assert isinstance(values, dict)
    assert len(values[field]) == MANY + len(WANTED[field])


@pytest.mark.parametrize("field", WANTED)
def test_what_is_within_the_limit_is_read_whole(session: Session, link: int, field: str) -> None:
    add(field, "b", SURPLUS, OURS)
    (values,) = session.fields_many([("blue", link, {field: WANTED[field]})], surplus=SURPLUS)
    assert isinstance(values, dict)
    assert set(values[field]) > set(WANTED[field])
    assert len(values[field]) == SURPLUS + len(WANTED[field])


def test_what_other_programs_have_added_may_be_too_much(session: Session, link: int, parsed: list[object]) -> None:
    add("neighbours", "b", MANY, FOREIGN)
    session.create(Veth(End("c"), End("d", "blue")))
    other = int(seen("d", "blue")["ifindex"])
    asked = [("blue", link, {"neighbours": WANTED["neighbours"]}), ("blue", other, {"txqlen": None})]
    asked.append(("", int(seen("a")["ifindex"]), {"neighbours": ()}))
    error, of_other, at_home = session.fields_many(asked, surplus=SURPLUS)
    assert isinstance(error, NetlinkError)
    assert (error.errno, error.netns) == (errno.EFBIG, "blue")
    assert of_other == {"txqlen": 1000}
    assert at_home == {"neighbours": ()}
    assert len(parsed) <= MOST + len(WANTED["neighbours"]) + IN_A_DATAGRAM


@pytest.mark.parametrize("field", WANTED)
def test_all_links_of_a_namespace_have_one_limit(session: Session, link: int, parsed: list[object], field: str) -> None:
    session.create_many([Veth(End(f"x{n}"), End(f"y{n}", "blue")) for n in range(20)])
    indexes = [int(seen(f"y{n}", "blue")["ifindex"]) for n in range(20)]
    for name, first in (("b", 0), ("y0", 3000), ("y1", 6000)):
        add(field, name, MANY, OURS, first=first)
    for links in ([link, *indexes[:3]], [link, *indexes]):
        del parsed[:]
        results = session.fields_many([("blue", index, {field: ()}) for index in links], surplus=SURPLUS)
        assert len(parsed) <= MOST + IN_A_DATAGRAM * len(links[:4])
        for result in results:
            if isinstance(result, dict):
                assert len(result[field]) >= SURPLUS or len(results) < 17
            else:
                assert isinstance(result, NetlinkError)
                assert result.errno == errno.EFBIG
        assert any(isinstance(result, dict) for result in results)


@pytest.mark.parametrize("field", WANTED)
def test_a_home_namespace_has_no_limit(session: Session, field: str) -> None:
    session.create(Veth(End("a", addresses=["10.0.0.1/8"]), End("b")))
    index = int(seen("a")["ifindex"])
    lines = [f"route add {address(n)}/32 dev a proto 118" for n in range(MANY)]
    if field == "neighbours":
        lines = [f"neighbour add {address(n)} lladdr {MAC} dev a proto 118" for n in range(MANY)]
    subprocess.run(["ip", "-batch", "-"], input="\n".join(lines), text=True, check=True)
    (values,) = session.fields_many([("", index, {field: ()})], surplus=SURPLUS)
    assert isinstance(values, dict)
    assert len(values[field]) == MANY


@pytest.mark.parametrize("field", WANTED)
def test_a_change_with_a_limit_is_refused_if_there_is_too_much(session: Session, link: int, field: str) -> None:
    add(field, "b", MANY, OURS if field == "routes" else FOREIGN)
    with raises(NetlinkError, errno=errno.EFBIG):
        session.set("b", "blue", mtu=1400, surplus=SURPLUS, **{field: WANTED[field]})
    assert seen("b", "blue")["mtu"] == 1500
    session.set("b", "blue", surplus=SURPLUS, mtu=1400)
    assert seen("b", "blue")["mtu"] == 1400


def test_a_change_that_costs_the_link_too_much_restores_none_of_it(session: Session, link: int) -> None:
    add("routes", "b", MANY, FOREIGN)
    session.set("b", "blue", surplus=SURPLUS, mac="02:00:00:00:00:42")
    assert seen("b", "blue")["address"] == "02:00:00:00:00:42"


def test_messages_that_fill_the_buffer_do_not_lift_the_limit(
    session: Session, link: int, parsed: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    add("routes", "b", MANY, OURS)
    monkeypatch.setattr(direct, "READ_SIZE", 4096)
    (values,) = session.fields_many([("blue", link, {"routes": ()})], surplus=SURPLUS)
    assert isinstance(values, dict)
    assert len(parsed) <= MOST + IN_A_DATAGRAM


def routes(proto: int = FOREIGN) -> int:
    return sum(len(ip("-N", *version, "route", "show", "proto", str(proto), netns="blue")) for version in ((), ("-6",)))


def neighbours() -> int:
    return len(ip("neighbour", "show", "nud", "permanent", netns="blue"))


COSTLY: dict[str, dict[str, Any]] = {
    "all replaced": {"addresses": ["10.0.0.2/8"]},
    "one removed": {"remove_addresses": ["10.0.0.1/8"]},
    "another order": {"add_addresses": ["10.0.0.2/8"], "address_order": ["10.0.0.2/8", "10.0.0.1/8"]},
    "with routes that are refused": {"addresses": ["10.0.0.2/8"], "routes": [Route("10.9.0.0/24", via="99.0.0.1")]},
}


@pytest.mark.needs_kernel("4.20")
@pytest.mark.parametrize("change", COSTLY.values(), ids=COSTLY)
@pytest.mark.parametrize("field", WANTED)
def test_a_change_of_addresses_that_may_cost_too_much_is_refused_before_it_begins(
    session: Session, link: int, field: str, change: dict[str, Any]
) -> None:
    add(field, "b", MANY, FOREIGN)
    before = addresses("b", "blue"), routes(), routes(OURS), neighbours()
    with raises(NetlinkError, errno=errno.EFBIG) as refused:
        session.set("b", "blue", surplus=SURPLUS, mtu=1400, **change)
    assert field in str(refused.value)
    assert (addresses("b", "blue"), routes(), routes(OURS), neighbours()) == before
    assert seen("b", "blue")["mtu"] == 1500


@pytest.mark.needs_kernel("4.20")
def test_a_change_of_addresses_that_costs_nothing_is_made_beside_any_number(session: Session, link: int) -> None:
    add("routes", "b", MANY, FOREIGN)
    session.set("b", "blue", surplus=SURPLUS, add_addresses=["10.0.0.2/8", "2001:db8:1::1/64"])
    assert {"10.0.0.2/8", "2001:db8:1::1/64"} < set(addresses("b", "blue"))
    assert (routes(), routes(OURS)) == (MANY, len(WANTED["routes"]))


@pytest.mark.needs_kernel("4.20")
@pytest.mark.parametrize("change", [{"up": False}, {"ipv6": False, "up": False}], ids=["down", "down without IPv6"])
def test_a_failed_change_that_costs_too_much_restores_what_is_known_and_notes_the_rest(
    session: Session, link: int, change: dict[str, Any]
) -> None:
    add("routes", "b", MANY, FOREIGN)
    with raises(NetlinkError) as refused:
        session.set("b", "blue", surplus=SURPLUS, routes=[Route("10.9.5.0/24")], **change)
    assert seen("b", "blue")["operstate"] == "UP"
    assert routes(OURS) == len(WANTED["routes"])
    assert any("routes" in note for note in refused.value.__notes__)


@pytest.mark.parametrize("field", WANTED)
def test_a_failed_change_that_costs_nothing_has_no_note_beside_any_number(
    session: Session, link: int, field: str
) -> None:
    add(field, "b", MANY, FOREIGN)
    with raises(NetlinkError) as refused:
        session.set(
            "b", "blue", surplus=SURPLUS, mtu=1400, altnames=["a" * 20], routes=[Route("10.9.5.0/24", via="9.9.9.9")]
        )
    assert not hasattr(refused.value, "__notes__")


def test_without_a_limit_a_failed_change_restores_any_number(session: Session, link: int) -> None:
    add("routes", "b", MANY, FOREIGN)
    with raises(NetlinkError):
        session.set("b", "blue", addresses=["10.0.0.2/8"], routes=[Route("10.9.0.0/24", via="99.0.0.1")])
    assert addresses("b", "blue")[:1] == ["10.0.0.1/8"]
    assert (routes(), routes(OURS)) == (MANY, len(WANTED["routes"]))


@pytest.mark.parametrize("count", [MOST - 20, MOST, MANY])
def test_what_is_not_known_is_not_removed_when_a_change_is_undone(session: Session, link: int, count: int) -> None:
    session.create(Veth(End("c"), End("taken", "blue")))
    add("routes", "b", count, OURS)
    for options in ({"mtu": 1400}, {"add_addresses": ["10.0.0.2/8"]}, {"mac": MAC}):
        with raises(LinkExists):
            session.set("b", "blue", surplus=SURPLUS, altnames=["taken"], **options)
        assert routes(OURS) == count + len(WANTED["routes"])


@pytest.mark.parametrize(
    "change",
    [
        {"add_addresses": ["10.0.0.2/8"], "address_order": ["10.0.0.2/8", "10.0.0.1/8"]},
        {"add_addresses": ["10.0.0.1/8 scope link"]},
        {"addresses": ["10.0.0.1/16"]},
    ],
    ids=["another order", "other attributes", "another prefix length"],
)
def test_an_address_is_not_added_again_if_that_may_cost_too_many_routes_over_other_links(
    session: Session, link: int, change: dict[str, Any]
) -> None:
    session.create(Veth(End("c"), End("d", "blue", addresses=["10.9.9.9/32"])))
    ip("route", "add", "10.7.0.0/24", "dev", "d", "src", "10.0.0.1", "proto", str(FOREIGN), netns="blue")
    add("routes", "d", MANY, FOREIGN)
    with raises(NetlinkError, errno=errno.EFBIG):
        session.set("b", "blue", surplus=SURPLUS, **change)
    assert (addresses("b", "blue"), routes()) == (["10.0.0.1/8"], MANY + 1)
    session.set("b", "blue", addresses=["10.0.0.2/8"], surplus=SURPLUS)
    assert addresses("b", "blue") == ["10.0.0.2/8"]


@pytest.mark.needs_kernel("4.20")
@pytest.mark.parametrize("field", WANTED)
@pytest.mark.parametrize("change", [{}, {"mtu": 1400}, {"up": False}, {"addresses": ["10.0.0.2/8"]}], ids=str)
def test_what_was_read_within_the_limit_is_read_again_when_a_change_is_undone(
    session: Session, link: int, field: str, change: dict[str, Any]
) -> None:
    surplus = 400
    session.create(Veth(End("c"), End("taken", "blue")))
    add(field, "b", 8 * surplus - 200, FOREIGN)
    before = routes(), routes(OURS), neighbours()
    with raises(LinkExists) as refused:
        session.set("b", "blue", surplus=surplus, altnames=["taken"], **change)
    assert not hasattr(refused.value, "__notes__")
    assert (routes(), routes(OURS), neighbours()) == before
