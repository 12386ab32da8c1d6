"""A link whose move is refused is where it was, as it was."""

from __future__ import annotations

from typing import Any

import pytest

from tests.live.configuring import without_detection
from tests.live.over_links import NEIGHBOURS, ROUTES, dependents
from tests.live.refusals import with_names_free_at_first
from tests.live.sysctls import sysctl
from tests.refusing import raises
from tests.witness import host_state, ip, names, seen
from vethlib import End, InvalidValue, LinkExists, Session, Veth

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
    return [links, dependents(), settings, seen("a", "blue")["master"]]


@pytest.mark.needs_kernel("5.12")  # which gives a link that is moved back its ifindex
@pytest.mark.parametrize("default", ["0", "1"])
def test_a_link_that_is_brought_back_is_as_it_was(
    session: Session, full: list[Any], monkeypatch: pytest.MonkeyPatch, default: str
) -> None:
    assert len(full[1]) == 3 + 2 + 2
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
