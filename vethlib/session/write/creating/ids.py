"""Ids for the namespaces of peers, each lower than the previous one, if the home namespace has many.

If the ends of a pair are in different namespaces, each namespace gets an id in the other: the lowest that is free. For
each message about a link whose peer is elsewhere, the kernel then goes through all ids, lowest first (__peernet2id,
net/core/net_namespace.c), and while a pair is created and set up, there are four such messages in home. Among 8 000
namespaces, that is more than a third of the work. So when an id that the kernel has assigned shows that there are many,
the next namespaces get theirs before the pairs are created, in descending order from a large number, so that the newest
is found first.

As with ids that the kernel assigns, each namespace has one id, which ends with it. If an id cannot be assigned, because
the namespace already has one, or another namespace has this number, the matter is left to the kernel.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from vethlib._nl.nsid import new_nsid
from vethlib._primitives import time
from vethlib.session.core.namespaces import Namespaces, OpenNetns

__all__ = ["assign_ids", "note_id"]

MANY: Final = 512
"""How many ids count as many: each costs 10 ns in each message, and assigning one costs 3 µs."""

_HALF: Final = 1 << 30
_PER_SECOND: Final = 256  # wraps around after 48 days
_TAKEN: Final = "already used"  # text of rtnl_net_newid(), whose EEXIST may also mean that the namespace has an id
_NEXT_BLOCK: Final = 1 << 16


def note_id(place: OpenNetns, nsid: int | None) -> None:
    """Note the id of a namespace in `place`: it may be the first to show that there are many."""
    if nsid is not None and nsid >= MANY and place.is_home and not place.last_id:
        # Later sessions begin below earlier ones.
        place.last_id = 2 * _HALF - 1 - int(time.monotonic() * _PER_SECOND) % _HALF


def assign_ids(namespaces: Namespaces, place: OpenNetns, others: Iterable[OpenNetns]) -> None:
    """Assign an id in `place` to each of the other namespaces, if there are many. Raises NetlinkError."""
    if not place.last_id:
        return
    requests: list[bytes] = []
    for other in dict.fromkeys(others):
        if other is not place and place.last_id > MANY:
            place.last_id -= 1
            requests.append(new_nsid(other.fd, place.last_id))
    if requests and any(_TAKEN in outcome.extack for outcome in namespaces.exchange(place, requests)):
        place.last_id -= _NEXT_BLOCK
