"""Run the contestants in turn, each as a child process that does not outlive this one."""

from __future__ import annotations

import compileall
import ctypes
import json
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from .arena import Arena, settle
from .results import Phase, Result, Run
from .workloads import Job

__all__ = ["Failed", "Watcher", "compile_all", "parsed", "rounds", "run_job"]

_ROOT = Path(__file__).parents[1]
_PATIENCE = 1800.0  # seconds; every workload is shorter
_BUSY_ANYWAY = 0.5  # seconds that a run waits for an idle machine if the run before it has waited in vain


class Failed(Exception):
    """A contestant did not do the work; the message is the reason, ``output`` what it printed instead of a report."""

    def __init__(self, message: str, output: str = "") -> None:
        super().__init__(message)
        self.output = output


class Watcher(Protocol):
    """A listener for the progress."""

    def prepare(self, job: Job) -> None:
        """Called when the namespaces for a job are being created."""

    def wait(self, job: Job) -> None:
        """Called when a run is waiting until the machine is idle."""

    def begin(self, job: Job, contestant: str, number: int) -> None:
        """Called when a run of this job in round `number` begins."""

    def done(self) -> None:
        """Called when it has ended, successfully or not."""


def compile_all() -> None:
    """Compile what is measured, as pip does when it installs. Otherwise, the phase that imports a module compiles it.

    A machine may have PYTHONDONTWRITEBYTECODE set, which a checkout never recovers from.
    """
    for package in ("vethlib", "benchmarks"):
        compileall.compile_dir(_ROOT / package, quiet=1)


def rounds(contestants: Sequence[str], repeat: int) -> Iterator[tuple[int, str]]:
    """Return the order of each round: all contestants, each time another one first, so that none is always last."""
    for number in range(repeat):
        first = number % max(1, len(contestants))
        for contestant in (*contestants[first:], *contestants[:first]):
            yield number, contestant


def run_job(
    result: Result,
    arena: Arena,
    commands: Mapping[str, list[str]],
    *,
    repeat: int,
    queues: int,
    wait: float,
    watcher: Watcher,
) -> None:
    """Run `repeat` rounds of the job; a contestant that fails is out. Everything is added to `result`.

    Each run waits until the machine is idle, but no longer than `wait` seconds.
    """
    job = result.job
    contestants = [peer for peer in job.peers if peer in commands]
    watcher.prepare(job)
    arena.resize(b=job.namespaces, c=job.n if job.workload.destinations else 0)
    if job.workload.furnished:
        arena.furnish(queues)
    patience = wait
    for number, contestant in rounds(contestants, repeat):
        watcher.wait(job)
        idle = settle(patience)
        patience = wait if idle else min(wait, _BUSY_ANYWAY)
        watcher.begin(job, contestant, number)
        if contestant not in result.failures:
            try:
                run = _run(job, arena, contestant, commands[contestant], number, queues)
                result.runs.append(replace(run, busy=not idle))
            except Failed as failure:
                result.failures[contestant] = str(failure)
                arena.renew()
        watcher.done()
    arena.strip()


def _run(job: Job, arena: Arena, contestant: str, command: list[str], number: int, queues: int) -> Run:
    output = _output(arena, [*command, job.workload.request, str(job.n), str(queues)])
    if (left := arena.sweep()) and job.workload.deletes:
        raise Failed(f"left {left} links behind that it should have deleted")
    return parsed(output, contestant, number)


def _output(arena: Arena, command: list[str]) -> str:
    child = None
    try:
        with _signals_held() as mask, arena.entered():
            child = _started(command, mask)
        output, errors = child.communicate(timeout=_PATIENCE)
    except subprocess.TimeoutExpired:
        raise Failed(f"has not finished after {_PATIENCE:.0f} s") from None
    finally:
        if child is not None and child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
            child.communicate()
    if child.returncode:
        lines = errors.strip().splitlines() or [f"exit status {child.returncode}"]
        raise Failed(lines[-1])
    return output


@contextmanager
def _signals_held() -> Iterator[set[int]]:
    """Block signals between the start of a child and the assignment; return the previous mask."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        yield mask
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


_PR_SET_PDEATHSIG = 1  # include/uapi/linux/prctl.h
_prctl = ctypes.CDLL(None).prctl


def _started(command: list[str], mask: set[int]) -> subprocess.Popen[str]:
    def in_child() -> None:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # if this process is killed, so is the child
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    return subprocess.Popen(
        command,
        cwd=_ROOT,
        env=_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # so that its children can be ended with it, and Ctrl-C reaches this process only
        preexec_fn=in_child,
    )


def _environment() -> dict[str, str]:
    """Return the environment of a contestant: with what only root's PATH has; modules are compiled once, as usual."""
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return inherited | {"PATH": f"{inherited.get('PATH', '')}:/usr/sbin:/sbin"}


def parsed(output: str, contestant: str, number: int) -> Run:
    """Parse the output of a contestant. Raises Failed if it violates the protocol."""
    try:
        report = json.loads(output)
        phases = tuple(
            Phase(phase["name"], float(phase["wall"]), float(phase["user"]), float(phase["system"]))
            for phase in report["phases"]
        )
        figures = {str(name): float(value) for name, value in report.get("figures", {}).items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise Failed(f"printed no report but {output[:60]!r}", output) from None
    return Run(contestant, number, phases, figures, report.get("version", ""), report.get("notes", ""))
