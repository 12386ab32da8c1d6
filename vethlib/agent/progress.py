"""Report the progress of long work on many items."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias, TypeVar

__all__ = ["ProgressCallback", "reported"]

T = TypeVar("T")

ProgressCallback: TypeAlias = Callable[[str, int, int], object]
"""Called from time to time with what is done, how many items are done, and how many there are."""

_EACH = 64  # items, which take some 20 ms to read


def reported(what: str, items: Sequence[T], progress: ProgressCallback | None) -> Iterator[T]:
    """Yield the items, and report from time to time how many are done."""
    for done, item in enumerate(items):
        if progress is not None and done % _EACH == 0:
            progress(what, done, len(items))
        yield item
