"""Which missing namespaces may be created, and the memory of those attempts."""

from __future__ import annotations

import pytest

from vethlib.agent.host import creatable
from vethlib.agent.host.creatable import CreatableNetns
from vethlib.agent.planning.observed import Observed, SeenNetns
from vethlib.agent.planning.operations import AddNetns


class Clock:
    """A clock that the test sets."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(creatable, "time", clock)
    return clock


def missing(*names: str) -> Observed:
    refs = [f"netns:{name}" for name in names]
    return Observed({ref: SeenNetns(ref, ref, "does not exist", missing=True) for ref in refs})


def admitted(netns: CreatableNetns, *names: str) -> list[bool]:
    found = netns.admit(missing(*names)).netns
    return [found[f"netns:{name}"].creatable for name in names]


@pytest.mark.parametrize("limit", [1, 3])
def test_namespaces_that_have_ended_do_not_count(clock: Clock, limit: int) -> None:
    files: set[str] = set()
    netns = CreatableNetns(limit, lambda _: ["a"], create_missing=True, has_file=files.__contains__)
    for number in range(3 * limit):
        assert admitted(netns, f"ns{number}") == [True]
        netns.note([AddNetns(f"ns{number}")])
        clock.now += 2.0


def test_namespaces_that_exist_count_and_are_not_counted_more_than_once_a_second(clock: Clock) -> None:
    files = {"netns:a", "netns:b"}
    asked: list[str] = []

    def has_file(ref: str) -> bool:
        asked.append(ref)
        return ref in files

    netns = CreatableNetns(2, lambda _: ["a"], create_missing=True, has_file=has_file)
    netns.note([AddNetns("a"), AddNetns("b")])
    for _ in range(100):
        assert admitted(netns, "c") == [False]
    assert len(asked) == 2
    files.clear()
    due = netns.due()
    assert due is not None
    assert netns.freed(due - 0.01) == []
    clock.now = due
    assert netns.freed(due) == ["netns:c"]
    assert admitted(netns, "c") == [True]


def test_names_that_are_not_configured_any_more_are_forgotten(clock: Clock) -> None:
    configured = {"netns:stays"}
    netns = CreatableNetns(9, lambda ref: ["a"] if ref in configured else [], create_missing=True)
    for number in range(5000):
        ref = f"netns:ns{number}"
        netns.admit(Observed({ref: SeenNetns(ref, (4, number)), "netns:stays": SeenNetns("netns:stays", (4, 1))}))
        netns._compared.add(f"ns{number}")
    assert len(netns._present) < 1200
    assert len(netns._compared) < 1200
    assert "netns:stays" in netns._present
