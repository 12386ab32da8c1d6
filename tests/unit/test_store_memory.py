"""The store in a program's own memory."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from typing import Any

import pytest

from tests.live.applying import interface, value
from tests.refusing import raises
from tests.stores import is_readable
from vethlib import InvalidValue
from vethlib.agent import MemoryResolver, State, read_value
from vethlib.agent.status import Status
from vethlib.agent.stores.memory import MemoryStore
from vethlib.agent.stores.protocol import Change, Outage, Snapshot, Store

A, B = interface("a", "b"), interface("b", "a")


@pytest.fixture
def store() -> Iterator[MemoryStore]:
    store = MemoryStore([A])
    yield store
    store.close()


def test_the_first_news_is_all_that_there_is(store: MemoryStore) -> None:
    assert is_readable(store, 0)
    (first,) = store.read()
    assert isinstance(first, Snapshot)
    assert first.complete
    assert [one.interface for one in first.values.values()] == [A]
    assert not is_readable(store, 0)
    assert store.read() == []
    assert store.due() is None


def test_what_is_no_value_is_refused(store: MemoryStore) -> None:
    store.read()
    wrong: Any
    for wrong in (None, "a", 5, {"name": "a"}):
        for call in (store.put, lambda wrong: store.replace({"a": A, "b": wrong}), lambda wrong: MemoryStore([wrong])):
            with raises(InvalidValue, field="value"):
                call(wrong)
    for wrong in (None, 5, [A]):
        with raises(InvalidValue, field="values"):
            store.replace(wrong)
    for wrong in (None, 5):
        with raises(InvalidValue, field="values"):
            MemoryStore(wrong)
    assert store.read() == []


def test_a_store_is_down_whatever_the_reason_is(store: MemoryStore) -> None:
    store.read()
    store.down("")
    store.put(B)
    assert store.read() == [Outage("")]
    store.up()
    (snapshot,) = store.read()
    assert isinstance(snapshot, Snapshot)
    assert sorted(snapshot.values) == ["a", "b"]


def test_changes_come_in_order_and_what_is_the_same_is_none(store: MemoryStore) -> None:
    store.read()
    store.put(A)
    store.delete("nobody")
    assert not is_readable(store, 0)
    store.put(B)
    store.delete("a")
    store.put(A)
    assert is_readable(store, 0)
    found = store.read()
    assert [(one.name, one.value and one.value.interface) for one in found if isinstance(one, Change)] == [
        ("b", B),
        ("a", None),
        ("a", A),
    ]
    assert len(found) == 3


def test_a_refused_value_is_told_as_one(store: MemoryStore) -> None:
    store.read()
    refused = read_value(value("a", "b", mtu=5))
    store.put(refused)
    assert store.read() == [Change("a", refused)]


def test_all_values_can_be_replaced_at_once(store: MemoryStore) -> None:
    store.read()
    store.replace({"b": B})
    (found,) = store.read()
    assert isinstance(found, Snapshot)
    assert list(found.values) == ["b"]


def test_an_outage_deletes_nothing_and_ends_with_all_that_there_is_then(store: MemoryStore) -> None:
    store.read()
    store.down("the disk is on fire")
    store.down("the disk is on fire")
    store.put(B)
    store.delete("a")
    assert store.read() == [Outage("the disk is on fire")]
    store.replace({"b": B, "a": A})
    assert store.read() == []
    store.up()
    store.up()
    (found,) = store.read()
    assert isinstance(found, Snapshot)
    assert list(found.values) == ["b", "a"]


def test_what_was_told_stays_as_it_was(store: MemoryStore) -> None:
    (first,) = store.read()
    store.put(B)
    assert isinstance(first, Snapshot)
    assert list(first.values) == ["a"]


@pytest.mark.parametrize("cls", [MemoryStore, MemoryResolver])
def test_one_that_is_forgotten_is_closed_and_a_copy_closes_nothing_of_others(
    cls: type[MemoryStore] | type[MemoryResolver],
) -> None:
    made = cls()
    copied, fd = copy.copy(made), made.fileno()
    made.close()
    with open("/dev/null", "rb") as other:
        assert other.fileno() == fd
        copied.close()
        os.fstat(fd)
    fd = cls().fileno()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_statuses_are_kept_until_they_are_taken_away(store: MemoryStore) -> None:
    one, other = (Status(name, State.PENDING, "waits", 0.0) for name in "ab")
    store.publish({"a": one, "b": other})
    store.publish({"a": None, "nobody": None})
    assert store.statuses == {"b": other}


def test_a_closed_store_is_silent_and_may_be_closed_again(store: MemoryStore) -> None:
    also: Store = store  # the type checker sees that it is one
    also.close()
    also.close()
    store.put(B)
    assert store.read() == []
