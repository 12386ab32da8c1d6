"""How many keys are requested at a time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vethlib.agent.stores.etcd.paging import CALL, MOST_KEYS, Pager, Scan


def too_long(size: int, most: int) -> str:
    return f"Stream removed (CLIENT: Received message larger than max ({size} vs. {most}))"


def test_small_values_come_in_few_pages() -> None:
    pager, pages, keys = Pager(), 0, 0
    while keys < 10_000:
        keys += pager.count
        pages += 1
        pager.answered(pager.count * 300, 0.01)
    assert pages <= 9
    assert pager.count == MOST_KEYS


@given(st.lists(st.integers(10, 1 << 20), min_size=1, max_size=100), st.integers(20_000, 100_000_000))
def test_on_any_line_every_value_comes_within_the_time_that_it_is_given(sizes: list[int], rate: int) -> None:
    """A line with this many bytes per second; a page that takes too long is lost, and everything is requested again."""
    pager, place, rounds, cap = Pager(), 0, 0, (1 << 20) + 8192
    while place < len(sizes):
        rounds += 1
        assert rounds < 600
        asked = sizes[place : place + pager.count]
        if sum(asked) > cap:
            assert pager.was_too_long(too_long(sum(asked), cap))
        elif sum(asked) / rate > pager.seconds:
            pager.was_too_slow()
            place = 0
        else:
            pager.answered(sum(asked), sum(asked) / rate)
            place += len(asked)
    pager.done()
    assert pager.seconds == CALL


def test_a_single_value_that_is_too_long_is_known_as_such_soon() -> None:
    pager = Pager()
    tries = 0
    while pager.was_too_long(too_long(64 * 1_400_000 // max(1, 64 // pager.count), 1 << 20)):
        tries += 1
    assert (pager.count, tries) == (1, 1)
    assert not pager.was_too_long("nothing that can be read")


def test_more_time_is_given_until_all_is_read() -> None:
    pager = Pager()
    for _ in range(20):
        pager.was_too_slow()
    assert (pager.count, pager.seconds) == (1, 64)
    pager.answered(100, 0.1)
    assert pager.seconds == 64  # a longer one may follow
    pager.done()
    assert pager.seconds == CALL


@pytest.mark.parametrize("key", [b"/a/0", b"/a/1", b"/b", b"/a0", b""])
def test_a_key_that_was_not_asked_for_is_refused(key: bytes) -> None:
    scan = Scan(b"/a/", b"/a0", 10)
    assert scan.take(b"/a/1") == ""
    assert scan.take(key)


def test_keys_have_a_number_after_which_there_are_too_many() -> None:
    scan = Scan(b"/a/", b"/a0", 3)
    assert [bool(scan.take(b"/a/%d" % number)) for number in range(4)] == [False, False, False, True]
