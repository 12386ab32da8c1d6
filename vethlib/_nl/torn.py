"""Dumps of tables that change while they are read: they are repeated, and merged if none is whole.

The kernel writes a dump part by part and sets NLM_F_DUMP_INTR if the table changed between two parts. Such a dump may
lack an entry that existed all the time (older kernels count their position in a list), and have one that is gone.

1. A torn dump is repeated after a pause, which doubles, for `PATIENCE` seconds. All dumps of one call can share a
   :class:`Patience`: however many of them are torn, in however many namespaces, repeating them takes `LOOK_PATIENCE`
   seconds at most. After that, a torn dump is repeated without a pause, `ENOUGH` times in total.
2. If all were torn, each entry of any of them counts, as last read. Entries that are not in all of them are doubtful,
   and are requested one by one if that is possible.
"""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, Final, TypeVar

from vethlib._primitives import time

from .batch import Outcome

PATIENCE: Final = 0.25
LOOK_PATIENCE: Final = 0.5
ENOUGH: Final = 3
"""The least number of torn dumps before giving up, however long each takes (50 ms with 4000 links)."""
_PAUSES: Final = (0.0005, 0.02)

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class Patience:
    """The seconds that are left for repeating the dumps of one call."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = LOOK_PATIENCE

    def spend(self, seconds: float) -> None:
        """Subtract the time for which a dump was repeated."""
        self.left = max(0.0, self.left - seconds)


def repeat(
    dump: Callable[[], Outcome], patience: Patience | None = None, first: Outcome | None = None
) -> tuple[Outcome, list[Sequence[Any]]]:
    """Repeat a dump until one is whole or refused, and return only its outcome; otherwise, all torn dumps as well.

    `dump` makes one attempt, and returns EAGAIN with what it has read if the dump is torn. `patience` is that of the
    call, if its dumps share one, and `first` the outcome of the first attempt, if that has been made.
    """
    torn: list[Sequence[Any]] = []
    longest = PATIENCE if patience is None else min(PATIENCE, patience.left)
    began, pause = time.monotonic(), _PAUSES[0]
    while True:
        outcome, first = first or dump(), None
        whole = outcome.errno != errno.EAGAIN
        if whole and not torn:
            return outcome, []
        spent = time.monotonic() - began
        if not whole:
            torn.append(outcome.bodies)
        if whole or (spent >= longest and len(torn) >= ENOUGH):
            if patience is not None:
                patience.spend(spent)
            return outcome, [] if whole else torn
        if spent < longest:
            time.sleep(pause)
            pause = min(2 * pause, _PAUSES[1])


def union(torn: Sequence[Iterable[T]], key: Callable[[T], K]) -> tuple[dict[K, T], list[K]]:
    """Merge torn dumps: return every entry as last read, in the order of the last dump; and the doubtful keys."""
    versions = [{key(entry): entry for entry in version} for version in torn]
    merged: dict[K, T] = {}
    for version in reversed(versions):
        merged = merged | {identity: entry for identity, entry in version.items() if identity not in merged}
    seen = Counter(identity for version in versions for identity in version)
    return merged, [identity for identity in merged if seen[identity] < len(versions)]


def read(
    dump: Callable[[], Outcome], key: Callable[[Any], Hashable] | None = None, patience: Patience | None = None
) -> Outcome:
    """Return a whole dump, or merge the torn ones: by `key`, or by value, each as often as in any one dump.

    `dump` and `patience` as for :func:`repeat`.
    """
    outcome, torn = repeat(dump, patience)
    if not torn:
        return outcome
    if key is not None:
        return Outcome(0, "", list(union(torn, key)[0].values()))
    most: Counter[Any] = Counter()
    for version in torn:
        most |= Counter(version)
    return Outcome(0, "", list(most.elements()))
