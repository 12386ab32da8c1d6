"""Dumps that are torn again and again, and how they are merged."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable
from operator import itemgetter

import pytest

from vethlib._nl import torn
from vethlib._nl.batch import Outcome


def dumping(*versions: Iterable[object]) -> Callable[[], Outcome]:
    """Return torn dumps one after another, and the last of them for ever."""
    coming = [Outcome(errno.EAGAIN, "torn", list(one)) for one in versions]
    return lambda: coming.pop(0) if len(coming) > 1 else coming[0]


def test_a_dump_that_is_whole_in_the_end_is_all_there_is() -> None:
    outcomes = [Outcome(errno.EAGAIN, "", [1]), Outcome(errno.EAGAIN, "", [2]), Outcome(0, "", [3])]
    assert torn.read(lambda: outcomes.pop(0)) == (0, "", [3])


@pytest.mark.parametrize("number", [errno.EPERM, errno.EBADMSG])
def test_a_refusal_is_not_repeated(number: int) -> None:
    outcomes = [Outcome(errno.EAGAIN, "", [1]), Outcome(number, "no", [])]
    assert torn.repeat(lambda: outcomes.pop(0)) == ((number, "no", []), [])


def test_repeating_ends_at_its_deadline_with_several_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torn, "PATIENCE", 0.0)
    outcome, versions = torn.repeat(dumping([1], [2], [3], [4]))
    assert outcome.errno == errno.EAGAIN
    assert versions == [[1], [2], [3]]


def test_what_is_in_any_version_counts_as_it_was_last_seen() -> None:
    old, new = [(1, "a"), (2, "b"), (3, "c")], [(3, "C"), (1, "A")]
    found, doubtful = torn.union([old, new], itemgetter(0))
    assert list(found.values()) == [(3, "C"), (1, "A"), (2, "b")]
    assert doubtful == [2]


def test_equal_entries_count_as_often_as_in_one_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torn, "PATIENCE", 0.0)
    assert sorted(torn.read(dumping([7, 7, 8], [7], [7, 9])).bodies) == [7, 7, 8, 9]
    assert torn.read(dumping([(1, "a")], [(1, "b")], [(2, "c")]), itemgetter(0)).bodies == [(2, "c"), (1, "b")]


class Clock:
    """A clock that advances only during sleeps, and by a millisecond for each dump."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def torn_dump(self) -> Outcome:
        self.now += 0.001
        return Outcome(errno.EAGAIN, "torn", [1])


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(torn, "time", clock)
    return clock


def test_all_dumps_of_a_look_together_are_repeated_for_a_bounded_time(clock: Clock) -> None:
    patience = torn.Patience()
    versions = [torn.repeat(clock.torn_dump, patience)[1] for _ in range(200)]
    assert min(map(len, versions)) == torn.ENOUGH
    assert clock.now < torn.LOOK_PATIENCE + 2 * 0.02 + 200 * torn.ENOUGH * 0.001


def test_one_dump_does_not_spend_all_the_patience_of_its_look(clock: Clock) -> None:
    patience = torn.Patience()
    torn.repeat(clock.torn_dump, patience)
    assert patience.left > 0
    assert len(torn.repeat(clock.torn_dump, patience)[1]) > torn.ENOUGH


def test_a_whole_dump_spends_no_patience(clock: Clock) -> None:
    patience = torn.Patience()

    def dump() -> Outcome:
        clock.sleep(0.01)
        return Outcome(0, "", [1])

    for _ in range(1000):
        torn.repeat(dump, patience)
    assert patience.left == torn.LOOK_PATIENCE
