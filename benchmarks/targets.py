"""The performance goals, as ratios within one run, so that they apply to any machine. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from .results import WHOLE, Result

__all__ = ["Outcome", "growth", "outcomes"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """A goal, as a maximum or a minimum, and the measured value."""

    what: str
    measured: float
    goal: float
    at_most: bool = True
    unit: str = ""

    @property
    def met(self) -> bool:
        """Whether the goal has been reached."""
        return self.measured <= self.goal if self.at_most else self.measured >= self.goal


@dataclass(frozen=True, slots=True)
class _Ratio:
    """A limit for the time of `contestant` as a multiple of that of `base`."""

    workload: str
    phase: str
    contestant: str
    base: str
    goal: float
    at_most: bool = True

    def of(self, result: Result) -> Outcome | None:
        ratio = result.ratio(self.contestant, self.phase, self.base)
        if ratio is None:
            return None
        phase = "" if self.phase in (WHOLE, self.workload) else f", {self.phase}"
        what = f"{result.job.title}{phase}: {self.contestant} ÷ {self.base}"
        return Outcome(what, ratio, self.goal, self.at_most)


@dataclass(frozen=True, slots=True)
class _Phases:
    """A maximum for the time of vethlib's `phase` as a multiple of its phase `base`."""

    workload: str
    phase: str
    base: str
    goal: float

    def of(self, result: Result) -> Outcome | None:
        wall, base = result.wall("vethlib", self.phase), result.wall("vethlib", self.base)
        if not wall or not base:
            return None
        return Outcome(f"{result.job.title}: {self.phase} ÷ {self.base}", wall / base, self.goal)


@dataclass(frozen=True, slots=True)
class _Time:
    """A maximum for the time of vethlib per item, in `unit`, of which a second has `per_second`."""

    workload: str
    phase: str
    goal: float
    unit: str
    per_second: float

    def of(self, result: Result) -> Outcome | None:
        wall = result.wall("vethlib", self.phase)
        if wall is None:
            return None
        what = f"{result.job.title}: {self.phase} by vethlib"
        return Outcome(what, wall * self.per_second, self.goal, True, self.unit)


@dataclass(frozen=True, slots=True)
class _Rate:
    """A minimum for the items per second of vethlib."""

    workload: str
    phase: str
    goal: float

    def of(self, result: Result) -> Outcome | None:
        wall = result.wall("vethlib", self.phase)
        if not wall:
            return None
        what = f"{result.job.title}: {result.job.workload.item}s a second by vethlib"
        return Outcome(what, 1 / wall, self.goal, False)


@dataclass(frozen=True, slots=True)
class _Figure:
    """A maximum for a figure of vethlib."""

    workload: str
    name: str
    what: str
    goal: float
    unit: str = ""

    def of(self, result: Result) -> Outcome | None:
        spread = result.figure("vethlib", self.name)
        if spread is None:
            return None
        return Outcome(f"{result.job.title}: {self.what}", spread.median, self.goal, True, self.unit)


@dataclass(frozen=True, slots=True)
class _PhaseFigure:
    """A maximum for a figure of vethlib in seconds, as a multiple of its whole phase `base`."""

    workload: str
    name: str
    base: str
    what: str
    goal: float

    def of(self, result: Result) -> Outcome | None:
        spread, base = result.figure("vethlib", self.name), result.wall("vethlib", self.base)
        if spread is None or not base:
            return None
        return Outcome(f"{result.job.title}: {self.what}", spread.median / (base * result.job.n), self.goal)


