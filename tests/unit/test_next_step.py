"""The consequences of an attempt, and when it is made again."""

from __future__ import annotations

from itertools import pairwise

import pytest

from vethlib import InvalidValue, LinkExists, NetlinkError, NetnsNotFound, NotPermitted, NotSupported, VethError
from vethlib.agent import State, Verdict
from vethlib.agent.attempts import FIRST_DELAY, JITTER, LONGEST_DELAY, Attempts, delay
from vethlib.agent.reconcile.backoff import FIGHT_WINDOW, FREE_REPAIRS, InterfaceAttempts, NextStep, next_step


@pytest.mark.parametrize(
    ("state", "follows"),
    [
        (State.CONFIGURED, NextStep.DONE),
        (State.PENDING, NextStep.WAIT),
        (State.FAILED, NextStep.WAIT),
        (State.RETRYING, NextStep.RETRY),
        (State.INVALID, NextStep.TERMINAL),
    ],
)
def test_without_an_error_the_state_decides(state: State, follows: NextStep) -> None:
    assert next_step(Verdict(state), None) is follows


@pytest.mark.parametrize(
    ("error", "follows"),
    [
        (NetlinkError("no"), NextStep.RETRY),
        (LinkExists("no"), NextStep.RETRY),
        (NotPermitted("no"), NextStep.RETRY),
        (NetnsNotFound("no"), NextStep.RETRY),
        (NotSupported("no"), NextStep.TERMINAL),
        (InvalidValue("mtu", 3, "no"), NextStep.TERMINAL),
    ],
)
def test_an_error_decides_whatever_the_state(error: VethError, follows: NextStep) -> None:
    assert next_step(Verdict(State.CONFIGURED), error) is follows
    assert next_step(Verdict(State.RETRYING), error) is follows


def test_delays_double_and_stay_within_their_jitter_and_their_limit() -> None:
    for attempt in range(30):
        middle = min(LONGEST_DELAY, FIRST_DELAY * 2**attempt)
        for _ in range(20):
            assert middle * (1 - JITTER) <= delay(attempt) <= middle * (1 + JITTER)
    assert len({delay(3) for _ in range(20)}) > 1
    assert delay(10**6) <= LONGEST_DELAY * (1 + JITTER)


def test_failures_are_counted_until_one_succeeds() -> None:
    attempts = Attempts()
    for number in range(1, 4):
        attempts.fail(100.0)
        assert attempts.failed == number
        middle = FIRST_DELAY * 2 ** (number - 1)
        assert attempts.due is not None
        assert middle * (1 - JITTER) <= attempts.due - 100.0 <= middle * (1 + JITTER)
    attempts.succeed()
    assert (attempts.failed, attempts.due) == (0, None)


def test_the_next_attempt_is_made_once_and_not_before_it_is_due() -> None:
    attempts = Attempts()
    assert not attempts.waits(100.0)
    assert attempts.left(100.0) == 0
    assert not attempts.take(100.0)
    attempts.fail(100.0)
    assert attempts.due is not None
    assert attempts.waits(100.0)
    assert attempts.left(100.0) == attempts.due - 100.0
    assert not attempts.take(100.0)
    assert not attempts.waits(attempts.due)
    assert attempts.left(attempts.due + 1) == 0
    assert attempts.take(attempts.due)
    assert not attempts.take(200.0)
    assert attempts.failed == 1


def test_repairs_in_a_row_are_free_up_to_a_number_and_then_wait() -> None:
    attempts = InterfaceAttempts()
    for number in range(FREE_REPAIRS):
        assert not attempts.hold(100.0 + number)
        attempts.repaired(100.0 + number)
    last = 100.0 + FREE_REPAIRS - 1
    assert attempts.hold(last)
    assert attempts.due == attempts.held > last
    assert not attempts.hold(attempts.held)


def test_repairs_that_are_far_apart_are_no_fight() -> None:
    attempts = InterfaceAttempts()
    for number in range(3 * FREE_REPAIRS):
        attempts.repaired(100.0 + number * (FIGHT_WINDOW + 1))
        assert not attempts.hold(100.0 + number * (FIGHT_WINDOW + 1))


def test_a_fight_goes_on_as_long_as_its_waits_and_these_grow_to_a_limit() -> None:
    attempts, now, waits = InterfaceAttempts(), 100.0, []
    for _ in range(30):
        attempts.repaired(now)
        waits.append(max(0.0, attempts.held - now))
        now = max(now, attempts.held) + 0.01
    assert waits[: FREE_REPAIRS - 1] == [0.0] * (FREE_REPAIRS - 1)
    assert all(after > before for before, after in pairwise(waits[3:9]))
    assert LONGEST_DELAY * (1 - JITTER) <= waits[-1] <= LONGEST_DELAY * (1 + JITTER)
    # A quiet time of twice the last wait ends it.
    attempts.repaired(now + 3 * LONGEST_DELAY)
    assert attempts.repairs == 1


def test_success_does_not_end_a_hold() -> None:
    attempts = InterfaceAttempts()
    for _ in range(FREE_REPAIRS):
        attempts.repaired(100.0)
    attempts.succeed()
    assert attempts.hold(100.0)
