"""Shared by the tests of followers: waiting for their reports, and counting their watches."""

from __future__ import annotations

import os
import select
import subprocess
import time
from pathlib import Path

from vethlib.follow import Follower

__all__ = ["heard", "nothing_more", "settle", "sh", "told", "watches"]


def sh(command: str) -> None:
    subprocess.run(command, shell=True, check=True, capture_output=True)


def told(follower: Follower, within: float = 30.0) -> set[str]:
    """Return the first report; empty if there is none within these seconds, which are many unless none is expected."""
    deadline = time.monotonic() + within
    while True:
        refs = follower.changed()
        left = deadline - time.monotonic()
        if refs or left < 0:
            return refs
        due = follower.due()
        select.select([follower], [], [], left if due is None else min(due, left))


def nothing_more(follower: Follower) -> None:
    """Take all reports, and check that there is nothing left to wait for."""
    deadline = time.monotonic() + 30
    while follower.due() is not None or select.select([follower], [], [], 0)[0]:
        assert time.monotonic() < deadline, "there is always something to wait for"
        follower.changed()
        time.sleep(follower.due() or 0)


def watches() -> int:
    """Return the number of inotify watches of this process, according to the kernel."""
    inotify = [fd for fd in Path("/proc/self/fd").iterdir() if fd.is_symlink() and "inotify" in os.readlink(fd)]
    return sum(Path(f"/proc/self/fdinfo/{fd.name}").read_text().count("inotify wd:") for fd in inotify)


def heard(follower: Follower, within: float = 30.0) -> set[str]:
    """What is told first; empty if nothing is within that many seconds."""
    deadline = time.monotonic() + within
    while True:
        left, due = deadline - time.monotonic(), follower.due()
        select.select([follower], [], [], max(0.0, left if due is None else min(left, due)))
        refs = follower.changed()
        if refs or left < 0:
            return refs


def settle(follower: Follower) -> None:
    """Take what there is, until there is nothing to wait for."""
    deadline = time.monotonic() + 30
    while follower.due() is not None or select.select([follower], [], [], 0)[0]:
        assert time.monotonic() < deadline, "there is always something to wait for"
        time.sleep(follower.due() or 0)
        follower.changed()
