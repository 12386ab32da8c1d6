"""A contestant's side of the protocol, for those written in Python: what it is asked, and what it reports."""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeAlias

__all__ = ["Report", "Work", "serve"]


class Report:
    """Collects what one run measured."""

    def __init__(self, version: str) -> None:
        self.version = version
        self.notes = ""
        self.figures: dict[str, float] = {}
        self._phases: dict[str, list[float]] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time the block; several of the same name add up."""
        before = _used()
        yield
        self.add(name, *(now - then for now, then in zip(_used(), before, strict=True)))

    def add(self, name: str, wall: float, user: float, system: float) -> None:
        """Add to a phase what was timed otherwise: seconds."""
        so_far = self._phases.setdefault(name, [0.0, 0.0, 0.0])
        self._phases[name] = [old + new for old, new in zip(so_far, (wall, user, system), strict=True)]

    def __str__(self) -> str:
        phases = [{"name": name, "wall": w, "user": u, "system": s} for name, (w, u, s) in self._phases.items()]
        return json.dumps({"phases": phases, "figures": self.figures, "version": self.version, "notes": self.notes})


Work: TypeAlias = Callable[[Report, int, int], None]


def serve(version: str, works: Mapping[str, Work]) -> None:
    """Do what the command line asks for, ``WORKLOAD N QUEUES``, and print what it took."""
    if len(sys.argv) != 4 or not all(number.isdecimal() for number in sys.argv[2:]):
        sys.exit(f"usage: {sys.argv[0]} {{{','.join(works)}}} N QUEUES")
    workload, n, queues = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    if workload not in works:
        sys.exit(f"no workload {workload!r}; there are {', '.join(works)}")
    report = Report(version)
    works[workload](report, n, queues)
    print(report)


def _used() -> tuple[float, float, float]:
    """(wall, user, system) seconds so far, those of children that have ended included."""
    mine, theirs = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.monotonic(), mine.ru_utime + theirs.ru_utime, mine.ru_stime + theirs.ru_stime
