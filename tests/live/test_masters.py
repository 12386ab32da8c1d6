"""The master of an end: attached from its creation, changed, waited for, and left again."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import Any

import pytest

from tests.live.applying import applied, interface, on_trial, planned
from tests.live.configuring import configured, put, settle, states, until, without_detection
from tests.refusing import raises
from tests.witness import ip, names, seen
from vethlib import (
    End,
    InvalidValue,
    LinkExists,
    LinkNotFound,
    NetlinkError,
    NotSupported,
    Route,
    Session,
    Veth,
    VethError,
)
from vethlib.agent.host.execution import execute
from vethlib.agent.reconcile.configurator import Configurator
from vethlib.session.write.masters import find_masters

ADDRESSES = ["10.0.0.1/24", "fd00::1/64"]


@pytest.fixture
def blue(blue: str) -> str:
    without_detection(blue)
    for name in ("br0", "br1"):
        bridge(name)
    return blue


def bridge(name: str) -> None:
    ip("link", "add", name, "up", "type", "bridge", netns="blue")


def master(name: str = "a", netns: str = "blue") -> str:
    """Return the master of a link; "" for none."""
    return str(seen(name, netns).get("master", ""))


def addresses(name: str = "a") -> set[str]:
    (found,) = filter(None, ip("address", "show", "dev", name, "scope", "global", netns="blue"))
    return {f"{each['local']}/{each['prefixlen']}" for each in found["addr_info"] if each}


def ports(name: str = "br0") -> set[str]:
    return {link["ifname"] for link in ip("link", "show", "master", name, netns="blue")}


@pytest.mark.parametrize("read", [True, False])
def test_ends_are_created_with_their_master(session: Session, blue: str, read: bool) -> None:
    session.create_many(
        [Veth(End(f"a{number}", "blue", master="br0"), End(f"b{number}")) for number in range(5)]
        + [Veth(End("a5", "blue", master="br1"), End("b5"))],
        read=read,
    )
    assert ports() == {f"a{number}" for number in range(5)}
    assert ports("br1") == {"a5"}
    assert session.fields("a0", "blue")["master"] == "br0"
    assert session.fields("b0")["master"] == ""


def test_a_link_changes_its_master_and_keeps_its_addresses(session: Session, blue: str) -> None:
    session.create(Veth(End("a", "blue", addresses=ADDRESSES, master="br0"), End("b")))
    session.set("a", "blue", master="br1")
    assert (master(), addresses()) == ("br1", set(ADDRESSES))
    session.set("a", "blue", master="")
    assert (master(), addresses()) == ("", set(ADDRESSES))


def test_a_pair_whose_master_is_missing_is_not_created(session: Session, blue: str) -> None:
    good, bad = Veth(End("a", "blue", master="br0"), End("b")), Veth(End("c", "blue", master="br9"), End("d"))
    with pytest.raises(LinkNotFound) as refused:
        session.create(bad)
    assert "br9" in str(refused.value)
    assert refused.value.item in (None, bad)
    with pytest.raises(VethError):
        session.create_many([good, bad], on_error="continue")
    assert names("blue") == {"br0", "br1", "a"}
    assert names("") == {"b"}


def test_what_cannot_be_a_master_is_refused(session: Session, blue: str) -> None:
    session.create(Veth(End("x", "blue"), End("y")))
    with pytest.raises(NetlinkError) as refused:
        session.create(Veth(End("a", "blue", master="x"), End("b")))
    assert "master x" in str(refused.value)
    assert names("") == {"y"}
    with pytest.raises(NetlinkError):
        session.set("x", "blue", master="x", mtu=1400)
    assert seen("x", "blue")["mtu"] == 1500


def test_a_change_that_is_refused_leaves_the_master_as_it_was(session: Session, blue: str) -> None:
    session.create(Veth(End("a", "blue", master="br0", addresses=ADDRESSES), End("b", "blue")))
    with pytest.raises(LinkExists):
        session.set("a", "blue", master="br1", new_name="b")
    assert (master(), addresses()) == ("br0", set(ADDRESSES))
    with pytest.raises(LinkNotFound) as refused:
        session.set("a", "blue", master="br9", mtu=1400)
    assert "br9" in str(refused.value)
    assert (master(), seen("a", "blue")["mtu"]) == ("br0", 1500)


@pytest.mark.parametrize("bad", ["b", "a", "lo"])
def test_a_link_stays_in_its_bridge_as_it_is_if_the_new_master_takes_no_ports(
    session: Session, blue: str, bad: str
) -> None:
    session.create(Veth(End("a", "blue", master="br0", addresses=ADDRESSES), End("b", "blue")))
    ip("link", "set", "dev", "a", "type", "bridge_slave", "isolated", "on", netns="blue")
    with pytest.raises(NotSupported) as refused:
        session.set("a", "blue", master=bad, mtu=1400)
    assert (refused.value.errno, refused.value.netns) == (errno.EOPNOTSUPP, "blue")
    assert f"its master {bad} takes no ports" in str(refused.value)
    assert not hasattr(refused.value, "__notes__")
    assert (master(), addresses(), seen("a", "blue")["mtu"]) == ("br0", set(ADDRESSES), 1500)
    assert seen("a", "blue")["linkinfo"]["info_slave_data"]["isolated"]


def test_a_link_returns_to_its_bridge_if_the_kernel_refuses_the_new_master(
    session: Session, blue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find_and_delete(*asked: Any) -> Any:
        found = find_masters(*asked)
        ip("link", "del", "br1", netns="blue")
        return found

    session.create(Veth(End("a", "blue", master="br0", addresses=ADDRESSES), End("b", "blue")))
    monkeypatch.setattr("vethlib.session.write.change.find_masters", find_and_delete)
    with pytest.raises(NetlinkError) as refused:
        session.set("a", "blue", master="br1")
    assert "master br1" in str(refused.value)
    assert not hasattr(refused.value, "__notes__")
    assert (master(), addresses()) == ("br0", set(ADDRESSES))


PORT = {"isolated": "on", "hairpin": "on", "learning": "off", "mcast_flood": "off", "cost": "77", "priority": "9"}


@pytest.mark.parametrize("given", [{"master": "br1"}, {"master": ""}, {"master": "br1", "up": False, "mtu": 1400}])
def test_a_port_keeps_its_settings_when_a_change_of_its_master_is_undone(
    session: Session, blue: str, given: dict[str, Any]
) -> None:
    session.create(Veth(End("a", "blue", master="br0"), End("b", "blue")))
    as_new = port()
    ip("link", "set", "dev", "a", "type", "bridge_slave", *(word for pair in PORT.items() for word in pair), netns=blue)
    before = port()
    assert {key for key in before if before[key] != as_new[key]} >= PORT.keys() - {"mcast_flood"}
    with raises(LinkExists, errno=errno.EEXIST) as caught:
        session.set("a", "blue", new_name="b", **given)
    assert not hasattr(caught.value, "__notes__")
    assert (master(), port()) == ("br0", before)


def port() -> dict[str, Any]:
    """What `ip` shows of the link as a port, without its state and timers."""
    data = seen("a", "blue")["linkinfo"]["info_slave_data"]
    return {key: value for key, value in data.items() if key != "state" and not key.endswith("_timer")}


@pytest.mark.parametrize("given", [1, "a/b", "x" * 16])
def test_a_name_that_no_master_has_is_refused(given: Any) -> None:
    with pytest.raises(InvalidValue) as refused:
        End("a", master=given)
    assert refused.value.field == "master"


@pytest.mark.needs_module("vrf")
def test_a_link_in_a_vrf_has_its_addresses_and_routes(session: Session, blue: str) -> None:
    vrf = "red"
    ip("link", "add", vrf, "up", "type", "vrf", "table", "10", netns="blue")
    via = Route("10.9.0.0/16", via="10.0.0.2", table=10)
    session.create(Veth(End("a", "blue", addresses=ADDRESSES, master=vrf, routes=[via]), End("b", "blue")))
    assert (master(), addresses()) == (vrf, set(ADDRESSES))
    assert ip("route", "show", "table", "10", "proto", "118", netns="blue")[0]["dst"] == "10.9.0.0/16"
    session.set("a", "blue", master="")
    assert (master(), addresses()) == ("", set(ADDRESSES))
    session.set("a", "blue", master=vrf, add_addresses=["fd00::2/64"])
    assert (master(), addresses()) == (vrf, {*ADDRESSES, "fd00::2/64"})
    with pytest.raises(LinkExists):
        session.set("a", "blue", master="", new_name="b")
    assert (master(), addresses()) == (vrf, {*ADDRESSES, "fd00::2/64"})


def ends(given: str = "br0", **fields: Any) -> list[Any]:
    attached = {"master": given} if given else {}
    return [interface("a", "b", "blue", **{"ip_addresses": ADDRESSES} | attached | fields), interface("b", "a")]


def test_an_agent_attaches_moves_and_detaches_a_link(session: Session, blue: str) -> None:
    applied(session, *ends())
    assert master() == "br0"
    index = seen("a", "blue")["ifindex"]
    applied(session, *ends("br1"))
    assert master() == "br1"
    ip("link", "set", "dev", "a", "nomaster", netns="blue")
    applied(session, *ends("br1"))
    assert master() == "br1"
    applied(session, *ends(""))
    assert (master(), addresses(), seen("a", "blue")["ifindex"]) == ("", set(ADDRESSES), index)
    ip("link", "set", "dev", "a", "master", "br0", netns="blue")
    applied(session, *ends(""))
    assert master() == "br0"  # which others have done


@pytest.mark.parametrize("tried", [lambda: ends(""), lambda: ends("br1"), lambda: ends("", mtu=1400)])
@pytest.mark.parametrize("before", ["br0", ""])
def test_what_was_tried_with_a_master_is_undone(session: Session, blue: str, tried: Any, before: str) -> None:
    applied(session, *ends(before))
    desired = tried()
    _, undo = on_trial(session, "blue", *desired)
    assert execute(session, undo.plan).errors == []
    assert (master(), addresses(), seen("a", "blue")["mtu"]) == (before, set(ADDRESSES), 1500)


def test_a_pair_that_is_deleted_in_a_trial_is_attached_again(session: Session, blue: str) -> None:
    applied(session, *ends())

    _, undo = on_trial(session, "blue", prune=True)
    assert "a" not in names("blue")
    assert execute(session, undo.plan).errors == []
    assert master() == "br0"


@pytest.fixture
def configurator(session: Session, blue: str) -> Iterator[Configurator]:
    with Configurator(session) as configurator:
        yield configurator


def test_an_interface_waits_for_its_master(configurator: Configurator) -> None:
    put(configurator, *ends("br7"))
    waiting = dict.fromkeys(("a", "b"), "PENDING: master-not-found(br7)")
    until(configurator, lambda: states(configurator) == waiting)
    assert "a" not in names("blue")
    bridge("br7")
    until(configurator, configured(configurator, "a", "b"))
    assert master() == "br7"


def test_a_pair_stays_while_its_master_is_away(configurator: Configurator) -> None:
    put(configurator, *ends())
    until(configurator, configured(configurator, "a", "b"))
    index = seen("a", "blue")["ifindex"]
    ip("link", "del", "br0", netns="blue")
    until(configurator, lambda: states(configurator)["a"] == "PENDING: master-not-found(br0)")
    assert seen("a", "blue")["ifindex"] == index
    bridge("br0")
    until(configurator, configured(configurator, "a", "b"))
    assert (master(), seen("a", "blue")["ifindex"]) == ("br0", index)


@pytest.mark.parametrize("meddle", [["nomaster"], ["master", "br1"], ["down", "nomaster"], ["down", "master", "br1"]])
def test_a_link_that_is_detached_or_moved_is_attached_again_before_the_regular_look(
    session: Session, configurator: Configurator, monkeypatch: pytest.MonkeyPatch, meddle: list[str]
) -> None:
    monkeypatch.setattr("vethlib.agent.reconcile.occasions.UNSEEN", 1e9)
    for number, name in enumerate(("br0", "br1")):  # which do not change themselves when a port comes or goes
        ip("link", "set", "dev", name, "address", f"02:00:00:00:00:0{number}", netns="blue")
    session.create(Veth(End("x0", "blue", master="br0"), End("x1", "blue", master="br1")))
    put(configurator, *ends())
    until(configurator, configured(configurator, "a", "b"))
    for _ in range(2):
        settle(configurator)
        ip("link", "set", "dev", "a", *meddle, netns="blue")
        assert master() != "br0"
        until(configurator, lambda: master() == "br0")


def test_a_link_that_is_not_to_be_attached_any_more_is_detached(configurator: Configurator) -> None:
    put(configurator, *ends())
    until(configurator, configured(configurator, "a", "b"))
    put(configurator, *ends(""))
    until(configurator, lambda: master() == "")


def test_an_agent_and_a_session_take_the_alternative_name_of_a_master(session: Session, blue: str) -> None:
    ip("link", "property", "add", "dev", "br1", "altname", "lan", netns="blue")
    applied(session, *ends("lan"))
    assert master() == "br1"
    desired = ends("lan")
    assert planned(session, *desired).operations == ()
    applied(session, *ends("br0"))
    _, undo = on_trial(session, "blue", *desired)
    assert master() == "br1"
    assert execute(session, undo.plan).errors == []
    assert (undo.left, master()) == ((), "br0")
    session.set("a", "blue", master="lan")
    assert master() == "br1"


def test_an_interface_waits_for_the_alternative_name_of_its_master(configurator: Configurator) -> None:
    put(configurator, *ends("lan"))
    waiting = dict.fromkeys(("a", "b"), "PENDING: master-not-found(lan)")
    until(configurator, lambda: states(configurator) == waiting)
    ip("link", "property", "add", "dev", "br1", "altname", "lan", netns="blue")
    until(configurator, configured(configurator, "a", "b"))
    assert master() == "br1"
    ip("link", "set", "dev", "a", "master", "br0", netns="blue")
    until(configurator, lambda: master() == "br1")
    ip("link", "property", "del", "dev", "br1", "altname", "lan", netns="blue")
    until(configurator, lambda: states(configurator)["a"] == "PENDING: master-not-found(lan)")
