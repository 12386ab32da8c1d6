"""How long a test waits: what a machine that stands still lets pass does not count.

A virtual machine may be suspended for minutes, or its processors lent to others. Then nothing that a test waits for
has had any time. So a step counts for no more than it may take on a machine that runs.
"""

from __future__ import annotations

import time

__all__ = ["Patience"]


class Patience:
    """A number of seconds, of which each look at the clock takes away `step` at most."""

    def __init__(self, seconds: float, step: float = 1.0) -> None:
        self.left = seconds
        self._step = step
        self._looked = time.monotonic()

    def is_over(self) -> bool:
        """Whether the seconds have passed."""
        now = time.monotonic()
        self.left -= min(now - self._looked, self._step)
        self._looked = now
        return self.left <= 0
