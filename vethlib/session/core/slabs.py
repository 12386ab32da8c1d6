"""Group the items of a call by reference, and divide them into slabs, which limit how many namespaces are open.

If there are too few descriptors, slabs are halved.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, TypeVar

from vethlib.errors import VethError, is_exhaustion
from vethlib.links import NetnsRef

from .namespaces import Namespaces

__all__ = ["SLAB", "Slab", "by_reference", "read_in_slabs", "slabs"]

T = TypeVar("T")

SLAB: Final = 64


class Slab(list[T]):
    """Items that are worked on together; the caller sets `short` if descriptors ran out."""

    short = False

    @property
    def is_repeated(self) -> bool:
        """Whether it is going to be yielded again in halves."""
        return self.short and len(self) > 1


def slabs(items: Sequence[T]) -> Iterator[Slab[T]]:
    """Divide the items into slabs. A slab that was short is yielded again in halves, unless it has only one item."""
    start, size = 0, SLAB
    while start < len(items):
        slab = Slab(items[start : start + size])
        yield slab
        if slab.is_repeated:
            size = len(slab) // 2
        else:
            start += len(slab)


def by_reference(refs: Iterable[NetnsRef]) -> list[list[int]]:
    """Return the positions of equal references, which lead to one namespace.

    Objects are never compared: an open Netns equals a closed Netns with the same inode number, which leads nowhere.
    """
    groups: dict[str | int, list[int]] = {}
    for position, ref in enumerate(refs):
        key = ref or "" if ref is None or isinstance(ref, str) else id(ref)
        groups.setdefault(key, []).append(position)
    return list(groups.values())


def read_in_slabs(
    open_namespaces: Callable[[], Namespaces],
    refs: Iterable[NetnsRef],
    read: Callable[[Namespaces, Sequence[Sequence[int]]], Iterable[tuple[int, T]]],
) -> dict[int, T]:
    """Read the items that have these references, slab by slab; return what was read, by position.

    `read` is given the positions in a slab, by reference, and yields the position and the value of each item.
    """
    found: dict[int, T] = {}
    for slab in slabs(by_reference(refs)):
        with open_namespaces() as namespaces:
            try:
                found.update(read(namespaces, slab))
            except VethError as error:
                slab.short = is_exhaustion(error)
                if not slab.is_repeated:
                    raise
    return found
