"""Changes that the user has not fetched yet: one after another (:class:`Reports`), or coalesced.

Coalesced changes (:class:`LinkChanges`) are for callers that look at a link again instead of following each change.
There is one entry per link, however often it has changed; so memory grows with the number of links, not of events. Data
that could grow without bound (former names of a link, added and removed addresses) is kept up to a limit; beyond it,
the entry only means that the link has to be read.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from vethlib._nl.addr import AddrMessage
from vethlib._nl.link import LinkMessage

from .table import Change, Table, differences
from .watch import Watch

__all__ = ["GONE", "MOST_ADDRESSES", "MOST_NAMES", "RESYNC", "AddressChanges", "LinkChanges", "Reports"]

RESYNC: Final[Change] = ("resync", None, None)
GONE: Final[Change] = ("netns-gone", None, None)
MOST_NAMES: Final = 64
"""The most names of one link that are kept between two calls."""

MOST_ADDRESSES: Final = 64
"""The most changed addresses of one link that are kept between two calls."""

AddressChanges: TypeAlias = "dict[tuple[bytes, int, bytes], tuple[AddrMessage, bool]] | None"
"""By address, prefix length and peer: the last message, and whether it added the address. None: too many changed."""


@dataclass(slots=True)
class LinkChanges:
    """The changes since the last call, in no particular order.

    `links` has the present and former names of each changed link, by namespace and ifindex; `addresses` has the changed
    addresses of a link. For links in `unclear`, an event showed no change: it may concern something that a Link does
    not have (its master, its features, the length of its queue). Links in `deleted` were deleted or moved away, even if
    a link with that ifindex exists again: it is another link, or the same one was moved back.

    In the namespaces in `lost`, any link may have changed. Those in `ended` have ended, and those in `noisy` are no
    longer watched, because they send more events than are worth reading.
    """

    links: dict[tuple[Watch, int], set[str]] = field(default_factory=dict)
    addresses: dict[tuple[Watch, int], AddressChanges] = field(default_factory=dict)
    unclear: set[tuple[Watch, int]] = field(default_factory=set)
    deleted: set[tuple[Watch, int]] = field(default_factory=set)
    lost: dict[Watch, None] = field(default_factory=dict)
    ended: list[Watch] = field(default_factory=list)
    noisy: list[Watch] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.links or self.addresses or self.unclear or self.lost or self.ended or self.noisy)

    def note(self, watch: Watch, change: Change) -> None:
        """Note that a link has changed, that its namespace has ended, or that its events were lost."""
        kind, new, old = change
        if kind == "netns-gone":
            self.ended.append(watch)
        elif kind == "resync":
            self.lost[watch] = None
        elif kind == "deleted" and isinstance(old, LinkMessage):
            self.deleted.add((watch, old.ifindex))
        for link in (new, old):
            if isinstance(link, LinkMessage):
                self._note_link(watch, link)

    def note_replaced(self, watch: Watch, change: Change) -> None:
        """Note a deletion whose event was lost, if the ifindex now has a link of another kind or MAC address."""
        _, new, old = change
        if new is not None and isinstance(old, LinkMessage) and (new.kind, new.mac) != (old.kind, old.mac):
            self.deleted.add((watch, new.ifindex))

    def _note_link(self, watch: Watch, link: LinkMessage) -> None:
        names = self.links.setdefault((watch, link.ifindex), set())
        if link.name in names and not link.altnames:
            return
        names.add(link.name)
        names.update(link.altnames)
        if len(names) > MOST_NAMES + len(link.altnames) + 1:
            self.lost[watch] = None  # a dropped name may be the one that the caller looks for
            names.intersection_update((link.name, *link.altnames))

    def note_address(self, watch: Watch, index: int, address: AddrMessage, given: bool) -> None:
        """Note that an address of a link was added or removed."""
        changed = self.addresses.setdefault((watch, index), {})
        if changed is not None:
            changed[address.address, address.prefixlen, address.peer] = address, given
            if len(changed) > MOST_ADDRESSES:
                self.addresses[watch, index] = None

    def ignores(self, watch: Watch, index: int) -> bool:
        """Return whether further address changes of this link make no difference."""
        return self.addresses.get((watch, index), self) is None


class Reports:
    """The changes since the last time they were fetched.

    In `pending`, up to `most` changes are kept until they are fetched; then the oldest are dropped, and `dropped` is
    set. With `coalesce`, they are collected in `changes` instead, which is None otherwise.
    """

    def __init__(self, most: int, *, coalesce: bool) -> None:
        self.pending: deque[tuple[Watch | None, Change]] = deque(maxlen=most)
        self.dropped = False
        self.changes = LinkChanges() if coalesce else None

    def __bool__(self) -> bool:
        return bool(self.pending) or self.dropped if self.changes is None else bool(self.changes)

    def add(self, watch: Watch | None, change: Change | None) -> None:
        """Add a change; None is ignored."""
        if change is None:
            return
        if self.changes is not None:
            if watch is not None:
                self.changes.note(watch, change)
        else:
            self.dropped = self.dropped or len(self.pending) == self.pending.maxlen
            self.pending.append((watch, change))

    def compare(self, watch: Watch, before: Table, now: Table) -> None:
        """Add the differences between two dumps of a namespace, between which events were lost."""
        for change in differences(before, now):
            self.add(watch, change)
            if self.changes is not None:
                self.changes.note_replaced(watch, change)

    def lose(self, watches: Iterable[Watch]) -> None:
        """Note that events of these namespaces were lost; coalesced changes of addresses cannot be found otherwise."""
        if self.changes is not None:
            self.changes.lost.update(dict.fromkeys(watch for watch in watches if watch.fresh is None))

    def take_changes(self) -> LinkChanges:
        """Return the coalesced changes since the last call."""
        assert self.changes is not None
        taken, self.changes = self.changes, LinkChanges()
        return taken
