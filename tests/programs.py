"""Programs that a test starts: they do not outlive it, and a test that has failed does not wait for them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import AnyStr

__all__ = ["all_end_with", "attended", "runs", "see_end", "wait_until_ended"]

DEADLINE = 60.0  # seconds; programs of a node have two of them to end by themselves


@contextmanager
def attended(process: subprocess.Popen[AnyStr]) -> Iterator[subprocess.Popen[AnyStr]]:
    """Wait for the program at the end, as `with Popen(…)` does; but if the test has failed, kill it first.

    Nobody has told it to end then, and what the test has to say of its failure would never be heard.
    """
    with process:
        try:
            yield process
        except BaseException:
            process.kill()
            raise


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until_ended(*pids: int) -> None:
    assert pids, "nothing was started"
    deadline = time.monotonic() + DEADLINE
    while running := [pid for pid in pids if runs(pid)]:
        assert time.monotonic() < deadline, f"still running: {running}"
        time.sleep(0.01)


def see_end(*pids: int) -> None:
    """Wait until these have ended, and leave none of them behind if they do not."""
    try:
        wait_until_ended(*pids)
    finally:
        for pid in filter(runs, pids):
            os.kill(pid, signal.SIGKILL)


def all_end_with(script: str) -> None:
    """Run a script that prints the pids of what it has started, and is killed; see that they end with it."""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (-signal.SIGKILL, "")
    see_end(*map(int, done.stdout.split()))
