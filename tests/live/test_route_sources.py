"""Routes whose source is an IPv6 address of the end itself, which the kernel first checks for duplicates."""

from __future__ import annotations

import errno
from types import SimpleNamespace
from typing import Any

import pytest

from tests.live.applying import applied, interface
from tests.live.sysctls import sysctl
from tests.witness import addresses, ip, names
from vethlib import BatchError, End, LinkExists, Neighbour, NetlinkError, Route, Session, Veth
from vethlib._primitives import time
from vethlib.session.read import sources
from vethlib.session.write.creating.create import Made


def routes(name: str, netns: str = "") -> set[tuple[str, str, str]]:
    """Return (destination, gateway, source) of the IPv6 routes of ours over a link."""
    found = ip("-6", "route", "show", "dev", name, "proto", "118", netns=netns)
    return {(each["dst"], each.get("gateway", ""), each.get("prefsrc", "")) for each in found}


def as_seen(given: list[Route]) -> set[tuple[str, str, str]]:
    return {(str(each).split()[0], str(each.via or ""), str(each.src or "")) for each in given}


ENDS = [
    (["fd00::1/64"], [Route("fd07::/64", via="fd00::2", src="fd00::1")]),
    (["fd00::1/64", "fd00::5/64"], [Route("default", via="fd00::2", src="fd00::5"), Route("fd08::/64", src="fd00::1")]),
    # The gateway is reached by a route that has to wait for its source.
    (["fd00::1/128"], [Route("fd10::/64", src="fd00::1"), Route("fd11::/64", via="fd10::1")]),
]


@pytest.mark.parametrize(("given", "over"), ENDS)
def test_a_pair_is_created_with_routes_from_its_new_addresses(
    session: Session, blue: str, given: list[str], over: list[Route]
) -> None:
    session.create(Veth(End("a", "blue", addresses=given, routes=over), End("b")))
    assert routes("a", "blue") == as_seen(over)


