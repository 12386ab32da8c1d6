"""How each interface fared lately, and when it is to be tried again: pure.

Kept only of those of which there is something to remember, so that a host on which all is well costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from heapq import heapify, heappop, heappush

from .repair import Attempts, Outcome

__all__ = ["Records"]


class Records:
    """What is remembered of interfaces, by name. All times are those of one monotonic clock."""

    def __init__(self) -> None:
        self._attempts: dict[str, Attempts] = {}
        self._settled: set[str] = set()
        # When each is due. One that is due at another time by now, or not at all, is passed over when it comes up.
        self._due: list[tuple[float, str]] = []

    def forget(self, name: str) -> None:
        """Another configuration concerns this one: what it was refused, or repaired, is of no matter any more."""
        self._attempts.pop(name, None)
        self._settled.discard(name)

    def try_all(self) -> None:
        """Whatever was put off may be tried at once."""
        self._attempts.clear()
        self._due.clear()

    def of(self, name: str) -> Attempts:
        """The attempts of one that has failed or is held back."""
        return self._attempts[name]

    # --- when

    def next_due(self) -> float | None:
        """When the next one is to be tried; None: none is."""
        while self._due and not self._is_due(*self._due[0]):
            heappop(self._due)
        return self._due[0][0] if self._due else None

    def waiting(self) -> int:
        """How many wait for the time of another try."""
        return sum(attempts.due is not None for attempts in self._attempts.values())

    def take_due(self, now: float) -> list[str]:
        """Those that are to be tried now; it is for the caller to do it."""
        names = []
        while (due := self.next_due()) is not None and due <= now:
            _, name = heappop(self._due)
            self._attempts[name].due = None
            names.append(name)
        return names

    def waits(self, name: str, now: float) -> bool:
        """Whether one has to wait for a time that is still to come."""
        attempts = self._attempts.get(name)
        return attempts is not None and attempts.due is not None and attempts.due > now

    def _is_due(self, due: float, name: str) -> bool:
        attempts = self._attempts.get(name)
        return attempts is not None and attempts.due == due

    def _note(self, name: str, attempts: Attempts) -> None:
        if attempts.due is None:
            return
        heappush(self._due, (attempts.due, name))
        if len(self._due) > 2 * len(self._attempts) + 64:
            self._due = [entry for entry in self._due if self._is_due(*entry)]
            heapify(self._due)

    # --- what happened

    def may_act(self, names: Iterable[str], now: float) -> str:
        """Why nothing is to be done for these interfaces now; "" if it is."""
        for name in names:
            attempts = self._attempts.get(name)
            if attempts is not None and attempts.hold(now):
                self._note(name, attempts)
                return f"put right {attempts.repairs} times in a row, and changed by somebody again"
        return ""

    def settled(self, names: set[str]) -> set[str]:
        """Those of them that were as they are wanted, and of which nothing else was wanted since."""
        return names & self._settled

    def repaired(self, name: str, now: float) -> None:
        """What somebody else has changed of this one is put right."""
        self._attempts.setdefault(name, Attempts()).repaired(now)

    def fared(self, name: str, follows: Outcome, now: float, *, configured: bool, held: bool) -> None:
        """What has become of one, and what follows from it; `held` if it was held back."""
        attempts = self._attempts.get(name)
        if follows is Outcome.RETRY:
            # Who is held back knows already when to go on.
            if not held or attempts is None or attempts.due is None:
                attempts = self._attempts.setdefault(name, Attempts())
                attempts.fail(now)
                self._note(name, attempts)
        elif attempts is not None:
            attempts.succeed()
            if attempts.is_over(now):
                del self._attempts[name]
        if configured:
            self._settled.add(name)
        elif not held:
            self._settled.discard(name)
