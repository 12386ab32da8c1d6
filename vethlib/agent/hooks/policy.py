"""When to try again, and how often to complain. Pure."""

from __future__ import annotations

import random
from typing import Final

__all__ = ["DELAYS", "Complaints", "spread"]

DELAYS: Final = (1.0, 2.0, 4.0, 8.0)
"""Seconds between one attempt at a URL and the next. A hook that is away for longer misses what it was to be told."""

_QUIET: Final = 60.0  # seconds between two complaints of one hook


def spread(delay: float) -> float:
    """The delay, up to a quarter more or less, so that a fleet does not come back all at once."""
    return delay * random.uniform(0.75, 1.25)


class Complaints:
    """Whether a failure is to be logged: the first is, and then one a minute, with how many were not."""

    def __init__(self, quiet: float = _QUIET) -> None:
        self._quiet = quiet
        self._next = 0.0
        self._unsaid = 0
        self.failing = False

    def failed(self, now: float) -> int | None:
        """One more; how many before it were not logged, or None if it is not to be either. `now` is monotonic."""
        if self.failing and now < self._next:
            self._unsaid += 1
            return None
        self.failing, self._next = True, now + self._quiet
        unsaid, self._unsaid = self._unsaid, 0
        return unsaid

    def worked(self) -> bool:
        """Whether this is the first time that it did after failures."""
        was_failing, self.failing = self.failing, False
        self._unsaid = 0
        return was_failing
