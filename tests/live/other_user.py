"""Processes of another user of this host."""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

LABEL, OTHER = "shared", 12345
RUN = Path("/run/vethlib")
As = Callable[[Callable[[], object]], int]


@pytest.fixture
def as_other() -> Iterator[As]:
    """Runs a function as another user, in a process that stays; returns its pid once the function is through."""
    started: list[int] = []

    def run(function: Callable[[], object]) -> int:
        told, tell = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                os.setgroups([])
                os.setgid(OTHER)
                os.setuid(OTHER)
                kept = function()
                os.write(tell, b"1")
                signal.pause()
                del kept
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(1)
        started.append(pid)
        os.close(tell)
        with open(told, "rb") as end:
            assert end.read(1) == b"1"
        return pid

    yield run
    for pid in started:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    for left in RUN.glob(f"{LABEL}@*"):  # of those who were killed
        left.unlink()
