"""The contestant's side of the protocol, for contestants written in Python."""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeAlias

__all__ = ["Report", "Work", "levers", "serve"]


class Report:
    """The report of one run."""

    def __init__(self, version: str) -> None:
        self.version = version
        self.notes = ""
        self.figures: dict[str, float] = {}
        self._phases: dict[str, list[float]] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time the block; blocks of the same name add up."""
        before = _used()
        yield
        self.add(name, *(now - then for now, then in zip(_used(), before, strict=True)))

    def add(self, name: str, wall: float, user: float, system: float) -> None:
        """Add seconds that were measured otherwise to a phase."""
        so_far = self._phases.setdefault(name, [0.0, 0.0, 0.0])
        self._phases[name] = [old + new for old, new in zip(so_far, (wall, user, system), strict=True)]

    def __str__(self) -> str:
        phases = [{"name": name, "wall": w, "user": u, "system": s} for name, (w, u, s) in self._phases.items()]
        return json.dumps({"phases": phases, "figures": self.figures, "version": self.version, "notes": self.notes})


levers: set[str] = set()
"""What this contestant is to do differently, so that the kernel has less to do."""

Work: TypeAlias = Callable[[Report, int, int], None]


def serve(version: str, works: Mapping[str, Work]) -> None:
    """Run the workload of the command line, ``[+LEVER]… WORKLOAD N QUEUES``, and print the report."""
    while sys.argv[1:] and sys.argv[1].startswith("+"):
        levers.add(sys.argv.pop(1)[1:])
    if len(sys.argv) != 4 or not all(number.isdecimal() for number in sys.argv[2:]):
        sys.exit(f"usage: {sys.argv[0]} {{{','.join(works)}}} N QUEUES")
    workload, n, queues = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    if workload not in works:
        sys.exit(f"unknown workload {workload!r}; the workloads are {', '.join(works)}")
    report = Report(version)
    works[workload](report, n, queues)
    print(report)


def _used() -> tuple[float, float, float]:
    """Return the wall, user and system seconds so far, including those of children that have ended."""
    mine, theirs = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.monotonic(), mine.ru_utime + theirs.ru_utime, mine.ru_stime + theirs.ru_stime
