"""Lost events, and how the cache recovers from them."""

from __future__ import annotations

import asyncio
import errno
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.live.following import Copy, assert_right, told
from tests.live.looking import counted_looks
from tests.refusing import raises
from tests.witness import ip, rename
from vethlib import End, LinkNotFound, NetlinkError, Netns, Session, Veth, ns
from vethlib._nl import dump
from vethlib._nl.const import NLM_F_DUMP_INTR, NLMSG_DONE
from vethlib._nl.dump import link_bodies
from vethlib._nl.link import set_link
from vethlib._nl.sock import RtnlSocket
from vethlib._nl.wire import messages
from vethlib.ifindex import IfIndexCache, LinkEvent, dumps, reader, watching
from vethlib.monitor import Monitor
from vethlib.ns import entering

TINY = 8192


@pytest.fixture
def cache(session: Session, blue: str, red: str) -> Iterator[IfIndexCache]:
    """Watches blue and red, where the pair va ⇄ vb is; a few events are enough to overflow it."""
    session.create(Veth(End("va", "blue", up=False), End("vb", "red", up=False)))
    with IfIndexCache(session, receive_buffer=TINY) as cache:
        cache.watch_all(["blue", "red"])
        yield cache


@contextmanager
def inside(netns: str | Netns) -> Iterator[RtnlSocket]:
    with Netns.open(netns) as held:
        sock = ns.call_in(held.fileno(), RtnlSocket)
    try:
        yield sock
    finally:
        sock.close()


@contextmanager
def alarm(seconds: float) -> Iterator[None]:
    """Fail instead of waiting any longer."""

    def fail(*_: object) -> None:
        raise AssertionError(f"still waiting after {seconds} s")

    before = signal.signal(signal.SIGALRM, fail)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def overflow(netns: str = "blue", name: str = "va") -> None:
    """More events than fit; the last of them leaves the link as it was."""
    (index,) = [link["ifindex"] for link in ip("link", netns=netns) if link["ifname"] == name]
    with inside(netns) as sock:
        sock.exchange([set_link(index, mtu=1000 + n % 100) for n in range(200)] + [set_link(index, mtu=1500)])


def test_what_was_lost_is_made_up_for_and_only_the_differences_are_told(session: Session, cache: IfIndexCache) -> None:
    copy = Copy(cache, ["blue", "red"])
    overflow()
    rename("va", "vz", "blue")
    ip("link", "add", "v1", "type", "veth", "peer", "name", "v2", "netns", "red", netns="blue")
    events = told(copy.poll())
    after = events[events.index(("resync", None, None, None)) + 1 :]
    assert after[0][0] == "renamed"
    assert sorted(after[1:]) == [("new", "blue", "v1", None), ("new", "red", "v2", None)]
    assert copy.resyncs == 1
    copy.assert_same()
    assert_right(cache, ["blue", "red"])
    ip("link", "set", "v1", "mtu", "1400", netns="blue")
    assert told(copy.poll()) == [("changed", "blue", "v1", "v1")]
    copy.assert_same()


def test_a_link_deleted_and_one_that_took_its_name_are_told_apart(session: Session, cache: IfIndexCache) -> None:
    copy = Copy(cache, ["blue", "red"])
    overflow()
    ip("link", "del", "va", netns="blue")
    ip("link", "add", "va", "type", "veth", "peer", "name", "vb", "netns", "red", netns="blue")
    events = told(copy.poll())
    after = events[events.index(("resync", None, None, None)) + 1 :]
    assert after == [
        ("deleted", "blue", None, "va"),
        ("new", "blue", "va", None),
        ("deleted", "red", None, "vb"),
        ("new", "red", "vb", None),
    ]
    copy.assert_same()


