"""Check regularly which network namespace each process is in, and where other paths below /proc/42 lead.

A process can move to another namespace at any time (unshare(2), setns(2)), and the kernel has no event for that. So its
namespace is checked by a stat of /proc/42/ns/net (3 µs), which does not keep it alive. Most processes that move do so
right after their start. So the first check is after 50 ms, and each pause is twice as long as the last, up to two
seconds; from then on all processes are checked in turn, up to a thousand every two seconds. So the cost is bounded, and
with up to a thousand processes a move is noticed within two seconds.

Nor are there events for what is mounted, created or removed behind /proc/42/root and /proc/42/cwd, or for another file
at /proc/42/fd/7. So the file to which such a path leads is checked in the same way; a file system that does not answer
is asked in another thread.
"""

from __future__ import annotations

import os
from collections import deque
from dataclasses import dataclass
from heapq import heappop, heappush

from vethlib._primitives import time
from vethlib.ns.files.glance import is_nsfs, nsfs
from vethlib.ns.opening import asked, is_namespace_of_process, shown_identity

from .alarm import Alarm

__all__ = ["FIRST_LOOK", "LATER_LOOKS", "Whereabouts"]

FIRST_LOOK = 0.05
"""Seconds until the first check of a path; each further pause is twice as long."""

LATER_LOOKS = 2.0
"""Seconds between two checks of the paths that have been followed for a while."""

_AT_ONCE = 1000  # paths that are checked in one call
_MOST_NEW = 256  # paths with their own schedule; further ones are checked in turn from the start


@dataclass(slots=True)
class _Followed:
    path: str
    identity: tuple[int, ...] | None
    due: float | None = None  # None if it is checked in turn
    pause: float = FIRST_LOOK


class Whereabouts:
    """Where references lead by way of processes; :meth:`fileno` is readable when a check is due.

    All times are monotonic. Raises OSError if no descriptor is left.
    """

    def __init__(self) -> None:
        self._alarm = Alarm()
        self._set_for: float | None = None
        self._torn = False  # whether a check, or setting the alarm, was interrupted
        self._moved: set[str] = set()  # found by a check that was interrupted
        self._of_ref: dict[str, _Followed] = {}
        self._new: list[tuple[float, str]] = []  # a heap; an entry with another time than its path is obsolete
        self._turn: deque[str] = deque()
        self._next_turn = 0.0

    def follow(self, ref: str, path: str) -> None:
        """Check `path`, which is below /proc/42, regularly for `ref`."""
        self.unfollow(ref)
        self._of_ref[ref] = followed = _Followed(path, _identity(path))
        now = time.monotonic()
        self._schedule(ref, followed, now)
        due = self._next_turn if followed.due is None else followed.due
        if self._torn or self._set_for is None or due < self._set_for:
            self._set_alarm(now)

    def unfollow(self, ref: str) -> None:
        """Stop checking the path of `ref`, if there is one."""
        self._of_ref.pop(ref, None)
        self._moved.discard(ref)

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._alarm.fileno()

    def close(self) -> None:
        """Close the descriptor. A second call does nothing."""
        self._alarm.close()

    def moved(self) -> set[str]:
        """Check the paths that are due; return the references that lead elsewhere than at the last check.

        A call that is interrupted (KeyboardInterrupt) loses no move: the descriptor stays readable, and the next call
        checks all paths.
        """
        now = time.monotonic()
        everything = self._torn
        if not everything and (self._set_for is None or now < self._set_for):
            return set()
        self._torn = True
        for ref in self._take_all() if everything else self._take_due(now):
            followed = self._of_ref[ref]
            identity = _identity(followed.path)
            if identity != followed.identity:
                self._moved.add(ref)  # first, because an interruption may follow
                followed.identity, followed.pause = identity, FIRST_LOOK
            self._schedule(ref, followed, now)
        self._set_alarm(now)
        self._torn = False
        moved, self._moved = self._moved, set()
        return moved

    def _set_alarm(self, now: float) -> None:
        while self._new and not self._is_due(*self._new[0]):
            heappop(self._new)
        dues = [due for due, _ in self._new[:1]] + ([self._next_turn] if self._turn else [])
        torn, self._torn = self._torn, True  # until the alarm is set for the noted time
        self._set_for = min(dues, default=None)
        self._alarm.set(None if self._set_for is None else self._set_for - now)
        self._torn = torn

    def _take_all(self) -> list[str]:
        """Return all references, as an interrupted check has taken some of them from the schedules."""
        self._new.clear()
        self._turn.clear()
        return list(self._of_ref)

    def _take_due(self, now: float) -> list[str]:
        refs: list[str] = []
        while self._new and self._new[0][0] <= now:
            due, ref = heappop(self._new)
            if self._is_due(due, ref):
                refs.append(ref)
        if self._turn and self._next_turn <= now:
            self._next_turn = now + LATER_LOOKS
            turn = (self._turn.popleft() for _ in range(min(_AT_ONCE, len(self._turn))))
            refs += [ref for ref in turn if ref in self._of_ref and self._of_ref[ref].due is None]
        return list(dict.fromkeys(refs))

    def _schedule(self, ref: str, followed: _Followed, now: float) -> None:
        if followed.pause < LATER_LOOKS and len(self._new) < _MOST_NEW:
            followed.due = now + followed.pause
            followed.pause *= 2
            heappush(self._new, (followed.due, ref))
            return
        followed.due = None
        if not self._turn:
            self._next_turn = now + LATER_LOOKS
        self._turn.append(ref)

    def _is_due(self, due: float, ref: str) -> bool:
        followed = self._of_ref.get(ref)
        return followed is not None and followed.due == due


def _identity(path: str) -> tuple[int, ...] | None:
    """Return the identity of the file to which a path leads; None if there is none, or it cannot be determined."""
    if is_namespace_of_process(path):
        return shown_identity(path)
    try:
        return asked(path, lambda: _identity_of_file(path))
    except OSError:
        return None


def _identity_of_file(path: str) -> tuple[int, ...]:
    status = os.stat(path)
    if status.st_dev == nsfs() and not is_nsfs(path):
        # If nothing keeps the inode, each stat creates another one, with another time (fs/nsfs.c).
        return status.st_dev, status.st_ino
    # The next namespace that is mounted there may have the inode number of one that has ended, but not its time.
    return status.st_dev, status.st_ino, status.st_ctime_ns
