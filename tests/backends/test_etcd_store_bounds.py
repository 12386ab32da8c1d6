"""Bounds for the content of a store in etcd and for a server's answers: costs are limited, and what fits is read."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from tests.backends.etcd import Etcd
from tests.backends.etcd_consumer import LABEL, PREFIX, Consumer, key, many, text
from tests.backends.etcd_fake import FakeEtcd, header
from tests.backends.etcd_fixtures import Follow
from tests.backends.proxy import Proxy
from tests.backends.statuses import status
from tests.witness import poll
from vethlib.agent.limits import Limits
from vethlib.agent.stores.etcd import etcd_pb2 as pb
from vethlib.agent.stores.etcd import paging, publishing
from vethlib.agent.stores.etcd.editor import EtcdEditor
from vethlib.agent.stores.etcd.published import EtcdStatuses
from vethlib.agent.stores.etcd.store import EtcdStore
from vethlib.agent.stores.keys import presence_key, status_key
from vethlib.agent.stores.protocol import Back, Change, Outage, Snapshot, StoreError

LONG = 1_400_000  # bytes; etcd takes 1.5 MiB


def rss() -> int:
    """Bytes of memory that this process uses."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


# --- long values


def fill_with_long(etcd: Etcd, names: Iterable[str], size: int = LONG) -> None:
    for name in names:
        etcd.fill({key(name): b'{"x": "' + b"x" * size + b'"}'})


def test_long_values_are_refused_one_by_one_and_what_fits_is_there(etcd: Etcd, proxy: Proxy, follow: Follow) -> None:
    etcd.fill(many(200))
    fill_with_long(etcd, [f"v{number}z" for number in range(4)])
    before = rss()
    (snapshot,) = follow(proxy.url).hear(20)
    assert isinstance(snapshot, Snapshot)
    refused = {name: one for name, one in snapshot.values.items() if one.interface is None}
    assert len(snapshot.values) == 204
    assert refused.keys() == {f"v{number}z" for number in range(4)}
    assert {one.problems[0].field for one in refused.values()} == {"interface"}
    assert rss() - before < 60 << 20
    assert proxy.bytes_down < 4 * 600_000 + 200_000  # they are not received whole


@pytest.mark.parametrize("value_bytes", [4 << 30, 10**15])
def test_an_etcd_is_read_whatever_the_limit_of_a_value(etcd: Etcd, value_bytes: int) -> None:
    etcd.fill(many(2))
    consumer = Consumer(EtcdStore(etcd.url, LABEL, limits=Limits(value_bytes=value_bytes)))
    consumer.wait(lambda: consumer.values is not None or consumer.outage != "")
    assert consumer.values is not None, consumer.outage
    consumer.store.close()


def test_a_long_value_is_an_interface_again_when_it_is_shorter(etcd: Etcd, follow: Follow) -> None:
    fill_with_long(etcd, ["v1"])
    etcd.fill({key("v2"): text("v2")})
    consumer = follow(etcd.url)
    consumer.wait(lambda: consumer.values is not None)
    known = consumer.known or {}
    assert {name: value is None for name, value in known.items()} == {"v1": True, "v2": False}
    etcd.fill({key("v1"): text("v1")})
    consumer.come_to(etcd)


def test_a_long_value_that_is_written_while_it_is_followed_costs_no_connection(
    etcd: Etcd, proxy: Proxy, follow: Follow
) -> None:
    etcd.fill(many(3))
    consumer = follow(proxy.url)
    consumer.come_to(etcd)
    for size in (LONG, LONG + 1, 1_100_000):
        fill_with_long(etcd, ["v1"], size)
        etcd.put(key("v2"), text("v2", mtu=1000 + size % 100))
        consumer.wait(lambda size=size: _mtu(consumer, "v2") == 1000 + size % 100)  # type: ignore[misc]
        assert consumer.values is not None
        assert consumer.values["v1"].interface is None
    assert proxy.accepted == 1
    etcd.put(key("v1"), text("v1"))
    consumer.come_to(etcd)


def _mtu(consumer: Consumer, name: str) -> int:
    interface = (consumer.values or {})[name].interface
    return interface.mtu if interface is not None else -1


