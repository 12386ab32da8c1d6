"""The events of IfIndexCache, and the ways to wait for them."""

from __future__ import annotations

import asyncio
import errno
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from struct import pack

import pytest

from tests.live.following import Copy, Told, assert_right, told
from tests.refusing import raises
from tests.witness import ip, open_fds, poll
from vethlib import End, NetlinkError, Netns, Session, SessionClosed, Veth, ns
from vethlib._nl.events import EventSocket
from vethlib._nl.link import get_link, parse_link, set_link
from vethlib._nl.sock import RtnlSocket
from vethlib._nl.wire import attribute, message
from vethlib.ifindex import IfIndexCache, LinkEvent, reader
from vethlib.ifindex import cache as cache_module


@pytest.fixture
def cache(session: Session, blue: str, red: str) -> Iterator[IfIndexCache]:
    """Watches blue and red, where the pair va ⇄ vb is, down."""
    session.create(Veth(End("va", "blue", up=False), End("vb", "red", up=False)))
    with IfIndexCache(session) as cache:
        cache.watch_all(["blue", "red"])
        yield cache


def readable(fd: int, timeout: float = 0) -> bool:
    return bool(select.select([fd], [], [], timeout)[0])


def test_what_there_is_when_watching_begins_is_not_told(cache: IfIndexCache) -> None:
    assert cache.poll() == []


def test_creating_and_deleting_is_told_in_both_namespaces(session: Session, cache: IfIndexCache) -> None:
    ip("link", "add", "v1", "type", "veth", "peer", "name", "v2", "netns", "red", netns="blue")
    events = told(cache.poll())
    assert set(events) >= {("new", "blue", "v1", None), ("new", "red", "v2", None)}
    ip("link", "del", "v1", netns="blue")
    events = told(cache.poll())
    assert set(events) == {("deleted", "blue", None, "v1"), ("deleted", "red", None, "v2")}


def test_a_change_is_told_with_what_was_and_what_is(cache: IfIndexCache) -> None:
    ip("link", "set", "va", "mtu", "1400", netns="blue")
    (event,) = cache.poll()
    assert (event.kind, event.netns) == ("changed", "blue")
    assert event.old is not None
    assert event.link is not None
    assert (event.old.mtu, event.link.mtu) == (1500, 1400)
    assert event.link == cache.link("va", "blue")


def test_a_new_name_is_told_as_such(cache: IfIndexCache) -> None:
    ip("link", "set", "va", "name", "vc", netns="blue")
    assert told(cache.poll()) == [("renamed", "blue", "vc", "va")]
    assert cache.index("vc", "blue") == 2


def test_a_move_is_told_as_deleted_here_and_new_there(cache: IfIndexCache) -> None:
    ip("link", "set", "va", "netns", "red", netns="blue")
    events = [event for event in told(cache.poll()) if event[0] != "changed"]
    assert events == [("deleted", "blue", None, "va"), ("new", "red", "va", None)]
    assert_right(cache, ["blue", "red"])


def test_an_event_that_changes_nothing_is_not_told(cache: IfIndexCache) -> None:
    ip("link", "set", "va", "promisc", "on", netns="blue")
    ip("link", "set", "va", "txqueuelen", "77", netns="blue")
    ip("address", "add", "10.0.0.1/24", "dev", "va", netns="blue")
    assert cache.poll() == []


def test_the_end_of_a_namespace_is_told_once_and_takes_its_links_along(session: Session, cache: IfIndexCache) -> None:
    session.create(Veth(End("v1", "blue", up=False), End("v2", "blue", up=False)))
    cache.poll()
    ns.remove("blue")
    heard: list[LinkEvent] = []
    while len(heard) < 2:
        heard += cache.poll(5)
    assert sorted(told(heard), key=str) == [("deleted", "red", None, "vb"), ("netns-gone", "blue", None, None)]
    assert cache.poll(0.1) == []


def test_polling_waits_for_an_event_and_no_longer_than_it_may(cache: IfIndexCache) -> None:
    begin = time.monotonic()
    assert cache.poll(0.2) == []
    assert 0.19 < time.monotonic() - begin < 20
    timer = threading.Timer(0.1, ip, ("link", "set", "va", "mtu", "1400"), {"netns": "blue"})
    timer.start()
    assert told(cache.poll(None)) == [("changed", "blue", "va", "va")]
    timer.join()


