"""The times of retries, and the rate of logged failures. Pure."""

from __future__ import annotations

import random
from typing import Final

__all__ = ["DELAYS", "Complaints", "spread"]

DELAYS: Final = (1.0, 2.0, 4.0, 8.0)
"""Seconds between the attempts to reach a URL. A hook that is unreachable for longer misses events."""

_QUIET: Final = 60.0  # seconds between two logged failures of a hook


def spread(delay: float) -> float:
    """Return the delay, changed by up to a quarter, so that a fleet does not retry all at once."""
    return delay * random.uniform(0.75, 1.25)


class Complaints:
    """Decide which failures to log: the first, then one per minute with the number of the others."""

    def __init__(self) -> None:
        self._next = 0.0
        self._unlogged = 0
        self.failing = False

    def failed(self, now: float) -> int | None:
        """Note a failure; return the number of unlogged ones before it, or None not to log it. `now` is monotonic."""
        if self.failing and now < self._next:
            self._unlogged += 1
            return None
        self.failing, self._next = True, now + _QUIET
        unlogged, self._unlogged = self._unlogged, 0
        return unlogged

    def worked(self) -> bool:
        """Note a success; return whether it is the first after failures."""
        was_failing, self.failing = self.failing, False
        self._unlogged = 0
        return was_failing