@pytest.mark.parametrize("size", [3000, 100_000, 1_300_000])
def test_a_long_key_is_refused_and_touches_no_other(etcd: Etcd, follow: Follow, size: int) -> None:
    long_keys = [PREFIX + "v1" + letter * size for letter in "ab"]
    for one in long_keys:
        etcd.fill({one: text("v1")})
    etcd.fill(many(3))
    consumer = follow(etcd.url)
    consumer.wait(lambda: consumer.values is not None, 20)
    assert consumer.values is not None
    names = set(consumer.values)
    assert {"v0", "v1", "v2"} < names
    assert len(names) == 5
    assert max(map(len, names)) < 2000
    etcd.empty(long_keys, at_once=1)
    consumer.come_to(etcd)


def test_an_operator_sees_deletes_and_replaces_what_is_too_long(etcd: Etcd) -> None:
    fill_with_long(etcd, ["v1", "v2"])
    etcd.fill(many(1))
    editor = EtcdEditor(etcd.url, LABEL)
    values = editor.values()
    assert {name: one.interface is None for name, one in values.items()} == {"v0": False, "v1": True, "v2": True}
    assert {one.name: one.problem is not None for one in editor.stored()} == {"v0": False, "v1": True, "v2": True}
    assert [edit.op for edit in editor.delete("v1")] == ["delete"]
    assert [edit.op for edit in editor.put_text({"v2": text("v2")})] == ["change"]
    assert {name: one.interface is None for name, one in editor.values().items()} == {"v0": False, "v2": False}


def test_how_long_a_value_may_be_and_how_many_there_may_be_are_limits(etcd: Etcd, nothing_open: None) -> None:
    etcd.fill(many(5) | {key("v1"): text("v1", description="x" * 20_000)})
    consumer = Consumer(EtcdStore(etcd.url, LABEL, limits=Limits(value_bytes=4096)))
    consumer.wait(lambda: consumer.values is not None)
    assert [name for name, value in (consumer.known or {}).items() if value is None] == ["v1"]
    consumer.store.close()
    crowded = Consumer(EtcdStore(etcd.url, LABEL, limits=Limits(store_keys=4)))
    assert crowded.wait_for_outage() == "too-large"
    assert "store_keys" in crowded.outage
    etcd.empty([key("v4")])
    crowded.wait(lambda: crowded.values is not None, 40)
    crowded.store.close()


@pytest.mark.parametrize("at_once", [1, 10])
def test_too_many_values_are_an_outage_as_soon_as_they_are_written(
    etcd: Etcd, nothing_open: None, at_once: int
) -> None:
    """Not only at the next start, when nobody remembers who wrote them."""
    etcd.fill(many(3))
    consumer = Consumer(EtcdStore(etcd.url, LABEL, limits=Limits(store_keys=4)))
    consumer.wait(lambda: consumer.values is not None)
    more = list(many(4 + at_once).items())[3:]
    for first in range(0, len(more), at_once):
        etcd.fill(dict(more[first : first + at_once]))
    assert consumer.wait_for_outage() == "too-large"
    assert "store_keys" in consumer.outage
    etcd.empty([k for k, _ in more])
    consumer.come_to(etcd, 40)
    consumer.store.close()


# --- slow lines


