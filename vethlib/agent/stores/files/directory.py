"""Follow the configuration in the files of a directory.

1. Every call of :meth:`DirectoryStore.read` opens the directory by its path, so a directory that has replaced it, or is
   missing, is noticed even without an event. Files are read only when an event names them.
2. A file that has vanished counts as deleted only after :data:`GRACE`. Editors and git write by renaming the old file
   and creating a new one; without the grace, the pair would be deleted and created again each time. A new file is left
   to its writer for the same time; the event of closing it marks it as complete.
3. An unreadable file is read again every second (:mod:`.unreadable`), and so is a path that leads to no directory:
   there are no events for permissions along the path, or for a disk that fails or recovers.
4. Files are read for :data:`_SLICE` per call, in the order in which they changed; the rest are due immediately. Those
   that take long are read for up to a tenth of the time (:mod:`.longreads`), so that a user who can write files cannot
   keep the agent busy reading them. The former values of such a file stay in force meanwhile. Symbolic links take a
   millisecond each, and one event may concern thousands of them, so they take turns with all others. Unreadable files
   come last.
5. After lost events the whole directory is read, but for at most a tenth of the time, so that a user who creates files
   faster than their events are read cannot have everything read all the time.
6. A path, a symbolic link or a mount on a file may lead to a file system that never answers and would block its caller
   for ever. So another thread opens the directory, and reads the targets of links and files on which something is
   mounted; a missing answer is an error like any other.
7. On a file system that other machines may change, the files are compared with how they were every few seconds. After
   something was mounted or unmounted anywhere, for up to a tenth of the time, what is mounted on files is compared.
8. An empty directory that replaces another is believed if something was renamed, removed or linked to put it there. If
   it appeared by a mount or an unmount, it is a mount point without its file system: an outage. At a start, this is an
   empty directory on another file system than that of the files in the run before.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
from collections.abc import Iterator, Mapping
from itertools import zip_longest

from vethlib._primitives import time
from vethlib._trusted import who_else_writes
from vethlib.agent.config.files import is_configuration
from vethlib.agent.config.northbound import read, unforeseen
from vethlib.agent.limits import DEFAULT, Limits
from vethlib.agent.status import Status
from vethlib.agent.stores.directories import Identity, absolute, file_names, identity, why
from vethlib.agent.stores.protocol import Outage, Snapshot, StoreError, StoreEvent
from vethlib.agent.stores.statuses import StatusFiles
from vethlib.agent.stores.storecode import StoreCode, code_of
from vethlib.errors import InvalidValue
from vethlib.follow.directories import Seen, Watch, created, gone, is_about_attributes
from vethlib.follow.remote import LOOK, RemoteFiles, remote_kind
from vethlib.follow.turns import Turn
from vethlib.ns.descriptor import duplicated
from vethlib.ns.opening import asked

from .contents import Contents
from .devicenote import DeviceNote
from .longreads import LongReads
from .reading import (
    Content,
    content,
    is_link,
    is_mount_point,
    is_same,
    mounts_on,
    names_of,
    opened,
    status_of,
    unreadable,
)
from .unreadable import UnreadableFiles

__all__ = ["GRACE", "DirectoryStore"]

_log = logging.getLogger("vethlib.agent")

GRACE = 0.03  # seconds
_RETRY = 1.0  # seconds
_SLICE = 0.05  # seconds of processor time, and of waiting for other threads that read links
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
        self._path = os.fspath(path)
        self._absolute = absolute(self._path)  # since the working directory may change
        if status_dir is not None and is_same(os.fspath(status_dir), self._absolute):
            raise InvalidValue(
                "status_dir",
                os.fspath(status_dir),
                "must be another directory: statuses there would be read as configuration",
            )
        self._statuses = None if status_dir is None else StatusFiles(status_dir)
        self._note = DeviceNote(status_dir, self._absolute)
        self._contents = Contents()
        self._directory: Identity | None = None  # None in an outage
        self._last: Identity | None = None  # None before the first directory
        self._outage = ""
        self._way = False  # whether the path may lead elsewhere since the last directory was read
        self._incomplete = False  # whether the last snapshot was
        self._real = ""  # the path without links
        # Files that have vanished, or are to be read, each with the time to look at it again.
        self._gone: dict[str, float] = {}
        self._new: dict[str, float] = {}
        self._bad = UnreadableFiles()
        self._links: set[str] = set()  # of all these files, those that may be links, or have further names
        self._formerly: dict[str, str] = {}  # the names from which files that are to be read were renamed
        self._long = LongReads()
        self._waited = 0.0  # seconds, for other threads that read links
        self._retry = 0.0
        self._remote = RemoteFiles()
        self._kinds: dict[int, str] = {}  # of file systems, by device; for one reading, since devices are reused
        self._mounts: dict[str, tuple[int, int, int]] = {}  # what is mounted on files
        self._remounted = Turn()  # of looking for that again
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
        self._kinds.clear()
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
            times = [*self._gone.values(), *self._new.values()]
            if self._missed:
                times.append(self._rests_until)
            times += [due for due in (self._bad.due(), self._remote.due) if due is not None]
            if (left := self._remounted.due()) is not None:
                times.append(time.monotonic() + left)
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
            self._remounted.requested |= seen.remounted
            everything = self._missed and self._rests_until <= time.monotonic()
            if everything:
                began = time.monotonic()
                self._look_at_all(watch, directory, begins=False)
                self._rests_until = time.monotonic() + _REST * (time.monotonic() - began)
            else:
                self._compare(directory)
                self._compare_mounts(directory)
                self._look_at(watch, directory, seen)
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
            for known in (self._gone, self._new, self._formerly):
                known.clear()
            self._links.clear()
            self._bad.clear()
            self._long = LongReads()
        self._real = os.path.realpath(self._absolute)
        kind = self._kind(os.fstat(directory).st_dev)
        self._remote = RemoteFiles(is_remote=kind != "")
        if another and kind:
            text = "%s is on a file system of the type %s: changes made elsewhere are read every %g s, or after SIGHUP"
            _log.warning(text, self._path, kind, LOOK)
        if another and (others := who_else_writes(os.fstat(directory))):
            _log.warning("%s can write to %s, and so control what this agent does", others, self._path)
        self._look_at_all(watch, directory, begins=True)
        self._long.end_rest()  # no more is owed for what had to be read
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

    def _compare(self, directory: int) -> None:
        """Note the files that other machines have changed."""
        now, due = time.monotonic(), self._remote.due
        if due is not None and due <= now:
            for name in filter(is_configuration, self._remote.changed(directory, self._absolute)):
                self._new.setdefault(name, now)
                self._links.add(name)

    def _compare_mounts(self, directory: int) -> None:
        """Note the files on which something was mounted, or was unmounted: inotify has no event for that."""
        if self._remounted.due() != 0:
            return
        begun = self._remounted.begin()
        before, self._mounts = self._mounts, mounts_on(file_names(directory), directory)
        for name in before.keys() | self._mounts.keys():
            if before.get(name) != self._mounts.get(name):
                self._new.setdefault(name, time.monotonic())
                self._links.add(name)
        self._remounted.end(begun)

    def _look_at_all(self, watch: Watch, directory: int, *, begins: bool) -> None:
        self._missed = False
        names = file_names(directory)
        self._mounts = mounts_on(names, directory)
        for name in names:
            if begins or not self._must_wait(name, directory):
                self._look_at_file(watch, directory, name)
        for name in set(self._contents.files()).difference(names):
            self._vanish(name)

    def _look_at(self, watch: Watch, directory: int, seen: Seen) -> None:
        """Read the files that events name, and those that are due."""
        names: dict[str, str] = {}  # each with the name that it was renamed from, or ""
        renamed: dict[int, str] = {}
        linked: set[int] = set()  # inodes with several names
        vanished: set[str] = set()
        for name, mask, cookie in seen.files:
            if not is_configuration(name):
                continue
            if gone(mask):
                self._new.pop(name, None)
                if watch.is_followed(name):
                    self._links.add(name)  # it is dropped after another link is read that may have its values
                else:
                    self._links.discard(name)
                vanished.add(name)
                self._vanish(name)
                # If it was not read since it got this name, its content is still known by the former one.
                former = self._formerly.pop(name, "") or names.get(name, "")
                if former in self._gone:
                    self._gone[former] = min(self._gone[former], time.monotonic() + GRACE)
                renamed[cookie] = former or name
                names.pop(name, None)
            elif created(mask):
                if self._is_complete(name, directory, linked):
                    names[name] = ""
            elif not (
                is_about_attributes(mask) and name in self._new
            ):  # a writer may set the mode before it closes the file
                names[name] = renamed.get(cookie, "") if cookie else names.get(name, "")
        if linked:  # the other names of these inodes have to be followed, too
            names |= dict.fromkeys(names_of(linked, directory), "")
        now = time.monotonic()
        # That a link has vanished is also an event of the link itself, but it has its grace.
        for name in (*names, *(seen.linked.keys() - vanished)):
            self._new[name] = min(now, self._new.get(name, now))
            if name in seen.linked or is_link(name, directory):
                self._links.add(name)
            if formerly := names.get(name):
                self._formerly[name] = formerly
        self._look_at_due(watch, directory)

    def _look_at_due(self, watch: Watch, directory: int) -> None:
        """Read the files that are due, for one slice; files that have vanished come after what was there before.

        Unreadable files come last, one of them in any case: others may be rewritten all the time.
        """
        now, until = time.monotonic(), self._spent() + _SLICE
        due: dict[str, float] = {}
        for times in (self._new, self._gone):
            for name, when in times.items():
                if when <= now:
                    due.setdefault(name, when)
        for name in self._in_turn(due):
            if not self._must_wait(name, directory):
                self._look_at_file(watch, directory, name)
            if self._spent() >= until:
                break
        if (again := self._bad.due()) is not None and again <= now:
            began = self._spent()
            while (bad := self._bad.next(now)) is not None:
                if not self._must_wait(bad, directory):
                    self._look_at_file(watch, directory, bad)
                if self._spent() >= until:
                    break
            self._bad.read_for(self._spent() - began)

    def _in_turn(self, due: Mapping[str, float]) -> Iterator[str]:
        """Yield the files that are due: in the order in which they changed, but one link after one other file."""
        names = sorted(due, key=lambda name: (due[name], self._long.rank(name)))
        taking_turns = {name for name in self._links if not self._long.has_waited(name)}
        others = [name for name in names if name not in taking_turns]
        links = [name for name in names if name in taking_turns]
        for pair in zip_longest(others, links):
            yield from filter(None, pair)

    def _spent(self) -> float:
        """Return the seconds that this thread has worked, or has waited for other threads that read links."""
        return time.thread_time() + self._waited

    def _must_wait(self, name: str, directory: int) -> bool:
        """Have a file wait that may take long to read, if such files rest; return whether it has to."""
        if not self._long.must_wait(name, directory):
            return False
        self._bad.discard(name)
        self._gone.pop(name, None)  # it is there again
        self._new[name] = self._long.until
        if (formerly := self._formerly.get(name, "")) in self._gone:
            self._gone[formerly] = self._long.until  # otherwise its keys would be deleted until then
        return True

    def _is_complete(self, name: str, directory: int, linked: set[int]) -> bool:
        """Return whether to read a new file at once.

        If not, it is left to its writer, or its inode is added to `linked`.
        """
        try:
            status = status_of(name, directory)
        except OSError:
            return True  # it has vanished already, or something is mounted on it
        if stat.S_ISLNK(status.st_mode):
            return True
        if status.st_nlink > 1:
            linked.add(status.st_ino)
            return False
        self._new[name] = time.monotonic() + GRACE
        return False

    def _look_at_file(self, watch: Watch, directory: int, name: str) -> None:
        self._new.pop(name, None)
        self._links.discard(name)
        formerly = self._formerly.pop(name, "")
        was_bad = self._bad.discard(name)
        source, real = os.path.join(self._path, name), f"{self._real}/{name}"
        try:
            file, real = self._read(watch, directory, name, real)
        except OSError as error:
            if isinstance(error, FileNotFoundError):
                # A dangling link may dangle only for a moment, like a missing file, but it does exist.
                exists = is_link(name, directory)
                if not (exists and was_bad) and self._vanish(name):
                    return
                if not exists:
                    self._drop(watch, name)
                    return
            self._bad.add(name)
            parsed = unreadable(source, error)
        except Exception as error:  # whatever it is, it concerns this file only
            self._bad.add(name)
            parsed = [unforeseen(error, source)]
        else:
            if file is None:  # a directory
                self._drop(watch, name)
                return
            began = time.thread_time()
            parsed = read(file.raw, source, limits=self._limits)
            self._long.note(name, time.thread_time() - began, len(file.raw), directory)
        self._gone.pop(name, None)
        self._contents.put(name, parsed, real=real, formerly=formerly)

    def _read(self, watch: Watch, directory: int, name: str, real: str) -> tuple[Content | None, str]:
        """Return a file's content, and its path without links. Follows files that can change under another name."""
        if is_mount_point(name, directory):
            return self._read_elsewhere(watch, directory, name, real)
        try:
            file = self._content(name, directory, follow=False)
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            return self._read_elsewhere(watch, directory, name, real)
        self._remote.note_link(name, is_remote=False)
        if file is None or file.names == 1:
            watch.unfollow(name)
            return file, real
        watch.follow(name, watch.watches_along(name))
        return self._content(name, directory, follow=False), real  # again, because it may have changed before the watch

    def _read_elsewhere(self, watch: Watch, directory: int, name: str, real: str) -> tuple[Content | None, str]:
        """Read the target of a link or what is mounted, in another thread if its file system may never answer."""
        own = duplicated(directory)  # the caller closes its descriptor, perhaps before the thread has ended

        def look() -> tuple[set[int], Content | OSError | None, str, bool]:
            watches = watch.watches_along(name)
            try:
                file = self._content(name, own.fileno(), follow=True)
                kind = self._kind(os.stat(name, dir_fd=own.fileno()).st_dev)
                return watches, file, os.path.realpath(real), kind != ""
            except OSError as error:
                return watches, error, real, False

        began = time.monotonic(), time.thread_time()
        try:
            watches, file, real, is_remote = asked(real, look)
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

    def _content(self, name: str, directory: int, *, follow: bool) -> Content | None:
        if self._limits.file_bytes == DEFAULT.file_bytes:
            return content(name, directory, follow=follow)
        return content(name, directory, follow=follow, longest=self._limits.file_bytes)

    def _vanish(self, name: str) -> bool:
        """Note that a file is missing; return False if its grace is over, or it was not known."""
        if not self._contents.has(name):
            return False
        if name not in self._gone:
            self._gone[name] = time.monotonic() + GRACE
            self._contents.vanish(name)
        return time.monotonic() < self._gone[name]

    def _drop(self, watch: Watch, name: str) -> None:
        watch.unfollow(name)
        self._remote.note_link(name, is_remote=False)
        self._gone.pop(name, None)
        self._long.forget(name)
        self._contents.drop(name)


def _cannot_watch(path: str, reason: str, error: OSError, code: StoreCode) -> StoreError:
    return StoreError(f"cannot watch {path}: {reason}", path=path, reason=reason, errno=error.errno, code=code)
