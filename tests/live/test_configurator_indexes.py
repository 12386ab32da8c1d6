"""Names ⇄ ifindexes over real namespaces, and the subscribers to them and to the statuses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.live.applying import interface
from tests.live.configuring import (
    calm,
    configured,
    foreign,
    pair,
    placed,
    put,
    quickly,
    readable,
    settle,
    until,
    without_ipv6,
)
from tests.live.refusals import tiny_buffers
from tests.witness import ip, names, seen
from vethlib import LinkNotFound, Session
from vethlib.agent import Namespace, State
from vethlib.agent.reconcile.configurator import Configurator
from vethlib.agent.reconcile.statuses import StatusChange
from vethlib.agent.registry.indexes import IndexEntry, IndexEvent
from vethlib.agent.registry.subscriptions import Subscription


@pytest.fixture
def told(configurator: Configurator) -> Iterator[Subscription[IndexEvent]]:
    """What happens to the indexes from here on, without the replay."""
    with configurator.indexes.subscribe() as subscription:
        subscription.take()
        yield subscription


def at_home() -> dict[int, str]:
    return {link["ifindex"]: link["ifname"] for link in ip("link")}


def unmanaged(configurator: Configurator) -> dict[int, str]:
    return {entry.index: entry.name for entry in configurator.indexes.entries() if not entry.managed}


def briefly(events: list[IndexEvent]) -> list[tuple[str, str, bool]]:
    """(kind, name, managed) of each."""
    found: list[tuple[str, str, bool]] = []
    for event in events:
        entry = event.entry or event.old
        assert entry is not None
        found.append((event.kind, entry.name, entry.managed))
    return found


def copied(events: list[IndexEvent]) -> list[IndexEntry]:
    """The registry as one has it who only follows the events."""
    copy: set[IndexEntry] = set()
    for event in events:
        if event.old is not None:
            copy.remove(event.old)
        if event.entry is not None:
            assert event.entry not in copy
            copy.add(event.entry)
    return sorted(copy, key=lambda entry: (entry.netns, entry.index))


# --- lookups


def test_names_and_ifindexes_are_those_of_the_kernel_both_ways(configurator: Configurator, blue: str) -> None:
    put(configurator, *pair("a", "b", "blue"))
    settle(configurator)
    for name, netns in (("a", "blue"), ("b", "")):
        index = seen(name, netns)["ifindex"]
        assert configurator.indexes.index(name) == index
        assert configurator.indexes.name(index, netns) == name
    lo = seen("lo")["ifindex"]
    assert (configurator.indexes.index("lo"), configurator.indexes.name(lo)) == (lo, "lo")


def test_a_logical_name_stands_for_the_link_of_another_kernel_name(configurator: Configurator, blue: str) -> None:
    put(configurator, interface("port1", "port2", "blue", host_if_name="eth0"), interface("port2", "port1"))
    settle(configurator)
    index = seen("eth0", "blue")["ifindex"]
    assert configurator.indexes.index("port1") == index
    assert configurator.indexes.name(index, "blue") == "port1"
    with pytest.raises(LinkNotFound):
        configurator.indexes.index("eth0")


def test_one_ifindex_in_two_namespaces_has_two_names(configurator: Configurator, blue: str, red: str) -> None:
    put(configurator, *pair("a", "b", "blue", "red"))
    settle(configurator)
    index = seen("a", "blue")["ifindex"]
    assert seen("b", "red")["ifindex"] == index  # both namespaces had only lo
    assert (configurator.indexes.name(index, "blue"), configurator.indexes.name(index, "netns:red")) == ("a", "b")
    assert configurator.indexes.index("a") == configurator.indexes.index("b") == index
    assert index not in at_home()
    with pytest.raises(LinkNotFound):
        configurator.indexes.name(index)


def test_a_deleted_pair_is_found_neither_way(configurator: Configurator, blue: str) -> None:
    put(configurator, *pair("a", "b", "blue"))
    settle(configurator)
    was = configurator.indexes.index("a"), configurator.indexes.index("b")
    configurator.delete("a")
    settle(configurator)
    for name, index, netns in (("a", was[0], "blue"), ("b", was[1], "")):
        with pytest.raises(LinkNotFound):
            configurator.indexes.index(name)
        with pytest.raises(LinkNotFound):
            configurator.indexes.name(index, netns)


@pytest.mark.parametrize("by_others", [False, True])
def test_a_rebuilt_pair_is_changed_to_its_new_ifindexes(
    configurator: Configurator, told: Subscription[IndexEvent], blue: str, red: str, by_others: bool
) -> None:
    ip("link", "add", "name", "taken", "index", "2", "type", "bridge", netns="red")
    put(configurator, *pair("a", "b", "blue"))
    settle(configurator)
    assert ("added", "a", True) in briefly(told.take())
    was = configurator.indexes.index("a"), configurator.indexes.index("b")
    if by_others:
        ip("link", "del", "dev", "b")
        until(configurator, lambda: names("blue") == {"a"} and configured(configurator, "a", "b")())
        netns = "blue"
    else:
        put(configurator, *pair("a", "b", "red"))
        netns = "red"
    settle(configurator)
    now = seen("a", netns)["ifindex"], seen("b")["ifindex"]
    assert now[0] != was[0]
    assert now[1] != was[1]
    assert (configurator.indexes.index("a"), configurator.indexes.index("b")) == now
    assert configurator.indexes.name(now[0], netns) == "a"
    with pytest.raises(LinkNotFound):
        configurator.indexes.name(was[1])
    moves = [event for event in told.take() if event.old and event.entry and event.old.index != event.entry.index]
    assert [(event.kind, event.old and event.old.index, event.entry and event.entry.index) for event in moves] in (
        [("changed", was[0], now[0]), ("changed", was[1], now[1])],
        [("changed", was[1], now[1]), ("changed", was[0], now[0])],
    )


def test_a_rebuilt_pair_is_never_told_as_removed_or_as_unmanaged(
    configurator: Configurator, told: Subscription[IndexEvent], blue: str, red: str
) -> None:
    put(configurator, *pair("a", "b", "blue"))
    settle(configurator)
    told.take()
    put(configurator, *pair("a", "b", "red"))
    settle(configurator)
    settle(configurator)
    events = briefly(told.take())
    assert {("changed", "a", True), ("changed", "b", True)} == set(events)


@pytest.mark.parametrize("netns", ["", "blue"])
def test_what_others_change_of_a_managed_link_that_is_still_right_is_told(
    configurator: Configurator, told: Subscription[IndexEvent], blue: str, netns: str
) -> None:
    without_ipv6("", "blue")
    put(configurator, *pair("a", "b", netns, "blue"))
    calm(configurator)
    told.take()
    ip("link", "property", "add", "dev", "a", "altname", "another", netns=netns)
    settle(configurator)
    (status,) = configurator.status("a")
    assert status.link is not None
    assert list(status.link.altnames) == seen("a", netns)["altnames"] == ["another"]
    (entry,) = [entry for entry in configurator.indexes.entries() if entry.name == "a"]
    assert entry.link.altnames == status.link.altnames
    assert briefly(told.take()) == [("changed", "a", True)]


# --- the other links of home


@pytest.mark.parametrize("kind", ["bridge", "vxlan id 3 dstport 4789"])
def test_links_of_others_appear_change_and_go(
    configurator: Configurator, told: Subscription[IndexEvent], kind: str
) -> None:
    settle(configurator)
    ip("link", "add", "name", "o", "type", *kind.split())
    settle(configurator)
    index = seen("o")["ifindex"]
    assert (configurator.indexes.index("o"), configurator.indexes.name(index)) == (index, "o")
    ip("link", "set", "dev", "o", "mtu", "1300")
    settle(configurator)
    ip("link", "set", "dev", "o", "name", "p")
    settle(configurator)
    assert (configurator.indexes.index("p"), configurator.indexes.name(index)) == (index, "p")
    with pytest.raises(LinkNotFound):
        configurator.indexes.index("o")
    ip("link", "del", "dev", "p")
    settle(configurator)
    assert unmanaged(configurator) == at_home()
    events = told.take()
    assert briefly(events) == [
        ("added", "o", False),
        ("changed", "o", False),
        ("changed", "p", False),
        ("removed", "p", False),
    ]
    assert events[1].entry is not None
    assert events[1].entry.link.mtu == 1300


def test_a_foreign_pair_is_two_links_that_come_and_go_together(
    configurator: Configurator, told: Subscription[IndexEvent]
) -> None:
    foreign("o1", peer="o2")
    settle(configurator)
    assert unmanaged(configurator) == at_home()
    assert {"o1", "o2"} <= set(unmanaged(configurator).values())
    ip("link", "del", "dev", "o1")
    settle(configurator)
    assert unmanaged(configurator) == at_home() == {1: "lo"}
    events = [event for event in briefly(told.take()) if event[0] != "changed"]
    assert sorted(events) == [
        ("added", "o1", False),
        ("added", "o2", False),
        ("removed", "o1", False),
        ("removed", "o2", False),
    ]


def test_links_that_were_there_before_it_started_are_known(session: Session) -> None:
    foreign("o1", peer="o2")
    with Configurator(session) as configurator:
        assert unmanaged(configurator) == at_home()


def test_links_of_others_in_other_namespaces_are_not_in_it(
    configurator: Configurator, told: Subscription[IndexEvent], blue: str
) -> None:
    put(configurator, *pair("a", "b", "blue"))
    settle(configurator)
    told.take()
    foreign("o1", "blue", peer="o2")
    settle(configurator)
    assert {"o1", "o2"} < names("blue")
    # Before Linux 6.12, the operational state of our own link may follow.
    assert {event.entry.name for event in told.take() if event.entry is not None} <= {"a", "b"}
    assert [entry.name for entry in configurator.indexes.entries() if entry.netns] == ["a"]


def test_a_managed_link_of_home_is_there_once_and_never_as_another(
    configurator: Configurator, told: Subscription[IndexEvent], blue: str
) -> None:
    put(configurator, *pair("a", "b", "blue"))
    for mtu in (1400, 1450):
        put(configurator, *pair("a", "b", "blue", mtu=mtu))
        settle(configurator)
        ip("link", "set", "dev", "b", "down")
        until(configurator, lambda: "UP" in seen("b")["flags"])
        settle(configurator)
    configurator.delete("b")
    settle(configurator)
    settle(configurator)
    events = [event for event in briefly(told.take()) if event[0] != "changed"]
    assert sorted(events) == [
        ("added", "a", True),
        ("added", "b", True),
        ("removed", "a", True),
        ("removed", "b", True),
    ]
    assert unmanaged(configurator) == at_home()


def test_a_pair_of_an_earlier_run_becomes_managed_without_having_been_away(session: Session, blue: str) -> None:
    without_ipv6("", "blue")
    with Configurator(session) as earlier:
        put(earlier, *pair("a", "b", "blue"))
        calm(earlier)
    index = seen("b")["ifindex"]
    with Configurator(session) as configurator, configurator.indexes.subscribe() as told:
        configurator.resync(pair("a", "b", "blue"))
        settle(configurator)
        events = [one for one in told.take() if "b" in ((one.entry and one.entry.name), (one.old and one.old.name))]
        assert briefly(events) == [("added", "b", False), ("changed", "b", True)]
        assert configurator.indexes.index("b") == index
        assert [entry.index for entry in configurator.indexes.entries() if entry.name == "b"] == [index]


def test_a_foreign_link_that_holds_a_wanted_name_stays_unmanaged(configurator: Configurator, blue: str) -> None:
    foreign("b", peer="o")
    put(configurator, *pair("a", "b", "blue"))
    settle(configurator)
    assert configurator.status("b")[0].state is State.FAILED
    assert unmanaged(configurator) == at_home()
    assert not [entry for entry in configurator.indexes.entries() if entry.managed]


def test_lookup_interfaces_follows_the_links_of_others_at_home(configurator: Configurator, blue: str) -> None:
    def others() -> dict[int, str]:
        return {
            one.link.index: one.name
            for one in configurator.lookup_interfaces()
            if one.state is State.UNMANAGED and one.link is not None
        }

    put(configurator, interface("a", "b", "blue"), interface("b", "a", host_if_name="eth7"))
    settle(configurator)
    ours = seen("eth7")["ifindex"]
    assert others() == {1: "lo"}
    foreign("o1", peer="o2")
    settle(configurator)
    assert others() == {index: name for index, name in at_home().items() if index != ours}
    assert [one.name for one in configurator.lookup_interfaces()][:2] == ["a", "b"]
    ip("link", "set", "dev", "o1", "name", "o3")
    settle(configurator)
    assert set(others().values()) == {"lo", "o2", "o3"}
    ip("link", "del", "dev", "o3")
    settle(configurator)
    assert others() == {1: "lo"}


def test_events_that_overflow_leave_the_indexes_right(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        tiny_buffers(monkeypatch) as resyncs,
        Configurator(session) as configurator,
        configurator.indexes.subscribe() as told,
    ):
        put(configurator, *pair("a", "b", "blue"))
        quickly(*[f"link add name o{number} type bridge" for number in range(20)])
        settle(configurator)
        before = len(resyncs)
        quickly(
            *[f"link set dev o{number} mtu {mtu}" for mtu in (1300, 1301) for number in range(20)],
            *[f"link del dev o{number}" for number in range(10)],
            *[f"link set dev o{number} name p{number}" for number in range(10, 20)],
            "link add name o0 type bridge",
            "link del dev b",
        )
        until(configurator, lambda: names("blue") == {"a"} and configured(configurator, "a", "b")())
        # The last event may have been lost that the kernel had room for: the cache hears of it with the next one.
        until(configurator, lambda: "p19" in unmanaged(configurator).values(), 20)
        settle(configurator)
        assert len(resyncs) > before
        index = seen("b")["ifindex"]
        assert unmanaged(configurator) == {one: name for one, name in at_home().items() if one != index}
        assert (configurator.indexes.index("b"), configurator.indexes.name(index)) == (index, "b")
        assert configurator.indexes.index("a") == seen("a", "blue")["ifindex"]
        assert copied(told.take()) == configurator.indexes.entries()


# --- who is told of them


def test_a_callback_is_called_by_poll_with_what_is_first_and_then_with_every_change(
    configurator: Configurator, blue: str
) -> None:
    without_ipv6("", "blue")
    put(configurator, *pair("a", "b", "blue"))
    calm(configurator)
    heard: list[IndexEvent] = []
    configurator.indexes.subscribe(heard.append)
    assert heard == []  # not by subscribing
    assert configurator.due() == 0
    configurator.poll(0)
    assert [(event.kind, event.entry) for event in heard] == [
        ("added", entry) for entry in configurator.indexes.entries()
    ]
    foreign("o1", peer="o2")
    readable(configurator, 1)
    replayed = len(heard)
    assert not any("o1" in one[1] for one in briefly(heard))
    configurator.poll(0)
    assert ("added", "o1", False) in briefly(heard[replayed:])
    put(configurator, *pair("a", "b", "", "blue"))
    settle(configurator)
    assert copied(heard) == configurator.indexes.entries()


def test_a_callback_may_unsubscribe_itself_and_the_others_go_on(configurator: Configurator, blue: str) -> None:
    few: list[IndexEvent] = []
    every: list[IndexEvent] = []

    def once(event: IndexEvent) -> None:
        few.append(event)
        subscription.unsubscribe()

    subscription = configurator.indexes.subscribe(once)
    configurator.indexes.subscribe(every.append)
    put(configurator, *pair("a", "b", "blue"))
    settle(configurator)
    assert briefly(few) == [("added", "lo", False)]
    assert copied(every) == configurator.indexes.entries()
    assert configurator.due() is None


def test_a_callback_that_fails_disturbs_neither_the_others_nor_the_work(
    configurator: Configurator, blue: str, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[IndexEvent] = []
    every: list[IndexEvent] = []

    def fails(event: IndexEvent) -> None:
        calls.append(event)
        raise RuntimeError("no")

    configurator.indexes.subscribe(fails)
    configurator.indexes.subscribe(every.append)
    put(configurator, *pair("a", "b", "blue"))
    settle(configurator)
    assert configured(configurator, "a", "b")()
    assert names("blue") == {"a"}
    assert calls == every
    assert copied(every) == configurator.indexes.entries()
    assert len([record for record in caplog.records if "a subscriber failed" in record.message]) == len(calls)


def test_a_callback_may_put_and_delete_interfaces(configurator: Configurator, blue: str) -> None:
    def follow(event: IndexEvent) -> None:
        if event.kind == "added" and event.entry is not None and event.entry.name == "a":
            put(configurator, *pair("x", "y", "blue"))

    configurator.indexes.subscribe(follow)
    put(configurator, *pair("a", "b", "blue"))
    settle(configurator)
    assert names("blue") == {"a", "x"}
    assert configurator.indexes.index("x") == seen("x", "blue")["ifindex"]


# --- who is told of the statuses


def last(changes: list[StatusChange]) -> dict[str, Any]:
    """Return what a subscriber knows that only follows the changes."""
    known: dict[str, Any] = {}
    for change in changes:
        assert known.get(change.name) == change.old
        known[change.name] = change.status
    return {name: status for name, status in known.items() if status is not None}


def test_statuses_are_told_by_poll_with_what_is_first_and_then_with_every_change(
    configurator: Configurator, blue: str
) -> None:
    put(configurator, interface("a", "b", "blue"))
    settle(configurator)
    heard: list[StatusChange] = []
    configurator.subscribe(heard.append)
    assert heard == []
    assert configurator.due() == 0
    configurator.poll(0)
    assert heard == [StatusChange("a", configurator.status("a")[0])]
    put(configurator, interface("b", "a"))
    assert len(heard) == 1
    settle(configurator)
    assert last(heard) == {status.name: status for status in configurator.status()}
    assert {str(status.state) for status in last(heard).values()} == {"CONFIGURED"}
    configurator.delete("a")
    settle(configurator)
    assert last(heard).keys() == {"b"}
    (end,) = [change for change in heard if change.name == "a" and change.status is None]
    assert end.old is not None
    assert end.old.state is State.CONFIGURED


def test_a_subscriber_of_statuses_without_a_callback_takes_them_when_it_likes(
    configurator: Configurator, blue: str
) -> None:
    with configurator.subscribe() as subscription:
        for mtu in range(1400, 1420):
            put(configurator, *pair("a", "b", "blue", mtu=mtu))
            settle(configurator)
        changes = subscription.take()
        mtus = [one.status.link.mtu for one in changes if one.name == "a" and one.status and one.status.link]
        assert list(dict.fromkeys(mtus)) == list(range(1400, 1420))
        assert last(changes) == {status.name: status for status in configurator.status()}
    configurator.delete("a")
    settle(configurator)
    assert subscription.take() == []


def test_a_callback_of_statuses_that_fails_or_unsubscribes_disturbs_no_other(
    configurator: Configurator, blue: str
) -> None:
    few: list[StatusChange] = []
    every: list[StatusChange] = []

    def once(change: StatusChange) -> None:
        few.append(change)
        subscription.unsubscribe()

    def fails(change: StatusChange) -> None:
        raise RuntimeError(str(change))

    subscription = configurator.subscribe(once)
    configurator.subscribe(fails)
    configurator.subscribe(every.append)
    put(configurator, *pair("a", "b", "blue"), placed("w", "v", Namespace(pid=4_194_303)))
    settle(configurator)
    assert len(few) == 1
    assert last(every) == {status.name: status for status in configurator.status()}
    assert last(every).keys() == {"a", "b", "w"}
    assert names("blue") == {"a"}
