"""New links that another program renames or replaces before they are configured: nothing is written to another link."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.live.direct_fields import DIRECT, direct_fields
from tests.live.sysctls import sysctl
from tests.refusing import raises
from tests.witness import addresses, ip, names, seen, settled
from vethlib import BatchError, End, LinkNotFound, Pair, Session, Veth
from vethlib.session.core import ipv6
from vethlib.session.read.dying import Patience
from vethlib.session.write.creating import building, configuring

Action = Callable[[], object]

IPV6 = "2001:db8::1/64"


def state(name: str, netns: str) -> dict[str, Any]:
    return direct_fields(name, netns) | {"addresses": addresses(name, netns)}


def stranger(name: str, netns: str) -> dict[str, Any]:
    """Create a link of another program, and return its state."""
    ip("link", "add", "name", name, "type", "veth", "peer", "name", "theirs", netns=netns)
    ip("address", "add", "2001:db8:9::1/64", "dev", name, "nodad", netns=netns)
    return state(name, netns)


def meanwhile(monkeypatch: pytest.MonkeyPatch, action: Action) -> None:
    """Do something once, when pairs were created, and are not configured yet."""
    left = [action]

    def late(*args: Any) -> None:
        if left:
            left.pop()()
        configuring.write_unsent(*args)

    monkeypatch.setattr(building, "write_unsent", late)


def while_waiting(monkeypatch: pytest.MonkeyPatch, action: Action) -> None:
    """Do something once, while the call waits for the name c, which is free after that."""
    freed, left = Patience.freed, [action]

    def late(self: Patience, *args: Any) -> Any:
        if left:
            left.pop()()
            ip("link", "delete", "dev", "c")
        return freed(self, *args)

    monkeypatch.setattr(Patience, "freed", late)


@pytest.mark.parametrize("netns", ["", "blue"])
@pytest.mark.parametrize("field", DIRECT)
def test_settings_are_those_of_the_new_link_whatever_it_is_called_by_then(
    session: Session, blue: str, monkeypatch: pytest.MonkeyPatch, netns: str, field: str
) -> None:
    before = {}

    def swap() -> None:
        ip("link", "set", "dev", "a", "name", "a2", netns=netns)
        before.update(stranger("a", netns))

    meanwhile(monkeypatch, swap)
    veths = [Veth(End("a", netns, **DIRECT[field]), End("b")), Veth(End("x"), End("y", blue))]
    pairs = session.create_many(veths)
    assert state("a", netns) == before
    assert state("a2", netns)[field] != before[field]
    assert [link.name for pair in pairs for link in pair] == ["a2", "b", "x", "y"]


@pytest.mark.parametrize("field", DIRECT)
def test_links_that_exchange_their_names_have_their_own_settings(
    session: Session, blue: str, monkeypatch: pytest.MonkeyPatch, field: str
) -> None:
    def swap() -> None:
        for name, to in (("a", "other"), ("x", "a"), ("other", "x")):
            ip("link", "set", "dev", name, "name", to, netns=blue)

    meanwhile(monkeypatch, swap)
    session.create_many([Veth(End("a", blue, **DIRECT[field]), End("b")), Veth(End("x", blue), End("y"))])
    session.create(Veth(End("usual", blue), End("z")))
    assert state("a", blue)[field] == state("usual", blue)[field] != state("x", blue)[field]


@pytest.mark.parametrize("netns", ["", "blue"])
def test_ipv6_is_enabled_on_the_new_link_whatever_it_is_called_by_then(
    session: Session, blue: str, monkeypatch: pytest.MonkeyPatch, netns: str
) -> None:
    sysctl(netns, "ipv6/conf/default/disable_ipv6", "1")

    def late(*args: Any) -> Any:
        ip("link", "set", "dev", "a", "name", "a2", netns=netns)
        ip("link", "add", "name", "a", "type", "bridge", netns=netns)
        return ipv6.enable_ipv6(*args)

    monkeypatch.setattr(configuring, "enable_ipv6", late)
    session.create(Veth(End("a", netns, addresses=[IPV6], up=False), End("b", "blue")))
    assert sysctl(netns, "ipv6/conf/a/disable_ipv6") == "1"
    assert addresses("a2", netns) == [IPV6]


@pytest.mark.parametrize("field", DIRECT)
def test_a_new_link_that_is_gone_costs_its_own_pair_only(
    session: Session, blue: str, monkeypatch: pytest.MonkeyPatch, field: str
) -> None:
    before = {}

    def swap() -> None:
        ip("link", "delete", "dev", "a", netns=blue)
        before.update(stranger("a", blue))

    meanwhile(monkeypatch, swap)
    veths = [Veth(End("a", blue, **DIRECT[field]), End("b")), Veth(End("x", **DIRECT[field]), End("y", blue))]
    with pytest.raises(BatchError) as caught:
        session.create_many(veths, on_error="continue")
    (error,) = caught.value.exceptions
    assert isinstance(error, LinkNotFound)
    assert error.item is veths[0]
    assert [pair.a.name for pair in caught.value.created] == ["x"]
    assert state("a", blue) == before


@pytest.fixture
def c_is_taken(red: str) -> None:
    """By a link whose peer is in another namespace, and which may thus be about to vanish."""
    ip("link", "add", "name", "c", "type", "veth", "peer", "name", "holder", "netns", red)


ENDS = {
    "one end in home": lambda first: Veth(first, End("b")),
    "the other in home": lambda first: Veth(End("b"), first),
    "no end in home": lambda first: Veth(first, End("b", "red")),
    "no end in home, turned": lambda first: Veth(End("b", "red"), first),
}


@pytest.mark.usefixtures("c_is_taken")
@pytest.mark.parametrize("ends", ENDS)
@pytest.mark.parametrize("given", [{}, {"addresses": ["10.0.0.1/24"], "alias": "ours"}, *DIRECT.values()])
@pytest.mark.parametrize("kind", ["bridge", "veth"])
def test_a_link_that_has_the_ifindex_of_a_new_one_after_a_wait_is_not_taken_for_it(
    session: Session, blue: str, monkeypatch: pytest.MonkeyPatch, ends: str, given: dict[str, Any], kind: str
) -> None:
    before: dict[str, Any] = {}

    def replace() -> None:
        index = seen("a", blue)["ifindex"]
        ip("link", "delete", "dev", "a", netns=blue)
        ip("link", "add", "name", "a", "index", str(index), "type", kind, netns=blue)
        before.update(settled(seen("a", blue)) | state("a", blue))

    while_waiting(monkeypatch, replace)
    veths = [ENDS[ends](End("a", blue, **given)), Veth(End("c"), End("d", blue))]
    with pytest.raises(BatchError) as caught:
        session.create_many(veths, wait=30, on_error="continue")
    (error,) = caught.value.exceptions
    assert isinstance(error, LinkNotFound)
    assert error.item is veths[0]
    assert settled(seen("a", blue)) | state("a", blue) == before
    assert [pair.a.name for pair in caught.value.created] == ["c"]


def test_a_link_that_has_the_ifindex_of_a_new_one_is_not_returned(
    session: Session, blue: str, red: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    complete = building.Slab._complete

    def late(*args: Any) -> None:
        index = seen("a", blue)["ifindex"]
        ip("link", "set", "dev", "a", "netns", red, netns=blue)
        ip("link", "add", "name", "a", "index", str(index), "type", "bridge", netns=blue)
        complete(*args)

    monkeypatch.setattr(building.Slab, "_complete", late)
    with raises(LinkNotFound):
        session.create(Veth(End("a", blue), End("b", red)))
    assert names(blue) == {"a"}


@pytest.mark.usefixtures("c_is_taken")
def test_a_pair_that_others_change_during_a_wait_is_configured(
    session: Session, blue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network manager may rename a new link, or give it another MAC."""
    before: dict[str, Any] = {}

    def change() -> None:
        ip("link", "set", "dev", "a", "name", "a2", "address", "02:00:00:00:00:77")
        before.update(stranger("a", ""))

    while_waiting(monkeypatch, change)
    given: dict[str, Any] = {"ipv6": False, "sysctls": {"rp_filter": "2"}, "addresses": ["10.0.0.1/24"]}
    pairs = session.create_many([Veth(End("a", **given), End("b", blue)), Veth(End("c"), End("d", blue))], wait=30)
    assert [(type(pair), pair.a.name) for pair in pairs] == [(Pair, "a2"), (Pair, "c")]
    assert state("a", "") == before
    assert state("a2", "")["sysctls"][0] == "2"
    assert (sysctl("", "ipv6/conf/a2/disable_ipv6"), addresses("a2")) == ("1", ["10.0.0.1/24"])
    assert names(blue) == {"b", "d"}
