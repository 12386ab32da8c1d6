"""The results, and their medians, spreads and ratios. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from .workloads import Job

__all__ = ["WHOLE", "Phase", "Result", "Row", "Run", "Spread"]

WHOLE = "total"


@dataclass(frozen=True, slots=True)
class Phase:
    """A timed part of one run: seconds."""

    name: str
    wall: float
    user: float
    system: float


@dataclass(frozen=True, slots=True)
class Run:
    """The report of one contestant about one round."""

    contestant: str
    round: int
    phases: tuple[Phase, ...]
    figures: dict[str, float] = field(default_factory=dict)
    version: str = ""
    notes: str = ""
    busy: bool = False  # whether other programs were running when it began

    def phase(self, name: str) -> Phase | None:
        """Return the phase of that name; for WHOLE, the sum of all phases."""
        if name == WHOLE:
            sums = [sum(getattr(phase, what) for phase in self.phases) for what in ("wall", "user", "system")]
            return Phase(WHOLE, *sums)
        return next((phase for phase in self.phases if phase.name == name), None)


@dataclass(frozen=True, slots=True)
class Spread:
    """The median and the range of some values."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """The spread of at least one value."""
        return cls(statistics.median(values), min(values), max(values))


@dataclass(frozen=True, slots=True)
class Row:
    """One phase by one contestant, in seconds per item; `ratio` is relative to `base`, None without one."""

    phase: str
    contestant: str
    wall: Spread
    user: float
    system: float
    ratio: float | None
    base: str


@dataclass(slots=True)
class Result:
    """All runs of one job, and the reasons why a contestant has fewer runs than the others."""

    job: Job
    runs: list[Run] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)

    @property
    def phases(self) -> list[str]:
        """The names of its phases, in their order."""
        names = list(dict.fromkeys(phase.name for run in self.runs for phase in run.phases))
        return [*names, WHOLE] if self.job.workload.adds_up and len(names) > 1 else names

    @property
    def contestants(self) -> list[str]:
        """The contestants with at least one run, in the job's order."""
        seen = {run.contestant for run in self.runs}
        return [peer for peer in self.job.peers if peer in seen]

    def values(self, contestant: str, phase: str, what: Callable[[Phase], float]) -> list[float]:
        """Return one number per run with this phase, per item."""
        phases = [run.phase(phase) for run in self.runs if run.contestant == contestant]
        return [what(timed) / self.job.n for timed in phases if timed]

    def wall(self, contestant: str, phase: str) -> float | None:
        """Return the median of the seconds per item; None if that was not measured."""
        values = self.values(contestant, phase, lambda timed: timed.wall)
        return statistics.median(values) if values else None

    def ratio(self, contestant: str, phase: str, base: str) -> float | None:
        """Return its time as a multiple of that of `base`; None if either was not measured."""
        wall, other = self.wall(contestant, phase), self.wall(base, phase)
        return wall / other if wall is not None and other else None

    def rows(self) -> list[Row]:
        """Return every phase by every contestant that has it."""
        return [row for phase in self.phases for name in self.contestants if (row := self._row(phase, name))]

    def _row(self, phase: str, contestant: str) -> Row | None:
        walls = self.values(contestant, phase, lambda timed: timed.wall)
        if not walls:
            return None
        base = self._base(contestant, phase)
        return Row(
            phase,
            contestant,
            Spread.of(walls),
            statistics.median(self.values(contestant, phase, lambda timed: timed.user)),
            statistics.median(self.values(contestant, phase, lambda timed: timed.system)),
            self.ratio(contestant, phase, base),
            base,
        )

    def _base(self, contestant: str, phase: str) -> str:
        """Return the contestant to compare with: limit with the same lever, if a lever is pulled (limit-no-ipv6)."""
        _, dash, lever = contestant.partition("-")
        limit = f"limit{dash}{lever}"
        return next((base for base in (limit, "limit") if self.wall(base, phase)), "vethlib")

    def figure(self, contestant: str, name: str) -> Spread | None:
        """Return a number other than a time; None if that was not measured."""
        values = [run.figures[name] for run in self.runs if run.contestant == contestant and name in run.figures]
        return Spread.of(values) if values else None

    @property
    def figures(self) -> list[tuple[str, str]]:
        """Return the contestant and the name of every figure."""
        return list(dict.fromkeys((run.contestant, name) for run in self.runs for name in run.figures))
