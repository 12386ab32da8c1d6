"""Subscriptions that end in another thread than the one that polls."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import Any

import pytest

from vethlib.agent.registry.subscriptions import Subscribers


class Between(deque[Any]):
    """Waiting events that do something just before an event is added or taken, as another thread would."""

    def __init__(self, do: Callable[[], object]) -> None:
        super().__init__()
        self._do = do

    def append(self, event: Any) -> None:
        self._do()
        super().append(event)

    def popleft(self) -> Any:
        self._do()
        return super().popleft()


def test_a_subscription_may_end_while_an_event_is_queued() -> None:
    subscribers: Subscribers[int] = Subscribers()
    first, second, third = (subscribers.add(None, []) for _ in range(3))
    first.waiting = Between(second.unsubscribe)
    subscribers.tell(1)
    assert (first.waiting, list(second), list(third)) == (deque([1]), [], [1])


def test_a_subscription_may_end_while_its_callback_is_to_be_called(caplog: pytest.LogCaptureFixture) -> None:
    subscribers: Subscribers[int] = Subscribers()
    called: list[int] = []
    ending = subscribers.add(called.append, [])
    staying = subscribers.add(called.append, [])
    ending.waiting = Between(ending.unsubscribe)
    deque.append(ending.waiting, 1)
    staying.waiting.append(2)
    with caplog.at_level(logging.ERROR):
        subscribers.deliver()
    assert (called, caplog.messages) == ([2], [])
