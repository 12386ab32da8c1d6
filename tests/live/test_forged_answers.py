"""Tenants that answer in the kernel's place what vethlib asks in their namespace."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Protocol

import pytest

from tests.forging import INDEX, Forgeries, forging, new_link
from tests.refusing import raises
from tests.witness import ip, names, seen
from vethlib import End, IfIndexCache, LinkExists, Session, Veth
from vethlib import _primitives as primitives
from vethlib._nl.events import EventSocket
from vethlib._nl.sock import RtnlSocket
from vethlib.pytest_netns.leaks import watched_links
from vethlib.topology.impair import relay


@pytest.fixture
def scene(session: Session, blue: str) -> None:
    session.create_many([Veth(End("a"), End("b", "blue")), Veth(End("c"), End("d", "blue"))])


@pytest.fixture
def forgeries(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Forgeries]]:
    """The sockets that were opened, beside each of which a tenant answers before the kernel."""
    Forgeries.opened = []
    monkeypatch.setattr(primitives.socket, "SocketType", Forgeries)
    yield Forgeries.opened
    assert sum(one.attempts for one in Forgeries.opened)
    assert not sum(one.arrived for one in Forgeries.opened)


def look_up(session: Session) -> object:
    return session.lookup("b", "blue").index, session.lookup("a").peer_index


def look_up_many(session: Session) -> object:
    return [link.index for link in session.lookup_many([("b", "blue"), ("a", "")])]


def list_links(session: Session) -> object:
    return [(link.name, link.index, link.addresses) for link in session.links("blue")]


def survey(session: Session) -> object:
    return [(one.ref, one.link.name, one.link.addresses) for one in session.survey(["", "blue"]).links]


def inspect(session: Session) -> object:
    return session.inspect([("", "a"), ("blue", "b")])


def take_fingerprints(session: Session) -> object:
    return session.fingerprints(["", "blue"])


def count(session: Session) -> object:
    return session.stats_many([("b", "blue")])[0].index


def watch(session: Session) -> object:
    with closing(IfIndexCache(session)) as cache:
        cache.watch_all(["", "blue"])
        return [link.name for link in cache.links("blue")]


@pytest.mark.parametrize(
    "look",
    [look_up, look_up_many, list_links, survey, inspect, take_fingerprints, count, watch],
    ids=lambda f: f.__name__,
)
def test_a_tenant_cannot_answer_a_question(
    scene: None, session: Session, look: Callable[[Session], object], request: pytest.FixtureRequest
) -> None:
    truth = look(session)
    request.getfixturevalue("forgeries")
    with Session() as another:
        assert look(another) == truth


def test_a_tenant_cannot_have_the_link_of_another_deleted(scene: None, forgeries: list[Forgeries]) -> None:
    with Session() as session:
        session.delete("b", "blue")
    assert names("blue") == {"d"}
    assert names() == {"c"}


def test_a_tenant_cannot_acknowledge_a_change(scene: None, forgeries: list[Forgeries]) -> None:
    with Session() as session:
        session.set("b", "blue", mtu=1400, alias="x")
        assert seen("b", "blue")["mtu"] == 1400
        with raises(LinkExists):
            session.create(Veth(End("e"), End("d", "blue")))
    assert names() == {"a", "c"}


def open_listener() -> RtnlSocket:
    return RtnlSocket([1])


class Opened(Protocol):
    def fileno(self) -> int: ...

    def close(self) -> None: ...


@pytest.mark.parametrize(
    "open_socket",
    [
        RtnlSocket,
        open_listener,
        lambda: EventSocket([1], 1 << 20),
        lambda: relay._sockets([])[0],
        watched_links._hear,
    ],
    ids=["requests", "waiting", "events", "relay", "leaks"],
)
def test_no_socket_that_lasts_receives_what_others_send_to_it(home: object, open_socket: Callable[[], Opened]) -> None:
    with closing(open_socket()) as opened, socket.socket(socket.AF_NETLINK, socket.SOCK_RAW) as tenant:
        with socket.socket(fileno=os.dup(opened.fileno())) as copy:
            port, _ = copy.getsockname()
        with raises(ConnectionRefusedError):
            tenant.sendto(new_link(INDEX, "lo"), (port, 0))


def test_a_tenant_that_answers_as_fast_as_it_can_is_never_believed(scene: None, session: Session) -> None:
    """The numbers are those of a new socket, if they began with 1; its port is the process id."""
    victim = session.lookup("a").index
    forged = [new_link(INDEX, "b", sequence, peer=victim) for sequence in (1, 9)]
    truth = seen("b", "blue")["ifindex"]
    with forging("blue", forged, seconds=60, port=os.getpid()):
        for _ in range(1500):
            assert session.lookup("b", "blue").index == truth
        for _ in range(300):
            assert session.lookup_many([("b", "blue"), ("d", "blue")])[0].index == truth
            assert {link.name for link in session.links("blue")} == {"lo", "b", "d"}
        session.delete("d", "blue")
    assert names() == {"a"}
    assert {link["ifname"] for link in ip("link", netns="blue")} == {"lo", "b"}