_GOALS: tuple[_Ratio | _Phases | _Time | _Rate | _Figure | _PhaseFigure, ...] = (
    _Ratio("lifecycle", WHOLE, "vethlib", "limit", 1.1),
    _Ratio("lifecycle", WHOLE, "vethlib-no-ipv6", "limit-no-ipv6", 1.1),
    _Ratio("routes", WHOLE, "vethlib", "limit", 1.15),
    _Ratio("create", "create", "vethlib", "ip", 1.05),
    _Ratio("lifecycle", WHOLE, "vishvananda", "vethlib", 28, at_most=False),
    _Ratio("create", "create", "vishvananda", "vethlib", 1.1, at_most=False),
    _Ratio("lifecycle", WHOLE, "pyroute2", "vethlib", 40, at_most=False),
    _Ratio("create", "create", "pyroute2", "vethlib", 5, at_most=False),
    _Ratio("lifecycle", WHOLE, "ip", "vethlib", 35, at_most=False),
    _Time("cache", "lookup", 0.5, "µs", 1e6),
    _Ratio("set", "set", "vethlib", "limit", 2.5),
    _Ratio("lookup", "lookup", "vethlib", "limit", 1.4),
    _Ratio("lifecycle", "lookup", "vethlib", "limit", 1.5),
    _Ratio("cache", "sync", "vethlib", "limit", 2.2),
    _Figure("cache", "event_sockets_per_512", "sockets that listen to other namespaces, for 512 of them", 1),
    _Figure("cache", "bytes_per_link", "memory for a link", 600, "B"),
    _Rate("events", "events", 50_000),
    _Ratio("dump", "dump", "vethlib", "limit", 1.4),
    _Ratio("dump", "with addresses", "vethlib", "limit", 1.8),
    _Time("import", "import", 15, "ms", 1e3),
    _Figure("import", "rss_mib", "memory of vethlib", 4, "MiB"),
    _Ratio("ring", WHOLE, "vethlib", "limit", 1.4),
    _Ratio("ring", WHOLE, "munet", "vethlib", 100, at_most=False),
    _Phases("routed-ring", "routed", "plain", 1.3),
    _Phases("agent", "start", "create_many", 1.3),
    _Figure("agent", "resync", "resync with nothing to do", 0.5, "s"),
    _PhaseFigure("agent", "resync", "bare dumps", "resync with nothing to do ÷ bare dumps", 2.0),
    _Figure("agent", "put_ms", "one more put, until it is up, in addition to the create", 5, "ms"),
)
_GROWTH = 1.1
_UPKEEP = 1.5
_MEMORY = 15
_MANY, _FEW = 8000, 500
_GROWTH_AMONG_MANY = {"vethlib-no-ipv6": 1.4, "vethlib-together": 6.0}


def outcomes(results: Sequence[Result]) -> list[Outcome]:
    """Return every goal with a measured value."""
    measured = [
        outcome
        for goal in _GOALS
        for result in results
        if result.job.workload.name == goal.workload and (outcome := goal.of(result))
    ]
    return [*measured, *_growth_outcome(results), *_upkeep_outcomes(results)]


def growth(results: Iterable[Result]) -> list[tuple[int, dict[str, float]]]:
    """Return, for each size of the workload growth, the cost of a pair by contestant, relative to the smallest size."""
    sizes = sorted((result for result in results if result.job.workload.name == "growth"), key=lambda it: it.job.n)
    measured = []
    for result in sizes:
        factors = {}
        for contestant in result.contestants:
            wall, first = result.wall(contestant, WHOLE), sizes[0].wall(contestant, WHOLE)
            if wall and first:
                factors[contestant] = wall / first
        measured.append((result.job.n, factors))
    return measured


def _growth_outcome(results: Iterable[Result]) -> Iterator[Outcome]:
    sizes = growth(results)
    if len(sizes) < 2:
        return
    few, _ = sizes[0]
    both = [(n, factors) for n, factors in sizes if "vethlib" in factors and "limit" in factors]
    if len(both) > 1:
        many, factors = both[-1]
        what = f"growth, cost of a pair at {many} ÷ at {few}: vethlib ÷ limit"
        yield Outcome(what, factors["vethlib"] / factors["limit"], _GROWTH)
    by_size = dict(sizes)
    if few == _FEW and _MANY in by_size:
        for contestant, goal in _GROWTH_AMONG_MANY.items():
            if (factor := by_size[_MANY].get(contestant)) is not None:
                yield Outcome(f"growth, cost of a pair at {_MANY} ÷ at {few}: {contestant}", factor, goal)


def _upkeep_outcomes(results: Iterable[Result]) -> Iterator[Outcome]:
    """Compare what an agent needs for one pair among many with what it needs among few, and its memory."""
    sizes = sorted((result for result in results if result.job.workload.name == "upkeep"), key=lambda it: it.job.n)
    if len(sizes) < 2:
        return
    few, many = sizes[0], sizes[-1]
    for name, what in (("put", "a put"), ("drift", "a repair"), ("lost", "a lost namespace")):
        kinds = (("ms", ""), ("cpu_ms", ", CPU time"), ("user_ms", ", CPU time outside the kernel"))
        for figure, kind in ((f"{name}_{unit}", kind) for unit, kind in kinds):
            spread, base = many.figure("vethlib", figure), few.figure("vethlib", figure)
            if spread is not None and base is not None and base.median:
                title = f"upkeep, {what} among {many.job.n} pairs ÷ among {few.job.n}{kind}"
                yield Outcome(title, spread.median / base.median, _UPKEEP)
    memory, base = many.figure("vethlib", "rss_mib"), few.figure("vethlib", "rss_mib")
    if memory is not None and base is not None:
        each = (memory.median - base.median) * 1024 / (2 * (many.job.n - few.job.n))
        yield Outcome("upkeep, memory for an interface", each, _MEMORY, True, "KiB")
