"""The results as JSON: everything in the table, and the runs behind it. Times are seconds per item."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from .machine import Conditions, Machine
from .results import Phase, Result, Run
from .targets import outcomes
from .workloads import WORKLOADS, Job

__all__ = ["SCHEMA", "NotResumable", "record", "results_of"]

SCHEMA = 1  # increased when a key changes its meaning or is removed


def record(results: Sequence[Result], conditions: Conditions) -> dict[str, Any]:
    """Return the record, of plain values only."""
    return {
        "schema": SCHEMA,
        **asdict(conditions),
        "jobs": [_job(result) for result in results],
        "targets": [asdict(outcome) | {"met": outcome.met} for outcome in outcomes(results)],
    }


class NotResumable(Exception):
    """An interrupted run that cannot be gone on with; the message is the reason."""


def results_of(text: str, machine: Machine, queues: int, repeat: int) -> list[Result]:
    """Return the results in a record. Raises NotResumable if it was taken under other conditions."""
    try:
        kept = json.loads(text)
        was = Machine(**kept["machine"]), kept["queues"], kept["repeat"]
        results = [_result(job) for job in kept["jobs"]]
    except (ValueError, KeyError, TypeError):
        raise NotResumable("the file of the interrupted run is not one of this program") from None
    if was != (machine, queues, repeat):
        raise NotResumable(f"the interrupted run had other conditions: {was[0]}, --queues {was[1]}, --repeat {was[2]}")
    return results


def _result(kept: Mapping[str, Any]) -> Result:
    job = Job(WORKLOADS[kept["workload"]], kept["n"], tuple(kept["peers"]))
    runs = [Run(**run | {"phases": tuple(Phase(**phase) for phase in run["phases"])}) for run in kept["runs"]]
    return Result(job, runs, dict(kept["failures"]))


def _job(result: Result) -> dict[str, Any]:
    workload = result.job.workload
    return {
        "workload": workload.name,
        "n": result.job.n,
        "peers": list(result.job.peers),
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
