"""Names for ends that take any free name: ``veth*`` becomes veth0, or the first after it that no link has.

The kernel has such a search itself (IFLA_IFNAME ``veth%d``, __dev_alloc_name in net/core/dev.c), which is not used
here: before Linux 6.2, the kernel does not report which name it has chosen (for a peer, it never does), and it goes
through all links for each new link. A name that was free may be taken by the time it is sent. The kernel then refuses
it, and the next attempt looks again and skips some names at random, because others may be looking for names as well.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from vethlib._nl.wire import encoded
from vethlib.errors import VethError
from vethlib.links import End
from vethlib.session.core.namespaces import Identity, Namespaces, OpenNetns
from vethlib.session.core.slabs import by_reference
from vethlib.session.read.reading import table

__all__ = ["FreeNames", "is_open"]

_LONGEST = 15  # bytes of a name (IFNAMSIZ - 1)


def is_open(end: End) -> bool:
    """Return whether an end takes any free name with the prefix that it gives."""
    return end.name[-1] == "*"


class FreeNames:
    """The names that a call has found to be taken, or has chosen.

    `ends` are all ends that it creates: names and alternative names that are given are not chosen for another end in
    the same namespace, even if the end that has them is created later.
    """

    def __init__(self, ends: Iterable[End]) -> None:
        self._ends = ends
        self._given: dict[Identity, set[str]] | None = None
        self._taken: dict[Identity, set[str]] = {}
        self._next: dict[tuple[Identity, str], int] = {}

    def choose(self, namespaces: Namespaces, place: OpenNetns, pattern: str) -> str | None:
        """Return a name that is free in `place`, the lowest at first; None if there is none. Raises NetlinkError."""
        if place.identity not in self._taken:
            self._look(namespaces, place)
        taken, beginning, key = self._taken[place.identity], pattern[:-1], (place.identity, pattern)
        digits = _LONGEST - len(encoded(beginning))
        number = self._next.get(key, 0)
        while (name := f"{beginning}{number}") in taken:
            number += 1
        if len(str(number)) > digits:
            return None
        self._next[key] = number + 1
        taken.add(name)
        return name

    def look_again(self, namespaces: Namespaces, place: OpenNetns, pattern: str, attempt: int) -> None:
        """Find out which names are taken now; others have been faster `attempt` times. Raises NetlinkError."""
        self._look(namespaces, place)
        key = place.identity, pattern
        if 10 ** (_LONGEST - len(encoded(pattern))) > 2**attempt:
            self._next[key] = self._next.get(key, 0) + int.from_bytes(os.urandom(8), "little") % 2**attempt

    def _look(self, namespaces: Namespaces, place: OpenNetns) -> None:
        if self._given is None:
            self._given = _given_names(namespaces, list(self._ends))
        taken = self._taken.setdefault(place.identity, set(self._given.get(place.identity, ())))
        for link in table(namespaces, place):
            taken.add(link.name)
            taken.update(link.altnames)


def _given_names(namespaces: Namespaces, ends: Sequence[End]) -> dict[Identity, set[str]]:
    """Return the names and alternative names that are given, by namespace."""
    given: dict[Identity, set[str]] = {}
    for positions in by_reference(end.netns for end in ends):
        try:
            identity = namespaces.identity(ends[positions[0]].netns)
        except VethError:
            continue  # nothing is created there, or the pairs report it
        names = given.setdefault(identity, set())
        for position in positions:
            end = ends[position]
            names.update(end.altnames)
            if not is_open(end):
                names.add(end.name)
    return given
