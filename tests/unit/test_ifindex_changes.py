"""Coalesced changes: one entry per link, however much happens to it."""

from __future__ import annotations

import random
from typing import Any, cast

import pytest

from vethlib._nl.addr import AddrMessage
from vethlib._nl.link import LinkMessage
from vethlib.ifindex.changes import MOST_ADDRESSES, MOST_NAMES, LinkChanges
from vethlib.ifindex.watch import Watch

HERE = Watch(cast(Any, None), 1, 1)


def link(index: int, name: str, *altnames: str, mtu: int = 1500) -> LinkMessage:
    return LinkMessage(index, 1, name, bytes(6), mtu, None, None, "up", "veth", "", 0, 1, altnames)


def address(number: int) -> AddrMessage:
    return AddrMessage(7, number.to_bytes(4, "big"), 32, 0, 0, b"")


def test_nothing_has_happened_at_first() -> None:
    assert not LinkChanges()


@pytest.mark.parametrize("times", [1, 10, 10_000])
def test_a_link_is_one_entry_however_often_it_changes(times: int) -> None:
    changes = LinkChanges()
    for number in range(times):
        changes.note(HERE, ("changed", link(7, "a", mtu=number), link(7, "a", mtu=number + 1)))
    assert changes.links == {(HERE, 7): {"a"}}
    assert not changes.lost


def test_all_names_that_it_has_and_had_are_kept() -> None:
    changes = LinkChanges()
    changes.note(HERE, ("renamed", link(7, "b", "b1"), link(7, "a", "a1", "a2")))
    changes.note(HERE, ("deleted", None, link(8, "c")))
    assert changes.links == {(HERE, 7): {"a", "a1", "a2", "b", "b1"}, (HERE, 8): {"c"}}


def test_too_many_names_make_it_a_matter_of_the_whole_namespace() -> None:
    changes = LinkChanges()
    for number in range(10_000):
        changes.note(HERE, ("renamed", link(7, f"a{number + 1}"), link(7, f"a{number}")))
    assert list(changes.lost) == [HERE]
    assert len(changes.links[HERE, 7]) <= MOST_NAMES + 2
    assert "a10000" in changes.links[HERE, 7]


def test_of_addresses_the_last_thing_that_happened_counts() -> None:
    changes = LinkChanges()
    for given in (True, False, True):
        changes.note_address(HERE, 7, address(1), given)
    changes.note_address(HERE, 7, address(2), False)
    kept = changes.addresses[HERE, 7]
    assert kept is not None
    assert [(one.address[-1], given) for one, given in kept.values()] == [(1, True), (2, False)]
    assert not changes.ignores(HERE, 7)


def test_too_many_addresses_are_not_kept_and_no_more_are_read() -> None:
    changes = LinkChanges()
    order = list(range(MOST_ADDRESSES + 1))
    random.Random(1).shuffle(order)
    for number in order:
        assert not changes.ignores(HERE, 7)
        changes.note_address(HERE, 7, address(number), True)
    assert changes.ignores(HERE, 7)
    assert not changes.ignores(HERE, 8)
    changes.note_address(HERE, 7, address(1), False)
    assert changes.addresses == {(HERE, 7): None}


def test_the_end_of_a_namespace_is_kept() -> None:
    changes = LinkChanges()
    changes.note(HERE, ("netns-gone", None, None))
    assert changes.ended == [HERE]
    assert changes


def test_an_event_without_a_visible_change_is_something_that_has_happened() -> None:
    changes = LinkChanges()
    changes.unclear.add((HERE, 7))
    assert changes
