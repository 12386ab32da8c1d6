"""Subscriptions: a replay of the current state, then every change in order; none is lost, however slow a subscriber."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Final, Generic, TypeVar

from vethlib.errors import check_callback

__all__ = ["Subscribers", "Subscription"]

_log: Final = logging.getLogger("vethlib.agent")

E = TypeVar("E")


class Subscription(Generic[E]):
    """The events that a subscriber has not received yet, in order. None is lost, however slow the subscriber is.

    Therefore, a subscriber without a callback must take its events from time to time, or unsubscribe. A ``with`` block
    unsubscribes at its end. :meth:`take`, iteration and :meth:`unsubscribe` can be used in another thread than the one
    that polls.
    """

    def __init__(
        self,
        callback: Callable[[E], object] | None,
        replay: Iterable[E],
        forget: Callable[[Subscription[E]], None],
    ) -> None:
        self.callback = callback
        self.active = True
        self.waiting = deque(replay)
        self._forget = forget

    def take(self) -> list[E]:
        """Remove and return the events that are available now."""
        events = []
        for _ in range(len(self.waiting)):
            try:
                events.append(self.waiting.popleft())
            except IndexError:  # another thread was quicker
                break
        return events

    def __iter__(self) -> Iterator[E]:
        """Take one event after the other, until there is none."""
        while self.waiting:
            try:
                yield self.waiting.popleft()
            except IndexError:
                return

    def unsubscribe(self) -> None:
        """End the subscription, possibly from within a callback. No further events follow, not even queued ones."""
        self.active = False
        self.callback = None
        self.waiting.clear()
        self._forget(self)

    def __enter__(self) -> Subscription[E]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.unsubscribe()


class Subscribers(Generic[E]):
    """All subscriptions to one kind of event."""

    def __init__(self) -> None:
        self._all: dict[Subscription[E], None] = {}
        self.delivering = False  # whether a callback is being called

    def add(self, callback: Callable[[E], object] | None, replay: Iterable[E]) -> Subscription[E]:
        """Add a subscription, which receives `replay` first."""
        check_callback(callback, "callback")
        subscription = Subscription(callback, replay, self._forget)
        self._all[subscription] = None
        return subscription

    def _forget(self, subscription: Subscription[E]) -> None:
        self._all.pop(subscription, None)

    def tell(self, event: E) -> None:
        """Queue an event for every subscriber, without calling them yet."""
        for subscription in list(self._all):
            subscription.waiting.append(event)
            if not subscription.active:  # another thread has unsubscribed
                subscription.waiting.clear()

    @property
    def pending(self) -> bool:
        """Return whether there are callbacks to call."""
        return any(each.callback is not None and each.waiting for each in list(self._all))

    def deliver(self) -> None:
        """Call the callbacks with all queued events, including events that the callbacks cause.

        An exception of a callback is logged, and the next event follows. A call from within a callback does nothing.
        """
        if self.delivering or not self._all:
            return
        self.delivering = True
        try:
            while waiting := [each for each in list(self._all) if each.callback is not None and each.waiting]:
                for subscription in waiting:
                    self._call(subscription)
        finally:
            self.delivering = False

    def _call(self, subscription: Subscription[E]) -> None:
        while (callback := subscription.callback) is not None and subscription.waiting:
            try:
                event = subscription.waiting.popleft()
            except IndexError:  # another thread has unsubscribed
                return
            try:
                callback(event)
            except Exception:
                _log.exception("a subscriber failed at %s; it receives the next event nevertheless", event)
