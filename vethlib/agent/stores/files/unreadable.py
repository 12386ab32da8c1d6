"""When files that cannot be read are read again: each every second, but all together for a tenth of the time.

There may be thousands of them, such as symbolic links that lead nowhere, each of which takes milliseconds. A user who
can create them must keep neither the agent busy nor the changes of other files waiting.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from vethlib._primitives import time

__all__ = ["UnreadableFiles"]

_RETRY: Final = 1.0  # seconds
_REST: Final = 10.0  # length of a rest, as a multiple of the time that reading took


class UnreadableFiles:
    """The files that cannot be read, in the order in which they are read again."""

    def __init__(self) -> None:
        # Finding the first item of a dict takes longer the more were removed before it, unlike that of an OrderedDict.
        self._due: OrderedDict[str, float] = OrderedDict()
        self._rests_until = 0.0

    def add(self, name: str) -> None:
        """Note that a file could not be read now."""
        self._due.pop(name, None)
        self._due[name] = time.monotonic() + _RETRY

    def discard(self, name: str) -> bool:
        """Forget a file; return whether it was one of these."""
        return self._due.pop(name, None) is not None

    def clear(self) -> None:
        """Forget all files."""
        self._due.clear()

    def due(self) -> float | None:
        """Return the time to read the next file again; None if there is none."""
        first = next(iter(self._due.values()), None)
        return None if first is None else max(first, self._rests_until)

    def next(self, now: float) -> str | None:
        """Return the next file if it was due `now`, whether or not these files rest; otherwise None."""
        name = next(iter(self._due), None)
        return name if name is not None and self._due[name] <= now else None

    def read_for(self, seconds: float) -> None:
        """Note how long some of these files were read; they rest now."""
        self._rests_until = time.monotonic() + _REST * seconds
