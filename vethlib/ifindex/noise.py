"""Counts of recent events per watched namespace, and the namespaces that have sent too many."""

from __future__ import annotations

from typing import Final

from vethlib._primitives import time

__all__ = ["NOISY", "WINDOW", "Noise"]

NOISY: Final = 10_000
"""A namespace that sends this many events within `WINDOW` is too noisy: reading them would take 2 % of a CPU."""

WINDOW: Final = 2.0
"""Seconds."""

_SUSPECTS: Final = 1024


class Noise:
    """Counts events by the ids of the namespaces, and remembers the noisy ones by inode."""

    __slots__ = ("_since", "_suspects", "counts")

    def __init__(self) -> None:
        self.counts: dict[int, int] = {}
        self._since = time.monotonic()
        self._suspects: dict[int, None] = {}

    def loudest(self, lost: set[int]) -> list[int]:
        """Return the ids of the namespaces that have sent too many events; for those in `lost`, a tenth is too many.

        Those in `lost` share a queue that has lost events, and one of them has caused that. Call this regularly,
        because it also starts a new window when the last one is over.
        """
        found = [nsid for nsid, count in self.counts.items() if count >= (NOISY // 10 if nsid in lost else NOISY)]
        now = time.monotonic()
        if found or now - self._since > WINDOW:
            self.counts.clear()
            self._since = now
        return found

    def suspect(self, inode: int) -> None:
        """Remember that a namespace was noisy."""
        self._suspects[inode] = None
        if len(self._suspects) > _SUSPECTS:
            del self._suspects[next(iter(self._suspects))]

    def is_suspect(self, inode: int) -> bool:
        """Return whether a namespace was noisy."""
        return inode in self._suspects
