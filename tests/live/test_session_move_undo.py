"""A link whose move is refused stays where and as it was."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import Any

import pytest

from tests.live.configuring import without_detection
from tests.live.over_links import NEIGHBOURS, ROUTES, dependents
from tests.live.refusals import refused, with_names_free_at_first
from tests.live.sysctls import sysctl
from tests.refusing import raises
from tests.witness import addresses, host_state, ip, names, seen
from vethlib import End, IfIndexCache, InvalidValue, LinkExists, Session, Veth
from vethlib._nl.batch import Outcome
from vethlib._nl.const import RTM_NEWLINK, RTM_SETLINK
from vethlib.session.core.namespaces import Namespaces, OpenNetns

SETTINGS = {"ipv4.rp_filter": "2", "ipv6.accept_ra": "0", "ipv6.hop_limit": "9"}


@pytest.fixture
def full(session: Session, blue: str, red: str) -> list[Any]:
    """A link of a bridge with routes, neighbours, settings and an alternative name; returns all that."""
    without_detection(blue)
    given: dict[str, Any] = {"routes": ROUTES, "neighbours": NEIGHBOURS, "sysctls": SETTINGS, "master": "br0"}
    ip("link", "add", "name", "br0", "up", "type", "bridge", netns="blue")
    session.create(
        Veth(End("a", "blue", addresses=["10.0.0.1/24", "fd00::1/64"], altnames=["x"], **given), End("b", "blue"))
    )
    ip("link", "set", "dev", "a", "type", "bridge_slave", "isolated", "on", "cost", "77", netns="blue")
    ip("route", "add", "10.70.0.0/16", "via", "10.0.0.2", "dev", "a", "proto", "186", netns="blue")
    ip("neighbour", "add", "10.0.0.8", "lladdr", "02:00:00:00:00:09", "dev", "a", "nud", "noarp", netns="blue")
    return state()


def state() -> list[Any]:
    settings = [sysctl("blue", f"{name[:4]}/conf/a/{name[5:]}") for name in SETTINGS]
    links = {
        netns: [
            {key: value for key, value in link.items() if key != "linkinfo"}
            for link in found
            if link["ifname"] != "br0"
        ]
        for netns, found in host_state().items()  # without the timers of the bridge
    }
    link = seen("a", "blue")
    port = link["linkinfo"]["info_slave_data"]
    return [links, dependents(), settings, (link["master"], port["isolated"], port["cost"])]


@pytest.mark.needs_kernel("5.12")  # which gives a link that is moved back its ifindex
@pytest.mark.parametrize("default", ["0", "1"])
def test_a_link_that_is_brought_back_is_as_it_was(
    session: Session, full: list[Any], monkeypatch: pytest.MonkeyPatch, default: str
) -> None:
    assert len(full[1]) == 3 + 2 + 2 + 3
    sysctl("blue", "ipv6/conf/default/disable_ipv6", default)
    ip("link", "add", "name", "wan0", "type", "bridge", netns="red")
    before = state()
    with_names_free_at_first(monkeypatch)
    with raises(LinkExists, netns="red") as caught:
        session.move("a", "blue", to="red", name="wan0")
    assert "'wan0' already exists" in str(caught.value)
    assert "'x'" not in str(caught.value)
    assert getattr(caught.value, "__notes__", []) == []
    assert state() == before


def named_alike(name: str) -> dict[str, Any]:
    """Return what `ip` shows of a link, but for its name."""
    link = {key: value for key, value in seen(name, "blue").items() if key not in ("ifname", "addr_info")}
    return link | {"addresses": addresses(name, "blue")}


def test_another_link_that_has_taken_the_name_of_a_moved_one_is_left_alone(
    session: Session, full: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    ip("link", "add", "name", "wan0", "type", "bridge", netns="red")
    ip("link", "add", "name", "z", "type", "veth", "peer", "name", "y", netns="blue")
    ip("address", "add", "fd01::1/64", "dev", "z", netns="blue")
    before = named_alike("z")
    sysctl("blue", "ipv4/conf/z/rp_filter", "1")
    exchange = Namespaces.exchange

    def meddling(self: Namespaces, place: OpenNetns, requests: Sequence[bytes]) -> list[Outcome]:
        outcomes = exchange(self, place, requests)
        if outcomes[0].errno == errno.EEXIST and "z" in names("blue"):
            ip("link", "set", "dev", "z", "name", "a", netns="blue")
        return outcomes

    with_names_free_at_first(monkeypatch)
    monkeypatch.setattr(Namespaces, "exchange", meddling)
    with raises(LinkExists, netns="red") as caught:
        session.move("a", "blue", to="red", name="wan0")
    assert "'wan0' already exists" in str(caught.value)
    (note,) = caught.value.__notes__
    assert "bring it back" in note
    assert named_alike("a") == before
    assert sysctl("blue", "ipv4/conf/a/rp_filter") == "1"
    assert "a" in names("red")


@pytest.mark.parametrize("renamed", [False, True])
@pytest.mark.parametrize("number", [errno.EEXIST, errno.EINVAL])  # Linux 5.10 has the latter for a taken name
def test_the_link_that_has_the_name_is_named_even_if_it_has_the_same_mac(
    session: Session, blue: str, red: str, monkeypatch: pytest.MonkeyPatch, number: int, renamed: bool
) -> None:
    mac = "02:00:00:00:00:77"
    session.create(Veth(End("a", "blue", mac=mac), End("b", "blue")))
    session.create(Veth(End("w" if renamed else "a", "red", mac=mac), End("b", "red")))
    if renamed:
        with_names_free_at_first(monkeypatch)
    with refused(monkeypatch, number, RTM_NEWLINK, RTM_SETLINK, times=1), raises(LinkExists, netns="red") as caught:
        session.move("a", "blue", to="red", name="w" if renamed else None)
    assert f"{'w' if renamed else 'a'!r} already exists" in str(caught.value)
    assert (names("blue"), names("red")) == ({"a", "b"}, {"w" if renamed else "a", "b"})


def test_a_move_is_undone_as_the_kernel_has_it_and_not_as_a_cache_knows_it(
    session: Session, full: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    ip("link", "add", "name", "wan0", "type", "bridge", netns="red")
    with IfIndexCache(session) as cache:
        cache.watch("blue")
        session.set("a", "blue", addresses=["10.0.0.1/24"])
        assert session.index("a", "blue")
        sysctl("blue", "ipv6/conf/a/disable_ipv6", "1")
        with_names_free_at_first(monkeypatch)
        with raises(LinkExists, netns="red"):
            session.move("a", "blue", to="red", name="wan0")
        assert sysctl("blue", "ipv6/conf/a/disable_ipv6") == "1"


@pytest.mark.parametrize("name", ["x", "all", "default"])
def test_a_name_that_the_link_cannot_have_is_refused_before_it_is_moved(
    session: Session, full: list[Any], name: str
) -> None:
    heard = ip("link", "show", netns="red")
    with pytest.raises(InvalidValue) as caught:
        session.move("a", "blue", to="red", name=name)
    assert caught.value.field == "name"
    assert state() == full
    assert ip("link", "show", netns="red") == heard


def test_a_link_keeps_its_alternative_names_when_it_is_moved_and_renamed(session: Session, full: list[Any]) -> None:
    moved = session.move("a", "blue", to="red", name="wan0")
    assert (moved.name, moved.altnames, names("red")) == ("wan0", ("x",), {"wan0"})
