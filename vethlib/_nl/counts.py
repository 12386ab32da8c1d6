"""How many requests this process has sent over rtnetlink, and how many the kernel refused, by errno.

Kept for whoever watches a process (a metrics endpoint): an addition for each exchange, and no more where nothing is
refused. Threads that add at the same moment may lose a count.
"""

from __future__ import annotations

__all__ = ["Counts", "counts"]


class Counts:
    """Since the process began. `errors` has a count for each errno that a request was refused with."""

    __slots__ = ("errors", "requests")

    def __init__(self) -> None:
        self.requests = 0
        self.errors: dict[int, int] = {}

    def refused(self, number: int) -> None:
        """One more with this errno."""
        self.errors[number] = self.errors.get(number, 0) + 1


counts = Counts()
"""Those of this process."""