def test_a_namespace_that_ended_while_events_were_lost_is_noticed(
    session: Session, cache: IfIndexCache, make_netns: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even where the news of its end is lost, and another namespace has its name."""
    make_netns("mortal")
    cache.watch("mortal")
    overflow()
    ns.remove("mortal")
    make_netns("mortal")
    with monkeypatch.context() as patch:
        patch.setattr(reader.EventReader, "_apply_end", lambda *_: None)
        heard: list[object] = []
        while ("netns-gone", "mortal", None, None) not in heard:
            overflow()
            heard += told(cache.poll())
    assert ("resync", None, None, None) in heard
    cache.watch("mortal")
    assert_right(cache, ["mortal", "blue", "red"])


def test_a_namespace_that_no_reference_leads_to_is_read_by_its_id(
    session: Session, cache: IfIndexCache, spawn: Callable[[str], int]
) -> None:
    """Its name is gone or another's; a process is still in it."""
    pids = [spawn("blue"), spawn("red")]
    before = cache.link("va", "blue"), cache.link("vb", "red")
    ns.remove("blue")
    ns.remove("red")
    Netns.create("red").close()
    copy = Copy(cache, ["blue", "red"])
    ip("link", "add", "v1", "type", "veth", "peer", "name", "v2", netns=f"pid:{pids[0]}")
    overflow(f"pid:{pids[0]}")
    ip("link", "set", "v2", "name", "v3", netns=f"pid:{pids[0]}")
    copy.poll()
    assert copy.resyncs == 1
    copy.assert_same()
    assert (cache.link("va", "blue"), cache.link("vb", "red")) == before
    assert sorted(link.name for link in cache.links("blue")) == ["lo", "v1", "v3", "va"]
    with Netns.open(f"pid:{pids[0]}") as held:
        assert [link.peer_netnsid for link in session.links(held)] == [link.peer_netnsid for link in cache.links(held)]
    # Reading by id gave ids to namespaces that nobody watched: one that is watched later keeps it.
    cache.watch_all(["red", ""])
    assert_right(cache, ["red", "", f"pid:{pids[0]}"])


@pytest.mark.parametrize("receive_buffer", [1 << 20, TINY])
def test_what_happens_while_a_namespace_is_dumped_is_not_lost_and_not_told(
    session: Session, receive_buffer: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def meddled() -> list[bytes]:
        """Runs inside the namespace that is dumped."""
        monkeypatch.setattr(dumps, "link_bodies", link_bodies)
        ip("link", "add", "name", "before", "type", "bridge")
        bodies = link_bodies()
        ip("link", "add", "name", "after", "type", "bridge")
        ip("link", "del", "before")
        return bodies

    Netns.create("green").close()
    with IfIndexCache(session, receive_buffer=receive_buffer) as cache:
        monkeypatch.setattr(dumps, "link_bodies", meddled)
        cache.watch("green")
        assert [link.name for link in cache.links("green")] == ["lo", "after"]
        assert {event.kind for event in cache.poll()} <= {"resync"}
        assert_right(cache, ["green"])


def test_a_resync_that_fails_is_made_up_for_later(cache: IfIndexCache, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = Copy(cache, ["blue", "red"])

    def fail() -> list[bytes]:
        raise OSError(12, "Cannot allocate memory")

    overflow()
    with monkeypatch.context() as patch:
        patch.setattr(dumps, "link_bodies", fail)
        with raises(NetlinkError, errno=errno.ENOMEM):
            cache.poll()
        with pytest.raises(NetlinkError):
            cache.catch_up()
    rename("va", "vz", "blue")
    copy.poll()
    copy.assert_same()
    assert cache.index("vz", "blue") == 2


def test_a_storm_without_an_end_does_not_keep_a_poll_from_returning(
    cache: IfIndexCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stormy() -> list[bytes]:
        bodies = link_bodies()
        overflow()
        return bodies

    with monkeypatch.context() as patch:
        patch.setattr(dumps, "link_bodies", stormy)
        overflow()
        events = cache.poll(None)
        assert 1 <= [event.kind for event in events].count("resync") <= watching._RESYNCS
        cache.catch_up()
    assert "resync" in [event.kind for event in cache.poll(1)]
    assert_right(cache, ["blue", "red"])


def test_an_event_too_long_to_read_is_lost_for_its_own_namespace_alone(
    cache: IfIndexCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = counted_looks(monkeypatch)
    cache._watching._observatories._all[0].links._size = 64
    rename("va", "vz", "blue")
    assert told(cache.poll()) == [("resync", "blue", None, None), ("renamed", "blue", "vz", "va")]
    assert len(looks) == 1


def test_a_dump_torn_by_a_change_is_taken_again(blue: str, session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel says so with a flag on any part of the answer."""
    torn = 3

    def flagged(datagram: bytes) -> Iterator[tuple[int, int, int, int, int]]:
        nonlocal torn
        for kind, flags, sequence, start, end in messages(datagram):
            if torn and kind == NLMSG_DONE:
                torn -= 1
                flags |= NLM_F_DUMP_INTR
            yield kind, flags, sequence, start, end

    monkeypatch.setattr(dump, "messages", flagged)
    with IfIndexCache(session) as cache:
        cache.watch("blue")
        assert [link.name for link in cache.links("blue")] == ["lo"]
        torn = 1000
        Netns.create("green").close()
        cache.watch("green")  # put together of those that were torn
        assert [link.name for link in cache.links("green")] == ["lo"]


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOBUFS])
def test_a_namespace_that_cannot_be_entered_any_more_keeps_no_other_from_being_read_again(
    session: Session, cache: IfIndexCache, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    enter, blue = entering._enter, session.identity("blue")

    def refuse(fd: int, kind: int) -> None:
        if ns.identity(fd) == blue:
            raise NetlinkError("refused", errno=number)
        enter(fd, kind)

    overflow()
    rename("vb", "vz", "red")
    monkeypatch.setattr(entering, "_enter", refuse)
    cache.poll()
    assert cache.index("vz", "red")
    assert cache.index("va", "blue")  # as it was known


def in_doubt(cache: IfIndexCache, monkeypatch: pytest.MonkeyPatch, poll: Callable[[], object] | None = None) -> None:
    """Let an event of blue be lost, and the dump that makes up for it fail."""

    def fail() -> list[bytes]:
        raise OSError(errno.EIO, "Input/output error")

    for observatory in cache._watching._observatories._all:
        observatory.links._size = 64
    rename("va", "vz", "blue")
    with monkeypatch.context() as patch:
        patch.setattr(dumps, "link_bodies", fail)
        (poll or cache.poll)()


def test_a_monitor_waits_no_longer_than_for_a_dump_that_is_to_be_repeated(
    session: Session, blue: str, red: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    session.create(Veth(End("va", "blue", up=False), End("vb", "red", up=False)))
    with Monitor(session) as monitor, alarm(30):
        in_doubt(monitor._cache, monkeypatch, monitor.poll)
        events = monitor.poll(None)
        while not any(event.name == "vz" for event in events):
            events = monitor.poll(None)


MADE_UP_FOR = [("resync", "blue", None, None), ("renamed", "blue", "vz", "va")]


@pytest.mark.parametrize("timeout", [None, 60])
def test_a_dump_that_is_to_be_repeated_is_not_waited_for_until_another_event(
    cache: IfIndexCache, monkeypatch: pytest.MonkeyPatch, timeout: float | None
) -> None:
    in_doubt(cache, monkeypatch)
    began = time.monotonic()
    with alarm(30):
        assert told(cache.poll(timeout)) == MADE_UP_FOR
    assert time.monotonic() - began < 30


def test_nor_by_an_iteration(cache: IfIndexCache, monkeypatch: pytest.MonkeyPatch) -> None:
    async def follow() -> list[LinkEvent]:
        events = cache.events()
        return [await asyncio.wait_for(anext(events), 30) for _ in MADE_UP_FOR]

    in_doubt(cache, monkeypatch)
    assert told(asyncio.run(follow())) == MADE_UP_FOR


def test_the_time_of_the_next_dump_is_known_to_an_event_loop(
    cache: IfIndexCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cache.due() is None
    in_doubt(cache, monkeypatch)
    due = cache.due()
    assert due is not None
    time.sleep(max(0.0, due - time.monotonic()))
    assert told(cache.poll()) == MADE_UP_FOR
    assert cache.due() is None


def test_a_session_asks_the_kernel_about_a_namespace_in_doubt(
    session: Session, cache: IfIndexCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    identity = session.identity("blue")
    ip("link", "set", "va", "up", netns="blue")
    cache.poll()
    assert cache.find(identity, "va") is not None
    in_doubt(cache, monkeypatch)
    assert cache.find(identity, "va") is None
    assert cache.index("va", "blue") == 2
    with raises(LinkNotFound):
        session.stats("va", "blue")
