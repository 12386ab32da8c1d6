"""Counts of recent events per watched namespace, and the namespaces that have sent too many."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from vethlib._primitives import time

__all__ = ["NOISY", "WINDOW", "Noise"]

NOISY: Final = 10_000
"""A namespace that sends this many events within `WINDOW` is too noisy: reading them would take 2 % of a CPU."""

WINDOW: Final = 2.0
"""Seconds."""

_SUSPECTS: Final = 1024


class Noise:
    """Counts events by the ids of the namespaces, and remembers the noisy ones by inode and cookie."""

    __slots__ = ("_since", "_suspects", "counts")

    def __init__(self) -> None:
        self.counts: dict[int, int] = {}
        self._since = time.monotonic()
        self._suspects: dict[int, int] = {}

    def loudest(self, lost: set[int]) -> list[int]:
        """Return the ids of the namespaces that have sent too many events; for those in `lost`, a tenth is too many.

        Those in `lost` share a queue that has lost events, and one of them was the cause. Call this regularly, because
        it also starts a new window when the last window is over.
        """
        found = [nsid for nsid, count in self.counts.items() if count >= (NOISY // 10 if nsid in lost else NOISY)]
        now = time.monotonic()
        if found or now - self._since > WINDOW:
            self.counts.clear()
            self._since = now
        return found

    def begin(self) -> None:
        """Forget events before the present window, for a user who may not have called :meth:`loudest` since."""
        now = time.monotonic()
        if now - self._since > WINDOW:
            self.counts.clear()
            self._since = now

    def suspect(self, inode: int, cookie: int) -> None:
        """Remember that a namespace was noisy. Its cookie is 0 if it is unknown."""
        self._suspects.pop(inode, None)
        self._suspects[inode] = cookie
        if len(self._suspects) > _SUSPECTS:
            del self._suspects[next(iter(self._suspects))]

    def is_suspect(self, inode: int, cookie: Callable[[], int]) -> bool:
        """Return whether a namespace was noisy. `cookie` returns its cookie, and is called only if it matters."""
        if (known := self._suspects.get(inode)) is None:
            return False
        if known and (now := cookie()) and now != known:
            del self._suspects[inode]  # that namespace has ended
            return False
        return True
