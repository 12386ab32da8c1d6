"""What has to be looked at, and why: some interfaces, or the whole host. Pure.

An event only marks interfaces; nothing of it is remembered but a cause, for the log. Interfaces are looked at in this
order: first those that something has happened to (dirty), then those that only a new configuration or a look at the
whole host concerns (the backlog), then those with many addresses, routes or neighbours, a few in each pass, and last,
one at a time, those that keep changing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, islice
from typing import Final

from .pace import Pace

__all__ = ["CONFIGURATION", "Occasions", "Scope"]

AT_ONCE: Final = 512
"""Interfaces in one pass, not counting those that have to be judged together with them."""

MANY_VALUES: Final = 64
"""With more addresses, routes and neighbours, an interface waits for all others.

With more addresses, its status is not updated address by address.
"""

VALUES_AS_ONE: Final = 8
"""Addresses, routes or neighbours that take as long to look at as one more interface: about 30 µs each."""

TOGETHER: Final = 0.05
"""Seconds between two looks for the end of duplicate address detection, which thousands of links end one by one."""

FREE_MOVES: Final = 32
"""Changes in a row of where a namespace reference leads that are followed at once: a few restarts of a program, …"""

FREE_MOVE_SECONDS: Final = 2.0
"""… while the looks take no longer than this together."""

UNSEEN: Final = 10.0
"""Seconds between two looks at interfaces of which not all changes are reported by events, …"""

UNSEEN_RARE: Final = 60.0
"""… and at interfaces of which only rare changes are not reported."""

CONFIGURATION: Final = "configuration"
"""The cause of a look after a change of the configuration."""


@dataclass(frozen=True, slots=True)
class Scope:
    """The scope of one pass: `names`, each with its cause, or, with a cause in `everything`, the whole host.

    `dirty` and `backlog` are all the marks there were.
    """

    names: Mapping[str, str]
    everything: str
    dirty: dict[str, str]
    backlog: dict[str, str]

    def shared_cause(self) -> str:
        """Return why interfaces were looked at that are not among `names`: they are judged together with these."""
        return self.everything or ", ".join(dict.fromkeys(self.names.values()))


class Occasions:
    """The interfaces to be looked at. All times are those of one monotonic clock.

    `torn` is true while events are taken and acted upon: if an interruption ends that, events are lost.
    """

    def __init__(self) -> None:
        self.torn = False
        self._dirty: dict[str, str] = {}  # each with its first cause
        self._backlog: dict[str, str] = {}  # likewise
        self._everything = "start"
        self._pace = Pace()  # of events of links
        self._moves = Pace(FREE_MOVES, FREE_MOVE_SECONDS)  # of changes of where a namespace reference leads
        self._detected: dict[str, None] = {}  # interfaces for which duplicate address detection has ended
        self._detected_due = 0.0
        self._unseen = _RegularLooks()
        self._rarely_unseen = _RegularLooks()

    def __bool__(self) -> bool:
        """Return whether there is anything to look at now."""
        return bool(self._dirty or self._backlog or self._everything)

    @property
    def is_urgent(self) -> bool:
        """Return whether something has happened to some interfaces, and nothing to the whole host."""
        return bool(self._dirty) and not self._everything

    def marked(self) -> set[str]:
        """Return the interfaces to be looked at."""
        return self._dirty.keys() | self._backlog.keys()

    def look_at(self, causes: Mapping[str, str]) -> None:
        """Look at these interfaces after those to which something has happened, each for its cause."""
        for name, cause in causes.items():
            self._backlog.setdefault(name, cause)

    def forget(self, names: Iterable[str]) -> None:
        """Remove the marks of these interfaces."""
        for name in names:
            self._dirty.pop(name, None)
            self._backlog.pop(name, None)

    def count(self) -> int:
        """Return how many interfaces are to be looked at."""
        return len(self._dirty) + len(self._backlog)

    # --- marking

    def mark(self, names: Iterable[str], cause: str) -> None:
        """Look at these interfaces because something has happened to them."""
        for name in names:
            self._dirty.setdefault(name, cause)

    def configured(self, names: Collection[str]) -> None:
        """Look at these interfaces because their configuration, or one that concerns them, has changed."""
        self._pace.forget(names)
        self._moves.forget(names)
        for name in names:
            if name not in self._dirty:
                self._backlog.setdefault(name, CONFIGURATION)

    def everything(self, cause: str) -> None:
        """Look at the whole host."""
        self._everything = self._everything or cause

    def event(self, name: str, cause: str, now: float) -> bool:
        """Return whether to act on an event now, with a look if there is a `cause`; otherwise a look follows later."""
        if not self._pace.may_look(name, now):
            return False
        if cause:
            self._dirty.setdefault(name, cause)
        return True

    def reference_changed(self, name: str, ref: str, now: float) -> bool:
        """Return whether a look follows at once after a namespace reference leads elsewhere; otherwise, it is put off.

        Each change moves a pair to another namespace, so they are followed less and less often while they continue.
        """
        follows = self._moves.may_look(name, now)
        if follows:
            self._dirty.setdefault(name, f"{ref} changed")
        return follows

    def keeps_moving(self, name: str, now: float) -> bool:
        """Return whether the namespace reference of an interface keeps changing."""
        return self._moves.is_noisy(name, now)

    def detection_ended(self, name: str) -> None:
        """Look at this interface soon, together with others."""
        self._detected.setdefault(name)

    def look_regularly(
        self, names: Iterable[str], needed: Collection[str], rarely: Collection[str], now: float
    ) -> None:
        """Look from time to time at those of `names` that are `needed`, because no event reports all their changes.

        Those in `rarely` are looked at less often.
        """
        for name in names:
            self._unseen.choose(name, now + UNSEEN, needed=name in needed)
            self._rarely_unseen.choose(name, now + UNSEEN_RARE, needed=name in rarely)

    # --- what is due

    def next_due(self) -> float | None:
        """Return when the next look that was put off is due; None if there is none."""
        dues = (
            self._pace.next_due(),
            self._moves.next_due(),
            self._detected_due if self._detected else None,
            self._unseen.next_due(),
            self._rarely_unseen.next_due(),
        )
        return min((due for due in dues if due is not None), default=None)

    def mark_put_off(self, now: float) -> None:
        """Mark the interfaces whose looks were put off, and are due now."""
        self.mark(self._moves.take_due(now), "its namespace reference keeps changing")
        self.mark(self._pace.take_due(now), "its link keeps changing")
        for looks, seconds in ((self._unseen, UNSEEN), (self._rarely_unseen, UNSEEN_RARE)):
            self.look_at(dict.fromkeys(looks.take_due(now, now + seconds), "regular check"))

    def mark_detected(self, now: float) -> None:
        """Mark the interfaces for which detection has ended, if some time has passed since the last ones."""
        if self._detected and self._detected_due <= now:
            detected, self._detected = self._detected, {}
            self._detected_due = now + TOGETHER
            for name in detected:
                self.event(name, "duplicate address detection has ended", now)

    # --- passes

    def take(self, values: Callable[[str], int], now: float) -> Scope:
        """Return what the next pass looks at, and remove all marks: :meth:`finish` or :meth:`restore` follows.

        `values` returns how many addresses, routes and neighbours an interface has. Interfaces with many wait for the
        others, and only a few of them make a pass: otherwise one file of a megabyte would delay all others by a quarter
        of a minute.
        """
        dirty, backlog, everything = self._dirty, self._backlog, self._everything
        self._dirty, self._backlog, self._everything = {}, {}, ""
        names = {**dirty, **backlog} if everything else self._next(dirty, backlog, values, now)
        return Scope(names, everything, dirty, backlog)

    def restore(self, scope: Scope, cause: str) -> None:
        """Mark again everything that was taken, after a pass that failed, and the whole host."""
        self._dirty = scope.dirty | self._dirty
        self._backlog = scope.backlog | self._backlog
        self._everything = scope.everything or cause

    def finish(self, scope: Scope, done: Collection[str], deferred: Iterable[str]) -> None:
        """Mark again what was taken, except the interfaces that are `done`, and mark those that are `deferred`."""
        for marks, present in ((scope.dirty, self._dirty), (scope.backlog, self._backlog)):
            for name, cause in marks.items():
                if name not in done and name not in scope.names:
                    present.setdefault(name, cause)
        for name in deferred:
            self._backlog.setdefault(name, scope.everything or scope.names.get(name, CONFIGURATION))

    def looked(self, names: Collection[str], seconds: float, now: float) -> None:
        """Note the CPU time of a pass over these interfaces: after a costly one, the next event has to wait."""
        for pace in (self._pace, self._moves):
            pace.looked(names, seconds / max(1, len(names)), now)

    def look_later(self, name: str, due: float) -> None:
        """Look at an interface at this time, even without an event."""
        self._pace.look_later(name, due)

    def _next(
        self, dirty: Mapping[str, str], backlog: Mapping[str, str], values: Callable[[str], int], now: float
    ) -> dict[str, str]:
        light = (name for name in self._quiet(now, dirty, backlog) if values(name) <= MANY_VALUES)
        names = list(islice(light, AT_ONCE))
        names = names or _few_of(self._quiet(now, dirty, backlog), values) or [next(chain(dirty, backlog))]
        return {name: dirty.get(name) or backlog[name] for name in names}

    def _quiet(self, now: float, *names: Iterable[str]) -> Iterator[str]:
        """Yield those of them that do not keep changing."""
        paces = self._pace, self._moves
        return (name for name in chain(*names) if not any(pace.is_noisy(name, now) for pace in paces))


class _RegularLooks:
    """The interfaces that are looked at together, from time to time."""

    def __init__(self) -> None:
        self._names: dict[str, None] = {}
        self._due = 0.0

    def choose(self, name: str, due: float, *, needed: bool) -> None:
        """Include an interface if that is `needed`, and otherwise not. If it is the first, the look is `due` then."""
        if not needed:
            self._names.pop(name, None)
            return
        if not self._names:
            self._due = due
        self._names[name] = None

    def next_due(self) -> float | None:
        """Return when the next look is due; None if there is none."""
        return self._due if self._names else None

    def take_due(self, now: float, following: float) -> Collection[str]:
        """Return the interfaces to look at now, if any; the look after that is due at `following`."""
        if not self._names or self._due > now:
            return ()
        self._due = following
        return self._names


def _few_of(names: Iterable[str], values: Callable[[str], int]) -> list[str]:
    """Return the first of these, up to what a pass may cost."""
    few: list[str] = []
    weight = 0
    for name in names:
        few.append(name)
        weight += 1 + values(name) // VALUES_AS_ONE
        if weight >= AT_ONCE:
            break
    return few
