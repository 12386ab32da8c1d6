"""Configuration in the files of a directory, followed as they change.

1. Every call of :meth:`DirectoryStore.read` opens the directory by its path, so that another one in its place, or none,
   is found whatever was or was not told of it. The rest is looked at only where an event points.
2. A file that has vanished is given :data:`GRACE` before it counts as deleted. Editors write by renaming the old file
   and creating a new one, and so does git: without that, each time the pair would go down and come up again.
   For the same time a new file is left to its writer, who tells by closing it that it is complete.
3. A file that cannot be read is looked at again every second, and so is a path that leads to no directory: permissions
   on the way, and what a dead disk does next, are no event.
4. An empty directory where there was another is believed if somebody renamed, removed or linked something to put it
   there. If it came by a mount or an unmount, it is a mount point that lacks its file system: an outage.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Mapping

from vethlib.agent.files import is_configuration
from vethlib.agent.northbound import read
from vethlib.agent.status import Status
from vethlib.errors import InvalidValue

from .contents import Contents
from .protocol import News, Outage, Snapshot, StoreError
from .reading import Content, Identity, content, file_names, identity, opened, unreadable, why
from .statuses import StatusFiles
from .watch import Seen, Watch, created, gone, is_about_attributes

__all__ = ["GRACE", "DirectoryStore"]

GRACE = 0.03  # seconds
_RETRY = 1.0  # seconds
_NONE: Identity = (0, 0)  # which no directory has


class DirectoryStore:
    """The ``*.json`` files of a directory, each with one interface or a list of them.

    Statuses are published to `status_dir`, one file for each interface; without it, nowhere.
    Raises InvalidValue where both are one directory, and StoreError where this user can watch nothing more.
    """

    def __init__(self, path: str | os.PathLike[str], *, status_dir: str | os.PathLike[str] | None = None) -> None:
        self._path = os.fspath(path)
        # The working directory of the program may change. ".." stays: behind a symbolic link only the kernel knows it.
        self._there = os.path.join(os.getcwd(), self._path)
        if status_dir is not None and os.path.realpath(status_dir) == os.path.realpath(self._there):
            raise InvalidValue("status_dir", os.fspath(status_dir), "its files would be read as configuration")
        self._statuses = None if status_dir is None else StatusFiles(status_dir)
        self._contents = Contents()
        self._directory: Identity | None = None  # None in an outage
        self._last: Identity | None = None  # None before there was one
        self._outage = ""
        self._way = False  # whether the path may lead elsewhere since the last directory was read
        self._incomplete = False  # whether that is what was told last
        self._real = ""  # the path without links
        # Files, and when to look at them: they have vanished, have a writer still, or cannot be read.
        self._gone: dict[str, float] = {}
        self._new: dict[str, float] = {}
        self._bad: dict[str, float] = {}
        self._retry = 0.0
        try:
            self._watch: Watch | None = Watch(self._there)
        except OSError as error:
            reason = f"{why(error)}: raise fs.inotify.max_user_instances, or the number of open files"
            message = f"cannot watch {self._path}: {reason}"
            raise StoreError(message, path=self._path, reason=reason, errno=error.errno) from error

    def read(self) -> list[News]:
        """What is new since the last call; does not wait, and raises nothing."""
        watch = self._watch
        if watch is None:
            return []
        try:
            seen = watch.seen()
            self._way |= seen.way
            if seen.ended:
                # What is there now may have the same numbers: inodes are used again, and so are devices of tmpfs.
                self._directory, self._last = None, _NONE
            try:
                return self._look(watch, seen)
            except StoreError:
                # A directory that comes between looking and watching for it is seen by looking again.
                watch.wait()
                return self._look(watch, seen)
        except StoreError as error:
            return self._away(str(error))
        except OSError as error:
            return self._away(f"cannot read {self._path}: {why(error)}")

    def fileno(self) -> int:
        """Readable when something happened that :meth:`read` has to look at."""
        return -1 if self._watch is None else self._watch.fileno()

    def due(self) -> float | None:
        """Until a vanished file counts as deleted, or something is to be tried again; 0 before the first news."""
        if self._watch is None:
            return None
        if self._directory is None:
            times = [self._retry]
        else:
            times = [*self._gone.values(), *self._new.values(), *self._bad.values()]
        return max(0.0, min(times) - time.monotonic()) if times else None

    def publish(self, statuses: Mapping[str, Status | None]) -> None:
        """Write these statuses to their files."""
        if self._statuses is not None:
            self._statuses.publish(statuses)

    def close(self) -> None:
        """Stop watching; a second time, nothing."""
        if self._watch is not None:
            self._watch.close()
            self._watch = None

    def _away(self, reason: str) -> list[News]:
        self._directory = None
        self._retry = time.monotonic() + _RETRY
        if reason == self._outage:
            return []
        self._outage = reason
        return [Outage(reason)]

    def _look(self, watch: Watch, seen: Seen) -> list[News]:
        with opened(self._there) as directory:
            found = identity(directory)
            if found != self._directory:
                return self._begin(watch, directory, found)
            if seen.way:
                watch.start(directory)  # there may be another way to it now
            if seen.missed:
                self._look_at_all(watch, directory)
            else:
                self._look_at(watch, directory, seen)
        changes = self._contents.settle()
        if seen.missed or (self._incomplete and self._contents.complete):
            return self._snapshot()
        return [*changes]

    def _begin(self, watch: Watch, directory: int, found: Identity) -> list[News]:
        """Another directory than before, or one again."""
        another = found != self._last
        if another and self._last is not None and not self._way and not file_names(directory):
            self._last = _NONE
            reason = "is empty since a mount or an unmount: mount its file system, or put a file there"
            raise StoreError(f"{self._path} {reason}", path=self._path, reason=reason)
        self._watch_directory(watch, directory)
        if another:
            for name in self._contents.files():
                watch.unfollow(name)
            self._contents.restart()
            for times in (self._gone, self._new, self._bad):
                times.clear()
        self._real = os.path.realpath(self._there)
        self._look_at_all(watch, directory)
        self._directory = self._last = found
        self._outage = ""
        self._way = False
        self._contents.settle()
        return self._snapshot()

    def _watch_directory(self, watch: Watch, directory: int) -> None:
        try:
            watch.start(directory)
        except OSError as error:
            cure = ": raise fs.inotify.max_user_watches" if error.errno == errno.ENOSPC else ""
            reason = f"{why(error)}{cure}"
            message = f"cannot watch {self._path}: {reason}"
            raise StoreError(message, path=self._path, reason=reason, errno=error.errno) from error

    def _snapshot(self) -> list[News]:
        complete = self._contents.complete
        self._incomplete = not complete
        return [Snapshot(dict(self._contents.values), complete)]

    def _look_at_all(self, watch: Watch, directory: int) -> None:
        names = file_names(directory)
        for name in names:
            self._look_at_file(watch, directory, name)
        for name in set(self._contents.files()).difference(names):
            self._vanish(name)

    def _look_at(self, watch: Watch, directory: int, seen: Seen) -> None:
        """Look at the files that events name, and at those whose time has come."""
        names: dict[str, str] = {}  # and what they were renamed from
        renamed: dict[int, str] = {}
        for name, mask, cookie in seen.files:
            if not is_configuration(name):
                continue
            if gone(mask):
                names.pop(name, None)
                self._new.pop(name, None)
                self._vanish(name)
                renamed[cookie] = name
            elif created(mask):
                names |= dict.fromkeys(self._complete(name, directory), "")
            elif not (is_about_attributes(mask) and name in self._new):  # who writes a file may set its mode before
                names[name] = renamed.get(cookie, "") if cookie else ""
        now = time.monotonic()
        due = [name for times in (self._gone, self._new, self._bad) for name, when in times.items() if when <= now]
        for name in (*seen.linked, *due):
            names.setdefault(name, "")
        for name, formerly in names.items():
            self._look_at_file(watch, directory, name, formerly)

    def _complete(self, name: str, directory: int) -> list[str]:
        """The files to look at because a new one has appeared, which is left to its writer if it has one."""
        try:
            found = os.stat(name, dir_fd=directory, follow_symlinks=False)
        except OSError:
            return [name]  # it is gone again
        if stat.S_ISLNK(found.st_mode):
            return [name]
        if found.st_nlink > 1:  # another name for a file, of which the first one has to be followed from now on, too
            return _names_of(found.st_ino, directory)
        self._new[name] = time.monotonic() + GRACE
        return []

    def _look_at_file(self, watch: Watch, directory: int, name: str, formerly: str = "") -> None:
        self._new.pop(name, None)
        was_bad = self._bad.pop(name, None) is not None
        source, real = os.path.join(self._path, name), f"{self._real}/{name}"
        try:
            found, real = self._read(watch, directory, name, real)
        except OSError as error:
            if isinstance(error, FileNotFoundError):
                # A link that leads nowhere may do so for a moment only, like a file that vanished; but it is there.
                is_link = os.path.islink(real)
                if not (is_link and was_bad) and self._vanish(name):
                    return
                if not is_link:
                    self._drop(watch, name)
                    return
            self._bad[name] = time.monotonic() + _RETRY
            parsed = unreadable(source, error)
        else:
            if found is None:  # a directory
                self._drop(watch, name)
                return
            parsed = read(found.raw, source)
        self._gone.pop(name, None)
        self._contents.put(name, parsed, real=real, formerly=formerly)

    def _read(self, watch: Watch, directory: int, name: str, real: str) -> tuple[Content | None, str]:
        """What a file holds, and its path without links. What can change behind another name is followed there."""
        try:
            found = content(name, directory, follow=False)
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            watch.follow(name)
            return content(name, directory), os.path.realpath(real)
        if found is None or found.names == 1:
            watch.unfollow(name)
            return found, real
        watch.follow(name)
        return content(name, directory, follow=False), real  # once more, now that no change is missed

    def _vanish(self, name: str) -> bool:
        """Give a file that is not there its time; False if that is over, or nothing is known of it."""
        if not self._contents.has(name):
            return False
        if name not in self._gone:
            self._gone[name] = time.monotonic() + GRACE
            self._contents.vanish(name)
        return time.monotonic() < self._gone[name]

    def _drop(self, watch: Watch, name: str) -> None:
        watch.unfollow(name)
        self._gone.pop(name, None)
        self._contents.drop(name)


def _names_of(inode: int, directory: int) -> list[str]:
    with os.scandir(directory) as entries:
        return [entry.name for entry in entries if entry.inode() == inode and is_configuration(entry.name)]
