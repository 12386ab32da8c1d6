"""Permanent neighbours of an end: added with it, replaced, restored, and distinguished from foreign ones."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from typing import Any

import pytest

from tests.live.applying import applied, interface, on_trial
from tests.live.configuring import configured, put, until, without_detection
from tests.live.sysctls import sysctl
from tests.witness import ip, names
from vethlib import End, InvalidValue, LinkExists, Neighbour, NetlinkError, Session, Veth
from vethlib.agent.host.execution import execute
from vethlib.agent.reconcile.configurator import Configurator

ADDRESSES = ["10.0.0.1/24", "fd00::1/64"]
MAC, OTHER = "02:00:00:00:00:09", "02:00:00:00:00:0a"
NEIGHBOURS = [Neighbour("10.0.0.9", MAC), Neighbour("10.0.0.10", OTHER), Neighbour("fd00::9", MAC)]
GIVEN = {("10.0.0.9", MAC), ("10.0.0.10", OTHER), ("fd00::9", MAC)}


@pytest.fixture
def blue(blue: str) -> str:
    without_detection(blue)
    return blue


def neighbours(name: str = "a", netns: str = "blue") -> set[tuple[str, str]]:
    """Return the permanent neighbours over a link."""
    found = ip("neighbour", "show", "dev", name, "nud", "permanent", netns=netns)
    return {(each["dst"], each["lladdr"]) for each in found}


def foreign(address: str, mac: str, state: str = "permanent") -> None:
    ip("neighbour", "replace", address, "lladdr", mac, "dev", "a", "nud", state, netns="blue")


def make(session: Session, given: Any = (), **fields: Any) -> None:
    session.create(Veth(End("a", "blue", addresses=ADDRESSES, neighbours=given, **fields), End("b", "blue")))


@pytest.mark.parametrize(("a", "b"), [("", "blue"), ("blue", ""), ("blue", "blue")])
def test_an_end_is_created_with_its_neighbours_and_its_peer_without(
    session: Session, blue: str, a: str, b: str
) -> None:
    session.create_many([Veth(End("a", a, addresses=ADDRESSES[:1], neighbours=NEIGHBOURS), End("b", b))])
    assert neighbours("a", a) == GIVEN
    assert neighbours("b", b) == set()
    assert set(session.fields("a", a)["neighbours"]) == set(NEIGHBOURS)


@pytest.mark.parametrize("proto", [0, 4, 118, 255])
def test_a_neighbour_that_is_given_is_ours_whoever_had_it_when_it_was_read(
    session: Session, blue: str, proto: int
) -> None:
    make(session, [Neighbour("10.0.0.9", MAC, proto)])
    session.set("a", "blue", neighbours=[Neighbour("10.0.0.9", MAC, proto), Neighbour("fd00::9", MAC, proto)])
    assert {each.proto for each in session.fields("a", "blue")["neighbours"]} == {118}
    session.set("a", "blue", neighbours=[])
    assert neighbours() == set()


def test_neighbours_are_replaced_and_those_of_others_stay(session: Session, blue: str) -> None:
    make(session, NEIGHBOURS)
    foreign("10.0.0.77", MAC)
    session.set("a", "blue", neighbours=[Neighbour("10.0.0.9", OTHER), NEIGHBOURS[2]])
    assert neighbours() == {("10.0.0.9", OTHER), ("fd00::9", MAC), ("10.0.0.77", MAC)}
    session.set("a", "blue", neighbours=[])
    assert neighbours() == {("10.0.0.77", MAC)}


def test_a_learned_neighbour_becomes_permanent(session: Session, blue: str) -> None:
    make(session)
    foreign("10.0.0.9", OTHER, "stale")
    session.set("a", "blue", neighbours=NEIGHBOURS)
    assert neighbours() == GIVEN


def test_one_of_others_that_is_equal_stays_theirs(session: Session, blue: str) -> None:
    make(session)
    foreign("10.0.0.9", MAC)
    session.set("a", "blue", neighbours=NEIGHBOURS)
    session.set("a", "blue", neighbours=[])
    assert neighbours() == {("10.0.0.9", MAC)}


def test_a_change_that_is_refused_leaves_the_neighbours_as_they_were(session: Session, blue: str) -> None:
    make(session, NEIGHBOURS[1:])
    foreign("10.0.0.9", OTHER)
    before = neighbours()
    with pytest.raises(LinkExists):
        session.set("a", "blue", new_name="b", neighbours=[NEIGHBOURS[0]], mac="02:00:00:00:00:55")
    assert neighbours() == before
    session.create(Veth(End("low", "blue", ipv6=False), End("low2", "blue")))
    with pytest.raises(NetlinkError) as refused:
        session.set("low", "blue", neighbours=NEIGHBOURS)
    assert "fd00::9" in str(refused.value)
    assert neighbours("low") == set()
    session.set("a", "blue", neighbours=[])
    assert neighbours() == {("10.0.0.9", OTHER)}


def test_one_of_others_that_was_replaced_is_theirs_again_after_a_change_that_is_refused(
    session: Session, blue: str
) -> None:
    make(session)
    foreign("10.0.0.9", OTHER)
    # A link without IPv6 has no neighbour with it, so the second one is refused.
    sysctl("blue", "ipv6/conf/a/disable_ipv6", "1")
    with pytest.raises(NetlinkError):
        session.set("a", "blue", addresses=ADDRESSES[:1], mtu=1400, neighbours=NEIGHBOURS)
    assert neighbours() == {("10.0.0.9", OTHER)}
    session.set("a", "blue", neighbours=[])
    assert neighbours() == {("10.0.0.9", OTHER)}


def test_a_pair_whose_neighbour_is_refused_is_not_created(session: Session, blue: str) -> None:
    sysctl("blue", "ipv6/conf/default/disable_ipv6", "1")
    with pytest.raises(NetlinkError) as refused:
        session.create(Veth(End("a", "blue", neighbours=NEIGHBOURS), End("b", "blue")))
    assert "fd00::9" in str(refused.value)
    assert names("blue") == set()


@pytest.mark.parametrize(
    "given",
    [
        "10.0.0.9",
        {"ip": "10.0.0.9", "mac": MAC},
        [1],
        [{"ip": "10.0.0.9"}],
        [{"mac": MAC}],
        [{"ip": "10.0.0.9", "mac": MAC, "dev": "a"}],
        [{"ip": "10.0.0.9/24", "mac": MAC}],
        [{"ip": "here", "mac": MAC}],
        [{"ip": "0.0.0.0", "mac": MAC}],
        [{"ip": "224.0.0.1", "mac": MAC}],
        [{"ip": "fe80::1%eth0", "mac": MAC}],
        [{"ip": "10.0.0.9", "mac": "02:00"}],
        [{"ip": "10.0.0.9", "mac": "00:00:00:00:00:00"}],
        [{"ip": "10.0.0.9", "mac": MAC}, {"ip": "10.0.0.9", "mac": OTHER}],
    ],
)
def test_neighbours_that_make_no_sense_are_refused(given: Any) -> None:
    with pytest.raises(InvalidValue) as refused:
        End("a", neighbours=given)
    assert refused.value.field == "neighbours"


def test_an_end_that_is_down_has_no_neighbours() -> None:
    with pytest.raises(InvalidValue) as refused:
        End("a", neighbours=NEIGHBOURS, up=False)
    assert refused.value.field == "neighbours"


def test_neighbours_are_values() -> None:
    given = Neighbour("10.0.0.9", "0200.0000.0009")
    assert given == NEIGHBOURS[0] == pickle.loads(pickle.dumps(given))
    assert str(given) == f"10.0.0.9 lladdr {MAC}"
    assert End("a", neighbours=[given]) == End("a", neighbours=[{"ip": "10.0.0.9", "mac": MAC}])  # type: ignore[list-item]


def ends(given: Any = (), **fields: Any) -> list[Any]:
    listed = [neighbour.as_dict() for neighbour in given]
    return [
        interface("a", "b", "blue", **{"ip_addresses": ADDRESSES, "neighbours": listed} | fields),
        interface("b", "a", "blue"),
    ]


def test_an_agent_adds_changes_and_removes_neighbours_and_leaves_those_of_others(session: Session, blue: str) -> None:
    applied(session, *ends(NEIGHBOURS))
    assert neighbours() == GIVEN
    foreign("10.0.0.77", MAC)
    ip("neighbour", "del", "10.0.0.10", "dev", "a", netns="blue")
    foreign("10.0.0.9", OTHER)
    applied(session, *ends(NEIGHBOURS))
    assert neighbours() == {*GIVEN, ("10.0.0.77", MAC)}
    applied(session, *ends())
    assert neighbours() == {("10.0.0.77", MAC)}


def test_neighbours_survive_a_change_of_the_mac_address(session: Session, blue: str) -> None:
    applied(session, *ends(NEIGHBOURS))
    applied(session, *ends(NEIGHBOURS, phys_address="02:00:00:00:00:55"))
    assert neighbours() == GIVEN


def test_a_disabled_interface_has_no_neighbours_and_gets_them_when_it_is_enabled(session: Session, blue: str) -> None:
    applied(session, *ends(NEIGHBOURS, enabled=False))
    assert neighbours() == set()
    applied(session, *ends(NEIGHBOURS))
    assert neighbours() == GIVEN


@pytest.mark.parametrize(
    "tried",
    [
        ends,
        lambda: ends(NEIGHBOURS[1:]),
        lambda: ends([Neighbour("10.0.0.9", OTHER), Neighbour("10.0.0.77", OTHER)]),
        lambda: ends(NEIGHBOURS, phys_address="02:00:00:00:00:55"),
        lambda: ends(enabled=False),
    ],
)
def test_what_was_tried_with_neighbours_is_undone(session: Session, blue: str, tried: Any) -> None:
    applied(session, *ends(NEIGHBOURS))
    foreign("10.0.0.77", MAC)
    before = {*GIVEN, ("10.0.0.77", MAC)}
    desired = tried()
    done, undo = on_trial(session, "blue", *desired)
    assert done
    assert execute(session, undo.plan).errors == []
    # The kernel removes those of others with a link that is set down, and when its MAC address changes.
    assert GIVEN <= neighbours() <= before
    if done[0].changes.keys().isdisjoint({"up", "mac"}):  # type: ignore[union-attr]
        assert neighbours() == before


@pytest.fixture
def configurator(session: Session, blue: str) -> Iterator[Configurator]:
    with Configurator(session) as configurator:
        put(configurator, *ends(NEIGHBOURS))
        until(configurator, configured(configurator, "a", "b"))
        yield configurator


def test_drift_of_neighbours_is_put_right_by_the_next_look(configurator: Configurator) -> None:
    assert neighbours() == GIVEN
    ip("neighbour", "del", "10.0.0.10", "dev", "a", netns="blue")
    foreign("fd00::9", OTHER)
    configurator.resync(ends(NEIGHBOURS))
    until(configurator, lambda: neighbours() == GIVEN)


def test_an_interface_without_neighbours_costs_no_dump_of_them(
    session: Session, blue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError

    monkeypatch.setattr("vethlib.session.read.further._neighbours", refuse)
    desired = ends(routes=[{"dst": "10.7.0.0/16"}], txqlen=7)
    applied(session, *desired)
    applied(session, *desired)
