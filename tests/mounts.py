"""Taking mounts away."""

from __future__ import annotations

import errno
import os

from vethlib.ns.syscalls import MNT_DETACH, umount2


def unmount_all(place: str | os.PathLike[str]) -> None:
    """Unmount whatever is mounted at a path, and can be reached by it.

    /proc/self/mountinfo is not asked: it also lists the mounts that another one hides, such as the host's /run/netns.
    """
    try:
        while True:
            umount2(os.fsencode(place), MNT_DETACH)
    except OSError as error:
        if error.errno != errno.EINVAL:  # EINVAL: nothing is mounted there
            raise
