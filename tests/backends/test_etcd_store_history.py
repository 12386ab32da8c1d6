"""The etcd store and history that is compacted, wiped or restored: only the differences are reported."""

from __future__ import annotations

import threading

import pytest

from tests.backends.etcd import Etcd
from tests.backends.etcd_consumer import Consumer, changes, key, many, text
from tests.backends.etcd_fixtures import Follow
from tests.backends.proxy import Proxy
from vethlib.agent.stores.protocol import Back


@pytest.fixture
def consumer(etcd: Etcd, proxy: Proxy, follow: Follow) -> Consumer:
    """One who knows v0 to v9, and has lost the connection."""
    etcd.fill(many(10), at_once=1)
    consumer = follow(proxy.url)
    consumer.come_to(etcd)
    away(consumer, proxy)
    return consumer


def away(consumer: Consumer, proxy: Proxy) -> None:
    proxy.refuse()
    proxy.cut()
    consumer.wait_for_outage()


def back(consumer: Consumer, etcd: Etcd, proxy: Proxy) -> list[str]:
    """What is told to have changed when the connection is there again; after that it is told that it is."""
    proxy.accept()
    told = consumer.come_to(etcd)
    assert isinstance(told[0], Back)
    return changes(told)


def is_followed(consumer: Consumer, etcd: Etcd) -> None:
    """Check that what happens from now on is heard."""
    etcd.put(key("later"), text("later"))
    assert changes(consumer.come_to(etcd, 1.0)) == ["later"]
    etcd.delete(key("later"))
    assert changes(consumer.come_to(etcd, 1.0)) == ["-later"]


# --- compacted


def test_of_history_that_was_given_up_the_differences_are_told_deletions_too(
    etcd: Etcd, proxy: Proxy, consumer: Consumer
) -> None:
    etcd.delete(key("v1"))
    etcd.put(key("v2"), text("v2", mtu=1400))
    etcd.put(key("v3"), text("v3", mtu=1400))
    etcd.put(key("v3"), text("v3"))
    etcd.delete(key("v4"))
    etcd.put(key("v4"), text("v4"))
    etcd.put(key("w"), text("w"))
    etcd.compact()
    assert sorted(back(consumer, etcd, proxy)) == ["-v1", "v2", "w"]
    is_followed(consumer, etcd)


def test_history_given_up_in_the_middle_is_no_gap(etcd: Etcd, proxy: Proxy, consumer: Consumer) -> None:
    etcd.delete(key("v1"))
    etcd.put(key("w"), text("w"))
    etcd.compact()
    etcd.delete(key("v2"))
    etcd.put(key("w"), text("w", mtu=1400))
    assert sorted(back(consumer, etcd, proxy)) == ["-v1", "-v2", "w"]
    is_followed(consumer, etcd)


def test_nothing_is_told_where_history_was_given_up_and_nothing_happened_to_us(
    etcd: Etcd, proxy: Proxy, consumer: Consumer
) -> None:
    for number in range(5):
        etcd.put("/somebody/else", str(number))
    etcd.compact()
    assert back(consumer, etcd, proxy) == []
    is_followed(consumer, etcd)


def test_history_given_up_while_it_is_followed_makes_no_difference(etcd: Etcd, proxy: Proxy, follow: Follow) -> None:
    consumer = follow(proxy.url)
    consumer.come_to(etcd)
    etcd.put(key("a"), text("a"))
    etcd.compact()
    etcd.put(key("b"), text("b"))
    etcd.compact()
    assert changes(consumer.come_to(etcd)) == ["a", "b"]
    assert proxy.accepted == 1


def test_writes_cuts_and_compactions_at_once_lose_nothing(etcd: Etcd, proxy: Proxy, follow: Follow) -> None:
    consumer = follow(proxy.url)
    consumer.come_to(etcd)

    def write() -> None:
        for round_ in range(25):
            etcd.fill(many(60, first=7 * round_, mtu=1000 + round_), at_once=9)
            etcd.empty(list(many(7, first=7 * round_)), at_once=2)
            etcd.compact()

    writer = threading.Thread(target=write)
    writer.start()
    while writer.is_alive():
        proxy.cut()
        seen = len(consumer.told)
        consumer.wait(lambda seen=seen: len(consumer.told) > seen or not writer.is_alive())  # type: ignore[misc]
    writer.join()
    consumer.come_to(etcd)


