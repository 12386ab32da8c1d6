"""Links that another program renames, changes, moves or deletes while a call works on them: they are the same links."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest

from tests.live.direct_fields import DIRECT, direct_fields
from tests.live.reused_identity import foreign_link, replaced
from tests.live.sysctls import sysctl
from tests.refusing import raises
from tests.witness import addresses, ip, names, seen
from vethlib import (
    BatchError,
    End,
    IfIndexCache,
    LinkNotFound,
    NetlinkError,
    NetnsNotFound,
    Session,
    Veth,
    VethError,
    WaitTimeout,
    ns,
)
from vethlib._nl.const import RTM_SETLINK
from vethlib.session.core.namespaces import Namespaces, OpenNetns
from vethlib.session.read import wait

Action = Callable[[], object]


def meanwhile(monkeypatch: pytest.MonkeyPatch, action: Action) -> None:
    """Do something once, when a call begins to wait."""
    next_event, left = wait._next_event, [action]

    def once(*args: Any) -> None:
        if left:
            left.pop()()
        next_event(*args)

    monkeypatch.setattr(wait, "_next_event", once)


def after_the_change(monkeypatch: pytest.MonkeyPatch, action: Action, number: int = 1) -> None:
    """Do something when the kernel has carried out that datagram, counted from 1, of those that change links."""
    exchange, begin, run = Namespaces.exchange, Namespaces.begin, Namespaces.run
    sent, left = list[Sequence[bytes]](), [None] * (number - 1) + [action]

    def carried_out(requests: Sequence[bytes]) -> None:
        if left and any(int.from_bytes(request[4:6], "little") == RTM_SETLINK for request in requests):
            (left.pop(0) or (lambda: None))()

    def exchanged(self: Namespaces, place: OpenNetns, requests: Sequence[bytes]) -> Any:
        outcomes = exchange(self, place, requests)
        carried_out(requests)
        return outcomes

    def begun(self: Namespaces, place: OpenNetns, requests: Sequence[bytes]) -> Any:
        sent.append(requests)
        return begin(self, place, requests)

    def ran(self: Namespaces, place: OpenNetns, began: Any) -> None:
        run(self, place, began)
        carried_out(sent.pop())

    monkeypatch.setattr(Namespaces, "exchange", exchanged)
    monkeypatch.setattr(Namespaces, "begin", begun)
    monkeypatch.setattr(Namespaces, "run", ran)


def renames(name: str, to: str, netns: str) -> Action:
    return partial(ip, "link", "set", "dev", name, "name", to, netns=netns)


# --- waiting


@pytest.fixture
def slowly(blue: str, red: str) -> None:
    """Detection takes a second at least, and starts at once."""
    for netns in ("", "blue", "red"):
        sysctl(netns, "ipv6/conf/default/router_solicitation_delay", "0")


IPV6 = ["2001:db8::1/64"]


@pytest.mark.needs_kernel("6.2")  # which renames links that are up
@pytest.mark.usefixtures("slowly")
@pytest.mark.parametrize("on_error", ["rollback", "continue"])
def test_a_pair_is_usable_whatever_its_ends_are_called_by_then(
    session: Session, monkeypatch: pytest.MonkeyPatch, on_error: Any
) -> None:
    meanwhile(monkeypatch, renames("b", "eth0", "blue"))
    veths = [Veth(End("a"), End("b", "blue", addresses=IPV6)), Veth(End("c"), End("d", "red"))]
    first, second = session.create_many(veths, wait=60, on_error=on_error)
    assert [link.name for link in (*first, *second)] == ["a", "eth0", "c", "d"]
    assert (first.b.index, first.b.netns, first.b.operstate) == (seen("eth0", "blue")["ifindex"], "blue", "up")
    assert names() == {"a", "c"}


@pytest.mark.needs_kernel("6.2")
@pytest.mark.usefixtures("slowly")
def test_another_link_that_has_the_name_by_then_is_not_waited_for(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    def swap() -> None:
        renames("b", "eth0", "blue")()
        ip("link", "add", "name", "b", "type", "bridge", netns="blue")

    meanwhile(monkeypatch, swap)
    pair = session.create(Veth(End("a"), End("b", "blue", addresses=IPV6)), wait=60)
    assert pair.b.name == "eth0"
    assert names("blue") == {"eth0", "b"}


@pytest.mark.needs_kernel("6.2")
@pytest.mark.usefixtures("slowly")
def test_a_change_waits_for_a_link_whatever_it_is_called_by_then(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    session.create(Veth(End("a"), End("b", "blue")))
    meanwhile(monkeypatch, renames("b", "eth0", "blue"))
    assert session.set("b", "blue", add_addresses=IPV6, wait=60).name == "eth0"


def another_veth() -> None:
    """Delete the link; others have one with its ifindex at once."""
    index = seen("b", "blue")["ifindex"]
    ip("link", "del", "dev", "b", netns="blue")
    foreign_link("eth0", index, "blue")
    for name in ("eth0", "theirs"):
        ip("link", "set", "dev", name, "up", netns="blue")


LOSSES: dict[str, tuple[Action, type[VethError]]] = {
    "deleted": (partial(ip, "link", "del", "dev", "b", netns="blue"), LinkNotFound),
    "moved": (partial(ip, "link", "set", "dev", "b", "netns", "red", netns="blue"), LinkNotFound),
    "another veth": (another_veth, LinkNotFound),
    "another namespace": (partial(replaced, "blue"), LinkNotFound),
    "no namespace": (partial(ns.remove, "blue"), NetnsNotFound),
}


@pytest.mark.usefixtures("slowly")
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("on_error", ["rollback", "continue"])
def test_an_end_that_is_lost_meanwhile_costs_its_own_pair_only(
    session: Session, monkeypatch: pytest.MonkeyPatch, loss: str, on_error: Any
) -> None:
    lose, error = LOSSES[loss]
    veths = [
        Veth(End("x"), End("y", "red", addresses=IPV6)),
        Veth(End("a"), End("b", "blue", addresses=IPV6)),
        Veth(End("c"), End("d", "red")),
    ]
    meanwhile(monkeypatch, lose)
    with pytest.raises(error if on_error == "rollback" else BatchError) as caught:
        session.create_many(veths, wait=60, on_error=on_error)
    failed = caught.value.exceptions[0] if isinstance(caught.value, BatchError) else caught.value
    assert isinstance(failed, error)
    assert failed.item is veths[1]
    assert [pair.a.name for pair in caught.value.created] == ["x", "c"]
    assert (names(), names("red")) == ({"x", "c"}, {"y", "d"})


@pytest.mark.usefixtures("slowly")
def test_a_change_does_not_wait_for_another_link_in_the_place_of_its_own(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    session.create(Veth(End("a"), End("b", "blue")))
    meanwhile(monkeypatch, another_veth)
    with raises(LinkNotFound, netns="blue"):
        session.set("b", "blue", add_addresses=IPV6, wait=60)
    assert names("blue") == {"eth0", "theirs"}


@pytest.mark.usefixtures("slowly")
@pytest.mark.parametrize("loss", ["deleted", "moved"])
def test_a_single_pair_that_loses_an_end_is_not_left_behind(
    session: Session, monkeypatch: pytest.MonkeyPatch, loss: str
) -> None:
    meanwhile(monkeypatch, LOSSES[loss][0])
    with raises(LinkNotFound, created=[]):
        session.create(Veth(End("a"), End("b", "blue", addresses=IPV6)), wait=60)
    assert names() == names("blue") == names("red") == set()


@pytest.mark.parametrize("netns", ["", "blue"])
def test_addresses_that_others_add_meanwhile_are_not_waited_for(
    session: Session, blue: str, monkeypatch: pytest.MonkeyPatch, netns: str
) -> None:
    """Neither an address that is being checked, nor an address that another host has."""
    sysctl(blue, "ipv6/conf/default/router_solicitation_delay", "0")
    session.create(Veth(End("x", blue, addresses=["2001:db8:7::1/64"]), End("y", netns, up=False)))
    sysctl(netns, "ipv6/conf/default/dad_transmits", "0")
    create = wait.until_usable

    def with_others(*args: Any, **kwargs: Any) -> Any:
        sysctl(netns, "ipv6/conf/a/dad_transmits", "255")
        ip("addr", "add", "2001:db8:9::1/64", "dev", "a", netns=netns)
        return create(*args, **kwargs)

    monkeypatch.setattr(wait, "until_usable", with_others)
    pair = session.create(Veth(End("a", netns, addresses=["10.0.0.1/24"]), End("b")), wait=60)
    assert pair.a.operstate == "up"
    (added,) = [one for one in seen("a", netns)["addr_info"] if one["local"] == "2001:db8:9::1"]
    assert added.get("tentative")


def test_a_duplicate_that_others_add_meanwhile_is_not_this_pairs(
    session: Session, blue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for netns in ("", blue):
        sysctl(netns, "ipv6/conf/default/router_solicitation_delay", "0")

    def add() -> None:
        ip("addr", "add", "2001:db8:9::1/64", "dev", "b", "nodad", netns=blue)
        ip("addr", "add", "2001:db8:9::1/64", "dev", "a")

    meanwhile(monkeypatch, add)
    sysctl("", "ipv6/conf/default/dad_transmits", "4")
    pair = session.create(Veth(End("a", addresses=IPV6), End("b", blue)), wait=60)
    assert "2001:db8:9::1/64" in addresses("a")
    assert pair.a.operstate == "up"


def test_addresses_that_a_link_had_before_a_change_are_waited_for(session: Session, blue: str) -> None:
    sysctl("", "ipv6/conf/default/dad_transmits", "255")
    session.create(Veth(End("a", addresses=IPV6), End("b", blue)))
    with raises(WaitTimeout, awaited="detection", name="a"):
        session.set("a", alias="x", wait=1.0)


# --- changing and moving


CHANGES: dict[str, dict[str, Any]] = {
    "several": {"mtu": 1400, "alias": "x"},
    "addresses": {"mtu": 1400, "addresses": ["10.0.0.1/24"]},
    "a name": {"mtu": 1400, "new_name": "wan"},
    "up": {"mtu": 1400, "up": True, "add_addresses": ["10.0.0.1/24"]},
}


@pytest.mark.needs_kernel("6.2")
@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_made_whatever_the_link_is_called_by_then(
    session: Session, blue: str, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    pair = session.create(Veth(End("a", blue, up=False), End("b")))

    name, number = ("wan", 2) if change == "a name" else ("a", 1)

    def swap() -> None:
        renames(name, "eth0", blue)()
        ip("link", "add", "name", name, "type", "bridge", netns=blue)

    after_the_change(monkeypatch, swap, number)
    link = session.set("a", blue, **CHANGES[change])
    told = seen("eth0", blue)
    assert (link.name, link.index, link.mtu) == ("eth0", pair.a.index, 1400)
    assert (told["ifindex"], told["mtu"]) == (pair.a.index, 1400)
    assert [str(one) for one in link.addresses if one.version == 4] == addresses("eth0", blue)


@pytest.mark.needs_kernel("6.2")
@pytest.mark.parametrize("new_name", [None, "wan"])
@pytest.mark.parametrize("field", DIRECT)
def test_settings_are_those_of_the_link_whatever_it_is_called_by_then(
    session: Session, blue: str, monkeypatch: pytest.MonkeyPatch, field: str, new_name: str | None
) -> None:
    session.create(Veth(End("a", blue), End("b")))
    before: dict[str, Any] = {}

    def swap() -> None:
        renames(new_name or "a", "eth0", blue)()
        ip("link", "add", "name", new_name or "a", "type", "veth", "peer", "name", "theirs", netns=blue)
        before.update(direct_fields(new_name or "a", blue))

    after_the_change(monkeypatch, swap, 2 if new_name else 1)
    session.set("a", blue, mtu=1400, new_name=new_name, **DIRECT[field])
    assert direct_fields(new_name or "a", blue) == before
    assert direct_fields("eth0", blue)[field] != before[field]


BY_OTHERS: dict[str, Callable[[str], Action]] = {
    "renamed": lambda name: renames(name, "eth7", "blue"),
    "a new MAC": lambda name: partial(ip, "link", "set", "dev", name, "address", "02:00:00:00:00:77", netns="blue"),
}


@pytest.mark.parametrize("change", BY_OTHERS)
@pytest.mark.parametrize("index_is_taken", [False, True])
@pytest.mark.parametrize("new_name", [None, "wan"])
def test_a_link_that_is_changed_as_soon_as_it_arrives_has_moved(
    session: Session,
    blue: str,
    monkeypatch: pytest.MonkeyPatch,
    change: str,
    index_is_taken: bool,
    new_name: str | None,
) -> None:
    pair = session.create(Veth(End("a"), End("b")))
    if index_is_taken:
        ip("link", "add", "name", "x", "index", str(pair.a.index), "type", "bridge", netns=blue)
    after_the_change(monkeypatch, BY_OTHERS[change](new_name or "a"))
    link = session.move("a", to=blue, name=new_name)
    told = seen(link.name, blue)
    assert link.name == ("eth7" if change == "renamed" else new_name or "a")
    assert (link.index, link.mac, link.peer_index) == (told["ifindex"], told["address"], pair.b.index)
    assert (link.index == pair.a.index) is not index_is_taken


def test_a_link_whose_name_another_has_taken_where_it_arrives_is_told_from_that(
    session: Session, blue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = session.create(Veth(End("a"), End("b")))

    def swap() -> None:
        renames("a", "eth7", blue)()
        ip("link", "add", "name", "a", "type", "veth", "peer", "name", "z", netns=blue)

    after_the_change(monkeypatch, swap)
    with IfIndexCache(session) as cache:
        cache.watch(blue)
        link = session.move("a", to=blue)
        assert (link.name, link.mac) == ("eth7", pair.a.mac)
        assert cache.index("eth7", blue) == link.index


@pytest.mark.parametrize("end", ["deleted", "moved on"])
def test_a_link_that_is_gone_as_soon_as_it_arrives_is_not_called_unmoved(
    session: Session, blue: str, red: str, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    session.create(Veth(End("a"), End("b")))
    away = ["link", "del", "dev", "a"] if end == "deleted" else ["link", "set", "dev", "a", "netns", red]
    after_the_change(monkeypatch, partial(ip, *away, netns=blue))
    with pytest.raises(NetlinkError) as caught:
        session.move("a", to=blue)
    assert not isinstance(caught.value, LinkNotFound)
    assert caught.value.netns == blue
    assert "a" not in names()
