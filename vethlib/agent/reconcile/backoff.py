"""When to try again: an interface after a failure, a repair or a duplicate address, and the work for all. Pure.

The result of a pass has one of four next steps for each interface:

* DONE: the interface is as configured.
* WAIT: something that it needs is missing. An event will report that it is available.
* RETRY: the kernel refused something, and may accept it later. The interface is tried again after a delay that doubles
  with each failure.
* TERMINAL: the kernel refused something and always will, until the configuration changes.

If a link has to be repaired again and again, some other program keeps changing it. Then each repair is delayed longer.

Only interfaces with something to remember take memory, so that a host without problems costs nothing. All times are
those of one monotonic clock.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from heapq import heapify, heappop, heappush
from typing import Final, NamedTuple

from vethlib.agent.attempts import Attempts, delay
from vethlib.agent.reasons import Reason
from vethlib.agent.state import State, Verdict
from vethlib.errors import InvalidValue, NotSupported, VethError
from vethlib.ns.deadline import earliest

__all__ = ["DETECTION", "Backoff", "InterfaceAttempts", "NextStep", "next_step"]

DETECTION: Final = 15.0
"""Seconds within which duplicate address detection usually ends.

With the kernel's defaults it takes two. But each of its steps waits for the lock of all network configuration, which
the removal of many links or namespaces elsewhere on the host may hold for seconds.
"""

FREE_REPAIRS: Final = 4
"""Repairs in a row that are made immediately; later ones are delayed."""

FIGHT_WINDOW: Final = 10.0
"""Seconds: repairs that are further apart are not in a row."""


class NextStep(Enum):
    """What to do next about an interface; the module describes each."""

    DONE = "done"
    WAIT = "wait"
    RETRY = "retry"
    TERMINAL = "terminal"


_OF_STATE: Final = {
    State.CONFIGURED: NextStep.DONE,
    State.PENDING: NextStep.WAIT,
    State.FAILED: NextStep.WAIT,  # by the plan: an event or a regular observation finds the name free
    State.RETRYING: NextStep.RETRY,
    State.INVALID: NextStep.TERMINAL,
}


def next_step(verdict: Verdict, error: VethError | None) -> NextStep:
    """Return the next step, by the verdict of the plan and by the kernel's refusal, if there is one."""
    if error is not None:
        return NextStep.TERMINAL if isinstance(error, (InvalidValue, NotSupported)) else NextStep.RETRY
    return _OF_STATE[verdict.state]


