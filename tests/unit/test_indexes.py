"""The registry of names and ifindexes, and what it reports to its subscribers."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any, TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.refusing import raises
from vethlib import InvalidValue, Link, LinkNotFound, NetnsNotFound
from vethlib.agent.registry.indexes import IndexEntry, Indexes, IndexEvent
from vethlib.agent.registry.subscriptions import Subscription

HOME, BLUE, RED = (4, 1), (4, 2), (4, 3)
PLACES = {HOME: "", BLUE: "netns:blue", RED: "netns:red"}


def link(index: int, name: str = "va", *, mtu: int = 1500) -> Link:
    return Link(index, name, "", "veth", "02:00:00:00:00:01", mtu, True, "up", (), None, None, "", 0, 1)


@pytest.fixture
def indexes() -> Indexes:
    return Indexes(HOME)


Told: TypeAlias = "tuple[str, tuple[str, int, bool] | None, tuple[str, int, bool] | None]"


def short(entry: IndexEntry | None) -> tuple[str, int, bool] | None:
    return None if entry is None else (entry.name, entry.index, entry.managed)


def told(subscription: Subscription[IndexEvent]) -> list[Told]:
    return [(event.kind, short(event.entry), short(event.old)) for event in subscription.take()]


# --- lookups


def test_a_managed_interface_is_found_by_its_logical_name_and_by_ifindex_in_its_namespace(indexes: Indexes) -> None:
    indexes.set_managed("port1", BLUE, "netns:blue", link(5, "eth0"))
    indexes.set_managed("port2", RED, "pid:42", link(5, "eth0"))
    assert (indexes.index("port1"), indexes.index("port2")) == (5, 5)
    assert (indexes.name(5, "netns:blue"), indexes.name(5, "pid:42")) == ("port1", "port2")
    assert indexes.entries() == [
        IndexEntry("port1", "netns:blue", 5, "eth0", True, link(5, "eth0")),
        IndexEntry("port2", "pid:42", 5, "eth0", True, link(5, "eth0")),
    ]


def test_what_is_no_namespace_has_no_names(indexes: Indexes) -> None:
    wrong: Any
    for wrong in (5, b"blue", ["blue"]):
        with raises(InvalidValue, field="netns"):
            indexes.name(5, wrong)
    with open("/dev/null") as closed, pytest.raises(NetnsNotFound):
        indexes.name(5, closed)
    with pytest.raises(NetnsNotFound):
        indexes.name(5, closed)
    with pytest.raises(LinkNotFound):
        indexes.name(10**5000)


def test_any_spelling_in_use_leads_to_the_namespace(indexes: Indexes) -> None:
    indexes.set_managed("one", BLUE, "netns:blue", link(5))
    indexes.set_managed("two", BLUE, "pid:42", link(6))
    indexes.set_managed("three", HOME, "path:/proc/1/ns/net", link(7))
    for spelling in ("blue", "netns:blue", "pid:42", "pid:042"):
        assert [indexes.name(index, spelling) for index in (5, 6)] == ["one", "two"]
    assert indexes.name(7) == indexes.name(7, None) == indexes.name(7, "path:/proc/1/ns/net") == "three"


def test_a_reference_leads_to_where_it_was_said_last_to_lead_and_nowhere_when_nobody_uses_it(indexes: Indexes) -> None:
    indexes.set_managed("one", BLUE, "netns:blue", link(5))
    indexes.set_managed("two", BLUE, "netns:blue", link(6))
    indexes.set_managed("two", RED, "netns:blue", link(8))
    assert indexes.name(8, "blue") == "two"
    with pytest.raises(LinkNotFound):
        indexes.name(5, "blue")
    indexes.remove_managed("two")
    assert indexes.name(5, "blue") == "one"
    indexes.set_managed("one", BLUE, "pid:42", link(5))
    assert indexes.name(5, "pid:42") == "one"
    with raises(LinkNotFound, request="look up ifindex 5 in netns:blue", netns="blue"):
        indexes.name(5, "blue")


def test_other_links_of_home_are_found_under_their_kernel_names(indexes: Indexes) -> None:
    indexes.set_unmanaged(link(1, "lo"))
    assert indexes.index("lo") == 1
    assert indexes.name(1) == "lo"
    assert indexes.entries() == [IndexEntry("lo", "", 1, "lo", False, link(1, "lo"))]


def test_what_is_not_there_is_a_lookup_error_that_names_it(indexes: Indexes) -> None:
    with raises(LinkNotFound, request="look up 'nope'") as raised:
        indexes.index("nope")
    assert isinstance(raised.value, LookupError)
    with raises(LinkNotFound, request="look up ifindex 7 in the home namespace", netns=""):
        indexes.name(7)
    with pytest.raises(InvalidValue):
        indexes.name(7, "bad:reference")


def test_of_two_with_one_name_the_managed_one_is_found_by_it_and_the_other_by_its_ifindex(indexes: Indexes) -> None:
    indexes.set_unmanaged(link(3, "eth0"))
    indexes.set_managed("eth0", BLUE, "netns:blue", link(9, "eth0"))
    assert indexes.index("eth0") == 9
    assert indexes.name(3) == indexes.name(9, "blue") == "eth0"
    indexes.remove_managed("eth0")
    assert indexes.index("eth0") == 3
    indexes.set_managed("eth0", BLUE, "netns:blue", link(9, "eth0"))
    indexes.remove_unmanaged(3)
    assert indexes.index("eth0") == 9


def test_links_that_exchange_their_names_are_found_by_the_new_ones(indexes: Indexes) -> None:
    indexes.reset_unmanaged([link(3, "a"), link(4, "b")])
    indexes.reset_unmanaged([link(3, "b"), link(4, "a")])
    assert (indexes.index("a"), indexes.index("b")) == (4, 3)
    indexes.remove_unmanaged(3)
    assert indexes.index("a") == 4
    with pytest.raises(LinkNotFound):
        indexes.index("b")


# --- one link, managed and not


def test_a_managed_link_of_home_is_there_once_whichever_feed_came_first(indexes: Indexes) -> None:
    news = indexes.subscribe()
    indexes.set_managed("one", HOME, "", link(5, "va"))
    indexes.set_unmanaged(link(5, "va"))
    assert told(news) == [("added", ("one", 5, True), None)]
    indexes.set_unmanaged(link(6, "vb"))
    indexes.set_managed("two", HOME, "", link(6, "vb"))
    assert told(news) == [("added", ("vb", 6, False), None), ("changed", ("two", 6, True), ("vb", 6, False))]
    assert [entry.name for entry in indexes.entries()] == ["one", "two"]
    for kernel_name in ("va", "vb"):
        with pytest.raises(LinkNotFound):
            indexes.index(kernel_name)


def test_what_the_kernel_says_of_a_managed_link_is_not_told_by_the_unmanaged_feed(indexes: Indexes) -> None:
    indexes.set_managed("one", HOME, "", link(5))
    news = indexes.subscribe()
    news.take()
    indexes.set_unmanaged(link(5, mtu=1400))
    indexes.set_unmanaged(link(5, "vx"))
    indexes.reset_unmanaged([link(5, "vy")])
    indexes.remove_unmanaged(5)
    assert told(news) == []
    assert indexes.index("one") == 5


def test_a_managed_interface_that_takes_over_a_known_link_is_told_without_a_moment_of_two(indexes: Indexes) -> None:
    indexes.set_unmanaged(link(6, "vb"))
    indexes.set_managed("one", BLUE, "netns:blue", link(5))
    news = indexes.subscribe()
    news.take()
    indexes.set_managed("one", HOME, "", link(6, "vb"))
    assert told(news) == [("removed", None, ("vb", 6, False)), ("changed", ("one", 6, True), ("one", 5, True))]


def test_a_link_has_one_managed_name_the_last(indexes: Indexes) -> None:
    news = indexes.subscribe()
    indexes.set_managed("one", BLUE, "netns:blue", link(5))
    indexes.set_managed("two", BLUE, "pid:42", link(5))
    assert told(news)[1:] == [("removed", None, ("one", 5, True)), ("added", ("two", 5, True), None)]
    indexes.remove_managed("one")
    assert told(news) == []
    assert indexes.name(5, "pid:42") == "two"
    with pytest.raises(LinkNotFound):
        indexes.name(5, "blue")


def test_a_deleted_link_is_not_registered_as_new_by_what_is_still_said_of_it(indexes: Indexes) -> None:
    indexes.set_managed("one", HOME, "", link(5))
    indexes.set_unmanaged(link(5))
    news = indexes.subscribe()
    news.take()
    indexes.remove_managed("one")
    indexes.set_unmanaged(link(5, mtu=1400))
    indexes.deliver()
    indexes.set_unmanaged(link(5, mtu=1300))
    assert indexes.entries() == []
    indexes.remove_unmanaged(5)
    indexes.deliver()
    indexes.deliver()
    assert told(news) == [("removed", None, ("one", 5, True))]


def test_a_link_that_was_deleted_before_it_was_heard_of_is_not_registered_either(indexes: Indexes) -> None:
    news = indexes.subscribe()
    indexes.set_managed("one", HOME, "", link(5))
    indexes.remove_managed("one")
    indexes.deliver()
    indexes.set_unmanaged(link(5))
    indexes.remove_unmanaged(5)
    indexes.deliver()
    assert told(news) == [("added", ("one", 5, True), None), ("removed", None, ("one", 5, True))]


def news_of_one(indexes: Indexes) -> Subscription[IndexEvent]:
    """Have a link, 5, become the interface "one"; returns a subscription to what comes after that."""
    indexes.set_unmanaged(link(5))
    indexes.set_managed("one", HOME, "", link(5))
    news = indexes.subscribe()
    news.take()
    return news


def test_a_link_whose_name_was_given_to_another_is_not_registered_by_what_is_still_said_of_it(indexes: Indexes) -> None:
    news = news_of_one(indexes)
    indexes.set_managed("one", HOME, "", link(6))
    indexes.set_unmanaged(link(5, mtu=1400))
    indexes.remove_unmanaged(5)
    indexes.set_unmanaged(link(6))
    assert told(news) == [("changed", ("one", 6, True), ("one", 5, True))]


def test_a_new_link_with_the_ifindex_of_a_deleted_one_is_known_at_once(indexes: Indexes) -> None:
    indexes.set_unmanaged(link(5))
    indexes.set_managed("one", HOME, "", link(5))
    indexes.remove_managed("one")
    indexes.remove_unmanaged(5)
    indexes.set_unmanaged(link(5, "other"))
    assert indexes.name(5) == "other"


def test_a_link_that_lives_on_unmanaged_is_known_when_the_feed_has_had_time_to_say_otherwise(indexes: Indexes) -> None:
    news = news_of_one(indexes)
    indexes.remove_managed("one")
    indexes.deliver()
    assert told(news) == [("removed", None, ("one", 5, True))]
    assert indexes.pending
    indexes.set_unmanaged(link(5, mtu=1400))
    indexes.deliver()
    assert told(news) == [("added", ("va", 5, False), None)]
    assert indexes.index("va") == 5


def test_a_link_in_doubt_that_is_managed_again_was_away_once(indexes: Indexes) -> None:
    news = news_of_one(indexes)
    indexes.remove_managed("one")
    indexes.set_managed("two", HOME, "", link(5))
    indexes.deliver()
    indexes.deliver()
    assert told(news) == [("removed", None, ("one", 5, True)), ("added", ("two", 5, True), None)]


# --- subscribers


def test_a_subscriber_is_told_all_that_is_and_then_every_change(indexes: Indexes) -> None:
    indexes.set_unmanaged(link(1, "lo"))
    indexes.set_managed("one", BLUE, "netns:blue", link(5))
    news = indexes.subscribe()
    indexes.set_managed("one", BLUE, "netns:blue", link(5, mtu=1400))
    indexes.set_managed("one", BLUE, "netns:blue", link(5, mtu=1400))  # is as it was
    indexes.set_managed("one", RED, "netns:red", link(7))
    indexes.set_unmanaged(link(1, "lo", mtu=65536))
    indexes.set_unmanaged(link(1, "loo", mtu=65536))
    indexes.remove_managed("one")
    indexes.remove_managed("one")
    indexes.remove_unmanaged(1)
    indexes.remove_unmanaged(1)
    assert told(news) == [
        ("added", ("lo", 1, False), None),
        ("added", ("one", 5, True), None),
        ("changed", ("one", 5, True), ("one", 5, True)),
        ("changed", ("one", 7, True), ("one", 5, True)),
        ("changed", ("lo", 1, False), ("lo", 1, False)),
        ("changed", ("loo", 1, False), ("lo", 1, False)),
        ("removed", None, ("one", 7, True)),
        ("removed", None, ("loo", 1, False)),
    ]


def test_after_a_resync_the_differences_are_told(indexes: Indexes) -> None:
    indexes.reset_unmanaged([link(1, "lo"), link(2, "eth0"), link(3, "eth1")])
    indexes.set_managed("one", HOME, "", link(3, "eth1"))
    news = indexes.subscribe()
    news.take()
    indexes.reset_unmanaged([link(1, "lo"), link(2, "wan"), link(3, "eth1", mtu=1400), link(4, "eth0")])
    assert told(news) == [("changed", ("wan", 2, False), ("eth0", 2, False)), ("added", ("eth0", 4, False), None)]
    indexes.reset_unmanaged([])
    assert [kind for kind, _, _ in told(news)] == ["removed"] * 3


def test_callbacks_are_called_by_deliver_and_only_there(indexes: Indexes) -> None:
    heard: list[IndexEvent] = []
    indexes.set_unmanaged(link(1, "lo"))
    indexes.subscribe(heard.append)
    indexes.set_unmanaged(link(2, "eth0"))
    assert heard == []
    indexes.deliver()
    assert [event.entry and event.entry.name for event in heard] == ["lo", "eth0"]
    indexes.deliver()
    assert len(heard) == 2


def test_it_says_whether_deliver_has_something_to_do(indexes: Indexes) -> None:
    found = [indexes.pending]
    indexes.set_unmanaged(link(1, "lo"))
    news = indexes.subscribe()
    found.append(indexes.pending)
    news.unsubscribe()
    indexes.subscribe(lambda _: None)
    found.append(indexes.pending)
    indexes.deliver()
    found.append(indexes.pending)
    indexes.set_managed("one", HOME, "", link(5))
    indexes.remove_managed("one")
    indexes.deliver()
    found.append(indexes.pending)  # the feed has not reported it, and may never do so
    indexes.set_unmanaged(link(5))
    found.append(indexes.pending)
    indexes.deliver()
    found.append(indexes.pending)
    assert found == [False, False, True, False, False, True, False]


def test_each_subscriber_has_its_own_pace_and_the_slowest_loses_nothing(indexes: Indexes) -> None:
    slow, other = indexes.subscribe(), indexes.subscribe()
    for mtu in range(100_000):
        indexes.set_unmanaged(link(1, "lo", mtu=mtu))
        if mtu == 10:
            assert len(other.take()) == 11
    assert [event.entry.link.mtu for event in slow if event.entry] == list(range(100_000))
    assert len(other.take()) == 99_989
    assert slow.take() == []


def test_after_unsubscribing_there_is_not_one_more_event(indexes: Indexes) -> None:
    heard: list[IndexEvent] = []

    def hear(event: IndexEvent) -> None:
        heard.append(event)
        subscription.unsubscribe()

    subscription = indexes.subscribe(hear)
    for index in range(1, 5):
        indexes.set_unmanaged(link(index, f"v{index}"))
    indexes.deliver()
    assert len(heard) == 1
    indexes.set_unmanaged(link(9, "v9"))
    indexes.deliver()
    assert len(heard) == 1
    assert not subscription.active
    subscription.unsubscribe()
    with indexes.subscribe() as block:
        pass
    indexes.set_unmanaged(link(10, "v10"))
    assert block.take() == subscription.take() == []


def test_a_callback_may_look_up_subscribe_and_unsubscribe_others(
    indexes: Indexes, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[object] = []
    indexes.set_unmanaged(link(1, "lo"))

    def hear(event: IndexEvent) -> None:
        assert event.entry is not None
        assert event.entry.name == "lo"
        heard.append("begin")
        heard.append(indexes.name(indexes.index("lo")))
        heard.append(indexes.entries() == [event.entry])
        other.unsubscribe()
        indexes.subscribe(lambda _: heard.append("another"))
        indexes.deliver()
        heard.append("end")

    indexes.subscribe(hear)
    other = indexes.subscribe(lambda _: heard.append("unsubscribed"))
    indexes.deliver()
    assert heard == ["begin", "lo", True, "end", "another"]
    assert caplog.records == []


def test_a_callback_that_fails_is_logged_and_neither_it_nor_another_misses_anything(
    indexes: Indexes, caplog: pytest.LogCaptureFixture
) -> None:
    first: list[IndexEvent] = []
    second: list[IndexEvent] = []

    def fail(event: IndexEvent) -> None:
        first.append(event)
        raise RuntimeError("a fault of the subscriber's")

    indexes.subscribe(fail)
    indexes.subscribe(second.append)
    indexes.set_unmanaged(link(1, "lo"))
    indexes.set_unmanaged(link(2, "eth0"))
    indexes.deliver()
    assert first == second
    assert len(first) == 2
    assert [(record.name, record.levelno) for record in caplog.records] == [("vethlib.agent", logging.ERROR)] * 2
    assert "a fault of the subscriber's" in caplog.text


def test_an_interrupted_delivery_goes_on_where_it_was(indexes: Indexes) -> None:
    heard: list[object] = []

    def hear(event: IndexEvent) -> None:
        heard.append(event.entry and event.entry.name)
        if len(heard) == 1:
            raise KeyboardInterrupt

    indexes.subscribe(hear)
    for index in range(1, 4):
        indexes.set_unmanaged(link(index, f"v{index}"))
    with pytest.raises(KeyboardInterrupt):
        indexes.deliver()
    indexes.deliver()
    assert heard == ["v1", "v2", "v3"]


def test_events_may_be_taken_in_another_thread(indexes: Indexes) -> None:
    news = indexes.subscribe()
    taken: list[int] = []
    over = threading.Event()

    def take() -> None:
        while not over.is_set() or news.waiting:
            taken.extend(event.entry.link.mtu for event in news.take() if event.entry)

    thread = threading.Thread(target=take)
    thread.start()
    for mtu in range(20_000):
        indexes.set_unmanaged(link(1, "lo", mtu=mtu))
    over.set()
    thread.join(10)
    assert taken == list(range(20_000))


# --- against the plainest model

places = st.sampled_from(sorted(PLACES))
numbers = st.integers(1, 4)
steps = st.one_of(
    st.tuples(st.just("managed"), st.sampled_from("abcd"), places, numbers, st.sampled_from("abwx")),
    st.tuples(st.just("unmanage"), st.sampled_from("abcd")),
    st.tuples(st.just("link"), numbers, st.sampled_from("abwx"), st.integers(1500, 1501)),
    st.tuples(st.just("unlink"), numbers),
    st.tuples(st.just("reset"), st.dictionaries(numbers, st.sampled_from("abwx"))),
    st.tuples(st.just("deliver")),
)


@given(st.lists(steps, max_size=40), st.integers(0, 40))
def test_a_copy_kept_by_the_events_is_the_registry_and_lookups_agree_with_it(
    happenings: list[tuple[Any, ...]], late: int
) -> None:
    indexes = Indexes(HOME)
    copies: list[tuple[Subscription[IndexEvent], list[IndexEntry]]] = [(indexes.subscribe(), [])]
    links: dict[int, Link] = {}
    for number, (what, *how) in enumerate(happenings):
        if number == late:
            copies.append((indexes.subscribe(), []))
        FEEDS[what](indexes, links, *how)
        entries = indexes.entries()
        for news, copy in copies:
            for event in news:
                assert event.kind == ("added" if not event.old else "changed" if event.entry else "removed")
                if event.old is not None:
                    copy.remove(event.old)
                if event.entry is not None:
                    copy.append(event.entry)
            assert sorted(copy, key=repr) == sorted(entries, key=repr)
        check_lookups(indexes, entries, links)
    indexes.deliver()
    indexes.deliver()
    managed = {entry.index for entry in indexes.entries() if entry.managed and entry.netns == ""}
    unmanaged = {entry.index: entry.link for entry in indexes.entries() if not entry.managed}
    assert unmanaged == {index: one for index, one in links.items() if index not in managed}


def check_lookups(indexes: Indexes, entries: list[IndexEntry], links: dict[int, Link]) -> None:
    assert len({(entry.netns, entry.index) for entry in entries}) == len(entries), "a link is in it once"
    for entry in entries:
        assert indexes.name(entry.index, entry.netns) == entry.name
        if entry.managed:
            assert indexes.index(entry.name) == entry.index
        else:
            assert links[entry.index] == entry.link, "a link that is gone is not in it"
    by_name = {entry.name: entry for entry in sorted(entries, key=lambda entry: entry.managed)}
    if all(one.name != other.name for one in links.values() for other in links.values() if one is not other):
        for name, entry in by_name.items():
            assert indexes.index(name) == entry.index


def feed_link(indexes: Indexes, links: dict[int, Link], index: int, name: str, mtu: int) -> None:
    for other in [one.index for one in links.values() if one.name == name and one.index != index]:
        feed_end(indexes, links, other)  # the kernel has no two links with one name
    links[index] = link(index, name, mtu=mtu)
    indexes.set_unmanaged(links[index])


def feed_end(indexes: Indexes, links: dict[int, Link], index: int) -> None:
    links.pop(index, None)
    indexes.remove_unmanaged(index)


def feed_reset(indexes: Indexes, links: dict[int, Link], names: dict[int, str]) -> None:
    links.clear()
    links.update((index, link(index, name)) for name, index in {name: index for index, name in names.items()}.items())
    indexes.reset_unmanaged(links.values())


FEEDS: dict[str, Callable[..., None]] = {
    "managed": lambda indexes, _, name, place, index, host: indexes.set_managed(
        name, place, PLACES[place], link(index, host)
    ),
    "unmanage": lambda indexes, _, name: indexes.remove_managed(name),
    "link": feed_link,
    "unlink": feed_end,
    "reset": feed_reset,
    "deliver": lambda indexes, _: indexes.deliver(),
}
