"""If a change fails after others have replaced the link by their own veth, theirs stays as it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from tests.live.reused_identity import foreign_link
from tests.live.sysctls import sysctl
from tests.refusing import raises
from tests.witness import ip, names, peer_of, seen, settled, settled_routes
from vethlib import End, LinkExists, LinkNotFound, Route, Session, Veth
from vethlib._nl.const import RTM_SETLINK
from vethlib.session.core.namespaces import Namespaces, OpenNetns
from vethlib.session.read import sources

IPV6 = "2001:db8::1/64"
FROM_IT = Route("2001:db8:1::/64", src="2001:db8::1")


def replace_by_theirs() -> None:
    """Delete b; others have a link with its ifindex at once, which they have configured."""
    index = seen("b", "blue")["ifindex"]
    ip("link", "del", "dev", "b", netns="blue")
    foreign_link("eth0", index, "blue")
    for setting in (("mtu", "1300"), ("alias", "theirs"), ("group", "7")):
        ip("link", "set", "dev", "eth0", *setting, netns="blue")
    sysctl("blue", "ipv4/conf/eth0/rp_filter", "1")
    for name in ("eth0", "theirs"):
        ip("link", "set", "dev", name, "up", netns="blue")
    ip("address", "add", "10.9.0.1/24", "dev", "eth0", netns="blue")
    ip("address", "add", "fd09::1/64", "dev", "eth0", "nodad", netns="blue")


def theirs() -> tuple[Any, ...]:
    routes = [settled_routes(family, "route", "show", "dev", "eth0", netns="blue") for family in ("-4", "-6")]
    return settled(seen("eth0", "blue")), routes, sysctl("blue", "ipv4/conf/eth0/rp_filter")


@pytest.fixture
def replaced(session: Session, blue: str, red: str) -> list[tuple[Any, ...]]:
    """A pair of blue and red, and the name that another link in blue has; what theirs is like will be in here."""
    sysctl(blue, "ipv6/conf/default/router_solicitation_delay", "0")
    session.create(Veth(End("b", blue, addresses=["10.0.0.1/24"]), End("c", red)))
    session.create(Veth(End("taken", blue), End("taken2", red)))
    return []


def when_first_changed(
    monkeypatch: pytest.MonkeyPatch, replaced: list[tuple[Any, ...]], after: Callable[[], object] = lambda: None
) -> None:
    """Replace the link when the kernel has carried out the first datagram that changes it."""
    begin, run = Namespaces.begin, Namespaces.run
    sent: list[Sequence[bytes]] = []

    def begun(self: Namespaces, place: OpenNetns, requests: Sequence[bytes]) -> Any:
        sent.append(requests)
        return begin(self, place, requests)

    def ran(self: Namespaces, place: OpenNetns, began: Any) -> None:
        run(self, place, began)
        changes = any(int.from_bytes(request[4:6], "little") == RTM_SETLINK for request in sent.pop())
        if changes and not replaced:
            replace_by_theirs()
            replaced.append(theirs())
            after()

    monkeypatch.setattr(Namespaces, "begin", begun)
    monkeypatch.setattr(Namespaces, "run", ran)


CHANGES: list[dict[str, Any]] = [
    {"mtu": 1400, "alias": "ours", "group": 3},
    {"mtu": 1400, "mac": "02:00:00:00:00:07"},
    {"alias": "ours", "up": False, "remove_addresses": ["10.0.0.1/24"]},
    {"mtu": 1200, "ipv6": False, "sysctls": {"ipv4.rp_filter": 2}},
]


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_refused_after_that_is_not_undone_on_theirs(
    session: Session, replaced: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
) -> None:
    when_first_changed(monkeypatch, replaced)
    with pytest.raises(LinkExists):
        session.set("b", "blue", new_name="taken", **change)
    assert replaced == [theirs()]


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_interrupted_then_is_not_undone_on_theirs(
    session: Session, replaced: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    when_first_changed(monkeypatch, replaced, interrupt)
    with pytest.raises(KeyboardInterrupt) as caught:
        session.set("b", "blue", **change)
    assert replaced == [theirs()]
    assert len(caught.value.__notes__) == 1


def when_waiting(monkeypatch: pytest.MonkeyPatch, replaced: list[tuple[Any, ...]]) -> None:
    """Replace the link while the call waits until a source is checked for duplicates."""
    until_checked = sources.until_checked

    def meanwhile(*args: Any) -> Any:
        if not replaced:
            replace_by_theirs()
            replaced.append(theirs())
        return until_checked(*args)

    monkeypatch.setattr(sources, "until_checked", meanwhile)


def test_routes_that_waited_for_their_source_are_not_those_of_theirs(
    session: Session, replaced: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    when_waiting(monkeypatch, replaced)
    routes = [Route("10.5.0.0/16", via="10.9.0.2"), FROM_IT]
    with raises(LinkNotFound, netns="blue"):
        session.set("b", "blue", mtu=1400, alias="ours", add_addresses=[IPV6], routes=routes)
    assert replaced == [theirs()]


def test_nor_are_routes_restored_that_have_to_wait(
    session: Session, replaced: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    routes = [Route("2001:db8:5::/64"), FROM_IT]
    session.set("b", "blue", add_addresses=[IPV6], routes=routes)
    when_waiting(monkeypatch, replaced)
    with pytest.raises(LinkExists):
        session.set("b", "blue", up=False, new_name="taken")
    assert replaced == [theirs()]


def test_a_link_whose_mac_or_peer_others_have_changed_is_as_it_was(
    session: Session, replaced: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = settled(seen("b", "blue"))

    def change() -> None:
        ip("link", "set", "dev", "c", "netns", "blue", netns="red")

    monkeypatch.setattr(f"{__name__}.replace_by_theirs", change)
    monkeypatch.setattr(f"{__name__}.theirs", tuple)
    when_first_changed(monkeypatch, replaced)
    with pytest.raises(LinkExists):
        session.set("b", "blue", new_name="taken", mtu=1400, alias="ours", mac="02:00:00:00:00:07")
    now = settled(seen("b", "blue"))
    assert [now.get(key) for key in ("mtu", "ifalias", "group")] == [
        before.get(key) for key in ("mtu", "ifalias", "group")
    ]
    assert names("blue") >= {"b", "c"}
    assert peer_of(seen("b", "blue"), "blue")[1] is None
