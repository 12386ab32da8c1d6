"""Which interfaces a pass includes, and which wait for others."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from vethlib.agent.reconcile.occasions import FREE_MOVES, MANY_VALUES, UNSEEN, UNSEEN_RARE, Occasions
from vethlib.agent.reconcile.pace import FREE, LONGEST_PAUSE, QUIET, Pace

NAMES = [f"a{number}" for number in range(30)]
OVER = 100.0 + max(QUIET, 2 * LONGEST_PAUSE) + 1


def restless(kind: str) -> Occasions:
    """Interfaces that have each changed a few times too often at 100.0 s."""
    occasions = Occasions()
    occasions.take(lambda _: 0, 0.0)  # the first look
    for name in NAMES:
        for _ in range(FREE + 2 if kind == "events" else FREE_MOVES + 2):
            if kind == "events":
                occasions.event(name, "its link was changed", 100.0)
            else:
                occasions.reference_changed(name, "netns:blue", 100.0)
    while (due := occasions.next_due()) is not None:
        occasions.mark_put_off(due)
        occasions.forget(NAMES)
    return occasions


@pytest.mark.parametrize("kind", ["events", "moves"])
@pytest.mark.parametrize(("now", "at_once"), [(100.2, 1), (OVER, len(NAMES))])
def test_interfaces_that_keep_changing_are_looked_at_one_at_a_time_until_they_are_quiet(
    kind: str, now: float, at_once: int
) -> None:
    occasions = restless(kind)
    occasions.mark(NAMES, "its link was deleted")
    assert len(occasions.take(lambda _: 0, now).names) == at_once


def test_a_reference_that_is_quiet_again_does_not_keep_changing() -> None:
    occasions = restless("moves")
    assert occasions.keeps_moving(NAMES[0], 100.2)
    assert not occasions.keeps_moving(NAMES[0], OVER)


def test_interfaces_with_changes_without_events_are_looked_at_regularly_and_some_of_them_rarely() -> None:
    occasions = Occasions()
    occasions.take(lambda _: 0, 0.0)
    occasions.look_regularly(["a", "b", "c"], {"a"}, {"b"}, 0.0)
    looks = []
    while (due := occasions.next_due()) is not None and due <= 2 * UNSEEN_RARE:
        occasions.mark_put_off(due)
        looks += [(due, name) for name in occasions.take(lambda _: 0, due).names]
    for name, seconds in (("a", UNSEEN), ("b", UNSEEN_RARE)):
        number = round(2 * UNSEEN_RARE / seconds)
        assert [due for due, each in looks if each == name] == [seconds * (each + 1) for each in range(number)]
    assert not any(name == "c" for _, name in looks)
    occasions.look_regularly(["a", "b", "c"], (), (), 200.0)
    assert occasions.next_due() is None


def everything_at(number: int, kind: str) -> tuple[Occasions, Callable[[str], int]]:
    """Marked interfaces, all of one kind, and how many values each has."""
    occasions = Occasions()
    occasions.take(lambda _: 0, 0.0)
    names = [f"a{each}" for each in range(number)]
    if kind == "noisy":
        for name in names:
            for _ in range(FREE + 2):
                occasions.event(name, "its link was changed", 100.0)
        occasions.forget(names)
    occasions.mark(names[::2], "its link was deleted")
    occasions.look_at(dict.fromkeys(names[1::2], "regular check"))
    return occasions, lambda _: MANY_VALUES + 1 if kind == "heavy" else 0


def questions_about_all(number: int, kind: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """Return how often interfaces are asked about until all have had their turn."""
    occasions, values = everything_at(number, kind)
    asked = 0
    is_noisy = Pace.is_noisy

    def counted(pace: Pace, name: str, now: float) -> bool:
        nonlocal asked
        asked += 1
        return is_noisy(pace, name, now)

    looked_at: set[str] = set()
    with monkeypatch.context() as patch:
        patch.setattr(Pace, "is_noisy", counted)
        while occasions:
            scope = occasions.take(values, 100.2)
            assert looked_at.isdisjoint(scope.names)
            looked_at |= scope.names.keys()
            occasions.finish(scope, scope.names.keys(), ())
    assert len(looked_at) == number
    return asked


@pytest.mark.parametrize("kind", ["noisy", "heavy", "light"])
def test_how_often_is_asked_about_an_interface_does_not_depend_on_how_many_are_marked(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    few, many = (questions_about_all(number, kind, monkeypatch) for number in (500, 1000))
    assert many <= 2.2 * few


def test_interfaces_that_were_put_aside_have_their_turn_with_all_others_when_they_are_quiet_again() -> None:
    occasions = restless("events")
    occasions.mark(NAMES, "its link was deleted")
    first = occasions.take(lambda _: 0, 100.2)
    occasions.finish(first, first.names.keys(), ())
    assert len(first.names) == 1
    assert len(occasions.take(lambda _: 0, OVER).names) == len(NAMES) - 1


def test_marks_of_a_pass_that_are_not_in_its_scope_are_kept_unless_it_has_looked_at_them_nevertheless() -> None:
    occasions = restless("events")
    occasions.mark(NAMES, "its link was deleted")
    scope = occasions.take(lambda _: 0, 100.2)
    occasions.mark([NAMES[2], "new"], "another cause")  # while the pass runs
    occasions.finish(scope, {*scope.names, NAMES[1], NAMES[2]}, ["deferred"])
    assert occasions.marked() == {*NAMES[2:], "new", "deferred"}
    assert occasions.count() == len(NAMES)


def test_a_pass_that_has_failed_leaves_all_marks() -> None:
    occasions = restless("events")
    occasions.mark(NAMES, "its link was deleted")
    scope = occasions.take(lambda _: 0, 100.2)
    occasions.mark(["new"], "another cause")
    occasions.restore(scope, "a failure")
    assert occasions.marked() == {*NAMES, "new"}
    again = occasions.take(lambda _: 0, 100.2)
    assert again.everything == "a failure"
    assert again.names == dict.fromkeys(NAMES, "its link was deleted") | {"new": "another cause"}


@pytest.mark.parametrize("kind", ["noisy", "heavy", "light"])
def test_an_interface_that_is_marked_for_two_causes_is_looked_at_once_and_for_what_happened_to_it(kind: str) -> None:
    occasions, values = everything_at(20, kind)
    occasions.look_at(dict.fromkeys(NAMES[:20], "a change of the configuration"))
    happened = set(NAMES[:20:2])
    causes: dict[str, str] = {}
    while occasions:
        scope = occasions.take(values, 100.2)
        assert causes.keys().isdisjoint(scope.names)
        causes |= scope.names
        occasions.finish(scope, scope.names.keys(), ())
    assert {name for name, cause in causes.items() if cause == "its link was deleted"} == happened
    assert len(causes) == 20
