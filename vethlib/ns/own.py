"""The descriptors of namespaces that the library has opened for itself, which no caller's reference can mean.

A caller may give the number of a descriptor that it has closed ("fd:7"). The kernel gives that number to the next
descriptor, which may be one of a namespace that the same call has just opened: the call would work in that namespace.
So a number is refused as long as its descriptor is the library's own. Those of a Netns are the caller's.

A note is kept only as long as its holder exists, because an interruption may end a holder that has not closed anything.
A daemon closes all descriptors that it has inherited (os.closerange), so a number that leads to another namespace than
the noted one is no longer the library's.
"""

from __future__ import annotations

import os
import re
import weakref
from typing import Final

from .descriptor import Descriptor

__all__ = ["OwnDescriptors", "forget", "is_own", "note", "number_in"]

_notes: dict[int, tuple[weakref.ref[object], tuple[int, int] | None]] = {}

_PATH: Final = re.compile(r"/proc/(self|thread-self|[0-9]+)(?:/task/[0-9]+)?/fd/([0-9]{1,10})")


def note(number: int, holder: object, identity: tuple[int, int] | None = None) -> None:
    """Note that a descriptor is the library's own, until :func:`forget`, or until its holder is collected.

    `identity` is that of its namespace; a holder that outlives a call must give it.
    """
    _notes[number] = weakref.ref(holder), identity


def forget(number: int) -> None:
    """Forget a descriptor that is about to be closed."""
    _notes.pop(number, None)


def is_own(number: int) -> bool:
    """Return whether a number is that of one of the library's own descriptors."""
    holder, identity = _notes.get(number, (None, None))
    if holder is None or holder() is None:
        return False
    return identity is None or _is_open_to(number, identity)


def _is_open_to(number: int, identity: tuple[int, int]) -> bool:
    try:
        status = os.fstat(number)
    except OSError:
        return False
    return (status.st_dev, status.st_ino) == identity


def number_in(path: str) -> int | None:
    """Return the number of the descriptor of this process that a path in /proc leads to; None for other paths."""
    match = _PATH.fullmatch(path)
    if match is None or match[1] not in ("self", "thread-self", str(os.getpid())):
        return None
    return int(match[2])


class OwnDescriptors:
    """Some of the library's own descriptors, which are closed together."""

    __slots__ = ("__weakref__", "_held")

    def __init__(self) -> None:
        self._held: list[Descriptor] = []

    def hold(self, descriptor: Descriptor) -> Descriptor:
        """Note and return a descriptor."""
        self._held.append(descriptor)
        note(descriptor.fileno(), self)
        return descriptor

    def close(self) -> None:
        """Close all of them."""
        for descriptor in self._held:
            if not descriptor.closed:
                forget(descriptor.fileno())
                descriptor.close()
