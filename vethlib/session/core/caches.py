"""Attached caches: a session looks links up in them, and has them updated after each of its changes.

A cache receives events for every change. The kernel queues them within the call that makes the change, so a cache that
reads its queue after a call knows everything that the call has changed.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from itertools import count
from typing import Protocol

from vethlib._nl.link import LinkMessage

__all__ = ["AttachedCaches", "Cache"]

Identity = tuple[int, int]


class Cache(Protocol):
    """The interface of a cache to a session (:class:`vethlib.IfIndexCache` has it)."""

    def find(self, identity: Identity, name: str) -> LinkMessage | None:
        """Return the link of that name in an open namespace as it is now; None if the kernel has to be asked."""

    def learn(self, identity: Identity, message: LinkMessage) -> None:
        """Take over what the kernel has just returned; for some changes of a link that is down it sends no event."""

    def catch_up(self) -> None:
        """Apply all events that are queued."""


class AttachedCaches:
    """The caches of a session, usually none. They are not kept alive; one that fails is skipped."""

    __slots__ = ("_attached", "_numbers")

    def __init__(self) -> None:
        # Each change is one operation of a dictionary, because threads, signal handlers and the garbage collector may
        # attach and detach caches at the same time. So is copying it, unlike list(items()), which allocates a tuple for
        # each item, so that garbage may be collected, and another thread run, in between. Numbers are not used again,
        # unlike ids.
        self._attached: dict[int, weakref.ref[Cache]] = {}
        self._numbers = count()

    def __bool__(self) -> bool:
        return bool(self._attached)

    def _alive(self) -> Iterator[Cache]:
        return (cache for attached in self._attached.copy().values() if (cache := attached()) is not None)

    def add(self, cache: Cache) -> None:
        """Attach a cache."""
        self._drop(None)
        self._attached[next(self._numbers)] = weakref.ref(cache)

    def remove(self, cache: Cache) -> None:
        """Detach a cache; it need not be attached."""
        self._drop(cache)

    def _drop(self, cache: Cache | None) -> None:
        """Detach a cache, or those that do not exist any more."""
        for number, attached in self._attached.copy().items():
            if attached() is cache:
                self._attached.pop(number, None)

    def find(self, identity: Identity, name: str) -> LinkMessage | None:
        """Return the link from the first cache that has its current state; None if there is none."""
        for cache in self._alive():
            try:
                if (message := cache.find(identity, name)) is not None:
                    return message
            except Exception:  # a cache may be foreign code
                continue  # it raises that again in a call of its own user
        return None

    def cookie(self, identity: Identity) -> int:
        """Return the cookie of an open namespace from the first cache that knows it, otherwise 0."""
        for cache in self._alive():
            cookie_of = getattr(cache, "cookie_of", None)  # only an IfIndexCache has this
            try:
                if cookie_of is not None and (cookie := int(cookie_of(identity))):
                    return cookie
            except Exception:
                continue  # as above
        return 0

    def learn(self, messages: Sequence[tuple[Identity, LinkMessage]]) -> None:
        """Have every cache catch up, and learn the state of links that are down, which may change without an event."""
        if not self._attached:
            return
        for cache in self._alive():
            try:
                cache.catch_up()
                for identity, message in messages:
                    if not message.up:
                        cache.learn(identity, message)
            except Exception:
                continue

    def catch_up(self) -> None:
        """Have every cache apply its queued events."""
        for cache in self._alive():
            try:
                cache.catch_up()
            except Exception:
                continue
