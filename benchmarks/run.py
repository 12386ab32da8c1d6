"""Runs the contestants in turn, each as a child process that does not outlive us."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from .arena import Arena, settle
from .results import Phase, Result, Run
from .workloads import Job

__all__ = ["Failed", "Watcher", "parsed", "rounds", "run_job"]

_ROOT = Path(__file__).parents[1]
_PATIENCE = 1800.0  # seconds; none of the workloads takes so long


class Failed(Exception):
    """A contestant did not do the work; says why."""


class Watcher(Protocol):
    """Is told of what goes on."""

    def prepare(self, job: Job) -> None:
        """The namespaces for a job are being made."""

    def begin(self, job: Job, contestant: str, number: int) -> None:
        """A run of this job in round `number` begins."""

    def done(self) -> None:
        """It has ended, well or not."""


def rounds(contestants: Sequence[str], repeat: int) -> Iterator[tuple[int, str]]:
    """Who is on in each round: all of them, another one first each time, so that nobody is always behind the same."""
    for number in range(repeat):
        first = number % max(1, len(contestants))
        for contestant in (*contestants[first:], *contestants[:first]):
            yield number, contestant


def run_job(
    result: Result, arena: Arena, commands: Mapping[str, list[str]], *, repeat: int, queues: int, watcher: Watcher
) -> None:
    """`repeat` rounds of the job by those that have a command; one that fails is out. All goes into `result`."""
    job = result.job
    contestants = [peer for peer in job.peers if peer in commands]
    watcher.prepare(job)
    arena.resize(b=job.namespaces, c=job.n if job.workload.destinations else 0)
    if job.workload.furnished:
        arena.furnish(queues)
    for number, contestant in rounds(contestants, repeat):
        watcher.begin(job, contestant, number)
        if contestant not in result.failures:
            try:
                result.runs.append(_run(job, arena, contestant, commands[contestant], number, queues))
            except Failed as failure:
                result.failures[contestant] = str(failure)
                arena.renew()
        watcher.done()
    arena.strip()


def _run(job: Job, arena: Arena, contestant: str, command: list[str], number: int, queues: int) -> Run:
    settle(0.5)
    output = _output(arena, [*command, job.workload.request, str(job.n), str(queues)])
    if (left := arena.sweep()) and job.workload.deletes:
        raise Failed(f"left {left} links behind that it was to delete")
    return parsed(output, contestant, number)


def _output(arena: Arena, command: list[str]) -> str:
    child = None
    try:
        with _signals_held() as mask, arena.entered():
            child = _started(command, mask)
        output, errors = child.communicate(timeout=_PATIENCE)
    except subprocess.TimeoutExpired:
        raise Failed(f"was not done after {_PATIENCE:.0f} s") from None
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
    """Let no signal come between the start of a child and our knowing of it; gives the mask there was."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        yield mask
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


_PR_SET_PDEATHSIG = 1  # include/uapi/linux/prctl.h
_prctl = ctypes.CDLL(None).prctl


def _started(command: list[str], mask: set[int]) -> subprocess.Popen[str]:
    def in_child() -> None:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # should we be killed outright, it is too
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    return subprocess.Popen(
        command,
        cwd=_ROOT,
        env=os.environ | {"PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # what the child starts can be ended with it, and Ctrl-C reaches us alone
        preexec_fn=in_child,
    )


def parsed(output: str, contestant: str, number: int) -> Run:
    """What a contestant printed; Failed if that is not what the protocol asks for."""
    try:
        said = json.loads(output)
        phases = tuple(
            Phase(phase["name"], float(phase["wall"]), float(phase["user"]), float(phase["system"]))
            for phase in said["phases"]
        )
        figures = {str(name): float(value) for name, value in said.get("figures", {}).items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise Failed(f"printed no report but {output[:60]!r}") from None
    return Run(contestant, number, phases, figures, said.get("version", ""), said.get("notes", ""))
