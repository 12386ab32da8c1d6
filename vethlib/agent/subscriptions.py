"""Those who want to be told: a replay of what is, then every change in order, none lost, however slow they are."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Final, Generic, TypeVar

__all__ = ["Subscribers", "Subscription"]

_log: Final = logging.getLogger("vethlib.agent")

E = TypeVar("E")


class Subscription(Generic[E]):
    """The events that one subscriber has not had yet, in order. Loses none, however slow the subscriber is.

    So who subscribes without a callback takes them now and then, or unsubscribes. A ``with`` block unsubscribes at its
    end. :meth:`take` and iterating may be done in another thread than the one that polls.
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
        """The events there are now, which are then gone from here."""
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
        """End it, also from within a callback: not one event more, not even of those that are waiting."""
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
        """One more, who gets `replay` first."""
        subscription = Subscription(callback, replay, self._forget)
        self._all[subscription] = None
        return subscription

    def _forget(self, subscription: Subscription[E]) -> None:
        self._all.pop(subscription, None)

    def tell(self, event: E) -> None:
        """Have every subscriber get this; nobody is called yet."""
        for subscription in self._all:
            subscription.waiting.append(event)

    @property
    def pending(self) -> bool:
        """Whether there is somebody to call."""
        return any(one.callback is not None and one.waiting for one in self._all)

    def deliver(self) -> None:
        """Call the callbacks with all they have not had, those of their own making included.

        An exception of one is logged, and the next event follows. A call from within a callback does nothing.
        """
        if self.delivering:
            return
        self.delivering = True
        try:
            while waiting := [one for one in self._all if one.callback is not None and one.waiting]:
                for subscription in waiting:
                    self._call(subscription)
        finally:
            self.delivering = False

    def _call(self, subscription: Subscription[E]) -> None:
        while subscription.callback is not None and subscription.waiting:
            event = subscription.waiting.popleft()
            try:
                subscription.callback(event)
            except Exception:
                _log.exception("a subscriber failed at %s; it is told the next all the same", event)
