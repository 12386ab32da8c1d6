"""A cache with addresses=True reports when addresses are added and removed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.witness import ip, poll
from vethlib import End, IfIndexCache, Session, Veth


@pytest.fixture
def cache(session: Session, blue: str) -> Iterator[IfIndexCache]:
    session.create(Veth(End("a", up=False), End("b", blue, up=False)))
    with IfIndexCache(session, addresses=True) as cache:
        cache.watch_all(["", blue])
        yield cache


def told(cache: IfIndexCache, count: int = 0) -> list[tuple[str, str, str, int]]:
    """(kind, link, address, proto) of every event that is about an address; of so many at least.

    The kernel tells of an IPv6 address of a link when its own thread has come to it, not before ``ip`` has ended.
    """
    found: list[tuple[str, str, str, int]] = []

    def enough() -> bool:
        found.extend(
            (event.kind, event.link.name, str(event.address.interface), event.address.proto)
            for event in cache.poll()
            if event.address is not None and event.link is not None
        )
        return len(found) >= count

    poll(enough)
    return found


def test_an_address_that_is_given_and_taken_is_told(cache: IfIndexCache) -> None:
    ip("address", "add", "10.0.0.1/24", "dev", "b", netns="blue")
    ip("address", "add", "2001:db8::1/64", "dev", "b", "nodad", netns="blue")
    assert told(cache, 2) == [("address", "b", "10.0.0.1/24", 0), ("address", "b", "2001:db8::1/64", 0)]
    ip("address", "del", "10.0.0.1/24", "dev", "b", netns="blue")
    ip("address", "del", "2001:db8::1/64", "dev", "b", netns="blue")
    assert told(cache, 2) == [("address-gone", "b", "10.0.0.1/24", 0), ("address-gone", "b", "2001:db8::1/64", 0)]


@pytest.mark.needs_kernel("5.18")
def test_an_address_says_who_gave_it(cache: IfIndexCache, session: Session) -> None:
    session.set("a", add_addresses=["10.0.0.2/24"], address_proto=0x76)
    assert told(cache) == [("address", "a", "10.0.0.2/24", 0x76)]


def test_the_addresses_of_a_link_that_goes_are_told_before_it_goes(cache: IfIndexCache) -> None:
    ip("address", "add", "10.0.0.1/24", "dev", "b", netns="blue")
    cache.poll()
    ip("link", "del", "dev", "b", netns="blue")
    kinds = [event.kind for event in cache.poll() if event.link is None or event.link.name == "b"]
    assert kinds.index("address-gone") < kinds.index("deleted")


def test_an_address_event_knows_the_namespace_and_the_link(cache: IfIndexCache) -> None:
    ip("address", "add", "10.0.0.1/24", "dev", "b", netns="blue")
    (event,) = cache.poll()
    assert event.netns == "blue"
    assert event.link == cache.link("b", "blue")
    assert event.old is None


def test_a_cache_that_was_not_asked_tells_of_none(session: Session, blue: str) -> None:
    session.create(Veth(End("a", up=False), End("b", blue, up=False)))
    with IfIndexCache(session) as cache:
        cache.watch(blue)
        ip("address", "add", "10.0.0.1/24", "dev", "b", netns="blue")
        assert cache.poll() == []


def test_addresses_there_are_already_make_no_events(session: Session, blue: str) -> None:
    session.create(Veth(End("a", up=False), End("b", blue, up=False, addresses=["10.0.0.1/24"])))
    with IfIndexCache(session, addresses=True) as cache:
        cache.watch(blue)
        assert cache.poll() == []
