"""The last changes of interfaces: few, short, and repetitions counted."""

from __future__ import annotations

import json
from datetime import datetime

from vethlib.agent.reconcile.statuses import MOST, History


def add(history: History, name: str, at: float, state: str = "RETRYING", reason: str = "", cause: str = "try") -> None:
    history.add(name, at, state=state, reason=reason, done="", cause=cause)


def test_changes_are_kept_in_their_order_with_time_and_cause() -> None:
    history = History()
    add(history, "a", 1.0, cause="configuration")
    add(history, "a", 2.0, "CONFIGURED", cause="netns:x changed")
    add(history, "b", 3.0)
    assert [(one.at, one.state, one.cause) for one in history.of("a")] == [
        (1.0, "RETRYING", "configuration"),
        (2.0, "CONFIGURED", "netns:x changed"),
    ]
    assert history.of("c") == []


def test_a_repetition_is_counted() -> None:
    history = History()
    for at in range(1000):
        add(history, "a", float(at))
    (one,) = history.of("a")
    assert (one.count, one.at, one.last) == (1000, 0.0, 999.0)
    entry = json.loads(json.dumps(one.as_dict()))
    assert datetime.fromisoformat(entry["last"]).timestamp() == 999.0


def test_neither_many_changes_nor_long_texts_are_kept() -> None:
    history = History()
    for at in range(100):
        add(history, "a", float(at), reason=f"{at} " + "x" * 100_000)
    assert [one.at for one in history.of("a")] == [float(at) for at in range(100 - MOST, 100)]
    assert len(json.dumps([one.as_dict() for one in history.of("a")])) < 20_000


def test_of_those_that_were_removed_the_last_are_kept() -> None:
    history = History()
    for number in range(1000):
        add(history, f"i{number}", 1.0)
        add(history, f"i{number}", 2.0, "removed")
    assert len(list(history)) == 256
    assert [one.state for one in history.of("i999")] == ["RETRYING", "removed"]
    add(history, "i999", 3.0)
    for number in range(1000, 2000):
        add(history, f"i{number}", 2.0, "removed")
    assert len(history.of("i999")) == 3
