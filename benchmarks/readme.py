"""``python -m benchmarks.readme [RECORD]``: puts the figures of a recorded run into README, between its two marks."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .report import duration
from .results import WHOLE
from .workloads import EVERYBODY, WORKLOADS

__all__ = ["BEGIN", "END", "README", "RECORD", "figures", "main"]

_ROOT = Path(__file__).parents[1]
README = _ROOT / "README.md"
RECORD = _ROOT / "benchmarks/figures/standard.json"
BEGIN, END = "<!-- figures -->\n", "<!-- end of figures -->\n"


def main() -> int:
    """Write README anew, with the figures of the record that is named, or the one that belongs to it."""
    record = Path(sys.argv[1]) if len(sys.argv) > 1 else RECORD
    before, rest = README.read_text(encoding="utf-8").split(BEGIN)
    _, after = rest.split(END)
    text = figures(json.loads(record.read_text(encoding="utf-8")))
    README.write_text(f"{before}{BEGIN}{text}{END}{after}", encoding="utf-8")
    return 0


def figures(record: Mapping[str, Any]) -> str:
    """The table, and a line on what it was measured on."""
    machine = record["machine"]
    lines = [
        f"| µs for one, import in ms | {' | '.join(EVERYBODY)} |",
        f"|---|{'---:|' * len(EVERYBODY)}",
        *(line for job in record["jobs"] for line in _rows(job)),
        "",
        f"{machine['cpu']}, {machine['cpus']} CPUs, {machine['kernel']}, Python {machine['python']}; medians of"
        f" {record['repeat']} rounds.",
    ]
    return "\n".join(lines) + "\n"


def _rows(job: Mapping[str, Any]) -> Iterator[str]:
    milliseconds = WORKLOADS[job["workload"]].milliseconds
    phases = list(dict.fromkeys(row["phase"] for row in job["rows"]))
    if job["workload"] == "growth":
        phases = [WHOLE]
    for phase in phases:
        cells = {row["contestant"]: row["wall"]["median"] for row in job["rows"] if row["phase"] == phase}
        name = f"{job['workload']}, {job['n']}"
        what = name if phase == job["workload"] else f"{name}: {phase}"
        times = [duration(cells[one], milliseconds=milliseconds) if one in cells else "" for one in EVERYBODY]
        yield f"| {what} | {' | '.join(times)} |"


if __name__ == "__main__":
    sys.exit(main())
