"""Tenants that send events in the kernel's place to all who watch their namespace."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.forging import INDEX, gone_link, new_link, send_event
from tests.witness import ip, poll, seen
from vethlib import End, IfIndexCache, NetnsNotFound, Session, Veth
from vethlib._nl.wire import READ_SIZE
from vethlib.ifindex import noise
from vethlib.monitor import Monitor

LINKS = [new_link(100_000 + number, f"f{number}") for number in range(READ_SIZE // 80)]
"""More than are received at once."""


@pytest.fixture
def pair(session: Session, blue: str, red: str) -> int:
    session.create_many([Veth(End("a", up=False), End("b", "blue", up=False)), Veth(End("c", "red"), End("d"))])
    return session.lookup("b", "blue").index


@pytest.fixture
def cache(session: Session, pair: int) -> Iterator[IfIndexCache]:
    with closing(IfIndexCache(session)) as cache:
        cache.watch_all(["blue", "red", ""])
        yield cache


@pytest.fixture
def coalescing(session: Session, pair: int) -> Iterator[IfIndexCache]:
    with closing(IfIndexCache(session, coalesce=True)) as cache:
        cache.watch_all(["blue", "red", ""])
        cache.changes()
        yield cache


def forged(case: str, index: int) -> list[list[bytes]]:
    """The datagrams to send, each of so many messages."""
    return {
        "one link": [[new_link(INDEX, "b")]],
        "the end of a link": [[gone_link(index)]],
        "a link changed": [[new_link(index, "other")]],
        "a datagram as long as can be": [LINKS],
        "many datagrams": [LINKS[start : start + 10] for start in range(0, 500, 10)],
        "half a message": [[new_link(INDEX, "b")[:-20]]],
    }[case]


CASES = [
    "one link",
    "the end of a link",
    "a link changed",
    "a datagram as long as can be",
    "many datagrams",
    "half a message",
]


@pytest.mark.parametrize("case", CASES)
def test_a_cache_ignores_what_a_tenant_sends(cache: IfIndexCache, pair: int, case: str) -> None:
    for datagram in forged(case, pair):
        send_event("blue", *datagram)
    assert cache.poll() == []
    assert [(link.index, link.name) for link in cache.links("blue")] == [(1, "lo"), (pair, "b")]
    ip("link", "set", "dev", "b", "mtu", "1400", netns="blue")
    assert [(event.kind, event.link and event.link.mtu) for event in cache.poll()] == [("changed", 1400)]


@pytest.mark.parametrize("case", CASES)
def test_a_cache_that_coalesces_ignores_it_too(coalescing: IfIndexCache, pair: int, case: str) -> None:
    for datagram in forged(case, pair):
        send_event("blue", *datagram)
    changes = coalescing.changes()
    assert not changes.links
    assert not changes.lost
    assert [(link.index, link.name) for link in coalescing.links("blue")] == [(1, "lo"), (pair, "b")]


def test_what_a_tenant_sends_counts_by_its_size_when_noise_is_judged(
    coalescing: IfIndexCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a few datagrams, which fill the receive buffer for all namespaces, would always be put up with."""
    monkeypatch.setattr(noise, "NOISY", 1000)
    for _ in range(8):
        send_event("blue", *LINKS)
    assert [str(watch.netns) for watch in coalescing.changes().noisy] == ["blue"]
    with pytest.raises(NetnsNotFound):
        coalescing.links("blue")
    assert {link.name for link in coalescing.links("red")} == {"lo", "c"}


def test_a_monitor_reports_nothing_that_a_tenant_sends(session: Session, pair: int) -> None:
    assert poll(lambda: seen("c", "red")["operstate"] == seen("d")["operstate"] == "UP")  # their carriers may come late
    with Monitor(session) as monitor:
        monitor.poll()
        send_event("blue", new_link(INDEX, "forged"), gone_link(pair))
        ip("link", "set", "dev", "b", "mtu", "1400", netns="blue")
        assert seen("b", "blue")["mtu"] == 1400
        names = {event.name for event in monitor.poll()}
    assert names == {"b"}
