"""Watch a directory for changes of its files."""

from __future__ import annotations

import os
from contextlib import ExitStack, closing
from dataclasses import dataclass

from vethlib._primitives import select
from vethlib.follow.directories import Watch
from vethlib.ns.descriptor import opened

__all__ = ["Directory", "DirectoryChanges"]


@dataclass(frozen=True, slots=True)
class DirectoryChanges:
    """The possible changes of a directory: `files` by name, or all of them (`everything`), and any mount (`mounts`).

    The mount table does not show which mounts have changed.
    """

    files: frozenset[str] = frozenset()
    everything: bool = False
    mounts: bool = False


class Directory:
    """Report which files of a directory, or mounts on them, may have changed. The directory need not exist yet.

    Raises OSError if the user has no inotify instance left.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._identity: tuple[int, int] | None = None
        self._torn = False  # whether a check was interrupted
        with ExitStack() as undo:
            self._watch = undo.enter_context(closing(Watch(path)))
            # A change of the mount table is reported to the first poll after it (mounts_poll(), fs/proc_namespace.c),
            # and each epoll around another one polls, too. So the watch's descriptor only wakes the caller; this one is
            # polled here only.
            self._mounts = os.open("/proc/self/mountinfo", os.O_RDONLY | os.O_CLOEXEC)
            undo.callback(os.close, self._mounts)
            self._poll = select.poll()
            self._poll.register(self._mounts, select.POLLPRI)
            self._poll.poll(0)  # it is readable once at the start
            self._begin()
            self._opened = undo.pop_all()

    def fileno(self) -> int:
        """Return a descriptor that is readable when :meth:`changed` may return changes."""
        return self._watch.fileno()

    def close(self) -> None:
        """Stop watching."""
        self._opened.close()

    def changed(self) -> DirectoryChanges:
        """Return what may have changed since the last call."""
        torn, self._torn = self._torn, True
        mounted = bool(self._poll.poll(0))
        seen = self._watch.seen()
        elsewhere = seen.missed or seen.way or seen.ended or (mounted and self._identity_now() != self._identity)
        if elsewhere or torn:
            self._begin()
        self._torn = False
        files = frozenset(name for name, _, _ in seen.files)
        return DirectoryChanges(files, elsewhere or torn, mounted)

    def _identity_now(self) -> tuple[int, int] | None:
        try:
            status = os.stat(self._path)
        except OSError:
            return None
        return status.st_dev, status.st_ino

    def _begin(self) -> None:
        """Watch the directory, or wait for it to appear."""
        try:
            with opened(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) as directory:
                self._watch.start(directory.fileno())
                status = os.fstat(directory.fileno())
                self._identity = status.st_dev, status.st_ino
        except OSError:
            self._identity = None
            self._watch.wait()