@dataclass(slots=True)
class InterfaceAttempts(Attempts):
    """The recent failures and repairs of one interface; each counted while they are in a row."""

    repairs: int = 0
    repaired_at: float = 0.0
    held: float = 0.0  # no repair before this time
    duplicate: Reason | None = None  # while an address of the interface is a duplicate
    detecting: bool = False  # the duplicate address was added again, and detection is in progress
    hurried: bool = False  # its other owner has lost it, so that it is added again before it is due
    detected: int = 0  # how often detection had failed …
    detected_at: float = -FIGHT_WINDOW  # … when it last succeeded

    def find_duplicate(self, reason: Reason, now: float) -> None:
        """Count a duplicate address; one that was found before is counted only if it was added again since."""
        if self.duplicate is None and now - self.detected_at < FIGHT_WINDOW:
            self.failed = max(self.failed, self.detected)  # it was gone for no more than a moment
        if self.detecting or self.due is None:
            self.failed += 1
            self.due = now + delay(self.failed + 2)
        self.duplicate, self.detecting, self.hurried = reason, False, False

    def hurry(self) -> None:
        """Let a duplicate address be added again immediately. If that is not possible, it is due as before."""
        self.hurried = True

    def detect_again(self, now: float) -> None:
        """Note that a duplicate address was added again. An event ends its detection; `due` is for a missed event."""
        self.hurried = False
        if not self.detecting or self.due is None:
            self.detecting = True
            self.due = now + DETECTION

    def end_duplicate(self, now: float) -> None:
        """Note that no address is a duplicate now; the number of failures is remembered for a while."""
        if self.duplicate is not None:
            self.duplicate, self.detecting, self.hurried = None, False, False
            self.detected, self.detected_at = self.failed, now

    def may_try_again(self, now: float) -> bool:
        """Return whether it is time to add a duplicate address again."""
        is_due = not self.detecting and (self.due is None or self.due <= now)
        return self.duplicate is not None and (is_due or self.hurried)

    def repaired(self, now: float) -> None:
        """Count a repair of something that another program has changed."""
        if now - self.repaired_at > self._window:
            self.repairs = 0
        self.repairs += 1
        self.repaired_at = now
        if self.repairs >= FREE_REPAIRS:
            self.held = now + delay(self.repairs - FREE_REPAIRS + 3)

    def is_over(self, now: float) -> bool:
        """Return whether there is nothing left to remember."""
        return not self.failed and now - self.repaired_at > self._window and now - self.detected_at > FIGHT_WINDOW

    @property
    def _window(self) -> float:
        # The longer the last repair had to wait, the longer the quiet time that ends a row of repairs.
        return max(FIGHT_WINDOW, 2 * (self.held - self.repaired_at))

    def hold(self, now: float) -> bool:
        """Return whether a repair has to wait; if so, it is `due` later."""
        if now >= self.held:
            return False
        self.due = self.held
        return True


class Due(NamedTuple):
    """What has to be tried now: these interfaces, and kinds of work that concern all of them (see :class:`Backoff`)."""

    interfaces: list[str]
    following: bool
    watching: bool
    attaching: bool
    leftovers: bool


