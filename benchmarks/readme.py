"""``python -m benchmarks.readme [RECORD]``: write the figures of a recorded run between the two marks of each page.

README has the five most important figures, docs/explanation/why-it-is-fast.md what vethlib and its peers add to the
price of the kernel, and docs/reference/benchmarks.md everything.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from .report import duration
from .results import WHOLE
from .workloads import EVERYBODY, WORKLOADS

__all__ = [
    "ALL",
    "BEGIN",
    "END",
    "EXPLAINED",
    "README",
    "RECORD",
    "all_figures",
    "explained_figures",
    "main",
    "pages",
    "selected_figures",
]

_ROOT = Path(__file__).parents[1]
README = _ROOT / "README.md"
EXPLAINED = _ROOT / "docs/explanation/why-it-is-fast.md"
ALL = _ROOT / "docs/reference/benchmarks.md"
RECORD = _ROOT / "benchmarks/figures/standard.json"
BEGIN, END = "<!-- figures -->\n", "<!-- end of figures -->\n"

# The rows of README: (workload, phase, description). The first job of that workload counts.
_SELECTED = (
    ("lifecycle", WHOLE, "create a pair with addresses, up; look up both ends; delete it"),
    ("create", "create", "create a pair, both ends down"),
    ("delete", "delete", "delete a pair"),
    ("lookup", "lookup", "look up a link by its name"),
    ("dump", "dump", "read one link of a namespace that has 4 000"),
)

_EXPLAINED = (
    ("create", "create", "create: a pair, both ends down"),
    ("delete", "delete", "delete: a pair"),
    ("move", "move", "move: a link to another namespace"),
    ("lookup", "lookup", "lookup: one link by its name"),
    ("dump", "dump", "dump: all links of a namespace that has thousands, per link"),
)
_COMPARED = ("limit", "vethlib", "vishvananda", "pyroute2", "ip")


def main() -> int:
    """Rewrite the pages, with the figures of the given record, or of the one in the repository."""
    record = Path(sys.argv[1]) if len(sys.argv) > 1 else RECORD
    for page, text in pages(json.loads(record.read_text(encoding="utf-8"))).items():
        before, rest = page.read_text(encoding="utf-8").split(BEGIN)
        _, after = rest.split(END)
        page.write_text(f"{before}{BEGIN}{text}{END}{after}", encoding="utf-8")
    return 0


def pages(record: Mapping[str, Any]) -> dict[Path, str]:
    """Return the text between the marks of each page."""
    return {README: selected_figures(record), EXPLAINED: explained_figures(record), ALL: all_figures(record)}


def selected_figures(record: Mapping[str, Any]) -> str:
    """Return the table of README, and a line about the machine."""
    return _table(record, "µs", (_selected_row(record, *shown) for shown in _SELECTED))


def explained_figures(record: Mapping[str, Any]) -> str:
    """Return the table of the page that explains the figures: fewer contestants, and the limit among them."""
    rows = (_selected_row(record, *shown, contestants=_COMPARED) for shown in _EXPLAINED)
    return _table(record, "µs", rows, contestants=_COMPARED)


def all_figures(record: Mapping[str, Any]) -> str:
    """Return the table of all workloads and phases, and a line about the machine."""
    return _table(record, "µs each, import in ms", (row for job in record["jobs"] for row in _rows(job)))


def _table(record: Mapping[str, Any], unit: str, rows: Iterator[str], *, contestants: Sequence[str] = EVERYBODY) -> str:
    machine = record["machine"]
    lines = [
        f"| {unit} | {' | '.join(contestants)} |",
        f"|---|{'---:|' * len(contestants)}",
        *rows,
        "",
        f"{machine['cpu']}, {machine['cpus']} CPUs, {machine['kernel']}, Python {machine['python']}; medians of"
        f" {record['repeat']} rounds.",
    ]
    return "\n".join(lines) + "\n"


def _selected_row(
    record: Mapping[str, Any], workload: str, phase: str, name: str, *, contestants: Sequence[str] = EVERYBODY
) -> str:
    job = next(job for job in record["jobs"] if job["workload"] == workload)
    return _row(job, phase, name, contestants=contestants)


def _rows(job: Mapping[str, Any]) -> Iterator[str]:
    phases = list(dict.fromkeys(row["phase"] for row in job["rows"]))
    if job["workload"] == "growth":
        phases = [WHOLE]
    for phase in phases:
        name = f"{job['workload']}, {job['n']}"
        yield _row(job, phase, name if phase == job["workload"] else f"{name}: {phase}")


def _row(job: Mapping[str, Any], phase: str, name: str, *, contestants: Sequence[str] = EVERYBODY) -> str:
    milliseconds = WORKLOADS[job["workload"]].milliseconds
    medians = {row["contestant"]: row["wall"]["median"] for row in job["rows"] if row["phase"] == phase}
    times = [duration(medians[who], milliseconds=milliseconds) if who in medians else "" for who in contestants]
    return f"| {name} | {' | '.join(times)} |"


if __name__ == "__main__":
    sys.exit(main())
