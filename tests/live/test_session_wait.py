"""IPv6 on ends: where it is disabled, and waiting until its addresses can be used."""

from __future__ import annotations

import errno
import time
from typing import Any

import pytest

from tests.live.older_kernel import without_owner_marks
from tests.live.sysctls import sysctl
from tests.refusing import raises
from tests.witness import Listener, addresses, host_state, ip, names, seen
from vethlib import (
    DuplicateAddress,
    End,
    InvalidValue,
    LinkNotFound,
    NetlinkError,
    NotPermitted,
    Session,
    Veth,
    WaitTimeout,
)
from vethlib.session.core import ipv6
from vethlib.session.read import wait
from vethlib.session.write import linksteps


@pytest.fixture
def _quick_detection(blue: str, red: str) -> None:
    """Duplicate address detection in one second instead of up to two."""
    for netns in ("", "blue", "red"):
        sysctl(netns, "ipv6/conf/default/router_solicitation_delay", "0")


def test_an_address_is_given_even_where_new_links_have_no_ipv6(session: Session, blue: str) -> None:
    sysctl("blue", "ipv6/conf/default/disable_ipv6", "1")
    pair = session.create(
        Veth(End("a", "blue", addresses=["10.0.0.1/24", "2001:db8::1/64"]), End("b", "blue", addresses=["10.0.1.1/24"]))
    )
    assert addresses("a", "blue") == ["10.0.0.1/24", "2001:db8::1/64"] == [str(one) for one in pair.a.addresses]
    assert [sysctl("blue", f"ipv6/conf/{name}/disable_ipv6") for name in ("a", "b", "default")] == ["0", "1", "1"]
    session.set("b", "blue", add_addresses=["2001:db8::2/64"], new_name="c")
    assert addresses("c", "blue") == ["10.0.1.1/24", "2001:db8::2/64"]
    assert sysctl("blue", "ipv6/conf/c/disable_ipv6") == "0"


def test_a_loopback_whose_state_is_always_unknown_can_be_used_as_soon_as_it_is_up(session: Session, blue: str) -> None:
    with raises(WaitTimeout, awaited="up"):
        session.set("lo", "blue", up=False, wait=0)
    link = session.set("lo", "blue", up=True, add_addresses=["10.255.0.1/32"], wait=0)
    assert (link.up, link.operstate) == (True, "unknown")
    assert "10.255.0.1/32" in addresses("lo", "blue")


def test_ipv6_is_switched_off_again_where_the_change_fails(session: Session, blue: str) -> None:
    sysctl("blue", "ipv6/conf/default/disable_ipv6", "1")
    session.create(Veth(End("a", "blue"), End("b")))
    before = host_state()
    with raises(NetlinkError, errno=errno.EADDRNOTAVAIL, netns="blue"):
        session.set("a", "blue", addresses=["2001:db8::1/64", "::1/128"])
    assert host_state() == before
    assert sysctl("blue", "ipv6/conf/a/disable_ipv6") == "1"