@pytest.mark.parametrize("seconds", [1e7, 1e300])
def test_polling_may_wait_longer_than_what_the_kernel_takes(cache: IfIndexCache, seconds: float) -> None:
    timer = threading.Timer(0.1, ip, ("link", "set", "va", "mtu", "1400"), {"netns": "blue"})
    timer.start()
    assert told(cache.poll(seconds)) == [("changed", "blue", "va", "va")]
    timer.join()


def test_noise_from_a_namespace_that_is_not_watched_does_not_end_a_wait(session: Session, cache: IfIndexCache) -> None:
    cache.unwatch("red")
    timer = threading.Timer(0.05, ip, ("link", "set", "vb", "mtu", "1400"), {"netns": "red"})
    timer.start()
    begin = time.monotonic()
    assert cache.poll(0.3) == []
    assert time.monotonic() - begin > 0.29
    timer.join()


def test_the_descriptor_is_readable_exactly_when_there_is_something_to_poll(cache: IfIndexCache) -> None:
    fd = cache.fileno()
    assert not readable(fd)
    ip("link", "set", "va", "mtu", "1400", netns="blue")
    assert readable(fd)
    cache.catch_up()  # applied, not fetched
    assert readable(fd)
    assert len(cache.poll()) == 1
    assert not readable(fd)
    assert cache.poll() == []
    ip("link", "set", "va", "mtu", "1300", netns="blue")
    assert readable(fd, 1)
    assert len(cache.poll()) == 1
    assert not readable(fd)


def test_the_descriptor_serves_an_epoll_loop_of_others(cache: IfIndexCache) -> None:
    with select.epoll() as loop:
        loop.register(cache, select.EPOLLIN)
        assert loop.poll(0) == []
        ip("link", "set", "va", "mtu", "1400", netns="blue")
        assert loop.poll(20) == [(cache.fileno(), select.EPOLLIN)]
        cache.poll()
        assert loop.poll(0) == []


def test_events_that_nobody_fetches_are_bounded_and_the_loss_is_told(
    session: Session, blue: str, red: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_module, "_MOST_PENDING", 5)
    session.create(Veth(End("va", "blue", up=False), End("vb", "red", up=False)))
    with IfIndexCache(session) as cache:
        cache.watch("blue")
        for mtu in range(1000, 1008):
            ip("link", "set", "va", "mtu", str(mtu), netns="blue")
            cache.catch_up()
        assert cache.link("va", "blue").mtu == 1007
        first, *rest = cache.poll()
        assert first == LinkEvent("resync", None)
        assert [event.link and event.link.mtu for event in rest] == [1003, 1004, 1005, 1006, 1007]
        assert cache.poll() == []
        assert not readable(cache.fileno())


# --- asyncio


def test_events_are_iterated_over_in_an_event_loop(cache: IfIndexCache) -> None:
    async def follow() -> list[Told]:
        heard: list[LinkEvent] = []
        asyncio.get_running_loop().call_later(0.1, change, 1400)
        async for event in cache.events():
            heard.append(event)
            if len(heard) == 1:
                asyncio.get_running_loop().call_later(0.05, change, 1300)
            if len(heard) == 2:
                return told(heard)
        raise AssertionError

    fds = open_fds()
    assert asyncio.run(follow()) == [("changed", "blue", "va", "va")] * 2
    assert open_fds() == fds


def change(mtu: int) -> None:
    ip("link", "set", "va", "mtu", str(mtu), netns="blue")


def test_cancelling_the_iteration_leaves_nothing_and_loses_nothing(cache: IfIndexCache) -> None:
    async def follow(heard: list[LinkEvent]) -> None:
        async for event in cache.events():
            heard.append(event)

    async def main() -> None:
        heard: list[LinkEvent] = []
        task = asyncio.create_task(follow(heard))
        await asyncio.sleep(0.05)
        change(1400)
        async with asyncio.timeout(20):
            while not heard:
                await asyncio.sleep(0.005)
        assert len(heard) == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        change(1300)
        change(1200)
        iterator = cache.events()
        assert (await anext(iterator)).link == cache.poll()[0].old
        await iterator.aclose()

    fds = open_fds()
    asyncio.run(main())
    assert open_fds() == fds


def test_two_iterations_share_the_events(cache: IfIndexCache) -> None:
    async def main() -> None:
        heard: list[LinkEvent] = []

        async def follow() -> None:
            async for event in cache.events():
                heard.append(event)

        tasks = [asyncio.create_task(follow()) for _ in range(2)]
        for mtu in range(1400, 1410):
            await asyncio.sleep(0.01)
            change(mtu)
        async with asyncio.timeout(20):
            while len(heard) < 10:
                await asyncio.sleep(0.005)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert [event.link and event.link.mtu for event in heard] == list(range(1400, 1410))

    asyncio.run(main())


