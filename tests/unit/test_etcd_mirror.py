"""The mirror of etcd's keys, and how answers change it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.stores import interface_text
from vethlib.agent.limits import Limits
from vethlib.agent.stores.etcd import etcd_pb2 as pb
from vethlib.agent.stores.etcd.connection import Found
from vethlib.agent.stores.etcd.mirror import Kept, Mirror
from vethlib.agent.stores.etcd.reading import prefix_of
from vethlib.agent.stores.protocol import Change, Snapshot, StoreEvent

PREFIX = prefix_of("here")
CLUSTER = 7


def key(name: str) -> bytes:
    return PREFIX + name.encode()


def found(mirror: Mirror, revision: int, values: dict[str, tuple[str, int]]) -> Found[Kept]:
    """Return what a connection keeps of what it reads."""
    kept = {key(name): (mirror.keep(key(name), text.encode()), at) for name, (text, at) in values.items()}
    return Found(kept, revision, CLUSTER, 2)


def put(name: str, revision: int, text: str | None = None) -> pb.Event:
    raw = (interface_text(name) if text is None else text).encode()
    return pb.Event(type=pb.Event.PUT, kv=pb.KeyValue(key=key(name), value=raw, mod_revision=revision))


def delete(name: str, revision: int) -> pb.Event:
    return pb.Event(type=pb.Event.DELETE, kv=pb.KeyValue(key=key(name), mod_revision=revision))


def answer(*events: pb.Event, revision: int = 0, fragment: bool = False) -> pb.WatchResponse:
    return pb.WatchResponse(header=header(revision), events=events, fragment=fragment)


def header(revision: int, *, term: int = 2, cluster: int = CLUSTER) -> pb.ResponseHeader:
    return pb.ResponseHeader(revision=revision, raft_term=term, cluster_id=cluster)


def names(news: list[StoreEvent]) -> dict[str, bool]:
    """Return the names that changes concern, and whether there is a value."""
    assert all(isinstance(one, Change) for one in news)
    return {one.name: one.value is not None for one in news if isinstance(one, Change)}


@pytest.fixture
def mirror() -> Mirror:
    """A mirror that has read a, as of revision 5."""
    mirror = Mirror(PREFIX)
    (news,) = mirror.replace(found(mirror, 5, {"a": (interface_text("a"), 3)}))
    assert isinstance(news, Snapshot)
    assert list(news.values) == ["a"]
    return mirror


def test_after_a_read_events_are_heard_from_the_next_revision_on(mirror: Mirror) -> None:
    assert mirror.start == 6


def test_a_transaction_may_come_in_pieces(mirror: Mirror) -> None:
    assert names(mirror.apply(answer(put("b", 7), put("c", 7), fragment=True))) == {"b": True, "c": True}
    assert names(mirror.apply(answer(put("d", 7)))) == {"d": True}


def test_a_value_written_again_just_so_is_no_news_but_has_another_revision(mirror: Mirror) -> None:
    mirror.moved = {}
    assert mirror.apply(answer(put("a", 9))) == []
    assert mirror.moved == {"a": 9}


def test_events_of_what_was_read_already_change_nothing(mirror: Mirror) -> None:
    mirror.apply(answer(put("a", 9, interface_text("a", mtu=1400))))
    assert mirror.apply(answer(put("a", 8, interface_text("a", mtu=1300)), delete("a", 8))) == []
    assert mirror.apply(answer(delete("nothing", 9))) == []


def test_a_second_read_tells_what_is_different(mirror: Mirror) -> None:
    mirror.apply(answer(put("b", 6), put("c", 6)))
    mirror.moved = {}
    news = mirror.replace(found(mirror, 30, {"b": (interface_text("b"), 6), "c": (interface_text("c", mtu=9000), 20)}))
    assert names(news) == {"a": False, "c": True}
    assert mirror.start == 31
    assert mirror.moved == {"a": 0, "b": 6, "c": 20}


def test_who_has_another_history_is_known_by_a_revision_a_term_or_a_cluster(mirror: Mirror) -> None:
    assert mirror.fits(header(5))
    assert mirror.fits(header(99, term=3))
    assert not mirror.fits(header(4))
    assert not mirror.fits(header(99, term=1))
    assert not mirror.fits(header(99, cluster=CLUSTER + 1))


@pytest.mark.parametrize(
    ("name", "told"), [("a/b", "key:a/b"), ("", "key:"), ("x:y", "key:x:y"), ("n" * 64, "key:" + "n" * 64)]
)
def test_a_key_that_can_be_no_interface_is_refused_under_a_name_that_none_has(
    mirror: Mirror, name: str, told: str
) -> None:
    (news,) = mirror.apply(answer(put(name, 6, "{}")))
    assert isinstance(news, Change)
    assert news.name == told
    assert news.value is not None
    assert news.value.interface is None
    assert news.value.problems[0].field == "key"
    assert names(mirror.apply(answer(delete(name, 7)))) == {told: False}


def test_a_key_that_is_no_text_is_refused(mirror: Mirror) -> None:
    event = pb.Event(type=pb.Event.PUT, kv=pb.KeyValue(key=PREFIX + b"\xff", value=b"{}", mod_revision=6))
    (news,) = mirror.apply(answer(event))
    assert isinstance(news, Change)
    assert news.name == "key:\\xff"


operations = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from([None, 1, 2, 3])), min_size=1, max_size=20)


@given(operations, st.lists(st.integers(0, 20), max_size=4), st.data())
def test_however_often_a_connection_is_lost_the_consumer_ends_with_what_there_is(
    done: list[tuple[str, int | None]], cuts: list[int], data: st.DataObject
) -> None:
    """Each operation has its own revision. Those between two connections are not received as events, but read."""
    events = [
        delete(name, at) if mtu is None else put(name, at, interface_text(name, mtu=1500 + mtu))
        for at, (name, mtu) in enumerate(done, 2)
    ]
    mirror = Mirror(PREFIX)
    consumer: dict[str, int | None] = {}
    (first,) = mirror.replace(found(mirror, 1, {}))
    assert isinstance(first, Snapshot)
    heard = 0
    for cut in sorted({*cuts, len(events)}):
        if data.draw(st.booleans(), label="another connection"):
            there = {one.kv.key: one for one in events[:cut]}
            values = {
                raw.removeprefix(PREFIX).decode(): (one.kv.value.decode(), one.kv.mod_revision)
                for raw, one in there.items()
                if one.type == pb.Event.PUT
            }
            news = mirror.replace(found(mirror, min(cut, len(events)) + 1, values))
        else:
            news = mirror.apply(answer(*events[heard:cut]))
        heard = max(heard, cut)
        for one in news:
            assert isinstance(one, Change)
            if one.value is None:
                del consumer[one.name]
            else:
                consumer[one.name] = one.value.interface.mtu if one.value.interface else None
    wanted = {name: None if mtu is None else 1500 + mtu for name, mtu in done}
    assert consumer == {name: mtu for name, mtu in wanted.items() if mtu is not None}


@pytest.mark.parametrize("at_once", [1, 4])
def test_events_can_add_no_more_keys_than_a_reading_without_its_being_noticed(at_once: int) -> None:
    mirror = Mirror(PREFIX, Limits(store_keys=4))
    mirror.replace(found(mirror, 5, {}))
    events = [put(f"v{number}", 6 + number) for number in range(8)]
    for first in range(0, 4, at_once):
        mirror.apply(answer(*events[first : first + at_once]))
        assert not mirror.has_too_many
    mirror.apply(answer(*events[4 : 4 + at_once]))
    assert mirror.has_too_many
    mirror.apply(answer(*(delete(f"v{number}", 20 + number) for number in range(at_once))))
    assert not mirror.has_too_many
