"""How long a test waits: time in which the machine is suspended does not count.

A virtual machine may be suspended for minutes, or its processors lent to others. Then whatever a test waits for has had
no time, either. So a step counts for no more than it may take on a running machine.
"""

from __future__ import annotations

import time

__all__ = ["Patience"]


class Patience:
    """A number of seconds, from which each check of the clock subtracts at most `step`."""

    def __init__(self, seconds: float, step: float = 1.0) -> None:
        self.left = seconds
        self._step = step
        self._looked = time.monotonic()

    def is_over(self) -> bool:
        """Return whether the seconds have passed."""
        now = time.monotonic()
        self.left -= min(now - self._looked, self._step)
        self._looked = now
        return self.left <= 0