def test_a_slow_consumer_does_not_keep_the_loop_busy(cache: IfIndexCache) -> None:
    async def main() -> float:
        change(1400)
        async for _ in cache.events():
            change(1300)
            begin = time.process_time()
            await asyncio.sleep(0.3)
            return time.process_time() - begin
        raise AssertionError

    assert asyncio.run(main()) < 0.1


def test_closing_the_cache_ends_the_iteration(cache: IfIndexCache) -> None:
    async def main() -> None:
        async def follow() -> None:
            async for _ in cache.events():
                raise AssertionError

        task = asyncio.create_task(follow())
        await asyncio.sleep(0.05)
        cache.close()
        await asyncio.wait_for(task, 20)
        with pytest.raises(SessionClosed):
            await anext(cache.events())

    asyncio.run(main())


# --- threads and interruptions


def test_closing_the_cache_wakes_the_thread_that_waits(cache: IfIndexCache) -> None:
    ended: list[BaseException] = []

    def wait() -> None:
        try:
            cache.poll(None)
        except SessionClosed as error:
            ended.append(error)

    fds = open_fds()
    threads = [threading.Thread(target=wait) for _ in range(2)]
    for thread in threads:
        thread.start()
    time.sleep(0.1)
    cache.close()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    assert len(ended) == 2
    assert open_fds() < fds


