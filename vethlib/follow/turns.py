"""Schedule a long task: it is due as soon as it is requested, but may take only up to a tenth of the time."""

from __future__ import annotations

from typing import Final

from vethlib._primitives import time

__all__ = ["Turn"]

AT_ONCE: Final = 0.0005
"""Seconds of work that are negligible."""


class Turn:
    """The schedule of one task. Set `requested` to have it done."""

    __slots__ = ("_not_before", "requested")

    def __init__(self) -> None:
        self.requested = False
        self._not_before = 0.0

    def due(self) -> float | None:
        """Return the seconds until its turn; None if it was not requested."""
        return max(0.0, self._not_before - time.monotonic()) if self.requested else None

    def begin(self) -> float:
        """Begin the task, and return what :meth:`end` needs."""
        self.requested = False
        return time.thread_time()

    def end(self, begun: float) -> None:
        """Note that the task has been done, and how long its next turn has to wait."""
        took = time.thread_time() - begun
        self._not_before = time.monotonic() + 10 * took if took > AT_ONCE else 0.0