# --- wiped


def test_a_wiped_server_has_nothing_and_that_is_told(etcd: Etcd, proxy: Proxy, consumer: Consumer) -> None:
    etcd.wipe()
    etcd.start()
    assert sorted(back(consumer, etcd, proxy)) == sorted(f"-v{number}" for number in range(10))
    is_followed(consumer, etcd)


def test_a_server_wiped_while_it_is_followed_is_noticed(etcd: Etcd, follow: Follow) -> None:
    etcd.fill(many(10))
    consumer = follow(etcd.url)
    consumer.come_to(etcd)
    etcd.wipe()
    etcd.start()
    assert sorted(changes(consumer.come_to(etcd))) == sorted(f"-v{number}" for number in range(10))
    is_followed(consumer, etcd)


@pytest.mark.parametrize("ahead", [False, True], ids=["to a lower revision", "to a higher revision"])
def test_a_server_wiped_and_filled_with_others_tells_who_is_there(
    etcd: Etcd, proxy: Proxy, consumer: Consumer, ahead: bool
) -> None:
    before = etcd.revision
    etcd.wipe()
    etcd.start()
    etcd.fill({key(name): text(name) for name in ("x", "y", "v3")})
    etcd.put(key("v4"), text("v4", mtu=1400))
    if ahead:
        etcd.fill(dict.fromkeys((f"/somebody/else/{number}" for number in range(before)), "?"), at_once=1)
    assert (etcd.revision > before) == ahead
    gone = {f"-v{number}" for number in range(10)} - {"-v3", "-v4"}
    assert sorted(back(consumer, etcd, proxy)) == sorted(gone | {"x", "y", "v4"})
    is_followed(consumer, etcd)


def test_a_server_wiped_and_filled_as_it_was_makes_no_difference(etcd: Etcd, proxy: Proxy, consumer: Consumer) -> None:
    etcd.wipe()
    etcd.start()
    etcd.fill(many(10))
    assert back(consumer, etcd, proxy) == []
    is_followed(consumer, etcd)


# --- restored


def test_a_backup_that_is_restored_tells_the_differences(etcd: Etcd, proxy: Proxy, follow: Follow) -> None:
    etcd.fill(many(10))
    consumer = follow(proxy.url)
    consumer.come_to(etcd)
    backup = etcd.save()
    etcd.delete(key("v1"))
    etcd.put(key("v2"), text("v2", mtu=1400))
    etcd.put(key("w"), text("w"))
    consumer.come_to(etcd)
    away(consumer, proxy)
    etcd.restore(backup)
    etcd.start()
    assert sorted(back(consumer, etcd, proxy)) == ["-w", "v1", "v2"]
    is_followed(consumer, etcd)


def test_a_backup_that_is_restored_and_has_gone_further_tells_the_differences(
    etcd: Etcd, proxy: Proxy, follow: Follow
) -> None:
    etcd.fill(many(10))
    consumer = follow(proxy.url)
    consumer.come_to(etcd)
    backup = etcd.save()
    etcd.delete(key("v1"))
    etcd.put(key("v2"), text("v2", mtu=1400))
    etcd.put(key("w"), text("w"))
    consumer.come_to(etcd)
    before = etcd.revision
    away(consumer, proxy)
    etcd.restore(backup)
    etcd.start()
    etcd.put(key("x"), text("x"))
    etcd.fill(dict.fromkeys((f"/somebody/else/{number}" for number in range(9)), "?"), at_once=1)
    assert etcd.revision > before
    assert sorted(back(consumer, etcd, proxy)) == ["-w", "v1", "v2", "x"]
    is_followed(consumer, etcd)
