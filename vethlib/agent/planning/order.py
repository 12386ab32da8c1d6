"""The order of items of which one frees a name that another needs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

__all__ = ["in_order"]

K = TypeVar("K")
T = TypeVar("T")


def in_order(items: Mapping[K, T], before: Callable[[T], Iterable[K]]) -> list[T]:
    """Return the values of `items` in their order, but each after the items whose keys `before` returns for it.

    The order of items that wait for each other is arbitrary.
    """
    placed: dict[K, T] = {}
    waiting = dict(items)
    for first in items:
        path = [first]  # the last is placed when everything before it is
        while path:
            key = path[-1]
            if key in waiting:
                path += [other for other in before(waiting.pop(key)) if other in waiting]
            else:
                placed.setdefault(path.pop(), items[key])
    return list(placed.values())
