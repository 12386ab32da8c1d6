"""Changes that the user has not fetched yet: one after the other, or coalesced."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Final

from .changes import LinkChanges
from .table import Change, Table, differences
from .watch import Watch

__all__ = ["GONE", "RESYNC", "Reports"]

RESYNC: Final[Change] = ("resync", None, None)
GONE: Final[Change] = ("netns-gone", None, None)


class Reports:
    """The changes since they were fetched last.

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
        """Note that events of these were lost; if coalesced, changes of addresses cannot be found otherwise."""
        if self.changes is not None:
            self.changes.lost.update(dict.fromkeys(watch for watch in watches if watch.fresh is None))

    def take_changes(self) -> LinkChanges:
        """Return the coalesced changes since the last call."""
        assert self.changes is not None
        taken, self.changes = self.changes, LinkChanges()
        return taken
