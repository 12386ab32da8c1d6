"""Show the running job and the remaining time on a terminal."""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Sequence

from .workloads import Job

__all__ = ["Progress"]

_BAR = 24


class Progress:
    """A line on stderr that is overwritten; nothing if stderr is not a terminal."""

    def __init__(self, jobs: Sequence[Job], contestants: Sequence[str], repeat: int) -> None:
        self._wanted = sys.stderr.isatty()
        self._left = [(job, peer) for job in jobs for peer in job.peers if peer in contestants for _ in range(repeat)]
        self._total = len(self._left)
        self._took: dict[tuple[Job, str], list[float]] = {}
        self._now: tuple[Job, str] | None = None
        self._since = 0.0

    def prepare(self, job: Job) -> None:
        """Show that the namespaces for a job are being created."""
        self._show(f"{job.title}: creating namespaces")

    def wait(self, job: Job) -> None:
        """Show that a run waits until the machine is idle."""
        self._show(f"{job.title}: waiting until the machine is idle")

    def begin(self, job: Job, contestant: str, number: int) -> None:
        """Show that a run of this job in round `number` begins."""
        self._now, self._since = (job, contestant), time.monotonic()
        self._show(f"{job.title}: {contestant}, round {number + 1}")

    def done(self) -> None:
        """Note that a run has ended, successfully or not."""
        if self._now in self._left:
            self._left.remove(self._now)
            self._took.setdefault(self._now, []).append(time.monotonic() - self._since)

    def clear(self) -> None:
        """Remove the line."""
        if self._wanted:
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()

    def _show(self, what: str) -> None:
        if self._wanted and self._total:
            done = self._total - len(self._left)
            bar = "━" * (_BAR * done // self._total)
            line = f"{bar:╌<{_BAR}} {100 * done // self._total:>3}%{self._eta()}  {what}"
            sys.stderr.write(f"\r\033[K{line[: _columns() - 1]}")
            sys.stderr.flush()

    def _eta(self) -> str:
        """Estimate the rest from the previous runs; a job that has not begun counts like those that have."""
        if not self._took:
            return ""
        known = {what: statistics.mean(times) for what, times in self._took.items()}
        unknown = statistics.mean(known.values())
        seconds = sum(known.get(what, unknown) for what in self._left)
        return f" {seconds / 60:>4.0f} min left" if seconds >= 90 else f" {seconds:>4.0f} s left"


def _columns() -> int:
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or 80
    except OSError:
        return 80
