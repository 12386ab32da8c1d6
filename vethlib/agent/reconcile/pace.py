"""How often events of an interface lead to an observation: less and less often while they continue. Pure.

The first observations are free, as long as they are cheap: occasional changes of a link lead to an observation
immediately. After them, the pauses double, and last at least `SHARE` times as long as the last observation; so an
interface that keeps changing costs a bounded share of the time, however many addresses it has. A quiet time ends the
pauses.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Final

__all__ = ["SHARE", "Pace"]

FREE: Final = 8
"""Observations in a row that are made immediately, …"""

FREE_SECONDS: Final = 0.2
"""… while they take no more than this many seconds together."""

FIRST_PAUSE: Final = 0.05
LONGEST_PAUSE: Final = 2.0
QUIET: Final = 1.0  # seconds without an event, or twice the last pause if that is longer
SHARE: Final = 20
"""The next observation after a costly one is this many times its seconds later, at least, …"""
LONGEST_REST: Final = 60.0
"""… but no longer than this: an observation that takes 3 seconds reads an end with millions of addresses."""


@dataclass(slots=True)
class _Streak:
    """Events of one interface without a quiet time between them."""

    free: int  # observations that are made at once
    free_seconds: float
    last: float  # time of the last event
    looks: int = 0
    spent: float = 0.0  # seconds
    pause: float = 0.0
    until: float = 0.0  # no observation before this because of an event, …
    rest: float = 0.0  # … and none at all before this, because the last one was costly
    due: float | None = None

    def is_over(self, now: float) -> bool:
        return self.due is None and now - self.last > max(QUIET, 2 * self.pause)

    @property
    def is_noisy(self) -> bool:
        return self.looks > self.free or self.spent > self.free_seconds

    def look(self, now: float) -> None:
        self.looks += 1
        if self.is_noisy:
            self.pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(max(0, self.looks - self.free - 1), 16))
            self.until = max(self.until, now + self.pause)


class Pace:
    """The pace of every interface that has events, by name. All times are those of one monotonic clock.

    `free` observations in a row are made at once, while they take no longer than `free_seconds` together.
    """

    def __init__(self, free: int = FREE, free_seconds: float = FREE_SECONDS) -> None:
        self._free = free, free_seconds
        self._streaks: dict[str, _Streak] = {}
        self._due: list[tuple[float, str]] = []
        self._room = 1024  # for streaks, until those that are over are forgotten

    def may_look(self, name: str, now: float) -> bool:
        """Return whether an event may cause an observation now; if not, :meth:`take_due` returns the name later."""
        streak = self._streaks.get(name)
        if streak is None or streak.is_over(now):
            self._forget_the_quiet(now)
            streak = self._streaks[name] = _Streak(*self._free, now)
        streak.last = now
        if now < streak.until:
            if streak.due is None:
                self._put_off(name, streak, streak.until)
            return False
        if streak.due is None:
            streak.look(now)
            return True
        return False

    def look_later(self, name: str, due: float) -> None:
        """Schedule an observation even if there is no event; after a costly one, it is later than `due`."""
        streak = self._streaks.setdefault(name, _Streak(*self._free, due))
        due = max(due, streak.rest)
        if streak.due is None or streak.due > due:
            self._put_off(name, streak, due)

    def looked(self, names: Iterable[str], took: float, now: float) -> None:
        """Note how many seconds of CPU an observation of each of these interfaces took."""
        for name in names:
            streak = self._streaks.get(name)
            if streak is None:
                continue
            streak.spent += took
            rest = min(SHARE * took, LONGEST_REST)
            streak.rest = now + rest
            if streak.is_noisy:
                streak.pause = max(streak.pause, rest)
                streak.until = max(streak.until, now + streak.pause)

    def is_noisy(self, name: str, now: float) -> bool:
        """Return whether the interface keeps changing: its free observations are used up without a quiet time since."""
        streak = self._streaks.get(name)
        return streak is not None and streak.is_noisy and not streak.is_over(now)

    def forget(self, names: Iterable[str]) -> None:
        """Forget these interfaces, because their configuration has changed."""
        for name in names:
            self._streaks.pop(name, None)

    def next_due(self) -> float | None:
        """Return when the next observation that was put off is due; None if there is none."""
        while self._due and not self._is_due(*self._due[0]):
            heappop(self._due)
        return self._due[0][0] if self._due else None

    def take_due(self, now: float) -> list[str]:
        """Return the interfaces whose observations are due, and forget them: the caller observes them."""
        names = []
        while (due := self.next_due()) is not None and due <= now:
            _, name = heappop(self._due)
            streak = self._streaks[name]
            streak.due = None
            streak.look(now)
            names.append(name)
        return names

    def _put_off(self, name: str, streak: _Streak, due: float) -> None:
        streak.due = due
        heappush(self._due, (due, name))

    def _is_due(self, due: float, name: str) -> bool:
        streak = self._streaks.get(name)
        return streak is not None and streak.due == due

    def _forget_the_quiet(self, now: float) -> None:
        if len(self._streaks) >= self._room:
            self._streaks = {name: streak for name, streak in self._streaks.items() if not streak.is_over(now)}
            self._room = 2 * len(self._streaks) + 1024