def test_a_kernel_setting_that_cannot_be_written_takes_the_pair_back(
    session: Session, blue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a container whose /proc/sys is read-only."""
    sysctl("blue", "ipv6/conf/default/disable_ipv6", "1")

    def refuse(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(ipv6, "open", refuse, raising=False)
    before = host_state()
    veth = Veth(End("a", "blue", addresses=["2001:db8::1/64"]), End("b", "blue"))
    with raises(NetlinkError, errno=errno.EROFS, item=veth):
        session.create_many([Veth(End("c"), End("d")), Veth(End("x"), End("y", addresses=["2001:db8::9/64"])), veth])
    assert host_state() == before


def test_an_address_that_is_refused_the_second_time_too_is_an_error(
    session: Session, blue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where switching IPv6 on did not help."""
    sysctl("blue", "ipv6/conf/default/disable_ipv6", "1")
    monkeypatch.setattr(linksteps, "enable_ipv6", lambda *_: {})
    session.create(Veth(End("a", "blue"), End("b")))
    before = host_state()
    with raises(NetlinkError, errno=errno.EACCES, netns="blue") as caught:
        session.set("a", "blue", add_addresses=["2001:db8::1/64"], alias="x")
    assert type(caught.value) is NetlinkError
    assert host_state() == before


@pytest.mark.usefixtures("_quick_detection")
@pytest.mark.parametrize("netns", ["", "blue"])
def test_waiting_ends_when_the_addresses_can_be_used(session: Session, netns: str) -> None:
    pair = session.create(
        Veth(
            End("a", netns, addresses=["2001:db8::1/64", "10.0.0.1/24"]), End("b", "red", addresses=["2001:db8::2/64"])
        ),
        wait=30,
    )
    for link, name, place in ((pair.a, "a", netns), (pair.b, "b", "red")):
        told = seen(name, place)
        assert told["operstate"] == "UP"
        assert link.operstate == "up"
        # The kernel may give a link-local address at any time after the carrier is there (addrconf_dad_work).
        given = [one for one in told["addr_info"] if not one["local"].startswith("fe80:")]
        assert given
        assert not any(one.get("tentative") for one in given)
        there = {str(one) for one in link.addresses if not one.is_link_local}
        assert there == {f"{one['local']}/{one['prefixlen']}" for one in given}
        ours = [one for one in session.addresses(place) if not one.interface.is_link_local]
        assert not any(one.tentative or one.dadfailed for one in ours)


@pytest.mark.usefixtures("_quick_detection")
@pytest.mark.parametrize("netns", ["", "blue"])
@pytest.mark.parametrize("seconds", [1e7, 1e300])
def test_a_wait_may_be_longer_than_what_the_kernel_takes(session: Session, netns: str, seconds: float) -> None:
    pair = session.create(Veth(End("a", addresses=["2001:db8::1/64"]), End("b", netns)), wait=seconds)
    assert (pair.a.operstate, pair.b.operstate) == ("up", "up")


def test_without_waiting_an_address_is_tentative_at_first(session: Session) -> None:
    sysctl("", "ipv6/conf/default/dad_transmits", "30")  # as it is for at least a second anyway
    session.create(Veth(End("a", addresses=["2001:db8::1/64"]), End("b")))
    (told,) = [one for one in seen("a")["addr_info"] if one["local"] == "2001:db8::1"]
    assert told.get("tentative")
    assert any(one.tentative for one in session.addresses())


@pytest.mark.usefixtures("_quick_detection")
def test_a_change_waits_too(session: Session) -> None:
    session.create(Veth(End("a", up=False), End("b", "blue")))
    link = session.set("a", up=True, addresses=["2001:db8::1/64"], wait=30)
    assert link.operstate == "up"
    assert not any(one.get("tentative") for one in seen("a")["addr_info"])


def test_a_wait_that_is_too_short_says_what_is_missing(session: Session, blue: str) -> None:
    with raises(WaitTimeout, awaited="carrier", name="a", netns="", seconds=0.05):
        session.create(Veth(End("a"), End("b", "blue", up=False)), wait=0.05)
    with raises(WaitTimeout, awaited="up", name="b", netns="blue", seconds=0):
        session.set("b", "blue", alias="x", wait=0)
    with raises(WaitTimeout, awaited="detection", name="c", netns="", seconds=3):
        sysctl("", "ipv6/conf/default/dad_transmits", "30")
        session.create(Veth(End("c", addresses=["2001:db8::1/64"]), End("d", "blue")), wait=3)
    assert names() == {"a", "c"}


def test_all_pairs_of_a_call_share_one_wait(session: Session) -> None:
    sysctl("", "ipv6/conf/default/dad_transmits", "0")
    pairs = [Veth(End(f"a{n}", up=False), End(f"b{n}")) for n in range(3)]
    started = time.monotonic()
    with raises(WaitTimeout, awaited="up", name="a0", seconds=0.1):
        session.create_many(pairs, wait=0.1)
    fine = [Veth(End(f"c{n}"), End(f"d{n}")) for n in range(3)]
    assert len(session.create_many(fine, wait=30)) == 3
    assert time.monotonic() - started < 20


@pytest.mark.usefixtures("_quick_detection")
def test_an_address_that_another_has_is_an_error(session: Session) -> None:
    session.create(Veth(End("a", addresses=["2001:db8::1/64"]), End("b", "blue")), wait=30)
    with pytest.raises(DuplicateAddress, match="2001:db8::1") as caught:
        session.set("b", "blue", add_addresses=["2001:db8::1/64"], wait=30)
    assert caught.value.netns == "blue"
    (told,) = [one for one in seen("b", "blue")["addr_info"] if one["local"] == "2001:db8::1"]
    assert told["dadfailed"]


@pytest.mark.usefixtures("_quick_detection")
def test_the_same_address_on_both_ends_is_an_error(session: Session) -> None:
    with pytest.raises(DuplicateAddress):
        session.create(
            Veth(End("a", addresses=["2001:db8::1/64"]), End("b", "blue", addresses=["2001:db8::1/64"])), wait=30
        )


def test_a_duplicate_on_one_end_ends_the_wait_though_the_other_end_still_has_long_to_wait(
    session: Session, blue: str
) -> None:
    # One asks at once, for half a minute; the other, which would ask some time within the hour, has lost by then.
    sysctl("", "ipv6/conf/default/router_solicitation_delay", "0")
    sysctl("", "ipv6/conf/default/dad_transmits", "30")
    sysctl("blue", "ipv6/conf/default/router_solicitation_delay", "3600")
    same = ["2001:db8::1/64"]
    started = time.monotonic()
    with pytest.raises(DuplicateAddress, match="2001:db8::1") as caught:
        session.create(Veth(End("a", addresses=same), End("b", "blue", addresses=same)), wait=25)
    assert time.monotonic() - started < 20
    assert caught.value.netns == "blue"
    assert [one.get("tentative") for one in seen("a")["addr_info"] if one["local"] == "2001:db8::1"] == [True]


@pytest.mark.usefixtures("_quick_detection")
@pytest.mark.parametrize("where", ["all", "default"])
def test_the_same_mac_on_both_ends_is_an_error_where_the_kernel_switches_ipv6_off_for_it(
    session: Session, blue: str, where: str
) -> None:
    for netns in ("", "blue"):
        sysctl(netns, f"ipv6/conf/{where}/accept_dad", "2")
    ends = [End("a", mac="02:00:00:00:00:01", addresses=["2001:db8::1/64"])]
    ends.append(End("b", "blue", mac="02:00:00:00:00:01", addresses=["2001:db8::2/64"]))
    with pytest.raises(DuplicateAddress, match="02:00:00:00:00:01"):
        session.create(Veth(*ends), wait=25)
    lost = [name for name, netns in (("a", ""), ("b", "blue")) if not addresses(name, netns)]
    assert lost


def test_an_address_that_is_taken_away_meanwhile_is_missed(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    session.create(Veth(End("a"), End("b")))
    next_event = wait._next_event

    def take_it(*args: object) -> None:
        if addresses("a"):
            ip("addr", "del", "2001:db8::1/64", "dev", "a")
        next_event(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(wait, "_next_event", take_it)
    with raises(WaitTimeout, awaited="address", name="a", netns="", seconds=0.3):
        session.set("a", add_addresses=["2001:db8::1/64"], wait=0.3)


def test_too_small_an_mtu_for_ipv6_is_refused_beforehand(session: Session, blue: str) -> None:
    with raises(InvalidValue, field="mtu", value=1279):
        End("a", mtu=1279, addresses=["2001:db8::1/64"])
    session.create(Veth(End("a", mtu=1279), End("b", "blue", addresses=["2001:db8::1/64", "10.0.0.1/24"])))
    before = host_state()
    with Listener() as listener:
        changes: tuple[dict[str, Any], ...] = (
            {"add_addresses": ["2001:db8::2/64"]},
            {"addresses": ["2001:db8::2/64"], "mtu": 1000},
            {"addresses": ["2001:db8::2/64"]},
        )
        for change in changes:
            with raises(InvalidValue, field="mtu"):
                session.set("a", **change)
        assert listener.heard() == []
    changes = ({"mtu": 1000}, {"mtu": 68, "remove_addresses": ["10.0.0.1/24"]})
    for change in changes:
        with raises(InvalidValue, field="mtu"):
            session.set("b", "blue", **change)
    assert host_state() == before


def test_the_mtu_and_ipv6_may_come_and_go_together(session: Session) -> None:
    session.create(Veth(End("a", mtu=1000), End("b", mtu=1000)))
    session.set("a", mtu=1280, addresses=["2001:db8::1/64"])
    assert (seen("a")["mtu"], addresses("a")) == (1280, ["2001:db8::1/64"])
    session.set("a", mtu=1279, addresses=["10.0.0.1/24"])
    assert (seen("a")["mtu"], addresses("a")) == (1279, ["10.0.0.1/24"])
    session.set("a", mtu=1280, add_addresses=["2001:db8::1/64"])
    session.set("a", mtu=68, remove_addresses=["2001:db8::1/64"])
    assert (seen("a")["mtu"], addresses("a")) == (68, ["10.0.0.1/24"])


def test_a_link_that_goes_while_it_is_waited_for_is_an_error(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    session.create(Veth(End("a"), End("b", up=False)))
    next_event = wait._next_event

    def delete_it(*args: object) -> None:
        ip("link", "del", "dev", "a")
        next_event(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(wait, "_next_event", delete_it)
    with raises(LinkNotFound, netns=""):
        session.set("a", alias="x", wait=30)


@pytest.mark.parametrize("number", [105, 1])
def test_lost_events_do_not_matter_and_other_failures_do(
    session: Session, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    sysctl("", "ipv6/conf/default/dad_transmits", "0")
    session.create(Veth(End("a"), End("b")))
    calls: list[int] = []

    def events(*_: object) -> list[tuple[int, bytes]]:
        calls.append(1)
        ip("link", "set", "dev", "b", "up")
        raise OSError(number, "no")

    ip("link", "set", "dev", "b", "down")
    monkeypatch.setattr("vethlib.session.read.wait.RtnlSocket.events", events)
    if number == 1:
        with pytest.raises(OSError, match="no"):
            session.set("a", alias="x", wait=30)
    else:
        assert session.set("a", alias="x", wait=30).operstate == "up"
    assert calls


def test_a_listener_that_cannot_be_had_is_an_error(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    session.create(Veth(End("a"), End("b")))

    def refuse(*_: object) -> None:
        raise PermissionError(1, "no")

    monkeypatch.setattr("vethlib.session.core.namespaces.ns.call_at_home", refuse)
    with raises(NotPermitted, errno=errno.EPERM):
        session.set("a", alias="x", wait=1)


@pytest.mark.parametrize("marks", [True, False], ids=["marks", "before 5.18"])
def test_a_link_local_address_that_was_asked_for_is_waited_for_and_the_kernels_own_is_not(
    session: Session, blue: str, monkeypatch: pytest.MonkeyPatch, marks: bool
) -> None:
    if not marks:
        without_owner_marks(monkeypatch)
    started = time.monotonic()
    for netns in ("", "blue"):
        sysctl(netns, "ipv6/conf/default/dad_transmits", "30")
    session.create(Veth(End("a", addresses=["10.0.0.1/24"]), End("b", "blue", addresses=["10.0.0.2/24"])), wait=60)
    assert any(one.get("tentative") for one in seen("a")["addr_info"] if one["family"] == "inet6")
    assert time.monotonic() - started < 25
    for netns in ("", "blue"):
        sysctl(netns, "ipv6/conf/default/dad_transmits", "1")
    session.create(Veth(End("c", addresses=["fe80::1/64"]), End("d", "blue")), wait=30)
    (asked,) = [one for one in seen("c")["addr_info"] if one["local"] == "fe80::1"]
    assert not asked.get("tentative")
