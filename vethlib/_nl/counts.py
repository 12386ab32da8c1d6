"""Counts of the requests that this process has sent over rtnetlink, and of those that the kernel refused, by errno.

They are for monitoring (a metrics endpoint), and cost one addition per exchange, and more only if a request is refused.
Threads that add at the same moment may lose a count.
"""

from __future__ import annotations


class Counts:
    """Counts since the start of the process. `errors` has a count for each errno with which requests were refused."""

    __slots__ = ("errors", "requests")

    def __init__(self) -> None:
        self.requests = 0
        self.errors: dict[int, int] = {}

    def refused(self, number: int) -> None:
        """Count a request that was refused with this errno."""
        self.errors[number] = self.errors.get(number, 0) + 1


counts = Counts()
"""The counts of this process."""