def test_threads_share_a_cache(session: Session, cache: IfIndexCache) -> None:
    heard: list[LinkEvent] = []
    stop = threading.Event()

    def fetch() -> None:
        while not stop.is_set():
            heard.extend(cache.poll(0.02))

    def look() -> None:
        while not stop.is_set():
            assert cache.name(cache.index("va", "blue"), "blue") == "va"
            assert len(cache.links("blue")) >= 2

    failed: list[BaseException] = []

    def guarded(function: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            try:
                function()
            except BaseException as error:
                failed.append(error)

        return run

    threads = [threading.Thread(target=guarded(function)) for function in (fetch, fetch, look, look)]
    for thread in threads:
        thread.start()
    with ns.Netns.open("blue") as held:
        inside = ns.call_in(held.fileno(), RtnlSocket)
    for mtu in range(1000, 1500):
        inside.exchange([set_link(2, mtu=mtu)])
    inside.close()
    assert poll(lambda: len(heard) >= 500)
    stop.set()
    for thread in threads:
        thread.join(20)
    assert failed == []
    assert sorted(event.link.mtu for event in heard if event.link) == list(range(1000, 1500))


def test_an_interruption_while_applying_loses_nothing(cache: IfIndexCache, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = Copy(cache, ["blue", "red"])
    original = parse_link

    def interrupted(body: bytes) -> object:
        monkeypatch.setattr(reader, "parse_link", original)
        raise KeyboardInterrupt

    monkeypatch.setattr(reader, "parse_link", interrupted)
    ip("link", "set", "va", "name", "vc", netns="blue")
    with pytest.raises(KeyboardInterrupt):
        copy.poll()
    assert readable(cache.fileno())
    assert told(copy.poll()) == [("resync", None, None, None), ("renamed", "blue", "vc", "va")]
    assert_right(cache, ["blue", "red"], copy.poll)
    copy.assert_same()


def test_a_signal_that_raises_interrupts_a_wait_and_leaves_the_cache_usable(cache: IfIndexCache) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(KeyboardInterrupt):
            cache.poll(None)
    finally:
        signal.signal(signal.SIGALRM, before)
    change(1400)
    assert len(cache.poll()) == 1


def test_a_socket_that_fails_is_an_error_not_a_loss_of_events(
    cache: IfIndexCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    change(1400)
    with monkeypatch.context() as patch:
        patch.setattr(EventSocket, "receive", fail)
        with raises(NetlinkError, errno=errno.EIO):
            cache.poll()
    assert told(cache.poll()) == [("changed", "blue", "va", "va"), ("resync", None, None, None)]


# --- what a session asks and says


def test_what_the_session_does_is_known_without_a_poll(session: Session, cache: IfIndexCache) -> None:
    def known(netns: str) -> list[tuple[str, int, str]]:
        return [(link.name, link.mtu, link.alias) for link in cache.links(netns) if link.name[0] != "l"]

    session.create(Veth(End("v1", "blue", up=False, alias="mark"), End("v2", "red", up=False)))
    assert known("blue") == [("va", 1500, ""), ("v1", 1500, "mark")]
    assert known("red") == [("vb", 1500, ""), ("v2", 1500, "")]
    session.set("v1", "blue", mtu=1400, alias="other", new_name="v3")
    assert known("blue") == [("va", 1500, ""), ("v3", 1400, "other")]
    session.move("v3", "blue", to="red")
    assert (known("blue"), known("red")[-1]) == ([("va", 1500, "")], ("v3", 1400, "other"))
    session.delete("v2", "red")
    session.delete_many([("va", "blue")])
    assert known("blue") == known("red") == []
    with IfIndexCache(session) as another:
        another.watch("blue")
        session.create(Veth(End("v1", "blue", up=False), End("v2", "blue", up=False)))
        assert another.links("blue") == cache.links("blue")
    session.delete("v1", "blue")
    assert known("blue") == []


def test_the_session_asks_the_cache_before_the_kernel(
    session: Session, cache: IfIndexCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    session.set("va", "blue", up=True)
    asked: list[object] = []
    original = IfIndexCache.find

    def find(self: IfIndexCache, identity: tuple[int, int], name: str) -> object:
        asked.append(found := original(self, identity, name))
        return found

    monkeypatch.setattr(IfIndexCache, "find", find)
    assert session.stats("va", "blue").rx_errors == 0
    assert [link and link.name for link in asked] == ["va"]  # type: ignore[attr-defined]
    cache.close()
    assert session.stats("va", "blue").rx_errors == 0
    assert len(asked) == 1


def identity(ref: str) -> tuple[int, int]:
    with Netns.open(ref) as held:
        return held.identity


def test_the_session_finds_a_link_as_the_kernel_would_show_it(session: Session, cache: IfIndexCache) -> None:
    session.set("va", "blue", up=True, mtu=1400)
    found = cache.find(identity("blue"), "va")
    assert found is not None
    assert (found.ifindex, found.mtu, found.up) == (2, 1400, True)
    assert {event.kind for event in cache.poll()} == {"changed"}
    for netns, name in (("blue", "nope"), ("red", "vb"), ("", "lo")):  # not there, down, not watched
        assert cache.find(identity(netns), name) is None


def test_what_the_session_has_done_is_known_at_once_and_told_once(session: Session, cache: IfIndexCache) -> None:
    with ns.Netns.open("blue") as held:
        inside = ns.call_in(held.fileno(), RtnlSocket)
        outcomes = inside.exchange([set_link(2, mtu=1400, alias=b"mark", group=7), get_link(2)])
        message = parse_link(outcomes[1].bodies[0])
        cache.learn(held.identity, message)
        assert (cache.link("va", "blue").alias, cache.link("va", "blue").group) == ("mark", 7)
        # What it learns late does not undo what has happened since.
        inside.exchange([set_link(2, mtu=1300)])
        cache.learn(held.identity, message)
        assert cache.link("va", "blue").mtu == 1300
        inside.exchange([set_link(2, name=b"vz")])
        cache.learn(held.identity, message)
        assert cache.index("vz", "blue") == 2
        inside.close()
        session.delete("vz", "blue")
        cache.learn(held.identity, message)
        cache.learn((0, 0), message)
    mtus = [event.link and event.link.mtu for event in cache.poll() if event.netns == "blue"]
    assert [mtu for number, mtu in enumerate(mtus) if mtu not in mtus[:number]] == [1400, 1300, None]
    assert_right(cache, ["blue", "red"])


# --- events that are not the state of a link


def test_an_event_of_wireless_extensions_is_not_taken_for_the_state_of_the_link(
    cache: IfIndexCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has the name and IFLA_WIRELESS alone (rtnetlink_ifinfo_prep, net/wireless/wext-core.c)."""
    before, nsid = cache.link("va", "blue"), cache._watches["blue"].nsid
    body = pack("=BxHiII", 0, 1, before.index, 0x43, 0) + attribute(3, b"va\0") + attribute(11, bytes(12))
    receive = EventSocket.receive
    queued = [(nsid, message(16, 0, body), 1)]
    change(1400)
    with monkeypatch.context() as patch:
        patch.setattr(EventSocket, "receive", lambda self: queued.pop() if queued else receive(self))
        events = cache.poll()
    assert not queued
    assert [(event.kind, event.link and (event.link.mtu, event.link.mac)) for event in events] == [
        ("changed", (1400, before.mac))
    ]
