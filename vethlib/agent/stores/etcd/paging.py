"""How many keys to request from etcd at a time, so that answers stay within a size and a time. Pure.

etcd limits its answers by keys. It does not report the length of values before it sends them, and accepts no limit in
bytes. So the first page is small, and each page decides the size of the next: it grows while pages are quick and short,
and shrinks after a page that was slow or long. A page above the limit of gRPC (which refuses it by its first bytes, and
receives no more of it) is requested again with fewer keys; if it has a single key, the value is too long, and only its
key is read.

A page that is not received in time ends its connection, since a slow line looks like a silent line. The next
connection requests fewer keys, with more time. A silent peer is still noticed early, by the pings that are sent while
an answer is awaited (keepalive, see :mod:`.connection`).
"""

from __future__ import annotations

import math
import re
from typing import Final

__all__ = ["CALL", "MOST_KEYS", "Pager", "Scan", "sizes_in"]

CALL: Final = 4.0
"""Seconds that an answer may take."""

MOST_KEYS: Final = 2000
_FIRST: Final = 64
_PAGE_BYTES: Final = 1 << 20
_PAGE_SECONDS: Final = 1.0  # the target for a page, well below CALL
_GROWTH: Final = 4.0
_CAREFUL: Final = 1.5  # the growth once long values have been seen
_LONGEST_CALL: Final = 64.0

# The error of gRPC for a message that it refuses: "… larger than max (SIZE vs. MOST)".
_SIZES: Final = re.compile(r"\((\d{1,15}) vs\. (\d{1,15})\)")


def sizes_in(details: str) -> tuple[int, int] | None:
    """Return the size and the limit of a message that gRPC refused, from the `details` of its error."""
    match = _SIZES.search(details)
    return (int(match[1]), int(match[2])) if match else None


class Pager:
    """The size of the next page: `count` keys, within `seconds`."""

    __slots__ = ("_growth", "count", "seconds")

    def __init__(self) -> None:
        self._growth = _GROWTH
        self.count = _FIRST
        self.seconds = CALL

    def answered(self, size: int, seconds: float) -> None:
        """Note a page that was received, its bytes and its seconds."""
        factor = min(self._growth, _PAGE_BYTES / max(size, 1), _PAGE_SECONDS / max(seconds, 1e-6))
        self.count = max(1, min(MOST_KEYS, math.ceil(self.count * factor) if factor > 1 else int(self.count * factor)))

    def was_too_long(self, details: str) -> bool:
        """Note a page that gRPC refused as too long; return whether fewer keys may help."""
        self._growth = _CAREFUL
        if self.count == 1:
            return False
        size, most = sizes_in(details) or (4, 1)
        self.count = max(1, min(self.count // 2, self.count * most // max(size, 1)))
        return True

    def was_too_slow(self) -> None:
        """Note a page that was not received in time. A long value can follow after pages that were quick."""
        self.count = max(1, int(self.count / _GROWTH))
        self.seconds = min(2 * self.seconds, _LONGEST_CALL)

    def done(self) -> None:
        """Note that all pages have been received."""
        self.seconds, self._growth = CALL, _GROWTH


class Scan:
    """The progress of reading the keys from `start` to `end`, and a check of the answers.

    Whatever the server sends, the reading ends: up to `most` keys are accepted, each greater than the previous one.
    """

    __slots__ = ("_first", "_most", "end", "found", "start")

    def __init__(self, start: bytes, end: bytes, most: int) -> None:
        self.start = self._first = start
        self.end = end
        self._most = most
        self.found = 0

    def take(self, key: bytes) -> str:
        """Accept the next key; return "" or the reason why the answer is wrong."""
        if not self.start <= key < self.end:
            return "it returns keys that were not requested"
        self.found += 1
        self.start = key + b"\0"
        if self.found > self._most:
            prefix = self._first.decode(errors="backslashreplace")
            return f"there are more than {self._most} keys below {prefix} (--limit store_keys=NUMBER)"
        return ""
