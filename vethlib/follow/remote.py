"""Notice changes of files on a file system that other machines may change, too.

inotify reports only what is done through this kernel (inotify(7)), so the files are compared with how they were. The
file system may cache their attributes, as NFS does for 3 to 60 seconds (nfs(5), acregmin and acdirmax).
"""

from __future__ import annotations

import os
from typing import Final

from vethlib._primitives import time
from vethlib.ns.descriptor import duplicated
from vethlib.ns.opening import asked

__all__ = ["LOOK", "RemoteFiles", "remote_kind"]

LOOK: Final = 5.0
"""Seconds between two comparisons."""

_OF_NETWORKS: Final = ("afs", "beegfs", "ceph", "cifs", "gfs2", "lustre", "nfs", "nfs4", "ocfs2", "smb3")
_OF_HOSTS: Final = ("9p", "fuse", "vboxsf", "virtiofs")  # shared with virtual machines, or served by programs
_REMOTE: Final = frozenset({*_OF_NETWORKS, *_OF_HOSTS})


def remote_kind(device: int) -> str:
    """Return the type of the file system with this st_dev if other machines may change it, such as "nfs4"; else ""."""
    number = f"{os.major(device)}:{os.minor(device)}".encode()
    try:
        with open("/proc/thread-self/mountinfo", "rb") as mounts:
            kinds = (line.split(b" - ", 1)[1].split(b" ", 1)[0] for line in mounts if line.split(b" ", 3)[2] == number)
            kind = next(kinds, b"").decode(errors="replace")
    except OSError:
        return ""
    return kind if kind in _REMOTE or kind.startswith("fuse.") else ""


class RemoteFiles:
    """The files of a directory that other machines may change.

    All of them may be changed if the directory `is_remote`; otherwise the targets of the symbolic links that are noted.
    """

    def __init__(self, *, is_remote: bool = False) -> None:
        self._is_remote = is_remote
        self._links: set[str] = set()
        self._stamps: dict[str, tuple[int, ...]] = {}
        self._due = time.monotonic() + LOOK

    @property
    def due(self) -> float | None:
        """The time of the next comparison; None if there is nothing to compare."""
        return self._due if self._is_remote or self._links else None

    def note_link(self, name: str, *, is_remote: bool) -> None:
        """Note whether the target of a symbolic link is on such a file system."""
        if not is_remote:
            self._links.discard(name)
            return
        if self.due is None:
            self._due = time.monotonic() + LOOK
        self._links.add(name)

    def changed(self, directory: int, path: str) -> set[str]:
        """Return the names that are new, missing or changed since the last call; `path` is that of the open directory.

        The links that are noted are always returned: reading one is the only way to find out. Raises OSError, such as
        NoAnswer.
        """
        self._due = time.monotonic() + LOOK
        if not self._is_remote:
            return set(self._links)
        own = duplicated(directory)  # the caller closes its descriptor, perhaps before a thread has ended
        stamps = asked(path, lambda: _stamps(own.fileno()))
        before, self._stamps = self._stamps, stamps
        names = {name for name, stamp in stamps.items() if stamp != before.get(name)}
        return names | (before.keys() - stamps.keys()) | self._links


def _stamps(directory: int) -> dict[str, tuple[int, ...]]:
    stamps: dict[str, tuple[int, ...]] = {}
    for name in os.listdir(directory):
        try:
            status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        except OSError:
            continue
        stamps[name] = status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
    return stamps
