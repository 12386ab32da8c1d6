"""Check regularly which network namespace each process is in.

A process can move to another namespace at any time (unshare(2), setns(2)), and the kernel has no event for that. So its
namespace is checked by a stat of /proc/42/ns/net (3 µs), which does not keep it alive. Most processes that move do so
right after their start. So the first check is after 50 ms, and each pause is twice as long as the last, up to two
seconds; from then on all processes are checked in turn, up to a thousand every two seconds. So the cost is bounded, and
with up to a thousand processes a move is noticed within two seconds.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from heapq import heappop, heappush

from vethlib._primitives import time
from vethlib.ns.opening import is_namespace_of_process, shown_identity

from .alarm import Alarm

__all__ = ["FIRST_LOOK", "LATER_LOOKS", "Whereabouts"]

FIRST_LOOK = 0.05
"""Seconds until the first check of a process; each further pause is twice as long."""

LATER_LOOKS = 2.0
"""Seconds between two checks of the processes that have been followed for a while."""

_AT_ONCE = 1000  # processes that are checked in one call
_MOST_NEW = 256  # processes with their own schedule; further ones are checked in turn from the start


@dataclass(slots=True)
class _Process:
    path: str
    identity: tuple[int, int] | None
    due: float | None = None  # None if it is checked in turn
    pause: float = FIRST_LOOK


class Whereabouts:
    """The namespaces of the processes to which references lead; :meth:`fileno` is readable when a check is due.

    All times are monotonic. Raises OSError if no descriptor is left.
    """

    def __init__(self) -> None:
        self._alarm = Alarm()
        self._set_for: float | None = None
        self._torn = False  # whether a check, or setting the alarm, was interrupted
        self._moved: set[str] = set()  # found by a check that was interrupted
        self._of_ref: dict[str, _Process] = {}
        self._new: list[tuple[float, str]] = []  # a heap; an entry with another time than its process is obsolete
        self._turn: deque[str] = deque()
        self._next_turn = 0.0

    def follow(self, ref: str, path: str) -> None:
        """Check the namespace at `path` regularly for `ref`, if it is a process's."""
        self.unfollow(ref)
        if is_namespace_of_process(path):
            self._of_ref[ref] = process = _Process(path, shown_identity(path))
            now = time.monotonic()
            self._schedule(ref, process, now)
            due = self._next_turn if process.due is None else process.due
            if self._torn or self._set_for is None or due < self._set_for:
                self._set_alarm(now)

    def unfollow(self, ref: str) -> None:
        """Stop checking the process of `ref`, if there is one."""
        self._of_ref.pop(ref, None)
        self._moved.discard(ref)

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._alarm.fileno()

    def close(self) -> None:
        """Close the descriptor. A second call does nothing."""
        self._alarm.close()

    def moved(self) -> set[str]:
        """Check the processes that are due; return the references of those that have moved since the last check.

        A call that is interrupted (KeyboardInterrupt) loses no move: the descriptor stays readable, and the next call
        checks all processes.
        """
        now = time.monotonic()
        everything = self._torn
        if not everything and (self._set_for is None or now < self._set_for):
            return set()
        self._torn = True
        for ref in self._take_all() if everything else self._take_due(now):
            process = self._of_ref[ref]
            identity = shown_identity(process.path)
            if identity != process.identity:
                self._moved.add(ref)  # first, because an interruption may follow
                process.identity, process.pause = identity, FIRST_LOOK
            self._schedule(ref, process, now)
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

    def _schedule(self, ref: str, process: _Process, now: float) -> None:
        if process.pause < LATER_LOOKS and len(self._new) < _MOST_NEW:
            process.due = now + process.pause
            process.pause *= 2
            heappush(self._new, (process.due, ref))
            return
        process.due = None
        if not self._turn:
            self._next_turn = now + LATER_LOOKS
        self._turn.append(ref)

    def _is_due(self, due: float, ref: str) -> bool:
        process = self._of_ref.get(ref)
        return process is not None and process.due == due
