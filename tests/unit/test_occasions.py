"""Which interfaces make a pass, and which wait for others."""

from __future__ import annotations

import pytest

from vethlib.agent.reconcile.occasions import FREE_MOVES, UNSEEN, UNSEEN_RARE, Occasions
from vethlib.agent.reconcile.pace import FREE, LONGEST_PAUSE, QUIET

NAMES = [f"a{number}" for number in range(30)]
OVER = 100.0 + max(QUIET, 2 * LONGEST_PAUSE) + 1


def restless(kind: str) -> Occasions:
    """Interfaces of which each has changed a few times too often at 100.0 s."""
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
