"""What has to be looked at, and why: some interfaces, or the whole host. Pure.

An event only marks interfaces; nothing of it is remembered but a cause, for the log. Interfaces are looked at in this
order: first those that something has happened to (dirty), then those that only a new configuration or an observation of
the whole host concerns (the backlog), then those with many addresses, routes or neighbours, a few in each pass, and
last, one at a time, those that keep changing.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from itertools import chain, islice
from typing import Final

from vethlib.ns.deadline import earliest

from .pace import QUIET, Pace

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
"""Seconds between two checks for the end of duplicate address detection, which thousands of links end one by one."""

FREE_MOVES: Final = 32
"""Changes in a row of where a namespace reference leads that are followed at once: a few restarts of a program, …"""

FREE_MOVE_SECONDS: Final = 2.0
"""… while the observations take no longer than this together."""

UNSEEN: Final = 10.0
"""Seconds between two observations of interfaces of which not all changes are reported by events, …"""

UNSEEN_RARE: Final = 60.0
"""… and at interfaces of which only rare changes are not reported."""

CONFIGURATION: Final = "configuration"
"""The cause of an observation after a change of the configuration."""


class Kind(Enum):
    """Kinds of marked interfaces, by which they have their turn."""

    LIGHT = "light"
    HEAVY = "heavy"  # it has many addresses, routes or neighbours
    NOISY = "noisy"  # it keeps changing


class Marks:
    """Marked interfaces, each with the first cause of its mark, in the order in which they were marked.

    The kind of an interface is asked for when its turn comes. Those that are not light are put aside then, so that
    each pass does not ask for all of them. They are asked about again after a while, because they may be light by then.
    """

    def __init__(self) -> None:
        # Finding the first item of a dict takes longer the more were removed before it, unlike that of an OrderedDict.
        self._waiting: OrderedDict[str, str] = OrderedDict()
        self._heavy: OrderedDict[str, str] = OrderedDict()
        self._noisy: OrderedDict[str, str] = OrderedDict()
        self._all = self._waiting, self._heavy, self._noisy
        self._sorted = 0.0  # when those put aside had their turn with all others

    def __len__(self) -> int:
        return sum(map(len, self._all))

    def __bool__(self) -> bool:
        return bool(self._waiting or self._heavy or self._noisy)

    def __iter__(self) -> Iterator[str]:
        return chain(*self._all)

    def __contains__(self, name: str) -> bool:
        return name in self._waiting or name in self._heavy or name in self._noisy

    def items(self) -> Iterator[tuple[str, str]]:
        """Yield each interface with its cause."""
        return chain.from_iterable(marks.items() for marks in self._all)

    def add(self, name: str, cause: str) -> None:
        """Mark an interface, unless it is marked already."""
        if name not in self:
            self._waiting[name] = cause

    def discard(self, names: Iterable[str]) -> None:
        """Remove the marks of these interfaces, if they have any."""
        for name in names:
            for marks in self._all:
                marks.pop(name, None)

    def mix(self, now: float) -> None:
        """Let the interfaces that were put aside have their turn with all others, if they did not lately."""
        if now - self._sorted < QUIET:
            return
        self._sorted = now
        aside = [*self._heavy.items(), *self._noisy.items()]
        self._heavy.clear()
        self._noisy.clear()
        for name, cause in reversed(aside):
            self._waiting[name] = cause
            self._waiting.move_to_end(name, last=False)

    def take_light(self, kind_of: Callable[[str], Kind]) -> Iterator[tuple[str, str]]:
        """Yield the light interfaces, each with its cause, and remove their marks."""
        while self._waiting:
            name, cause = self._waiting.popitem(last=False)
            kind = kind_of(name)
            if kind is Kind.LIGHT:
                yield name, cause
            else:
                (self._heavy if kind is Kind.HEAVY else self._noisy)[name] = cause

    def take_heavy(self, kind_of: Callable[[str], Kind]) -> Iterator[tuple[str, str]]:
        """Yield the heavy interfaces that were put aside and are not noisy by now, and remove their marks."""
        while self._heavy:
            name, cause = self._heavy.popitem(last=False)
            if kind_of(name) is Kind.NOISY:
                self._noisy[name] = cause
            else:
                yield name, cause

    def take_noisy(self) -> Iterator[tuple[str, str]]:
        """Yield the noisy interfaces that were put aside, and remove their marks."""
        while self._noisy:
            yield self._noisy.popitem(last=False)


@dataclass(frozen=True, slots=True)
class Scope:
    """The scope of one pass: `names`, each with its cause, or, with a cause in `everything`, the whole host.

    `dirty` and `backlog` are the marks that were left when it was taken.
    """

    names: Mapping[str, str]
    everything: str = ""
    dirty: Marks = field(default_factory=Marks)
    backlog: Marks = field(default_factory=Marks)

    def shared_cause(self) -> str:
        """Return why interfaces were looked at that are not among `names`: they are judged together with these."""
        return self.everything or ", ".join(dict.fromkeys(self.names.values()))


class Occasions:
    """The interfaces to be looked at. All times are those of one monotonic clock.

    `torn` is true while events are taken and acted upon: if an interruption ends that, events are lost.
    """

    def __init__(self) -> None:
        self.torn = False
        self._dirty = Marks()
        self._backlog = Marks()
        self._everything = "start"
        self._pace = Pace()  # for events of links
        self._moves = Pace(FREE_MOVES, FREE_MOVE_SECONDS)  # for namespace references that lead elsewhere
        self._detected: dict[str, None] = {}  # interfaces for which duplicate address detection has ended
        self._detected_due = 0.0
        self._unseen = _RegularLooks()
        self._rarely_unseen = _RegularLooks()

    def __bool__(self) -> bool:
        """Return whether there is anything to look at now."""
        return bool(self._everything or self._dirty or self._backlog)

    @property
    def is_urgent(self) -> bool:
        """Return whether something has happened to some interfaces, and nothing to the whole host."""
        return bool(self._dirty) and not self._everything

    def marked(self) -> set[str]:
        """Return the interfaces to be looked at."""
        return {*self._dirty, *self._backlog}

    def look_at(self, causes: Mapping[str, str]) -> None:
        """Look at these interfaces after those to which something has happened, each for its cause."""
        for name, cause in causes.items():
            self._backlog.add(name, cause)

    def forget(self, names: Collection[str]) -> None:
        """Remove the marks of these interfaces."""
        self._dirty.discard(names)
        self._backlog.discard(names)

    def count(self) -> int:
        """Return how many interfaces are to be looked at."""
        return len(self._dirty) + len(self._backlog)

    # --- marking

    def mark(self, names: Iterable[str], cause: str) -> None:
        """Look at these interfaces because something has happened to them."""
        for name in names:
            self._dirty.add(name, cause)

    def configured(self, names: Collection[str]) -> None:
        """Look at these interfaces because their configuration, or one that concerns them, has changed."""
        self._pace.forget(names)
        self._moves.forget(names)
        for name in names:
            if name not in self._dirty:
                self._backlog.add(name, CONFIGURATION)

    def everything(self, cause: str) -> None:
        """Look at the whole host."""
        self._everything = self._everything or cause

    def event(self, name: str, cause: str, now: float) -> bool:
        """Return whether to act on an event now, by an observation if it has a `cause`; otherwise one follows later."""
        if not self._pace.may_look(name, now):
            return False
        if cause:
            self._dirty.add(name, cause)
        return True

    def reference_changed(self, name: str, ref: str, now: float) -> bool:
        """Return whether an observation follows a change of a namespace reference at once; otherwise, it is put off.

        Each change moves a pair to another namespace, so they are followed less and less often while they continue.
        """
        follows = self._moves.may_look(name, now)
        if follows:
            self._dirty.add(name, f"{ref} changed")
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
        """Return when the next observation that was put off is due; None if there is none."""
        return earliest(
            self._pace.next_due(),
            self._moves.next_due(),
            self._detected_due if self._detected else None,
            self._unseen.next_due(),
            self._rarely_unseen.next_due(),
        )

    def mark_put_off(self, now: float) -> None:
        """Mark the interfaces whose observations were put off, and are due now."""
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
        """Return what the next pass looks at, with all other marks: :meth:`finish` or :meth:`restore` follows.

        `values` returns how many addresses, routes and neighbours an interface has. Interfaces with many wait for the
        others, and only a few of them make a pass: otherwise one file of a megabyte would delay all others by a quarter
        of a minute.
        """
        dirty, backlog, everything = self._dirty, self._backlog, self._everything
        self._dirty, self._backlog, self._everything = Marks(), Marks(), ""
        if everything:
            return Scope(_causes(chain(dirty.items(), backlog.items())), everything)
        return Scope(self._next(dirty, backlog, values, now), "", dirty, backlog)

    def restore(self, scope: Scope, cause: str) -> None:
        """Mark again everything that was taken, after a pass that failed, and the whole host."""
        self._keep(scope)
        self.look_at(scope.names)
        self._everything = scope.everything or cause

    def finish(self, scope: Scope, done: Collection[str], deferred: Iterable[str]) -> None:
        """Keep the marks that were left, except those of `done` interfaces, and mark those that are `deferred`."""
        scope.dirty.discard(done)
        scope.backlog.discard(done)
        self._keep(scope)
        for name in deferred:
            self._backlog.add(name, scope.everything or scope.names.get(name, CONFIGURATION))

    def _keep(self, scope: Scope) -> None:
        """Keep the marks that were left, before those that were made meanwhile."""
        self._dirty = _joined(scope.dirty, self._dirty)
        self._backlog = _joined(scope.backlog, self._backlog)

    def looked(self, names: Collection[str], seconds: float, now: float) -> None:
        """Note the CPU time of a pass over these interfaces: after a costly one, the next event has to wait."""
        for pace in (self._pace, self._moves):
            pace.looked(names, seconds / max(1, len(names)), now)

    def look_later(self, name: str, due: float) -> None:
        """Look at an interface at this time, even without an event."""
        self._pace.look_later(name, due)

    def _next(self, dirty: Marks, backlog: Marks, values: Callable[[str], int], now: float) -> dict[str, str]:
        """Take the marks of the next pass from these."""

        def kind_of(name: str) -> Kind:
            if self._pace.is_noisy(name, now) or self._moves.is_noisy(name, now):
                return Kind.NOISY
            return Kind.HEAVY if values(name) > MANY_VALUES else Kind.LIGHT

        dirty.mix(now)
        backlog.mix(now)
        chosen = list(islice(chain(dirty.take_light(kind_of), backlog.take_light(kind_of)), AT_ONCE))
        chosen = chosen or _few_of(chain(dirty.take_heavy(kind_of), backlog.take_heavy(kind_of)), values)
        chosen = chosen or list(islice(chain(dirty.take_noisy(), backlog.take_noisy()), 1))
        names = _causes(chosen)
        dirty.discard(names)
        backlog.discard(names)
        return names


class _RegularLooks:
    """The interfaces that are looked at together, from time to time."""

    def __init__(self) -> None:
        self._names: dict[str, None] = {}
        self._due = 0.0

    def choose(self, name: str, due: float, *, needed: bool) -> None:
        """Include an interface if that is `needed`, and otherwise not. The first sets when the observation is `due`."""
        if not needed:
            self._names.pop(name, None)
            return
        if not self._names:
            self._due = due
        self._names[name] = None

    def next_due(self) -> float | None:
        """Return when the next observation is due; None if there is none."""
        return self._due if self._names else None

    def take_due(self, now: float, following: float) -> Collection[str]:
        """Return the interfaces to look at now, if any; the observation after that is due at `following`."""
        if not self._names or self._due > now:
            return ()
        self._due = following
        return self._names


def _causes(marks: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return the first cause of each of these interfaces."""
    causes: dict[str, str] = {}
    for name, cause in marks:
        causes.setdefault(name, cause)
    return causes


def _joined(first: Marks, second: Marks) -> Marks:
    if not first:
        return second
    for name, cause in second.items():
        first.add(name, cause)
    return first


def _few_of(marks: Iterable[tuple[str, str]], values: Callable[[str], int]) -> list[tuple[str, str]]:
    """Return the first of these, up to what a pass may cost."""
    few: list[tuple[str, str]] = []
    weight = 0
    for name, cause in marks:
        few.append((name, cause))
        weight += 1 + values(name) // VALUES_AS_ONE
        if weight >= AT_ONCE:
            break
    return few
