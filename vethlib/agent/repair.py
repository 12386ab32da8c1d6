"""What follows from an attempt: done, wait, retry, or nothing until something changes; and when to try again.

* DONE: the interface is as it is wanted.
* WAIT: something it needs is not there. Its coming is an event.
* RETRY: it was refused, and may not be the next time. Tried again after a while that doubles each time.
* TERMINAL: it was refused and always will be, until its configuration changes.

A link that is put right over and over is fought for: somebody else wants it otherwise. Then each repair waits longer.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import Enum
from typing import Final

from vethlib.errors import InvalidValue, NotSupported, VethError

from .state import State, Verdict

__all__ = ["Attempts", "Outcome", "delay", "outcome"]

FIRST_DELAY: Final = 0.05
LONGEST_DELAY: Final = 60.0
JITTER: Final = 0.25  # of the delay, either way: thousands that failed together are not to come back together

FREE_REPAIRS: Final = 4
"""So many repairs in a row are made at once; those after them wait."""

FIGHT_WINDOW: Final = 10.0
"""Seconds: repairs that are further apart are not in a row."""


class Outcome(Enum):
    """What follows from an attempt; the module says what each means."""

    DONE = "done"
    WAIT = "wait"
    RETRY = "retry"
    TERMINAL = "terminal"


_OF_STATE: Final = {
    State.CONFIGURED: Outcome.DONE,
    State.PENDING: Outcome.WAIT,
    State.FAILED: Outcome.WAIT,  # the plan says so when another link is in the way: its end is an event
    State.RETRYING: Outcome.RETRY,
    State.INVALID: Outcome.TERMINAL,
}


def outcome(verdict: Verdict, error: VethError | None) -> Outcome:
    """The one switch: what follows from the plan's verdict and from what the kernel said, if it refused."""
    if error is not None:
        return Outcome.TERMINAL if isinstance(error, (InvalidValue, NotSupported)) else Outcome.RETRY
    return _OF_STATE[verdict.state]


def delay(attempt: int) -> float:
    """Seconds until the next attempt after `attempt` failed ones."""
    longest = min(LONGEST_DELAY, FIRST_DELAY * 2.0 ** min(attempt, 16))
    return longest * random.uniform(1 - JITTER, 1 + JITTER)


@dataclass(slots=True)
class Attempts:
    """How one interface fared lately: failed attempts and repairs, each in a row.

    All times are those of one monotonic clock.
    """

    failed: int = 0
    due: float | None = None  # when to try again by itself
    repairs: int = 0
    repaired_at: float = 0.0
    held: float = 0.0  # no repair before this

    def fail(self, now: float) -> None:
        """Count a failure, after which `due` says when the next attempt is."""
        self.failed += 1
        self.due = now + delay(self.failed - 1)

    def succeed(self) -> None:
        """Forget the failures."""
        self.failed = 0
        self.due = None

    def repaired(self, now: float) -> None:
        """Count a repair of what somebody else has changed."""
        if now - self.repaired_at > self._window:
            self.repairs = 0
        self.repairs += 1
        self.repaired_at = now
        if self.repairs >= FREE_REPAIRS:
            self.held = now + delay(self.repairs - FREE_REPAIRS + 3)

    def is_over(self, now: float) -> bool:
        """Whether there is nothing here to remember."""
        return not self.failed and now - self.repaired_at > self._window

    @property
    def _window(self) -> float:
        # The longer the last one had to wait, the longer the peace has to be that ends a fight.
        return max(FIGHT_WINDOW, 2 * (self.held - self.repaired_at))

    def hold(self, now: float) -> bool:
        """Whether a repair has to wait; then it is `due`."""
        if now >= self.held:
            return False
        self.due = self.held
        return True
