"""Programs that a test starts: they do not outlive it, and a test that has failed does not wait for them."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import AnyStr

__all__ = ["all_end_with", "attended", "children", "freeze", "killed_with_its_parent", "runs", "see_end", "stat_fields"]

DEADLINE = 60.0  # seconds; programs of a node have two seconds to end after SIGTERM


@contextmanager
def attended(process: subprocess.Popen[AnyStr]) -> Iterator[subprocess.Popen[AnyStr]]:
    """Wait for the program at the end, as `with Popen(…)` does, but kill it first if the test has failed.

    Nothing has told it to end then, and the failure of the test would never be reported.
    """
    with process:
        try:
            yield process
        except BaseException:
            process.kill()
            raise


def killed_with_its_parent() -> None:
    """For preexec_fn=: have the kernel kill the program when the thread that started it has ended."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def stat_fields(task: int | Path) -> list[str]:
    """Return the fields after the name in the `stat` of a process or thread in /proc: the state, the parent, and so on.

    The program can choose the name, of which the first 15 bytes are there: it need not be text.
    """
    directory = task if isinstance(task, Path) else Path(f"/proc/{task}")
    return (directory / "stat").read_bytes().rpartition(b")")[2].decode("ascii").split()


def children() -> set[int]:
    """Return the children of this process, including zombies."""
    found = set()
    for process in map(int, filter(str.isdecimal, os.listdir("/proc"))):
        with suppress(OSError):  # it has ended, or is hidden
            if int(stat_fields(process)[1]) == os.getpid():
                found.add(process)
    return found


def runs(pid: int) -> bool:
    return _state(Path(f"/proc/{pid}")) not in ("Z", "X")


def freeze(pid: int) -> None:
    """Stop all threads of a process, and wait until they have stopped; SIGCONT resumes them.

    kill() returns before a thread that runs on another CPU has noticed, and such a thread may still answer a request.
    """
    os.kill(pid, signal.SIGSTOP)
    deadline = time.monotonic() + DEADLINE
    while moving := [task.name for task in Path(f"/proc/{pid}/task").iterdir() if _state(task) not in ("T", "Z")]:
        assert time.monotonic() < deadline, f"not stopped: {moving}"
        time.sleep(0.001)


def _state(task: Path) -> str:
    """Return the state letter of a process or a thread; Z if it has ended."""
    try:
        return stat_fields(task)[0]
    except OSError:
        return "Z"


def see_end(*pids: int) -> None:
    """Wait until these processes have ended, and kill those that do not end.

    Their own duration (``sleep 600``) has to be longer than the deadline.
    """
    assert pids, "nothing was started"
    deadline = time.monotonic() + DEADLINE
    try:
        while running := [pid for pid in pids if runs(pid)]:
            assert time.monotonic() < deadline, f"still running: {running}"
            time.sleep(0.01)
    finally:
        for pid in filter(runs, pids):
            os.kill(pid, signal.SIGKILL)


def all_end_with(script: str) -> None:
    """Run a script that prints the pids of the processes it has started, kill it, and check that they end with it."""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (-signal.SIGKILL, "")
    see_end(*map(int, done.stdout.split()))