def test_a_slow_line_delays_and_no_more(
    etcd: Etcd, proxy: Proxy, follow: Follow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than comes through within the time that a call may take."""
    monkeypatch.setattr(paging, "CALL", 1.0)
    monkeypatch.setattr(paging, "_PAGE_SECONDS", 0.25)
    etcd.fill({key(f"v{n}"): text(f"v{n}", description="x" * 25_000) for n in range(24)}, at_once=9)
    proxy.slow_down(300_000)
    consumer = follow(proxy.url)
    began = time.monotonic()
    consumer.wait(lambda: consumer.values is not None and not consumer.outage, 40)
    assert len(consumer.values or ()) == 24
    assert time.monotonic() - began > 1.5  # or it was no test
    proxy.slow_down(0)
    etcd.put(key("v1"), text("v1"))
    consumer.come_to(etcd)


# --- a server that repeats itself


@pytest.fixture
def fake() -> Iterator[Callable[..., FakeEtcd]]:
    made: list[FakeEtcd] = []

    def make(*how: Any, kind: Callable[..., FakeEtcd] = FakeEtcd) -> FakeEtcd:
        made.append(kind(*how))
        return made[-1]

    yield make
    for one in made:
        one.close()


def pair(number: int) -> pb.KeyValue:
    name = f"v{number:08d}"
    return pb.KeyValue(key=key(name).encode(), value=text(name).encode(), mod_revision=3)


def one_page(_request: pb.RangeRequest) -> pb.RangeResponse:
    return pb.RangeResponse(header=header(), kvs=[pair(1)], count=1)


def compacted(_request: pb.RangeRequest) -> pb.RangeResponse:
    raise LookupError


def compacted_later(request: pb.RangeRequest) -> pb.RangeResponse:
    if request.revision:
        raise LookupError
    return pb.RangeResponse(header=header(), kvs=[pair(1)], more=True, count=9)


def the_same_again(_request: pb.RangeRequest) -> pb.RangeResponse:
    return pb.RangeResponse(header=header(), kvs=[pair(1)], more=True, count=9)


def another_key(request: pb.RangeRequest) -> pb.RangeResponse:
    return pb.RangeResponse(header=header(), kvs=[pb.KeyValue(key=b"/other", mod_revision=3)], more=True)


def without_end(request: pb.RangeRequest) -> pb.RangeResponse:
    """Always as many more as were asked for."""
    found = request.key.decode().removeprefix(PREFIX).strip("v\0") or "0"
    first = int(found) + 1
    return pb.RangeResponse(header=header(), kvs=[pair(first + n) for n in range(request.limit)], more=True)


def watch_holds(request: pb.WatchRequest) -> Iterable[pb.WatchResponse]:
    yield pb.WatchResponse(header=header(), created=True)


def watch_compacted(request: pb.WatchRequest) -> Iterable[pb.WatchResponse]:
    yield pb.WatchResponse(header=header(), created=True)
    yield pb.WatchResponse(header=header(), canceled=True, compact_revision=99)


def watch_canceled(request: pb.WatchRequest) -> Iterable[pb.WatchResponse]:
    yield pb.WatchResponse(header=header(), created=True)
    yield pb.WatchResponse(header=header(), canceled=True, cancel_reason="no reason")


def watch_refused(request: pb.WatchRequest) -> Iterable[pb.WatchResponse]:
    yield pb.WatchResponse(header=header(), canceled=True, cancel_reason="no reason")


def watch_backwards(request: pb.WatchRequest) -> Iterable[pb.WatchResponse]:
    yield pb.WatchResponse(header=header(2), created=True)


REPEATING = [
    (compacted, watch_holds),
    (compacted_later, watch_holds),
    (the_same_again, watch_holds),
    (another_key, watch_holds),
    (without_end, watch_holds),
    (one_page, watch_compacted),
    (one_page, watch_canceled),
    (one_page, watch_refused),
    (one_page, watch_backwards),
]


def test_a_server_that_repeats_itself_is_an_outage_and_is_not_asked_without_pause(
    fake: Callable[..., FakeEtcd],
) -> None:
    servers = [fake(*how) for how in REPEATING]
    consumers = [Consumer(EtcdStore(one.url, LABEL, limits=Limits(store_keys=300))) for one in servers]
    try:
        for consumer in consumers:
            consumer.wait_for_outage()
        time.sleep(1.0)  # the pauses have become longer
        before = [sum(one.calls.values()) for one in servers]
        for consumer in consumers:
            consumer.wait_a_while(0)
        said = [len(consumer.told) for consumer in consumers]
        time.sleep(1.5)
        for how, server, consumer, calls, count in zip(REPEATING, servers, consumers, before, said, strict=True):
            consumer.wait_a_while(0)
            assert sum(server.calls.values()) - calls < 60, how
            assert consumer.outage, how
            assert sum(isinstance(one, (Outage, Back)) for one in consumer.told[count:]) <= 2, how
    finally:
        began = time.monotonic()
        for consumer in consumers:
            consumer.store.close()
        assert time.monotonic() - began < 20
    assert poll(lambda: not [one for one in threading.enumerate() if one.name.startswith("vethlib-etcd")])


def test_a_server_that_repeats_itself_for_a_while_is_followed_when_it_does_no_more(
    fake: Callable[..., FakeEtcd],
) -> None:
    ways = [watch_compacted]
    server = fake(one_page, lambda request: ways[-1](request))
    consumer = Consumer(EtcdStore(server.url, LABEL))
    try:
        consumer.wait_for_outage()
        ways.append(watch_holds)
        consumer.wait(lambda: not consumer.outage)
        assert not any(isinstance(one, Change) for one in consumer.told)
    finally:
        consumer.store.close()


def test_a_server_that_forgets_every_lease_is_asked_for_one_in_a_second(fake: Callable[..., FakeEtcd]) -> None:
    server = fake(one_page, watch_holds)
    server.forgets_leases = True
    consumer = Consumer(EtcdStore(server.url, LABEL))
    try:
        consumer.wait(lambda: consumer.values is not None)
        consumer.store.publish({})
        time.sleep(2.2)
        assert 1 <= server.calls["grant"] <= 4
        assert server.calls["txn"] <= 8
        assert not consumer.outage
    finally:
        consumer.store.close()


def test_who_watches_statuses_does_not_ask_a_server_that_repeats_itself_without_pause(
    fake: Callable[..., FakeEtcd],
) -> None:
    server = fake(lambda _: pb.RangeResponse(header=header()), watch_compacted)
    found = EtcdStatuses(server.url, LABEL).watch(0.05)
    deadline = time.monotonic() + 2.0
    while time.monotonic() < deadline:
        next(found)
    found.close()
    assert 1 <= server.calls["watch"] <= 5


# --- a server that does not confirm a watch


class Unconfirming(FakeEtcd):
    """Confirms no watch of interfaces while `is_silent`, but the other one on the same stream, if `confirms_other`."""

    is_silent = True

    def __init__(self, confirms_other: bool) -> None:
        self._confirms_other = confirms_other
        super().__init__(lambda _: pb.RangeResponse(header=header()), watch_holds)

    def _watch(self, requests: Iterator[pb.WatchRequest], context: Any) -> Iterator[pb.WatchResponse]:
        for request in requests:
            if not self.is_silent:
                yield from super()._watch(iter([request]), context)
            elif self._confirms_other and not request.create_request.start_revision:
                yield pb.WatchResponse(header=header(), created=True, watch_id=1)


@pytest.mark.parametrize("confirms_other", [False, True])
def test_a_server_that_does_not_confirm_the_watch_is_an_outage_until_it_does(
    fake: Callable[..., FakeEtcd], monkeypatch: pytest.MonkeyPatch, confirms_other: bool
) -> None:
    monkeypatch.setattr("vethlib.agent.stores.etcd.store.CALL", 0.5)
    server = fake(confirms_other, kind=Unconfirming)
    consumer = Consumer(EtcdStore(server.url, LABEL))
    try:
        assert consumer.wait_for_outage() == "no-answer"
        Unconfirming.is_silent = False
        monkeypatch.setattr("vethlib.agent.stores.etcd.store.CALL", 30.0)
        consumer.wait(lambda: not consumer.outage)
    finally:
        Unconfirming.is_silent = True
        consumer.store.close()


def test_after_a_member_that_does_not_confirm_the_watch_another_one_is_followed(
    fake: Callable[..., FakeEtcd], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vethlib.agent.stores.etcd.store.CALL", 2.0)
    monkeypatch.setattr("vethlib.agent.stores.etcd.store._any_of", lambda _: 0)
    members = fake(False, kind=Unconfirming), fake(lambda _: pb.RangeResponse(header=header()), watch_holds)
    consumer = Consumer(EtcdStore(f"etcd://{members[0].endpoint},{members[1].endpoint}", LABEL))
    try:
        assert poll(lambda: bool(members[1].calls["watch"]))
        consumer.wait(lambda: not consumer.outage)
    finally:
        consumer.store.close()


def test_who_watches_statuses_is_told_of_a_server_that_does_not_confirm_the_watch(
    fake: Callable[..., FakeEtcd], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vethlib.agent.stores.etcd.published.CALL", 0.5)
    statuses = EtcdStatuses(fake(False, kind=Unconfirming).url, LABEL).watch(0.05)
    try:
        assert poll(lambda: isinstance(next(statuses), StoreError))
    finally:
        statuses.close()


# --- an agent's lease, while much is read and written

STATUSES = status_key(LABEL, "").encode()
PRESENT = presence_key(LABEL, "").encode()
OFTEN = "?lease=60&heartbeat=0.1"
SLOW = 0.15  # seconds for an answer, so that a heartbeat is due after each


class SlowEtcd(FakeEtcd):
    """Has these keys, and takes its time for each page of them, and for each transaction. `told` is the order of its
    answers: of pages, transactions and heartbeats.
    """

    def __init__(self, keys: dict[bytes, bytes], at_once: int) -> None:
        self.told: list[str] = []
        self._keys = dict(sorted(keys.items()))
        self._at_once = at_once
        super().__init__(self._ranges_of, watch_holds)

    def _ranges_of(self, request: pb.RangeRequest) -> pb.RangeResponse:
        answer = pb.RangeResponse(header=header())
        asked = [one for one in self._keys if request.key <= one < (request.range_end or request.key + b"\0")]
        for one in asked[: self._at_once]:
            answer.kvs.add(key=one, value=b"" if request.keys_only else self._keys[one], mod_revision=3)
        answer.more = len(asked) > self._at_once
        if answer.kvs:
            time.sleep(SLOW)
            self.told.append("page")
        return answer

    def _write(self, request: pb.TxnRequest, context: Any) -> pb.TxnResponse:
        time.sleep(SLOW)
        self.told.append("write")
        return super()._write(request, context)

    def _keep_alive(self, requests: Iterator[Any], context: Any) -> Iterator[pb.LeaseKeepAliveResponse]:
        for answer in super()._keep_alive(requests, context):
            self.told.append("beat")
            yield answer

    def longest(self, kind: str) -> int:
        """The longest run of answers of a kind with nothing in between."""
        return max((len(list(run)) for one, run in groupby(self.told) if one == kind), default=0)


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., tuple[SlowEtcd, EtcdStore]]]:
    """Begins to follow a slow etcd with these keys."""
    monkeypatch.setattr(publishing, "_CHECK", 10_000)  # it cannot be asked for what has been written
    made: list[tuple[SlowEtcd, EtcdStore]] = []

    def begin(keys: dict[bytes, bytes], at_once: int = 2) -> tuple[SlowEtcd, EtcdStore]:
        server = SlowEtcd(keys, at_once)
        made.append((server, EtcdStore(f"{server.url}{OFTEN}", LABEL)))
        return made[-1]

    yield begin
    for server, store in made:
        store.close()
        server.close()


def others(count: int, pad: str = "") -> dict[bytes, bytes]:
    """The keys of so many other agents."""
    each = {f"h{number:03}": f'{{"pid":7,"host":"h{number:03}","x":"{pad}"}}' for number in range(count)}
    return {PRESENT + host.encode(): entry.encode() for host, entry in each.items()}


def warned(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING]


def test_many_keys_of_other_agents_cost_no_heartbeat_and_no_status_and_one_line(
    agent: Callable[..., tuple[SlowEtcd, EtcdStore]], caplog: pytest.LogCaptureFixture
) -> None:
    server, store = agent(others(30))
    assert poll(lambda: "page" in server.told)
    store.publish({"v1": status("v1")})
    assert poll(lambda: bool(warned(caplog)))
    pages = [number for number, one in enumerate(server.told) if one == "page"]
    assert server.longest("page") <= 2
    assert "write" in server.told[pages[0] : pages[-1]]  # the status did not wait
    store.close()
    (warning,) = warned(caplog)
    assert "other agents have the label tested, too: process 7 on h000, process 7 on h001, " in warning
    assert "and 22 more" in warning
    assert len(warning) < 600


def test_of_any_number_of_long_keys_of_other_agents_only_some_are_read(
    agent: Callable[..., tuple[SlowEtcd, EtcdStore]], caplog: pytest.LogCaptureFixture
) -> None:
    server, _ = agent(others(300, "x" * 4000), at_once=10)
    assert poll(lambda: bool(warned(caplog)))
    assert server.told.count("page") <= 7
    (warning,) = warned(caplog)
    assert "other agents have the label tested, too: more than 64 agents. All manage" in warning


def test_many_statuses_of_a_former_run_cost_no_heartbeat(
    agent: Callable[..., tuple[SlowEtcd, EtcdStore]],
) -> None:
    server, store = agent({STATUSES + b"v%03d" % number: b"{}" for number in range(30)})
    store.publish({})
    assert poll(lambda: server.told.count("page") >= 15)
    assert server.longest("page") <= 2


def test_many_statuses_to_write_cost_no_heartbeat(agent: Callable[..., tuple[SlowEtcd, EtcdStore]]) -> None:
    server, store = agent({})
    assert poll(lambda: "beat" in server.told)
    store.publish({f"v{number}": status(f"v{number}") for number in range(1000)})
    assert poll(lambda: server.told.count("write") >= 12)  # two more are the agent's own keys
    assert server.longest("write") <= 4


# --- nobody reads


def test_news_that_nobody_reads_do_not_pile_up(etcd: Etcd, follow: Follow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vethlib.agent.stores.etcd.store._MOST_EVENTS", 20)
    etcd.fill(many(3))
    consumer = follow(etcd.url)
    consumer.come_to(etcd)
    for number in range(90):
        etcd.put(key(f"v{number % 3}"), text(f"v{number % 3}", mtu=1000 + number))
    store = consumer.store
    assert isinstance(store, EtcdStore)
    deadline = time.monotonic() + 60
    while not any(
        isinstance(one, Change)
        and one.name == "v2"
        and one.value
        and one.value.interface
        and one.value.interface.mtu == 1089
        for one in store._events
    ):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert len(store._events) <= 21
    consumer.come_to(etcd)
