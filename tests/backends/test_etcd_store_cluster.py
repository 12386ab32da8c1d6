"""The etcd store and a cluster of three: one that leads, ones that go, and one that is left alone."""

from __future__ import annotations

import pytest

from tests.backends.etcd import Cluster
from tests.backends.etcd_consumer import Consumer, changes, key, many, text
from tests.backends.etcd_fixtures import Follow, MakeProxy
from tests.stores import nothing
from vethlib.agent.stores.etcd import store
from vethlib.agent.stores.protocol import Outage


@pytest.fixture(autouse=True)
def in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Members are tried as they are given, though stores begin with any of them."""
    monkeypatch.setattr(store, "_any_of", lambda count: 0)


@pytest.fixture
def consumer(cluster: Cluster, follow: Follow) -> Consumer:
    """One who was given all members, and knows v0 to v9."""
    cluster.members[0].fill(many(10))
    consumer = follow(cluster.url)
    consumer.come_to(cluster.members[0])
    return consumer


def test_another_leader_makes_no_difference(cluster: Cluster, consumer: Consumer) -> None:
    for round_ in range(3):
        leader = cluster.move_leader()
        leader.put(key("a"), text("a", mtu=1000 + round_))
        assert changes(consumer.come_to(leader)) == ["a"]
    assert not any(isinstance(one, Outage) for one in consumer.told)


def test_a_member_can_go_and_come_back_and_then_another_and_nobody_has_to_know(
    cluster: Cluster, consumer: Consumer
) -> None:
    for round_, member in enumerate(cluster.members[:2]):
        nothing(consumer.store, 1.0)  # longer than what is taken for a failed attempt
        member.kill()
        other = cluster.leader()
        other.put(key("a"), text("a", mtu=1000 + round_))
        assert changes(consumer.come_to(other)) == ["a"]
        cluster.start()
        other.delete(key(f"v{round_}"))
        assert changes(consumer.come_to(other)) == [f"-v{round_}"]
    assert not any(isinstance(one, Outage) for one in consumer.told)


def test_a_leader_that_hangs_is_left_for_another_member(cluster: Cluster, follow: Follow) -> None:
    leader = cluster.leader()
    others = cluster.followers()
    consumer = follow(f"etcd://{leader.endpoint},{others[0].endpoint}?heartbeat=0.5")
    consumer.come_to(leader)
    leader.pause()
    new = cluster.leader()
    new.put(key("a"), text("a"))
    consumer.come_to(new)
    leader.resume()
    new.put(key("b"), text("b"))
    consumer.come_to(new)


def test_too_few_members_are_noticed_and_the_others_followed_when_they_come_back(
    cluster: Cluster, consumer: Consumer
) -> None:
    for member in cluster.members[1:]:
        member.kill()
    consumer.wait_for_outage()
    assert consumer.known is not None
    assert len(consumer.known) == 10
    cluster.start()
    cluster.members[2].put(key("a"), text("a"))
    assert changes(consumer.come_to(cluster.members[2])) == ["a"]


def test_one_member_without_the_others_is_not_taken_for_a_quiet_one(cluster: Cluster, follow: Follow) -> None:
    alone, *others = cluster.members
    alone.fill(many(10))
    consumer = follow(alone.url)
    consumer.come_to(alone)
    for member in others:
        member.kill()
    assert consumer.wait_for_outage() == "no-quorum"
    assert alone.endpoint in consumer.outage
    cluster.start()
    others[0].put(key("a"), text("a"))
    assert changes(consumer.come_to(others[0])) == ["a"]


def test_a_store_that_starts_with_a_member_that_is_alone_knows_nothing_yet(cluster: Cluster, follow: Follow) -> None:
    alone, *others = cluster.members
    alone.fill(many(10))
    for member in others:
        member.kill()
    consumer = follow(alone.url)
    consumer.wait_for_outage()
    assert consumer.known is None
    cluster.start()
    consumer.come_to(alone)


def test_members_that_are_not_there_are_passed_over_without_an_outage(cluster: Cluster, follow: Follow) -> None:
    first, second, third = cluster.members
    first.kill()
    cluster.leader().fill(many(10))
    consumer = follow(f"etcd://{first.endpoint},{third.endpoint},{second.endpoint}")
    consumer.come_to(third)
    assert not any(isinstance(one, Outage) for one in consumer.told)


def test_a_member_that_lags_behind_takes_nothing_back(cluster: Cluster, make_proxy: MakeProxy, follow: Follow) -> None:
    leader = cluster.leader()
    other, laggard = cluster.followers()
    to_other, to_laggard = make_proxy(other.address), make_proxy(laggard.address)
    consumer = follow(f"etcd://{to_other.endpoint},{to_laggard.endpoint}")
    consumer.come_to(other)
    for round_ in range(3):
        laggard.pause()
        leader.fill(many(100, mtu=1000 + round_), at_once=5)
        consumer.come_to(leader)
        to_other.refuse()
        to_other.cut()
        laggard.resume()
        leader.put(key("a"), text("a", mtu=1000 + round_))
        consumer.come_to(leader)
        to_other.accept()
        to_laggard.cut()
        leader.put(key("b"), text("b", mtu=1000 + round_))
        consumer.come_to(leader)


def test_many_stores_are_shared_out_among_the_members(
    cluster: Cluster, make_proxy: MakeProxy, follow: Follow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    cluster.members[0].fill(many(1))
    proxies = [make_proxy(member.address) for member in cluster.members]
    url = f"etcd://{','.join(proxy.endpoint for proxy in proxies)}"
    for consumer in [follow(url) for _ in range(24)]:  # one proxy has none of them once in 5 000 times
        consumer.hear()
    assert all(proxy.connections for proxy in proxies)
    assert sum(proxy.connections for proxy in proxies) == 24
