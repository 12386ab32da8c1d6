"""The report for people: the conditions, one table per job, and the reasons for missing contestants."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .machine import Conditions
from .results import Result, Row, Spread
from .targets import growth, outcomes

__all__ = ["duration", "growth_table", "header", "table", "targets_table"]


def duration(seconds: float, *, milliseconds: bool = False) -> str:
    """Format a time with three significant digits, in µs or ms: "0.214", "16 250"."""
    value = seconds * (1e3 if milliseconds else 1e6)
    digits = 0 if value >= 100 or not value else 1 if value >= 10 else 2 if value >= 1 else 3
    return f"{value:,.{digits}f}".replace(",", " ")


def header(conditions: Conditions) -> str:
    """Describe the conditions."""
    machine = conditions.machine
    lines = [
        ("machine", f"{machine.cpu}, {machine.cpus} CPUs, {machine.memory_gib} GiB"),
        ("kernel", machine.kernel),
        ("Python", machine.python),
        ("queues", conditions.queues_text),
        ("load", "{:.2f} before, {:.2f} after".format(*conditions.load)),
        ("idle", f"at the beginning of {conditions.idle} of {conditions.runs} runs"),
        *conditions.versions.items(),
        *((name, f"not available: {why}") for name, why in conditions.missing.items()),
    ]
    return "\n".join(f"  {name:<12} {text}" for name, text in lines)


def table(result: Result) -> str:
    """Return the table of a job: each phase by each contestant, with its median, spread and ratio."""
    job = result.job
    unit = "ms" if job.workload.milliseconds else "µs"
    repeat = max((run.round for run in result.runs), default=-1) + 1
    lines = [f"{job.title}: {job.workload.what}"]
    if rows := result.rows():
        title = ["", f"{unit} per {job.workload.item}", "median", "min–max", "user", "system", "÷ " + rows[0].base]
        cells = [title, *_cells(rows, milliseconds=job.workload.milliseconds)]
        lines += _aligned(cells)
        lines.append(f"    medians of {repeat} round{'s' if repeat != 1 else ''}")
        if lever := next((row.base for row in rows if row.base != rows[0].base), ""):
            lines.append(f"    who pulls a lever is compared with limit that pulls it too, such as {lever}")
    lines += [
        f"    {contestant}: {name.replace('_', ' ')} {_spread(spread)}"
        for contestant, name in result.figures
        if (spread := result.figure(contestant, name))
    ]
    notes = {(run.contestant, run.notes): None for run in result.runs if run.notes}
    lines += [f"    {contestant}: {text}" for contestant, text in notes]
    lines += [f"    {contestant}: failed: {why}" for contestant, why in result.failures.items()]
    return "\n".join(lines)


def growth_table(results: Sequence[Result]) -> str:
    """Return the growth of the cost of a pair with the number of pairs; "" if that was not measured."""
    sizes = growth(results)
    if not sizes:
        return ""
    contestants = list(sizes[0][1])  # without a first cost, there is no comparison
    cells = [["", "pairs", *contestants]]
    for n, factors in sizes:
        cells.append(["", str(n), *(f"{factors[name]:.2f}" if name in factors else "" for name in contestants)])
    return "\n".join([f"growth: the cost of a pair as a multiple of its cost among {sizes[0][0]}", *_aligned(cells)])


def targets_table(results: Sequence[Result]) -> str:
    """Compare the results with the goals; "" if no goal is concerned."""
    compared = outcomes(results)
    if not compared:
        return ""
    cells = [["", "", "measured", "goal"]]
    for outcome in compared:
        sign = "≤" if outcome.at_most else "≥"
        measured, goal = (f"{_plain(value)} {outcome.unit}".rstrip() for value in (outcome.measured, outcome.goal))
        cells.append(["✓" if outcome.met else "✗", outcome.what, measured, f"{sign} {goal}"])
    return "\n".join(["targets", *_aligned(cells)])


def _plain(value: float) -> str:
    return (f"{value:,.0f}" if value >= 1000 else f"{value:.3g}").replace(",", " ")


def _cells(rows: Iterable[Row], *, milliseconds: bool) -> list[list[str]]:
    def time(seconds: float) -> str:
        return duration(seconds, milliseconds=milliseconds)

    cells = []
    last = ""
    for row in rows:
        cells.append(
            [
                row.phase if row.phase != last else "",
                row.contestant,
                time(row.wall.median),
                f"{time(row.wall.low)}–{time(row.wall.high)}",
                time(row.user),
                time(row.system),
                f"{row.ratio:.2f}" if row.ratio is not None else "",
            ]
        )
        last = row.phase
    return cells


def _aligned(cells: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    return [
        "    "
        + "  ".join(
            f"{text:<{width}}" if column < 2 else f"{text:>{width}}"
            for column, (text, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in cells
    ]


def _spread(spread: Spread) -> str:
    return f"{spread.median:,.4g} ({spread.low:,.4g}–{spread.high:,.4g})".replace(",", " ")
