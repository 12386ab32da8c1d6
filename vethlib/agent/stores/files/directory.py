"""Follow the configuration in the files of a directory.

1. Every call of :meth:`DirectoryStore.read` opens the directory by its path, so a directory that has replaced it, or is
   missing, is noticed even without an event. Another thread opens it, because its file system may never answer.
2. Files are read only when an event names them, or :mod:`.tracking` finds that they changed without one. :mod:`.agenda`
   decides when.
3. A path that leads to no directory is looked at every second: there are no events for permissions along the path, or
   for a disk that fails or recovers.
4. After lost events the whole directory is read, but for at most a tenth of the time, so that a user who creates files
   faster than their events are read cannot have everything read all the time.
5. An empty directory that replaces another is believed if something was renamed, removed or linked to put it there. If
   it appeared by a mount or an unmount, it is a mount point without its file system: an outage. At a start, this is an
   empty directory on another file system than that of the files in the run before.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Mapping

from vethlib._primitives import time
from vethlib._trusted import who_else_writes
from vethlib.agent.config.northbound import read, unforeseen
from vethlib.agent.limits import DEFAULT, Limits
from vethlib.agent.status import Status
from vethlib.agent.stores.directories import Identity, absolute, file_names, identity, why
from vethlib.agent.stores.protocol import Outage, Snapshot, StoreError, StoreEvent
from vethlib.agent.stores.statuses import StatusFiles
from vethlib.agent.stores.storecode import StoreCode, code_of
from vethlib.errors import InvalidValue, check_path
from vethlib.follow.directories import Seen, Watch
from vethlib.follow.remote import LOOK

from .agenda import Agenda
from .contents import Contents
from .devicenote import DeviceNote
from .reading import is_link, is_same, opened, unreadable
from .tracking import TrackedFiles

__all__ = ["DirectoryStore"]

_log = logging.getLogger("vethlib.agent")

_RETRY = 1.0  # seconds
_REST = 10.0  # length of the rest after reading everything, as a multiple of the time that it took
_NONE: Identity = (0, 0)  # the identity of no directory


class DirectoryStore:
    """A store in the ``*.json`` files of a directory, each with one interface or a list of interfaces.

    Statuses are published to `status_dir`, one file per interface, if it is given. Values that exceed the `limits` are
    refused one by one. Raises InvalidValue if both directories are the same, and StoreError if the limit of
    inotify instances or open files is reached.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        status_dir: str | os.PathLike[str] | None = None,
        limits: Limits = DEFAULT,
    ) -> None:
        self._limits = limits
        self._path = check_path(path, "path")
        self._absolute = absolute(self._path)  # since the working directory may change
        status_dir = None if status_dir is None else check_path(status_dir, "status_dir")
        if status_dir is not None and is_same(status_dir, self._absolute):
            raise InvalidValue(
                "status_dir",
                status_dir,
                "must be another directory: statuses there would be read as configuration",
            )
        self._statuses = None if status_dir is None else StatusFiles(status_dir)
        self._note = DeviceNote(status_dir, self._absolute)
        self._contents = Contents()
        self._agenda = Agenda(self._contents)
        self._files = TrackedFiles(self._absolute, limits)
        self._directory: Identity | None = None  # None in an outage
        self._last: Identity | None = None  # None before the first directory
        self._outage = ""
        self._way = False  # whether the path may lead elsewhere since the last directory was read
        self._incomplete = False  # whether the last snapshot was
        self._retry = 0.0  # the time to look at a path that leads to no directory
        self._missed = False  # whether events were lost
        self._rests_until = 0.0  # before which lost events do not cause another reading of everything
        try:
            self._watch: Watch | None = Watch(self._absolute)
        except OSError as error:
            raise _cannot_watch(self._path, why(error), error, StoreCode.NO_WATCHES) from error

    def read(self) -> list[StoreEvent]:
        """Return the results since the last call. Never blocks or raises."""
        watch = self._watch
        if watch is None:
            return []
        if self._statuses is not None:
            self._statuses.try_again()
        self._note.try_again()
        self._files.forget_kinds()
        try:
            seen = watch.seen()
            self._way |= seen.way
            if seen.ended:
                # Another directory may have the same identity: inode numbers and tmpfs device numbers are reused.
                self._directory, self._last = None, _NONE
            try:
                return self._look(watch, seen)
            except StoreError as error:
                if error.errno == errno.ETIMEDOUT:
                    raise  # the file system does not answer, so watching it would not help either
                # A directory that was created after this check and before the watch causes no event: check again.
                watch.wait()
                self._directory = None  # it is not watched any more, so it has to be read as after an outage
                return self._look(watch, seen)
        except StoreError as error:
            return self._away(str(error), error.code)
        except OSError as error:
            return self._away(f"cannot read {self._path}: {why(error)}", code_of(error.errno))
        except Exception as error:
            _log.debug("%s cannot be read", self._path, exc_info=error)
            text = f"cannot read {self._path}: {type(error).__name__}; the debug log has details"
            return self._away(text, StoreCode.UNFORESEEN)

    def fileno(self) -> int:
        """Return a descriptor that is readable when :meth:`read` may have results."""
        return -1 if self._watch is None else self._watch.fileno()

    def due(self) -> float | None:
        """Return the seconds until a missing file counts as deleted, or until a retry; 0 before the first result."""
        if self._watch is None:
            return None
        if self._directory is None:
            times = [self._retry]
        else:
            times = [*self._agenda.times(), *self._files.times()]
            if self._missed:
                times.append(self._rests_until)
        for left in (None if self._statuses is None else self._statuses.due(), self._note.due()):
            if left is not None:
                times.append(time.monotonic() + left)
        return max(0.0, min(times) - time.monotonic()) if times else None

    def reread(self) -> None:
        """Let the next :meth:`read` read everything, and return all values."""
        self._missed = True
        self._rests_until = self._retry = 0.0

    def publish(self, statuses: Mapping[str, Status | None]) -> None:
        """Write the statuses to their files."""
        if self._statuses is not None:
            self._statuses.publish(statuses)
            self._note.published()

    def close(self) -> None:
        """Stop watching. A second call does nothing."""
        if self._watch is not None:
            self._watch.close()
            self._watch = None
            self._note.close()

    def _away(self, reason: str, code: StoreCode) -> list[StoreEvent]:
        self._directory = None
        self._retry = time.monotonic() + _RETRY
        if reason == self._outage:
            return []
        self._outage = reason
        return [Outage(reason, code)]

    def _look(self, watch: Watch, seen: Seen) -> list[StoreEvent]:
        with opened(self._absolute) as directory:
            current = identity(directory)
            if current != self._directory:
                return self._begin(watch, directory, current)
            if seen.way:
                watch.start(directory)  # the path to it may have changed
            self._missed = self._missed or seen.missed
            if seen.remounted:
                self._files.compare_mounts()
            everything = self._missed and self._rests_until <= time.monotonic()
            if everything:
                began = time.monotonic()
                self._look_at_all(watch, directory, begins=False)
                self._rests_until = time.monotonic() + _REST * (time.monotonic() - began)
            else:
                for name in self._files.changed(directory):
                    self._agenda.add(name)
                self._agenda.add_events(seen, watch, directory)
                for name in self._agenda.due(directory, self._files.spent):
                    self._look_at_file(watch, directory, name)
        changes = self._contents.settle()
        self._note.set(None if self._contents.is_empty else current[0])
        if everything or (self._incomplete and self._contents.complete):
            return self._snapshot()
        return [*changes]

    def _begin(self, watch: Watch, directory: int, current: Identity) -> list[StoreEvent]:
        """Read everything in another directory than before, or after an outage."""
        another = current != self._last
        replaces = self._last is not None or self._note.device not in (None, current[0])
        if another and replaces and not self._way and not file_names(directory):
            self._last = _NONE
            reason = "became empty by a mount or an unmount: mount its file system, or put a file there"
            raise StoreError(f"{self._path} {reason}", path=self._path, reason=reason, code=StoreCode.EMPTIED)
        self._watch_directory(watch, directory)
        if another:
            for name in self._contents.files():
                watch.unfollow(name)
            self._contents.restart()
            self._agenda.clear()
        kind = self._files.begin(directory)
        if another and kind:
            text = "%s is on a file system of the type %s: changes made elsewhere are read every %g s, or after SIGHUP"
            _log.warning(text, self._path, kind, LOOK)
        if another and (others := who_else_writes(os.fstat(directory))):
            _log.warning("%s can write to %s, and so control what this agent does", others, self._path)
        self._look_at_all(watch, directory, begins=True)
        self._agenda.end_rest()  # no more is owed for what had to be read
        self._directory = self._last = current
        self._outage = ""
        self._way = False
        self._contents.settle()
        self._note.set(None if self._contents.is_empty else current[0])
        return self._snapshot()

    def _watch_directory(self, watch: Watch, directory: int) -> None:
        try:
            watch.start(directory)
        except OSError as error:
            code = StoreCode.NO_WATCHES if error.errno == errno.ENOSPC else code_of(error.errno)
            raise _cannot_watch(self._path, why(error), error, code) from error

    def _snapshot(self) -> list[StoreEvent]:
        complete = self._contents.complete
        self._incomplete = not complete
        return [Snapshot(dict(self._contents.values), complete)]

    def _look_at_all(self, watch: Watch, directory: int, *, begins: bool) -> None:
        self._missed = False
        names = file_names(directory)
        self._files.note_mounts(names, directory)
        for name in names:
            if begins or not self._agenda.must_wait(name, directory):
                self._look_at_file(watch, directory, name)
        for name in set(self._contents.files()).difference(names):
            self._agenda.vanish(name)

    def _look_at_file(self, watch: Watch, directory: int, name: str) -> None:
        formerly, was_bad = self._agenda.take(name)
        source, real = os.path.join(self._path, name), self._files.real(name)
        try:
            file, real = self._files.read(watch, directory, name)
        except OSError as error:
            if isinstance(error, FileNotFoundError):
                # A dangling link may dangle only for a moment, like a missing file, but it does exist.
                exists = is_link(name, directory)
                if not (exists and was_bad) and self._agenda.vanish(name):
                    return
                if not exists:
                    self._drop(watch, name)
                    return
            self._agenda.failed(name)
            parsed = unreadable(source, error)
        except Exception as error:  # whatever it is, it concerns this file only
            self._agenda.failed(name)
            parsed = [unforeseen(error, source)]
        else:
            if file is None:  # a directory
                self._drop(watch, name)
                return
            began = time.thread_time()
            parsed = read(file.raw, source, limits=self._limits)
            self._agenda.took(name, time.thread_time() - began, len(file.raw), directory)
        self._agenda.found(name)
        self._contents.put(name, parsed, real=real, formerly=formerly)

    def _drop(self, watch: Watch, name: str) -> None:
        self._files.drop(watch, name)
        self._agenda.drop(name)


def _cannot_watch(path: str, reason: str, error: OSError, code: StoreCode) -> StoreError:
    return StoreError(f"cannot watch {path}: {reason}", path=path, reason=reason, errno=error.errno, code=code)
