"""The memory of failed attempts at interfaces, and when each interface is tried again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from vethlib.agent.reconcile.backoff import FREE_REPAIRS, Backoff, NextStep


def fail(backoff: Backoff, name: str, now: float) -> None:
    backoff.record(name, NextStep.RETRY, now, configured=False, held=False)


def succeed(backoff: Backoff, name: str, now: float) -> None:
    backoff.record(name, NextStep.DONE, now, configured=True, held=False)


def test_who_failed_is_due_once_and_then_when_it_has_failed_again() -> None:
    backoff = Backoff()
    fail(backoff, "a", 100.0)
    due = backoff.next_due()
    assert due is not None
    assert due > 100.0
    assert backoff.waits("a", 100.0)
    assert backoff.take_due(due - 0.001).interfaces == []
    assert backoff.take_due(due).interfaces == ["a"]
    assert backoff.next_due() is None
    assert not backoff.waits("a", due)


def test_who_succeeded_or_is_wanted_otherwise_is_not_due_any_more() -> None:
    backoff = Backoff()
    for name in "abc":
        fail(backoff, name, 100.0)
    succeed(backoff, "a", 100.0)
    backoff.forget(["b"])
    assert backoff.take_due(1000.0).interfaces == ["c"]


def test_all_may_be_tried_at_once() -> None:
    backoff = Backoff()
    fail(backoff, "a", 100.0)
    backoff.try_all()
    assert backoff.next_due() is None
    assert backoff.hold(["a"], 100.0) == 0


def test_who_is_fought_for_is_held_and_due_when_that_is_over() -> None:
    backoff = Backoff()
    for _ in range(FREE_REPAIRS):
        assert backoff.hold(["a"], 100.0) == 0
        backoff.repaired("a", 100.0)
    assert backoff.hold(["a"], 100.0) == FREE_REPAIRS
    backoff.record("a", NextStep.RETRY, 100.0, configured=False, held=True)
    due = backoff.next_due()
    assert due is not None
    assert backoff.explained("a") == (FREE_REPAIRS, due)
    assert backoff.take_due(due).interfaces == ["a"]
    assert backoff.hold(["a"], due) == 0


def test_only_those_are_settled_that_were_right_and_are_wanted_as_they_were() -> None:
    backoff = Backoff()
    for name in "abc":
        succeed(backoff, name, 100.0)
    backoff.forget(["b"])
    fail(backoff, "c", 100.0)
    assert backoff.settled({"a", "b", "c", "d"}) == {"a"}


steps = st.lists(
    st.tuples(st.sampled_from(["fail", "succeed", "forget", "take"]), st.sampled_from("abcd"), st.floats(0, 5)),
    max_size=300,
)


@given(steps)
def test_whatever_happens_those_are_due_whose_time_has_come(done: list[tuple[str, str, float]]) -> None:
    backoff, now = Backoff(), 100.0
    for what, name, later in done:
        now += later
        if what == "take":
            wanted = {one for one, attempts in backoff._attempts.items() if attempts.due and attempts.due <= now}
            assert set(backoff.take_due(now).interfaces) == wanted
        elif what == "forget":
            backoff.forget([name])
        else:
            {"fail": fail, "succeed": succeed}[what](backoff, name, now)
        dues = [attempts.due for attempts in backoff._attempts.values() if attempts.due is not None]
        assert backoff.next_due() == min(dues, default=None)
    assert len(backoff._due) <= 2 * 4 + 64 + 1


def test_work_for_all_interfaces_is_due_once_but_following_until_its_result_is_known() -> None:
    backoff = Backoff()
    kinds = ("following", "watching", "attaching", "leftovers")
    for kind in kinds:
        getattr(backoff, kind).fail(100.0)
    last = max(getattr(backoff, kind).due for kind in kinds)
    assert not any(backoff.take_due(100.0))
    assert backoff.take_due(last) == ([], True, True, True, True)
    assert backoff.take_due(last) == ([], True, False, False, False)
