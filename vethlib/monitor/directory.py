"""A directory, and when to look at it again."""

from __future__ import annotations

import os
import select
from contextlib import ExitStack, closing

from vethlib.agent.stores.watch import Watch
from vethlib.ns.descriptor import opened

__all__ = ["Directory"]


class Directory:
    """Says when the files of a directory, or what is mounted on them, may have changed; it may appear only later.

    Raises OSError where the user has no inotify instance left.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._identity: tuple[int, int] | None = None
        with ExitStack() as undo:
            self._watch = undo.enter_context(closing(Watch(path)))
            # A change of the mount table is told to the first poll after it (mounts_poll(), fs/proc_namespace.c), and
            # each epoll around another one polls, too. So that of the watch only wakes us; this one is ours alone.
            self._mounts = os.open("/proc/self/mountinfo", os.O_RDONLY | os.O_CLOEXEC)
            undo.callback(os.close, self._mounts)
            self._poll = select.poll()
            self._poll.register(self._mounts, select.POLLPRI)
            self._poll.poll(0)  # it is news once
            self._begin()
            self._opened = undo.pop_all()

    def fileno(self) -> int:
        """Readable when there may be something in :meth:`changed`."""
        return self._watch.fileno()

    def close(self) -> None:
        """Stop watching."""
        self._opened.close()

    def changed(self) -> bool:
        """Whether to look at it again, since the last call."""
        mounted = bool(self._poll.poll(0))
        seen = self._watch.seen()
        if seen.missed or seen.way or seen.ended or (mounted and self._identity_now() != self._identity):
            self._begin()
            return True
        return mounted or bool(seen.files)

    def _identity_now(self) -> tuple[int, int] | None:
        try:
            found = os.stat(self._path)
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def _begin(self) -> None:
        """Watch what the path leads to now, or what has to appear for it to lead anywhere."""
        try:
            with opened(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) as directory:
                self._watch.start(directory.fileno())
                found = os.fstat(directory.fileno())
                self._identity = found.st_dev, found.st_ino
        except OSError:
            self._identity = None
            self._watch.wait()
