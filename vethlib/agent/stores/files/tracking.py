"""Read the files of a directory, and notice changes that are no events of the directory.

1. A path, a symbolic link or a mount on a file may lead to a file system that never answers and would block its caller
   for ever. So another thread reads the targets of links and files on which something is mounted, unless they are on
   the file system of the directory; a missing answer is an error like any other.
2. A file with several names, and what a symbolic link leads to, may change elsewhere: they are watched there as well.
3. On a file system that other machines may change, the files are compared with how they were every few seconds. After
   something was mounted or unmounted anywhere, for up to a tenth of the time, what is mounted on files is compared.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable

from vethlib._primitives import time
from vethlib.agent.config.files import is_configuration
from vethlib.agent.limits import Limits
from vethlib.agent.stores.directories import file_names
from vethlib.follow.directories import Watch
from vethlib.follow.remote import RemoteFiles, remote_kind
from vethlib.follow.turns import Turn
from vethlib.ns.descriptor import duplicated
from vethlib.ns.opening import asked

from .reading import Content, content, is_mount_point, mounts_on

__all__ = ["TrackedFiles"]


class TrackedFiles:
    """The files of the directory at an absolute path."""

    def __init__(self, path: str, limits: Limits) -> None:
        self._path = path
        self._longest = limits.file_bytes
        self._real = ""  # the path without links
        self._remote = RemoteFiles()
        self._kinds: dict[int, str] = {}  # of file systems, by device; for one reading, since devices are reused
        self._mounts: dict[str, tuple[int, int, int]] = {}  # what is mounted on files
        self._remounted = Turn()  # of looking for that again
        self._waited = 0.0  # seconds, for other threads

    def spent(self) -> float:
        """Return the seconds that this thread has worked, or has waited for other threads that read links."""
        return time.thread_time() + self._waited

    def times(self) -> list[float]:
        """Return the times at which :meth:`changed` has something to compare."""
        times = [] if self._remote.due is None else [self._remote.due]
        if (left := self._remounted.due()) is not None:
            times.append(time.monotonic() + left)
        return times

    def forget_kinds(self) -> None:
        """Look up the types of file systems again from now on."""
        self._kinds.clear()

    def begin(self, directory: int) -> str:
        """Begin with another directory; return the type of its file system if other machines may change it, or ""."""
        self._real = os.path.realpath(self._path)
        kind = self._kind(os.fstat(directory).st_dev)
        self._remote = RemoteFiles(is_remote=kind != "")
        return kind

    def compare_mounts(self) -> None:
        """Let :meth:`changed` compare what is mounted on files, since something was mounted or unmounted."""
        self._remounted.requested = True

    def note_mounts(self, names: Iterable[str], directory: int) -> None:
        """Note what is mounted on these files, the only ones that are read."""
        self._mounts = mounts_on(names, directory)

    def changed(self, directory: int) -> list[str]:
        """Return the files that other machines have changed, and those on which something was mounted or unmounted."""
        names: list[str] = []
        if (due := self._remote.due) is not None and due <= time.monotonic():
            names += filter(is_configuration, self._remote.changed(directory, self._path))
        if self._remounted.due() == 0:
            begun = self._remounted.begin()
            before = self._mounts
            self.note_mounts(file_names(directory), directory)
            named = before.keys() | self._mounts.keys()
            names += (name for name in named if before.get(name) != self._mounts.get(name))
            self._remounted.end(begun)
        return names

    def read(self, watch: Watch, directory: int, name: str) -> tuple[Content | None, str]:
        """Return a file's content, None for a directory, and its path without links.

        Lets `watch` follow a file that can change under another name. Raises OSError, such as NoAnswer.
        """
        if is_mount_point(name, directory):
            return self._read_elsewhere(watch, directory, name)
        try:
            file = content(name, directory, follow=False, longest=self._longest)
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            return self._read_elsewhere(watch, directory, name)
        self._remote.note_link(name, is_remote=False)
        if file is None or file.names == 1:
            watch.unfollow(name)
        else:
            watch.follow(name, watch.watches_along(name))
            # Again, because it may have changed before it was watched.
            file = content(name, directory, follow=False, longest=self._longest)
        return file, self.real(name)

    def real(self, name: str) -> str:
        """Return the path of a file that is no link, without links."""
        return f"{self._real}/{name}"

    def drop(self, watch: Watch, name: str) -> None:
        """Forget a file that was deleted."""
        watch.unfollow(name)
        self._remote.note_link(name, is_remote=False)

    def _read_elsewhere(self, watch: Watch, directory: int, name: str) -> tuple[Content | None, str]:
        """Read the target of a link or what is mounted, in another thread if its file system may never answer."""
        own = duplicated(directory)  # the caller closes its descriptor, perhaps before the thread has ended
        path = self.real(name)

        def look() -> tuple[set[int], Content | OSError | None, str, bool]:
            watches = watch.watches_along(name)
            try:
                file = content(name, own.fileno(), follow=True, longest=self._longest)
                kind = self._kind(os.stat(name, dir_fd=own.fileno()).st_dev)
                return watches, file, os.path.realpath(path), kind != ""
            except OSError as error:
                return watches, error, path, False

        began = time.monotonic(), time.thread_time()
        try:
            # The file system of the directory is asked directly for its other files, too.
            watches, file, real, is_remote = asked(path, look, answering=[os.fstat(directory).st_dev])
        finally:
            self._waited += max(0.0, time.monotonic() - began[0] - (time.thread_time() - began[1]))
        watch.follow(name, watches)
        self._remote.note_link(name, is_remote=is_remote)
        if isinstance(file, OSError):
            raise file
        return file, real

    def _kind(self, device: int) -> str:
        """Return the type of a file system if other machines may change it, otherwise ""."""
        if (kind := self._kinds.get(device)) is None:
            kind = self._kinds[device] = remote_kind(device)
        return kind
