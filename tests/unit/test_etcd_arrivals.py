"""What has arrived of a watch is taken together, is bounded, and ends with the watch or when it is closed."""

from __future__ import annotations

from collections.abc import Iterator
from queue import SimpleQueue

import pytest

from tests.witness import poll
from vethlib.agent.stores.etcd import arrivals
from vethlib.agent.stores.etcd import etcd_pb2 as pb
from vethlib.agent.stores.etcd.arrivals import Arrivals
from vethlib.agent.stores.protocol import StoreError


class Watch:
    """A watch whose answers are put into a queue; None ends it."""

    def __init__(self) -> None:
        self.answers: SimpleQueue[pb.WatchResponse | None] = SimpleQueue()

    def __iter__(self) -> Iterator[pb.WatchResponse]:
        while (answer := self.answers.get()) is not None:
            yield answer
        raise StoreError("it has ended", reason="it has ended")

    def refusal(self, reason: str) -> StoreError:
        return StoreError(reason, reason=reason)

    def cancel(self) -> None:
        self.answers.put(None)

    def put(self, key: bytes, value: bytes = b"") -> None:
        event = pb.Event(kv=pb.KeyValue(key=key, value=value))
        self.answers.put(pb.WatchResponse(watch_id=1, events=[event]))


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture
def aside() -> list[int]:
    return []


@pytest.fixture
def arrived(watch: Watch, aside: list[int]) -> Iterator[Arrivals]:
    with Arrivals(watch, 1, lambda answer: aside.append(answer.watch_id)) as arrived:  # type: ignore[arg-type]
        yield arrived
    assert poll(lambda: not arrived._thread.is_alive())


def keys(answer: pb.WatchResponse) -> list[bytes]:
    return [event.kv.key for event in answer.events]


def test_the_last_events_of_each_key_come_in_order_and_then_the_end(
    watch: Watch, aside: list[int], arrived: Arrivals
) -> None:
    for key in (b"a", b"b", b"a", b"c"):
        watch.put(key)
    watch.answers.put(pb.WatchResponse(watch_id=2, canceled=True))
    watch.answers.put(None)
    assert poll(lambda: arrived._has_ended)
    taken = iter(arrived)
    assert keys(next(taken)) == [b"b", b"a", b"c"]
    with pytest.raises(StoreError, match="it has ended"):
        next(taken)
    assert aside == [2]


@pytest.mark.parametrize("size", [300, 0], ids=["values", "events"])
def test_no_more_is_kept_than_a_bound_beyond_one_answer(
    watch: Watch, arrived: Arrivals, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(arrivals, "_MOST", 4000)
    for number in range(8):
        watch.put(b"rewritten", b"x" * 900)  # what is superseded does not count
        watch.put(b"%d" % number, b"x" * size)
    assert poll(lambda: arrived._size > 4000)
    taken = iter(arrived)
    told: list[bytes] = []
    while len(told) < 8:
        answer = next(taken)
        assert len(answer.events) <= 5
        told += [key for key in keys(answer) if key != b"rewritten"]
    assert told == [b"%d" % number for number in range(8)]


@pytest.mark.parametrize("size", [0, 2000])
def test_it_can_be_closed_whether_it_waits_for_answers_or_for_room(
    watch: Watch, arrived: Arrivals, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(arrivals, "_MOST", 1000)
    watch.put(b"a", b"x" * size)
    assert poll(lambda: bool(arrived._events))


@pytest.mark.parametrize(
    ("answer", "raises"),
    [(pb.WatchResponse(watch_id=1, compact_revision=5), False), (pb.WatchResponse(watch_id=1, canceled=True), True)],
)
def test_a_compaction_is_an_end_and_a_refusal_an_error(
    watch: Watch, arrived: Arrivals, answer: pb.WatchResponse, raises: bool
) -> None:
    watch.answers.put(answer)
    if raises:
        with pytest.raises(StoreError):
            next(iter(arrived))
    else:
        assert list(arrived) == []
