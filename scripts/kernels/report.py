"""The results of a run on one kernel, as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scripts.kernels.suites import SUITES, Outcome

__all__ = ["Run", "shown", "together"]


@dataclass(frozen=True, slots=True)
class Run:
    """One kernel, in a kind of guest (`uml`, `qemu`): the outcome of each suite, and where the guest's output is.

    `missing` has the features that doctor has missed there, each with its cost.
    """

    guest: str
    release: str
    outcomes: Mapping[str, Outcome]
    missing: Mapping[str, str]
    seconds: float
    ended: bool
    out: Path

    @property
    def failed(self) -> list[str]:
        """The failed tests of all suites."""
        return [name for outcome in self.outcomes.values() for name in outcome.failed]


def together(parts: Sequence[Run]) -> Run:
    """Return what several guests with the same kernel have done, each with some of the tests, as one run."""
    outcomes: dict[str, Outcome] = {}
    for part in parts:
        for name, outcome in part.outcomes.items():
            outcomes[name] = outcomes[name] + outcome if name in outcomes else outcome
    return Run(
        parts[0].guest,
        parts[0].release,
        {name: outcomes[name] for name in SUITES if name in outcomes},
        {feature: cost for part in parts for feature, cost in part.missing.items()},
        max(part.seconds for part in parts),
        all(part.ended for part in parts),
        parts[0].out.parent,
    )


def shown(run: Run) -> str:
    """Return a table of the suites, the reasons of skipped tests, and the failed ones."""
    lines = [f"Linux {run.release} ({run.guest}), {run.seconds / 60:.1f} minutes, {run.out}"]
    for name, outcome in run.outcomes.items():
        skipped = outcome.skipped.total()
        lines.append(
            f"  {name:<9}{outcome.passed:6} passed {skipped:5} skipped {len(outcome.failed):5} failed"
            f" {outcome.seconds:6} s"
        )
        if name != "doctor":
            lines += [f"    skipped {count}: {reason}" for reason, count in sorted(outcome.skipped.items())]
        lines += [f"    {figure}: {value}" for figure, value in outcome.figures.items()]
        lines += [f"    failed: {test}" for test in outcome.failed]
    lines += [f"  missing {feature}: {cost}" for feature, cost in run.missing.items()]
    return "\n".join(lines)
