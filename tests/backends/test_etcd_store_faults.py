"""The etcd store when its server or the network fails: an outage changes nothing, loses nothing, repeats nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from tests.backends.etcd import Etcd
from tests.backends.etcd_consumer import Consumer, changes, key, many, put, text
from tests.backends.etcd_fixtures import Follow
from tests.backends.proxy import Proxy
from tests.stores import nothing
from tests.witness import poll
from vethlib.agent.stores.etcd import paging
from vethlib.agent.stores.protocol import Back, Change, Outage, Snapshot

pytestmark = pytest.mark.slow

NOTICED = 5.0  # seconds within which silence is noticed, on a machine that has nothing else to do
BEATS_OFTEN = "?heartbeat=0.5"  # and then it is in 3


# --- the server


def test_a_store_without_a_server_says_so_at_once_and_has_everything_when_it_comes(etcd: Etcd, follow: Follow) -> None:
    etcd.fill(many(10))
    etcd.kill()
    consumer = follow(etcd.url)
    (outage,) = consumer.hear()
    assert isinstance(outage, Outage)
    assert outage.code == "unreachable"
    assert etcd.endpoint in outage.reason
    nothing(consumer.store)
    etcd.start()
    consumer.come_to(etcd)
    assert isinstance(consumer.told[-1], Snapshot)


def test_changes_come_in_order(etcd: Etcd, follow: Follow) -> None:
    consumer = follow(etcd.url)
    assert consumer.come_to(etcd) == [Snapshot({})]
    etcd.txn(put("b"), put("a"), put("c"))
    etcd.put(key("a"), text("a", mtu=1400))
    etcd.delete(key("b"))
    assert changes(consumer.come_to(etcd)) == ["b", "a", "c", "a", "-b"]


def test_of_a_server_that_is_killed_and_comes_back_each_change_is_told_once(etcd: Etcd, follow: Follow) -> None:
    etcd.fill(many(50))
    consumer = follow(etcd.url)
    consumer.come_to(etcd)
    for round_ in range(3):
        etcd.put(key("before"), text("before", mtu=1000 + round_))
        etcd.kill()
        consumer.wait_for_outage()
        etcd.start()
        etcd.put(key("after"), text("after", mtu=1000 + round_))
        etcd.delete(key(f"v{round_}"))
        consumer.come_to(etcd)
    assert sorted(changes(consumer.told)) == ["-v0", "-v1", "-v2", *["after"] * 3, *["before"] * 3]


def test_a_server_that_is_killed_again_and_again_amid_writes_loses_nothing(etcd: Etcd, follow: Follow) -> None:
    consumer = follow(etcd.url)
    for round_ in range(6):
        etcd.fill(many(200, first=100 * round_, mtu=1000 + round_), at_once=7)
        etcd.restart()
        etcd.empty(list(many(20, first=100 * round_)), at_once=3)
    consumer.come_to(etcd)


def test_a_long_outage_changes_nothing_and_then_exactly_the_differences_are_told(
    etcd: Etcd, proxy: Proxy, follow: Follow
) -> None:
    etcd.fill(many(20))
    consumer = follow(proxy.url)
    consumer.come_to(etcd)
    proxy.refuse()
    proxy.cut()
    consumer.wait_for_outage()
    for mtu in (1300, 1400):
        etcd.put(key("v1"), text("v1", mtu=mtu))
    etcd.put(key("v2"), text("v2", mtu=1300))
    etcd.put(key("v2"), text("v2"))
    etcd.put(key("v3"), text("v3"))  # as it is
    etcd.delete(key("v4"))
    etcd.put(key("v4"), text("v4"))
    etcd.delete(key("v5"))
    etcd.put(key("w"), text("w"))
    etcd.put(key("x"), text("x"))
    etcd.delete(key("x"))
    nothing(consumer.store)
    proxy.accept()
    told = consumer.come_to(etcd)
    assert isinstance(told[0], Back)
    assert changes(told) == ["-v5", "v1", "w"]


# --- the connection


def test_a_connection_that_is_cut_is_replaced_before_anybody_has_to_know(
    etcd: Etcd, proxy: Proxy, follow: Follow
) -> None:
    consumer = follow(proxy.url)
    consumer.come_to(etcd)
    for round_ in range(2):
        nothing(consumer.store, 1.0)  # longer than what is taken for a failed attempt
        proxy.cut()
        etcd.put(key("a"), text("a", mtu=1000 + round_))
        assert changes(consumer.come_to(etcd)) == ["a"]
    assert not any(isinstance(one, Outage) for one in consumer.told)
    assert proxy.accepted == 3


def test_cuts_amid_a_stream_of_writes_lose_nothing_and_tell_nothing_twice(
    etcd: Etcd, proxy: Proxy, follow: Follow
) -> None:
    consumer = follow(proxy.url)
    consumer.come_to(etcd)

    def write() -> None:
        for round_ in range(30):
            etcd.fill(many(100, first=10 * round_, mtu=1000 + round_), at_once=9)
            etcd.empty(list(many(10, first=10 * round_)), at_once=4)

    writer = threading.Thread(target=write)
    writer.start()
    while writer.is_alive():
        proxy.cut()
        seen = len(consumer.told)
        consumer.wait(lambda seen=seen: len(consumer.told) > seen or not writer.is_alive())  # type: ignore[misc]
    writer.join()
    consumer.come_to(etcd)


@pytest.mark.parametrize("count", [1, 1_000, 200_000, 500_000])
def test_a_first_read_of_4000_keys_that_is_cut_is_read_again_whole(
    etcd: Etcd, proxy: Proxy, follow: Follow, count: int
) -> None:
    etcd.fill(many(4000))
    proxy.cut_after(count)
    consumer = follow(proxy.url)
    consumer.come_to(etcd)
    assert proxy.cuts == 1
    assert isinstance(consumer.told[-1], Snapshot)


@pytest.mark.parametrize("count", [60, 300_000])
def test_4000_differences_that_are_cut_are_told_once(etcd: Etcd, proxy: Proxy, follow: Follow, count: int) -> None:
    etcd.fill(many(4000))
    consumer = follow(proxy.url)
    consumer.come_to(etcd)
    proxy.refuse()
    proxy.cut()
    consumer.wait_for_outage()
    etcd.fill(many(3900, mtu=1400))
    etcd.empty(list(many(100, first=3900)))
    proxy.cut_after(count)
    proxy.accept()
    told = consumer.come_to(etcd)
    assert proxy.cuts == 1
    gone = [f"-v{number}" for number in range(3900, 4000)]
    assert sorted(changes(told)) == sorted([*gone, *(f"v{number}" for number in range(3900))])


@pytest.mark.parametrize("cut", [False, True])
def test_changes_between_the_first_read_and_what_follows_are_told_though_they_come_in_pieces(
    etcd: Etcd, proxy: Proxy, follow: Follow, monkeypatch: pytest.MonkeyPatch, cut: bool
) -> None:
    """An answer of a watch is split where it is longer than a request may be, be it within a transaction."""
    monkeypatch.setattr(paging, "CALL", 60.0)  # the silence is to be over before the first read is given up
    etcd.fill(many(8000))
    changed = many(320, description="x" * 8_000)
    consumer = follow(proxy.url)
    while proxy.bytes_down < 5_000:
        pass
    proxy.silence(down=False)  # what is left of the first read is not asked for yet
    etcd.fill(changed)
    proxy.speak()
    (first,) = consumer.hear()
    assert isinstance(first, Snapshot)
    assert all(parsed.interface and not parsed.interface.description for parsed in first.values.values())
    if cut:
        consumer.hear()
        proxy.cut()
    consumer.come_to(etcd)
    assert sorted(changes(consumer.told)) == sorted(f"v{number}" for number in range(320))


# --- silence


@pytest.mark.parametrize("ways", [{}, {"down": False}, {"up": False}], ids=["both ways", "up", "down"])
def test_silence_is_noticed_and_is_over_when_it_ends(
    etcd: Etcd, proxy: Proxy, follow: Follow, ways: dict[str, bool]
) -> None:
    etcd.fill(many(10))
    consumer = follow(proxy.url + BEATS_OFTEN)
    consumer.come_to(etcd)
    proxy.silence(**ways)
    etcd.put(key("v1"), text("v1", mtu=1400))
    etcd.delete(key("v2"))
    if ways.get("down", True):
        hear_of_silence(consumer)
        assert not any(isinstance(one, Change) for one in consumer.told)
    else:
        consumer.wait_for_outage()
    proxy.speak()
    consumer.come_to(etcd)
    assert sorted(changes(consumer.told)) == ["-v2", "v1"]


@pytest.mark.timing
@pytest.mark.parametrize(("query", "seconds"), [("", NOTICED), (BEATS_OFTEN, 3.5)])
def test_silence_is_noticed_soon(etcd: Etcd, proxy: Proxy, follow: Follow, query: str, seconds: float) -> None:
    consumer = follow(proxy.url + query)
    consumer.come_to(etcd)
    proxy.silence()
    began = time.monotonic()
    hear_of_silence(consumer)
    assert time.monotonic() - began < seconds


@pytest.mark.timing
def test_a_missing_server_and_changes_are_told_without_delay(etcd: Etcd, follow: Follow) -> None:
    consumer = follow(etcd.url)
    consumer.come_to(etcd)
    etcd.put(key("a"), text("a"))
    assert changes(consumer.come_to(etcd, 1.0)) == ["a"]
    etcd.kill()
    (outage,) = follow(etcd.url).hear(1.0)
    assert isinstance(outage, Outage)


def hear_of_silence(consumer: Consumer) -> None:
    (one,) = consumer.hear()
    assert isinstance(one, Outage)
    assert one.code == "no-answer"


def test_a_server_that_hangs_is_noticed_and_followed_again_when_it_goes_on(etcd: Etcd, follow: Follow) -> None:
    etcd.fill(many(10))
    consumer = follow(etcd.url + BEATS_OFTEN)
    consumer.come_to(etcd)
    etcd.pause()
    hear_of_silence(consumer)
    etcd.resume()
    etcd.put(key("v1"), text("v1", mtu=1400))
    assert changes(consumer.come_to(etcd)) == ["v1"]


def test_a_network_that_is_silent_from_the_start_is_an_outage(etcd: Etcd, proxy: Proxy, follow: Follow) -> None:
    etcd.fill(many(10))
    proxy.silence()
    consumer = follow(proxy.url)
    hear_of_silence(consumer)
    proxy.speak()
    consumer.come_to(etcd)


def test_silence_amid_4000_keys_is_noticed_and_they_are_all_told_after_it(
    etcd: Etcd, proxy: Proxy, follow: Follow
) -> None:
    etcd.fill(many(4000))
    consumer = follow(proxy.url)
    while proxy.bytes_down < 50_000:
        pass
    proxy.silence()
    consumer.wait_for_outage()
    proxy.speak()
    consumer.come_to(etcd)


def test_a_quiet_store_is_no_silent_one(etcd: Etcd, proxy: Proxy, follow: Follow) -> None:
    consumer = follow(proxy.url + BEATS_OFTEN)
    consumer.come_to(etcd)
    nothing(consumer.store, 3.5)  # longer than silence takes to be noticed
    assert proxy.accepted == 1


# --- what it costs


def test_a_server_that_is_down_is_not_besieged_and_is_asked_again_soon(
    etcd: Etcd, proxy: Proxy, follow: Follow
) -> None:
    etcd.kill()
    consumer = follow(proxy.url)
    consumer.wait_for_outage()
    assert consumer.wait_a_while(3.0) == []
    assert proxy.accepted < 12
    assert poll(lambda: not consumer.wait_a_while(0.1) and proxy.accepted > 3)
    etcd.start()
    consumer.come_to(etcd)


def test_a_store_that_is_closed_is_closed_soon_whatever_the_network_does(
    etcd: Etcd, proxy: Proxy, follow: Follow
) -> None:
    faults: list[Callable[[], None]] = [proxy.cut, proxy.silence, etcd.kill]
    for fault in faults:
        proxy.speak()
        consumer = follow(proxy.url)
        consumer.hear()
        fault()
        begun = time.monotonic()
        consumer.store.close()
        assert time.monotonic() - begun < 10.0
        assert consumer.store.read() == []
