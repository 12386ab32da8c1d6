"""What caches know of links, so that a session need not ask; and that they learn what it does.

A cache hears of every change by events, which the kernel queues within the call that makes the change: who catches up
after a call knows all that it did. A session sees to that after each of its own calls.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Protocol

from .._nl.link import LinkMessage
from ..errors import VethError

__all__ = ["Cache", "Known"]

Identity = tuple[int, int]


class Cache(Protocol):
    """What a session asks of a cache (:class:`vethlib.IfIndexCache` is one)."""

    def find(self, identity: Identity, name: str) -> LinkMessage | None:
        """The link of that name in an open namespace, as the kernel would show it now; None if it has to be asked."""

    def learn(self, identity: Identity, message: LinkMessage) -> None:
        """Take in what the kernel answered just now; of some changes it sends no event."""

    def catch_up(self) -> None:
        """Apply all events that are queued."""


class Known:
    """The caches of a session, mostly none; they are not kept alive. One that fails is as good as none."""

    __slots__ = ("_attached",)

    def __init__(self) -> None:
        self._attached: tuple[weakref.ref[Cache], ...] = ()

    def __bool__(self) -> bool:
        return bool(self._attached)

    def _caches(self) -> Iterator[Cache]:
        return (cache for one in self._attached if (cache := one()) is not None)

    def add(self, cache: Cache) -> None:
        """Attach a cache."""
        self._attached = (*(one for one in self._attached if one() is not None), weakref.ref(cache))

    def remove(self, cache: Cache) -> None:
        """Detach it; one that is not attached is no error."""
        self._attached = tuple(one for one in self._attached if one() not in (cache, None))

    def find(self, identity: Identity, name: str) -> LinkMessage | None:
        """The link, if a cache knows it for sure."""
        for cache in self._caches():
            try:
                if (message := cache.find(identity, name)) is not None:
                    return message
            except VethError:
                continue  # its own user will hear of that
        return None

    def learn(self, identity: Identity, message: LinkMessage) -> None:
        """Tell every cache what the kernel answered."""
        for cache in self._caches():
            try:
                cache.learn(identity, message)
            except VethError:
                continue

    def catch_up(self) -> None:
        """Have every cache apply what is queued."""
        for cache in self._caches():
            try:
                cache.catch_up()
            except VethError:
                continue
