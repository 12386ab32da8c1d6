"""The queue of events for one hook. Pure, and not thread-safe.

1. At most one event of each interface waits: the newest. It keeps the place in the queue of the event that it replaces,
   so that an interface that changes all the time does not wait for ever.
2. Events of an interface are delivered in order: while one is in progress, the next one waits.
3. There is room for `capacity` interfaces. If the queue is full, its oldest event is dropped, because newer ones are
   worth more. Adding an event never waits.
"""

from __future__ import annotations

from .event import Event

__all__ = ["Waiting"]


class Waiting:
    """The queue of one hook; `dropped` and `coalesced` count the events that were not delivered."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._events: dict[str, Event] = {}
        self._under_way: set[str] = set()
        self.dropped = 0
        self.coalesced = 0

    def __len__(self) -> int:
        return len(self._events)

    @property
    def idle(self) -> bool:
        """Whether no event waits and no delivery is in progress."""
        return not self._events and not self._under_way

    def put(self, event: Event) -> bool:
        """Add an event; return whether another had to be dropped for it."""
        waiting = self._events.get(event.name)
        if waiting is not None:
            self._events[event.name] = event.after(waiting)
            self.coalesced += 1
            return False
        full = len(self._events) >= self._capacity
        if full:
            del self._events[next(iter(self._events))]
            self.dropped += 1
        self._events[event.name] = event
        return full

    def take(self) -> Event | None:
        """Return the next event, whose delivery is in progress until :meth:`done`; None if there is none."""
        for name, event in self._events.items():
            if name not in self._under_way:
                del self._events[name]
                self._under_way.add(name)
                return event
        return None

    def gives_way(self, event: Event) -> bool:
        """Return whether a newer event of the interface waits; if so, that one counts this event as missed."""
        newer = self._events.get(event.name)
        if newer is None:
            return False
        self._events[event.name] = newer.after(event)
        return True

    def done(self, name: str) -> None:
        """Note that the delivery for this interface has ended."""
        self._under_way.discard(name)

    def drop_all(self) -> int:
        """Drop all waiting events and return their number."""
        number = len(self._events)
        self._events.clear()
        self.dropped += number
        return number