def veth(number: int, *, up: bool = True) -> Veth:
    """Return a pair whose ends each have a route from their own address; without `up`, that is never checked."""
    over = [Route("fd07::/64", via=f"fd00:{number}::2", src=f"fd00:{number}::1", table=100 + number)]
    a = End(f"a{number}", "blue", addresses=[f"fd00:{number}::1/64"], routes=over)
    over = [Route("fd08::/64", via=f"fd00:{number}::1", src=f"fd00:{number}::2", table=100 + number)]
    if not up:
        return Veth(a, End(f"b{number}", "red", up=False))
    return Veth(a, End(f"b{number}", "red", addresses=[f"fd00:{number}::2/64"], routes=over))


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Count the seconds that a session waits for sources; on a busy machine, they are fewer, not more."""
    slept: list[float] = []
    sleep = time.sleep

    def sleeping(seconds: float) -> None:
        slept.append(seconds)
        sleep(seconds)

    monkeypatch.setattr(sources, "time", SimpleNamespace(monotonic=time.monotonic, sleep=sleeping))
    return slept


# A session builds 64 pairs at a time. A check takes one to two seconds.
@pytest.mark.parametrize("count", [12, 64, 200])
def test_many_pairs_wait_together_for_their_sources(
    session: Session, blue: str, red: str, count: int, waits: list[float]
) -> None:
    told: list[tuple[int, int]] = []
    made: list[Made] = []
    veths = [veth(number) for number in range(count)]
    pairs = session.create_many(veths, progress=lambda *done: told.append(done), made=made.extend)
    assert sum(waits) < 3.5
    for netns in ("blue", "red"):
        assert len(ip("-6", "route", "show", "table", "all", "proto", "118", netns=netns)) == count
    assert [pair.a.name for pair in pairs] == [each.a.name for each in veths]
    assert sorted(each.pair.a.name for each in made) == sorted(pair.a.name for pair in pairs)
    assert told[-1] == (count, count)
    assert told == sorted(told)


@pytest.mark.parametrize("bad", [3, 69])
def test_pairs_are_taken_back_if_one_of_them_has_waited_in_vain(
    session: Session, blue: str, red: str, bad: int
) -> None:
    veths = [veth(number, up=number != bad) for number in range(70)]
    with pytest.raises(NetlinkError) as refused:
        session.create_many(veths)
    assert refused.value.item == veths[bad]
    assert "carrier" in str(refused.value)
    assert (names("blue"), names("red")) == (set(), set())
    with pytest.raises(BatchError) as failed:
        session.create_many(veths, on_error="continue")
    assert [error.item for error in failed.value.exceptions] == [veths[bad]]
    assert len(failed.value.created) == 69
    assert names("blue") == {f"a{number}" for number in range(70) if number != bad}


def test_pairs_are_taken_back_if_waiting_for_their_sources_is_interrupted(
    session: Session, blue: str, red: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> dict[object, str]:
        raise KeyboardInterrupt

    monkeypatch.setattr(sources, "until_checked", interrupted)
    with pytest.raises(KeyboardInterrupt):
        session.create_many([veth(number) for number in range(70)])
    assert (names("blue"), names("red")) == (set(), set())


def test_a_namespace_that_has_been_replaced_while_others_were_built_is_left_alone(
    session: Session, blue: str, red: str
) -> None:
    def replaced(done: int, total: int) -> None:
        if len(names("blue")) == 70 and not replaced_by:
            ip("netns", "del", "blue")
            ip("netns", "add", "blue")
            ip("link", "add", "name", "a3", "type", "bridge", netns="blue")
            replaced_by.append(ip("link", "show", netns="blue"))

    replaced_by: list[object] = []
    with pytest.raises(NetlinkError):
        session.create_many([veth(number) for number in range(70)], progress=replaced)
    assert ip("link", "show", netns="blue") == replaced_by[0]


@pytest.mark.parametrize(("given", "over"), ENDS)
def test_a_link_is_given_addresses_and_routes_from_them(
    session: Session, blue: str, given: list[str], over: list[Route]
) -> None:
    session.create(Veth(End("a", "blue", addresses=["10.0.0.1/24"]), End("b")))
    session.set("a", "blue", addresses=given, routes=over)
    assert routes("a", "blue") == as_seen(over)
    assert set(addresses("a", "blue")) == set(given)


def test_routes_from_an_address_are_restored_with_it(session: Session, blue: str) -> None:
    given, over = ENDS[0]
    session.create(Veth(End("a", "blue", addresses=given, routes=over), End("b", "blue")))
    with pytest.raises(LinkExists):
        session.set("a", "blue", new_name="b", up=False, routes=[])
    assert addresses("a", "blue") == given
    assert routes("a", "blue") == as_seen(over)


def test_a_route_from_an_address_that_is_never_checked_is_refused_with_the_reason(session: Session, blue: str) -> None:
    given, over = ENDS[0]
    with pytest.raises(NetlinkError) as refused:
        session.create(Veth(End("a", "blue", addresses=given, routes=over), End("b", up=False)))
    assert refused.value.errno == errno.EINVAL
    assert all(word in str(refused.value) for word in ("fd00::1", "carrier", "nodad"))
    assert (names("blue"), names()) == (set(), set())
    session.create(Veth(End("a", "blue"), End("b", up=False)))
    with pytest.raises(NetlinkError) as refused:
        session.set("a", "blue", addresses=given, routes=over)
    assert refused.value.errno == errno.EINVAL
    assert all(word in str(refused.value) for word in ("fd00::1", "carrier", "nodad"))
    assert addresses("a", "blue") == []
    session.set("a", "blue", addresses=["fd00::1/64 nodad"], routes=over)
    assert routes("a", "blue") == as_seen(over)


def test_a_route_from_an_address_that_another_host_has_is_refused_with_the_reason(session: Session, blue: str) -> None:
    given, over = ENDS[0]
    session.create(Veth(End("a", "blue"), End("b", addresses=given)), wait=20)
    with pytest.raises(NetlinkError) as refused:
        session.set("a", "blue", addresses=given, routes=over)
    assert "another host on the link has its source fd00::1" in str(refused.value)
    assert (addresses("a", "blue"), routes("a", "blue")) == ([], set())


def test_a_route_from_an_address_that_the_link_does_not_have_is_refused_at_once(
    session: Session, blue: str, waits: list[float]
) -> None:
    with pytest.raises(NetlinkError) as refused:
        end = End("a", "blue", addresses=["fd00::1/64"], routes=[Route("fd07::/64", via="fd00::2", src="fd00::9")])
        session.create(Veth(end, End("b")))
    assert refused.value.errno == errno.EINVAL
    assert waits == []
    assert names() == set()


def test_apply_waits_for_the_sources_of_routes(session: Session, blue: str) -> None:
    given, over = ENDS[1]
    listed = [route.as_dict() for route in over]
    applied(session, interface("a", "b", "blue", ip_addresses=given, routes=listed), interface("b", "a"))
    assert routes("a", "blue") == as_seen(over)


LATE: list[dict[str, Any]] = [
    {"routes": [Route("default", via="fd00::2")]},
    {"routes": [Route("fd07::/64", via="fd00::2", src="fd00::1"), Route("10.7.0.0/16", via="10.0.0.2")]},
    {"neighbours": [Neighbour("fd00::9", "02:00:00:00:00:09"), Neighbour("10.0.0.9", "02:00:00:00:00:08")]},
]


@pytest.mark.parametrize("late", LATE)
@pytest.mark.parametrize("how", ["create", "set"])
def test_routes_and_neighbours_are_added_where_new_links_have_no_ipv6(
    session: Session, blue: str, late: dict[str, Any], how: str
) -> None:
    sysctl("blue", "ipv6/conf/default/disable_ipv6", "1")
    given = {"addresses": ["fd00::1/64", "10.0.0.1/24"], **late}
    if how == "create":
        session.create(Veth(End("a", "blue", **given), End("b")))
    else:
        session.create(Veth(End("a", "blue"), End("b")))
        session.set("a", "blue", **given)
    expected = [each for each in late.get("routes", ()) if each.network.version == 6]
    assert routes("a", "blue") == as_seen(expected)
    added = {each["dst"] for each in ip("neighbour", "show", "dev", "a", "nud", "permanent", netns="blue")}
    assert added == {str(each.ip) for each in late.get("neighbours", ())}
