"""Slabs: how many namespaces are open at a time; fewer if there are too few descriptors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, TypeVar

__all__ = ["SLAB", "Slab", "slabs"]

T = TypeVar("T")

SLAB: Final = 64


class Slab(list[T]):
    """Items that are worked on together; the caller sets `short` if descriptors ran out."""

    short = False


def slabs(items: Sequence[T]) -> Iterator[Slab[T]]:
    """Divide the items into slabs. A slab that was short is yielded again by halves, unless it has one item only."""
    start, size = 0, SLAB
    while start < len(items):
        slab = Slab(items[start : start + size])
        yield slab
        if slab.short and len(slab) > 1:
            size = len(slab) // 2
        else:
            start += len(slab)
