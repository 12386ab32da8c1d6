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

    __slots__ = ("_counts", "_loud", "_since", "_suspects")

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}
        self._loud: set[int] = set()  # with a tenth of too many, so that not all are gone through at each call
        self._since = time.monotonic()
        self._suspects: dict[int, int] = {}

    def add(self, nsid: int, number: int) -> None:
        """Count events of a namespace."""
        count = self._counts[nsid] = self._counts.get(nsid, 0) + number
        if count >= NOISY // 10:
            self._loud.add(nsid)

    def excuse(self, nsid: int) -> None:
        """Do not count the events of a namespace so far."""
        self._counts.pop(nsid, None)
        self._loud.discard(nsid)

    def loudest(self, lost: set[int]) -> list[int]:
        """Return the ids of the namespaces that have sent too many events; for those in `lost`, a tenth is too many.

        Those in `lost` share a queue that has lost events, and one of them was the cause. Call this regularly, because
        it also starts a new window when the last window is over.
        """
        found = [nsid for nsid in self._loud if nsid in lost or self._counts[nsid] >= NOISY]
        now = time.monotonic()
        if found or now - self._since > WINDOW:
            self._begin_at(now)
        return found

    def begin(self) -> None:
        """Forget events before the present window, for a user who may not have called :meth:`loudest` since."""
        now = time.monotonic()
        if now - self._since > WINDOW:
            self._begin_at(now)

    def _begin_at(self, now: float) -> None:
        self._counts.clear()
        self._loud.clear()
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
