"""Events that wait to be told to one hook. Pure; the lock around it is its owner's.

1. Of each interface at most one waits, the newest. It takes the place of the one before, in the queue too, so an
   interface that changes all the time does not wait for ever.
2. What is told of one interface is told in order: while one is under way, the next of that interface waits.
3. There is room for `capacity` interfaces. When it is full, the one that has waited longest is dropped: what is new
   is worth more. Nobody who tells ever waits.
"""

from __future__ import annotations

from .event import Event

__all__ = ["Waiting"]


class Waiting:
    """The queue of one hook; `dropped` and `coalesced` count what was not told, since ever."""

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
        """Whether nothing waits and nothing is under way."""
        return not self._events and not self._under_way

    def put(self, event: Event) -> bool:
        """One more; whether another one had to be dropped for it."""
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
        """The next to tell, which is under way until :meth:`done`; None if there is none."""
        for name, event in self._events.items():
            if name not in self._under_way:
                del self._events[name]
                self._under_way.add(name)
                return event
        return None

    def gives_way(self, event: Event) -> bool:
        """Whether there is something newer to tell of this interface, which then counts this one as missed."""
        newer = self._events.get(event.name)
        if newer is None:
            return False
        self._events[event.name] = newer.after(event)
        return True

    def done(self, name: str) -> None:
        """What was under way of this interface has come to its end."""
        self._under_way.discard(name)

    def drop_all(self) -> int:
        """Give up all that waits; how many those are."""
        number = len(self._events)
        self._events.clear()
        self.dropped += number
        return number
