"""The results as JSON: everything in the table, and the runs behind it. Times are seconds per item."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from .machine import Conditions
from .results import Result
from .targets import outcomes

__all__ = ["SCHEMA", "record"]

SCHEMA = 1  # increased when a key changes its meaning or is removed


def record(results: Sequence[Result], conditions: Conditions) -> dict[str, Any]:
    """Return the record, of plain values only."""
    return {
        "schema": SCHEMA,
        **asdict(conditions),
        "jobs": [_job(result) for result in results],
        "targets": [asdict(outcome) | {"met": outcome.met} for outcome in outcomes(results)],
    }


def _job(result: Result) -> dict[str, Any]:
    workload = result.job.workload
    return {
        "workload": workload.name,
        "n": result.job.n,
        "item": workload.item,
        "rows": [asdict(row) for row in result.rows()],
        "figures": [
            {"contestant": contestant, "name": name, "value": asdict(spread)}
            for contestant, name in result.figures
            if (spread := result.figure(contestant, name))
        ],
        "failures": dict(result.failures),
        "runs": [asdict(run) for run in result.runs],
    }
