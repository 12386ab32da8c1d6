"""How often events make an agent look at an interface."""

from __future__ import annotations

import pytest

from vethlib.agent.reconcile.pace import (
    FIRST_PAUSE,
    FREE,
    FREE_SECONDS,
    LONGEST_PAUSE,
    LONGEST_REST,
    QUIET,
    SHARE,
    Pace,
)


def looks(pace: Pace, *, seconds: float, every: float, took: float = 0.0, begin: float = 100.0) -> list[float]:
    """Return the times at which an interface is looked at if something happens to it all the time."""
    made: list[float] = []
    for step in range(round(seconds / every)):
        now = begin + step * every
        if pace.take_due(now) or pace.may_look("a", now):
            made.append(now)
            pace.looked(["a"], took, now)
    return made


def test_the_first_looks_are_made_at_once() -> None:
    pace = Pace()
    assert all(pace.may_look("a", 100.0) for _ in range(FREE))
    assert not pace.is_noisy("a", 100.0)
    assert pace.next_due() is None


def test_how_many_looks_are_made_at_once_can_be_chosen() -> None:
    pace = Pace(free=3, free_seconds=1.0)
    assert [pace.may_look("a", 100.0) for _ in range(5)] == [True, True, True, True, False]
    pace = Pace(free=3, free_seconds=1.0)
    assert pace.may_look("a", 100.0)
    pace.looked(["a"], 1.5, 100.0)
    assert pace.is_noisy("a", 100.0)
    assert not pace.may_look("a", 100.0)


def test_pauses_double_up_to_the_longest_while_events_do_not_cease() -> None:
    made = looks(Pace(), seconds=20, every=0.01)
    pauses = [b - a for a, b in zip(made[FREE:], made[FREE + 1 :], strict=False)]
    assert pauses[0] == pytest.approx(FIRST_PAUSE, abs=0.011)
    assert pauses[1] == pytest.approx(2 * FIRST_PAUSE, abs=0.011)
    assert pauses[-1] == pytest.approx(LONGEST_PAUSE, abs=0.011)


@pytest.mark.parametrize("every", [0.1, 0.01, 0.001])
def test_ten_times_the_events_are_not_more_looks(every: float) -> None:
    assert len(looks(Pace(), seconds=10, every=every)) == pytest.approx(FREE + 10, abs=3)


@pytest.mark.parametrize("took", [0.001, 0.03, 0.3])
def test_looks_take_a_bounded_part_of_the_time_whatever_one_takes(took: float) -> None:
    made = looks(Pace(), seconds=60, every=0.05, took=took)
    assert len(made) * took <= FREE_SECONDS + took + 60 / SHARE * 1.1
    assert len(made) >= 3


def test_what_was_put_off_is_due_though_no_event_comes() -> None:
    pace = Pace()
    while pace.may_look("a", 100.0):
        pass
    due = pace.next_due()
    assert due is not None
    assert pace.take_due(due - 0.001) == []
    assert pace.take_due(due) == ["a"]
    assert pace.next_due() is None


def test_a_quiet_time_ends_it() -> None:
    pace = Pace()
    looks(pace, seconds=2, every=0.01)
    for due in iter(pace.next_due, None):
        pace.take_due(due)
        last = due
    assert pace.is_noisy("a", last)
    ended = last + max(QUIET, 2 * LONGEST_PAUSE) + 0.1
    assert not pace.is_noisy("a", ended)  # even without another event
    assert pace.may_look("a", ended)
    assert not pace.is_noisy("a", ended)


def test_another_configuration_is_a_new_beginning() -> None:
    pace = Pace()
    looks(pace, seconds=2, every=0.01)
    pace.forget(["a"])
    assert pace.next_due() is None
    assert pace.may_look("a", 102.0)


def test_one_interface_does_not_slow_another_down() -> None:
    pace = Pace()
    looks(pace, seconds=2, every=0.01, took=1.0)
    assert all(pace.may_look("b", 102.0) for _ in range(FREE))
    assert not pace.is_noisy("b", 102.0)


def test_a_look_that_is_asked_for_comes_without_an_event_and_once() -> None:
    pace = Pace()
    for _ in range(3):
        pace.look_later("a", 105.0)
    assert pace.next_due() == 105.0
    assert pace.take_due(105.0) == ["a"]
    assert pace.take_due(200.0) == []


def asked_for(pace: Pace, *, seconds: float, every: float, took: float, begin: float = 100.0) -> list[float]:
    """Return the times at which an interface without events is looked at, if each look asks for the next."""
    made: list[float] = []
    pace.look_later("a", begin)
    while (due := pace.next_due()) is not None and due < begin + seconds:
        made += [due for _ in pace.take_due(due)]
        pace.looked(["a"], took, due)
        pace.look_later("a", due + every)
    return made


@pytest.mark.parametrize("took", [0.001, 0.01, 0.03, 0.3, 2.0])
def test_looks_that_are_asked_for_take_a_bounded_part_of_the_time_too(took: float) -> None:
    made = asked_for(Pace(), seconds=60, every=0.5, took=took)
    rest = max(0.5, min(took * SHARE, LONGEST_REST))
    assert len(made) == pytest.approx(60 / rest, abs=1)


@pytest.mark.parametrize("events", [0, 1, FREE + 5])
def test_a_rest_after_a_costly_look_is_not_ended_by_asking_for_a_look(events: int) -> None:
    pace = Pace()
    for _ in range(events):
        pace.may_look("a", 100.0)
    pace.look_later("a", 101.0)
    pace.take_due(103.0)
    pace.looked(["a"], 0.3, 103.0)
    for _ in range(2):
        pace.look_later("a", 103.5)
    due = pace.next_due()
    assert due is not None
    assert due >= 103.0 + SHARE * 0.3
    assert not pace.may_look("a", due - 0.1)
    assert pace.take_due(due) == ["a"]


def test_an_earlier_look_that_is_asked_for_comes_before_a_later_one() -> None:
    pace = Pace()
    pace.look_later("a", 105.0)
    pace.look_later("a", 103.0)
    assert pace.take_due(103.0) == ["a"]
    assert pace.take_due(200.0) == []


def test_thousands_that_are_quiet_again_are_forgotten() -> None:
    pace = Pace()
    for number in range(5000):
        pace.may_look(f"a{number}", 100.0 + number)
    assert len(pace._streaks) < 1100