class Backoff:
    """The times at which each interface is tried again, by name, and those of the work that concerns all interfaces.

    `looking` has the attempts to look at the host at all, `following` those to follow references that could not be
    followed, `watching` those to watch namespaces that could not be watched, `attaching` those to attach dependants for
    which resources ran out, and `leftovers` those to delete pairs that belong to no interface.
    """

    def __init__(self) -> None:
        self.looking = Attempts()
        self.following = Attempts()
        self.watching = Attempts()
        self.attaching = Attempts()
        self.leftovers = Attempts()
        self._attempts: dict[str, InterfaceAttempts] = {}
        self._settled: set[str] = set()
        # When each is due. An entry whose interface is due at another time by now, or not at all, is skipped.
        self._due: list[tuple[float, str]] = []

    def forget(self, names: Iterable[str]) -> None:
        """Forget the failures and repairs of these interfaces, because their configuration has changed."""
        for name in names:
            self._attempts.pop(name, None)
        self._settled.difference_update(names)

    def try_all(self) -> None:
        """Allow all interfaces to be tried immediately."""
        self._attempts.clear()
        self._due.clear()
        self.looking.succeed()

    def explained(self, name: str) -> tuple[int, float]:
        """Return how many attempts in a row explain the RETRYING state of an interface, and when the next is due."""
        if self.looking.failed:
            count, due = self.looking.failed, self.looking.due
        else:
            attempts = self._attempts[name]
            count, due = attempts.failed or attempts.repairs, attempts.due
        assert due is not None
        return count, due

    # --- when

    def next_due(self) -> float | None:
        """Return the time of the next attempt of anything; None if there is none."""
        of_all = (self.looking, self.following, self.watching, self.attaching, self.leftovers)
        return earliest(self._next_interface_due(), *(attempts.due for attempts in of_all))

    def _next_interface_due(self) -> float | None:
        while self._due and not self._is_due(*self._due[0]):
            heappop(self._due)
        return self._due[0][0] if self._due else None

    def waiting(self) -> int:
        """Return how many interfaces wait for the time of another attempt."""
        return sum(attempts.due is not None for attempts in self._attempts.values())

    def take_due(self, now: float) -> Due:
        """Return what is due now, once: the caller tries it."""
        names = []
        while (due := self._next_interface_due()) is not None and due <= now:
            _, name = heappop(self._due)
            self._attempts[name].due = None
            names.append(name)
        following = self.following.due is not None and self.following.due <= now  # until it fails or succeeds
        return Due(names, following, self.watching.take(now), self.attaching.take(now), self.leftovers.take(now))

    def waits(self, name: str, now: float) -> bool:
        """Return whether an attempt of this interface is scheduled for later."""
        attempts = self._attempts.get(name)
        return attempts is not None and attempts.waits(now)

    def _is_due(self, due: float, name: str) -> bool:
        attempts = self._attempts.get(name)
        return attempts is not None and attempts.due == due

    def _schedule(self, name: str, attempts: InterfaceAttempts) -> None:
        if attempts.due is None:
            return
        heappush(self._due, (attempts.due, name))
        if len(self._due) > 2 * len(self._attempts) + 64:
            self._due = [entry for entry in self._due if self._is_due(*entry)]
            heapify(self._due)

    # --- what happened

    def hold(self, names: Iterable[str], now: float) -> int:
        """Return the number of repairs in a row that make these interfaces wait now; 0 if they need not wait."""
        for name in names:
            attempts = self._attempts.get(name)
            if attempts is not None and attempts.hold(now):
                self._schedule(name, attempts)
                return attempts.repairs
        return 0

    def put_off(self, names: Iterable[str], due: float) -> None:
        """Schedule the next attempt of these interfaces, which have not failed: a part of the work is left."""
        for name in names:
            attempts = self._attempts.setdefault(name, InterfaceAttempts())
            attempts.due = due
            self._schedule(name, attempts)

    def find_duplicate(self, name: str, reason: Reason, now: float) -> None:
        """Note that an address of this interface is a duplicate."""
        attempts = self._attempts.setdefault(name, InterfaceAttempts())
        attempts.find_duplicate(reason, now)
        self._schedule(name, attempts)

    def hurry(self, name: str) -> None:
        """Let a duplicate address of this interface be added again immediately: its other owner may have lost it."""
        self._attempts[name].hurry()

    def duplicate(self, name: str) -> Reason | None:
        """Return why an address of this interface cannot be used, as of its last detection; None if it can."""
        attempts = self._attempts.get(name)
        return None if attempts is None else attempts.duplicate

    def detect_again(self, name: str, now: float) -> None:
        """Note that a duplicate address of this interface was added again, and is being checked."""
        attempts = self._attempts[name]
        attempts.detect_again(now)
        self._schedule(name, attempts)

    def may_try_again(self, name: str, now: float) -> bool:
        """Return whether it is time to add a duplicate address of this interface again."""
        attempts = self._attempts.get(name)
        return attempts is not None and attempts.may_try_again(now)

    def settled(self, names: set[str]) -> set[str]:
        """Return the interfaces among these that were as configured, and whose configuration is still the same."""
        return names & self._settled

    def repaired(self, name: str, now: float) -> None:
        """Count a repair of an interface that another program has changed."""
        self._attempts.setdefault(name, InterfaceAttempts()).repaired(now)

    def record(self, name: str, step: NextStep, now: float, *, configured: bool, held: bool) -> None:
        """Note the result of a pass for an interface; `held` if nothing was done because of :meth:`hold`."""
        attempts = self._attempts.get(name)
        if step is NextStep.RETRY:
            # An interface that is held is scheduled already.
            if not held or attempts is None or attempts.due is None:
                attempts = self._attempts.setdefault(name, InterfaceAttempts())
                attempts.fail(now)
                self._schedule(name, attempts)
        elif attempts is not None:
            attempts.end_duplicate(now)
            attempts.succeed()
            if attempts.is_over(now):
                del self._attempts[name]
        if configured:
            self._settled.add(name)
        elif not held:
            self._settled.discard(name)
