"""When to try again what has failed: after a delay that doubles with each failure. Pure.

All times are those of one monotonic clock.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final

__all__ = ["Attempts", "delay"]

FIRST_DELAY: Final = 0.05
LONGEST_DELAY: Final = 60.0
JITTER: Final = 0.25  # of the delay, up or down: thousands that failed together must not all retry together


def delay(attempt: int) -> float:
    """Return the seconds until the next attempt after `attempt` failed ones."""
    longest = min(LONGEST_DELAY, FIRST_DELAY * 2.0 ** min(attempt, 16))
    return longest * random.uniform(1 - JITTER, 1 + JITTER)


@dataclass(slots=True)
class Attempts:
    """The recent failures of one kind of work, counted while they are in a row.

    `due` is the time of the next attempt, None if there is none.
    """

    failed: int = 0
    due: float | None = None

    def fail(self, now: float) -> None:
        """Count a failure, and schedule the next attempt."""
        self.failed += 1
        self.due = now + delay(self.failed - 1)

    def succeed(self) -> None:
        """Forget the failures."""
        self.failed = 0
        self.due = None

    def take(self, now: float) -> bool:
        """Return whether it is time for the next attempt, once: the caller makes it."""
        if self.due is None or self.due > now:
            return False
        self.due = None
        return True

    def waits(self, now: float) -> bool:
        """Return whether the next attempt is scheduled for later."""
        return self.due is not None and self.due > now

    def left(self, now: float) -> float:
        """Return the seconds until the next attempt; 0 if it can be made now."""
        return 0.0 if self.due is None else max(0.0, self.due - now)
