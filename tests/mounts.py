"""Unmount things, and make /proc/sys read-only."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from vethlib.ns.syscalls import MNT_DETACH, umount2

READ_ONLY = "mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys"
"""Shell commands after which /proc/sys is as in an unprivileged container."""


@contextmanager
def read_only_sysctls() -> Iterator[None]:
    """A block in which /proc/sys is read-only."""
    subprocess.run(["mount", "--bind", "/proc/sys", "/proc/sys"], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", "/proc/sys"], check=True)
        yield
    finally:
        subprocess.run(["umount", "/proc/sys"], check=True)


def unmount_all(place: str | os.PathLike[str]) -> None:
    """Unmount everything that is mounted at a path and can be reached by it.

    /proc/self/mountinfo is not used: it also lists mounts that another mount hides, such as the host's /run/netns.
    """
    try:
        while True:
            umount2(os.fsencode(place), MNT_DETACH)
    except OSError as error:
        if error.errno != errno.EINVAL:  # EINVAL: nothing is mounted there
            raise
