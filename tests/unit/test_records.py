"""What is remembered of interfaces, and when each is tried again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from vethlib.agent.records import Records
from vethlib.agent.repair import FREE_REPAIRS, Outcome


def fail(records: Records, name: str, now: float) -> None:
    records.fared(name, Outcome.RETRY, now, configured=False, held=False)


def succeed(records: Records, name: str, now: float) -> None:
    records.fared(name, Outcome.DONE, now, configured=True, held=False)


def test_who_failed_is_due_once_and_then_when_it_has_failed_again() -> None:
    records = Records()
    fail(records, "a", 100.0)
    due = records.next_due()
    assert due is not None
    assert due > 100.0
    assert records.waits("a", 100.0)
    assert records.take_due(due - 0.001) == []
    assert records.take_due(due) == ["a"]
    assert records.next_due() is None
    assert not records.waits("a", due)


def test_who_succeeded_or_is_wanted_otherwise_is_not_due_any_more() -> None:
    records = Records()
    for name in "abc":
        fail(records, name, 100.0)
    succeed(records, "a", 100.0)
    records.forget("b")
    assert records.take_due(1000.0) == ["c"]


def test_all_may_be_tried_at_once() -> None:
    records = Records()
    fail(records, "a", 100.0)
    records.try_all()
    assert records.next_due() is None
    assert records.may_act(["a"], 100.0) == ""


def test_who_is_fought_for_is_held_and_due_when_that_is_over() -> None:
    records = Records()
    for _ in range(FREE_REPAIRS):
        assert records.may_act(["a"], 100.0) == ""
        records.repaired("a", 100.0)
    assert "changed by somebody again" in records.may_act(["a"], 100.0)
    records.fared("a", Outcome.RETRY, 100.0, configured=False, held=True)
    due = records.next_due()
    assert due is not None
    assert records.of("a").due == due
    assert records.take_due(due) == ["a"]
    assert records.may_act(["a"], due) == ""


def test_only_those_are_settled_that_were_right_and_are_wanted_as_they_were() -> None:
    records = Records()
    for name in "abc":
        succeed(records, name, 100.0)
    records.forget("b")
    fail(records, "c", 100.0)
    assert records.settled({"a", "b", "c", "d"}) == {"a"}


steps = st.lists(
    st.tuples(st.sampled_from(["fail", "succeed", "forget", "take"]), st.sampled_from("abcd"), st.floats(0, 5)),
    max_size=300,
)


@given(steps)
def test_whatever_happens_those_are_due_whose_time_has_come(done: list[tuple[str, str, float]]) -> None:
    records, now = Records(), 100.0
    for what, name, later in done:
        now += later
        if what == "take":
            wanted = {one for one, attempts in records._attempts.items() if attempts.due and attempts.due <= now}
            assert set(records.take_due(now)) == wanted
        elif what == "forget":
            records.forget(name)
        else:
            {"fail": fail, "succeed": succeed}[what](records, name, now)
        dues = [attempts.due for attempts in records._attempts.values() if attempts.due is not None]
        assert records.next_due() == min(dues, default=None)
    assert len(records._due) <= 2 * 4 + 64 + 1
