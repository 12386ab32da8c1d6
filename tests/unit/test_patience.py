"""The patience of tests ends, but not because the machine has stood still."""

from __future__ import annotations

import time

import pytest

from tests.patience import Patience
from tests.witness import poll


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock.monotonic)
    monkeypatch.setattr(time, "sleep", clock.sleep)
    return clock


def test_time_that_passes_in_small_steps_counts(clock: Clock) -> None:
    patience = Patience(2.0)
    for _ in range(3):
        clock.now += 0.6
        assert not patience.is_over()
    clock.now += 0.6
    assert patience.is_over()


def test_a_standstill_counts_for_one_step(clock: Clock) -> None:
    patience = Patience(2.0)
    clock.now += 300.0
    assert not patience.is_over()
    assert patience.left == pytest.approx(1.0)


def test_what_holds_after_a_standstill_is_seen(clock: Clock) -> None:
    looks: list[float] = []

    def late() -> bool:
        looks.append(clock.now)
        if len(looks) == 2:
            clock.now += 300.0
        return len(looks) > 4

    assert poll(late, 2.0)


def test_what_never_holds_ends(clock: Clock) -> None:
    began = clock.now
    assert not poll(lambda: False, 2.0)
    assert clock.now - began == pytest.approx(2.0, abs=0.1)
