"""What the tests of a follower share: waiting for what it reports, and counting what it watches."""

from __future__ import annotations

import os
import select
import subprocess
import time
from pathlib import Path

from vethlib.follow import Follower

__all__ = ["nothing_more", "sh", "told", "watches"]


def sh(command: str) -> None:
    subprocess.run(command, shell=True, check=True, capture_output=True)


def told(follower: Follower, within: float = 30.0) -> set[str]:
    """What is told first; empty if nothing is within that many seconds, which is long unless nothing is expected."""
    deadline = time.monotonic() + within
    while True:
        refs = follower.changed()
        left = deadline - time.monotonic()
        if refs or left < 0:
            return refs
        due = follower.due()
        select.select([follower], [], [], left if due is None else min(due, left))


def nothing_more(follower: Follower) -> None:
    """Take what there is; afterwards there is nothing to wait for."""
    deadline = time.monotonic() + 30
    while follower.due() is not None or select.select([follower], [], [], 0)[0]:
        assert time.monotonic() < deadline, "there is always something to wait for"
        follower.changed()
        time.sleep(follower.due() or 0)


def watches() -> int:
    """How many inotify watches this process has, as the kernel says."""
    inotify = [fd for fd in Path("/proc/self/fd").iterdir() if fd.is_symlink() and "inotify" in os.readlink(fd)]
    return sum(Path(f"/proc/self/fdinfo/{fd.name}").read_text().count("inotify wd:") for fd in inotify)
