"""Objects with a descriptor in the place of a reference, when that is closed: nobody else notices."""

from __future__ import annotations

import select
import socket
from collections.abc import Callable
from typing import Any

import pytest

from tests.refusing import raises
from tests.witness import ip, names, seen
from vethlib import BatchError, End, IfIndexCache, NetnsNotFound, Session, Veth, ns


class Refusing:
    """Its descriptor is refused with this error."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def fileno(self) -> int:
        raise self._error


class Nonsense:
    def fileno(self) -> Any:
        return "7"


def closed_file() -> Any:
    with open("/run/netns/blue") as file:
        pass
    return file


def closed_epoll() -> Any:
    epoll = select.epoll()
    epoll.close()
    return epoll


def closed_socket() -> Any:
    with socket.socket() as opened:
        pass
    return opened


def closed_netns() -> Any:
    with ns.Netns.open("blue") as netns:
        pass
    return netns


CLOSED = [
    closed_file,
    closed_epoll,
    closed_socket,
    closed_netns,
    lambda: Refusing(OSError("not now")),
    lambda: Refusing(ValueError("closed")),
    Nonsense,
]
closed = pytest.mark.parametrize(
    "closed", CLOSED, ids=["file", "epoll", "socket", "netns", "OSError", "ValueError", "str"]
)


@pytest.mark.usefixtures("blue")
@closed
def test_a_closed_object_leads_to_no_namespace(session: Session, closed: Callable[[], Any]) -> None:
    for call in (session.links, lambda ref: session.lookup("lo", ref), ns.open_fd):
        with raises(NetnsNotFound):
            call(closed())
    assert session.stats_many([("lo", ""), ("lo", closed())], missing_ok=True)[1] is None


@pytest.mark.usefixtures("blue")
@closed
def test_the_other_pairs_of_a_batch_are_made(session: Session, closed: Callable[[], Any]) -> None:
    with raises(BatchError) as caught:
        session.create_many([Veth(End("a"), End("b")), Veth(End("c"), End("d", closed()))], on_error="continue")
    assert [type(error) for error in caught.value.exceptions] == [NetnsNotFound]
    assert names() == {"a", "b"}


class Unreadable(IfIndexCache):
    """A cache whose events cannot be read."""

    kind: type[Exception] = Exception

    def catch_up(self) -> None:
        raise self.kind("cannot be read")


@pytest.mark.parametrize("kind", [RuntimeError, ValueError, NetnsNotFound])
def test_a_cache_that_fails_does_not_make_a_change_fail(session: Session, kind: type[Exception]) -> None:
    with Unreadable(session) as cache:
        cache.kind = kind
        session.attach(cache)
        pair = session.create(Veth(End("a"), End("b")))
        assert seen("a")["ifindex"] == pair.a.index
        session.set("a", mtu=1400)
    assert seen("a")["mtu"] == 1400


def test_a_namespace_whose_object_was_closed_is_lost_by_a_cache_and_no_other(session: Session, blue: str) -> None:
    session.create(Veth(End("a"), End("b", blue)))
    with IfIndexCache(session, receive_buffer=4096) as cache, open(f"/run/netns/{blue}") as file:
        cache.watch("")
        cache.watch(file)
        session.attach(cache)
        file.close()
        for number in range(200):  # more events than the buffer holds
            ip("link", "set", "dev", "b", "mtu", str(1300 + number), netns=blue)
        cache.poll(0)
        assert session.create(Veth(End("c"), End("d"))).a.index == cache.index("c")
