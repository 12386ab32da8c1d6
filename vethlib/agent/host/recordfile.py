"""The file of the record: its format, and how processes of one label share it.

It is /run/vethlib/LABEL/pairs.INODE, with the home namespace's inode: only the agent's user may write there, it does
not outlive a boot, and two hosts that share a /run, each in its own network namespace, have separate files.

1. Facts are appended, with one write for many. A process that is killed leaves at most a torn last line.
2. A writer holds the lock (flock, on a file next to it) and has read what others have appended before. It waits half a
   second for the lock: a process that holds it longer is stopped, and appending without it can lose one line at most.
3. When most lines are outdated, the file is rewritten and renamed into its place, which others notice.
4. If a write fails, or the file is removed, the record is kept in memory, `problem` has the reason, and every write
   tries to write all of it, with what others have written meanwhile. While there is nothing to write, that is tried
   with backoff (`try_again`), and a last time by `close`: the next process does not own what is missing in the file.
5. A rewritten file keeps the id of its record. A file with another id was written by a process that found none: it
   lacks what others have in memory, and they add that to it. Inode numbers do not show this, because a new file may
   have the number of a removed file.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

from vethlib._closing import Closing
from vethlib._files import Replacement, remove_unfinished, write_all
from vethlib._primitives import time
from vethlib.agent.attempts import Attempts
from vethlib.agent.config.mark import check_label
from vethlib.agent.planning.observed import NetnsId
from vethlib.agent.planning.recorded import PairRecord, header, read_record_id, record_id
from vethlib.agent.process.boot import boot_id
from vethlib.agent.process.rundir import UnsafeDirectory, base_directory, open_directory, open_own
from vethlib.errors import InvalidValue, VethError, errno_text
from vethlib.session import Session

from .foreignrecords import foreign_records

__all__ = ["RecordFile"]

_PATIENCE: Final = 0.5  # seconds for the lock; it is held for a millisecond, or 30 of them to rewrite the file
_SLACK: Final = 512  # outdated lines that do not cause the file to be rewritten
_BEGIN: Final = 4096  # bytes that contain the first two lines
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_APPEND: Final = os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


class _Version(NamedTuple):
    """Which file it is: its inode, and the id of the record and the number in its second line, "" and 0 without it."""

    inode: int = 0
    record: str = ""
    rewritten: int = 0

    def replaces(self, before: _Version) -> bool:
        """Return whether this file has everything that the one before it had."""
        return self.record == before.record != "" and self.rewritten > before.rewritten


def _checked(directory: object) -> str:
    """Return the path of a directory. Raises InvalidValue, also for a text that cannot be a path."""
    text = os.fspath(directory) if isinstance(directory, os.PathLike) else directory
    try:
        if isinstance(text, str) and b"\0" not in os.fsencode(text):
            return text
    except UnicodeEncodeError:
        pass
    raise InvalidValue("records", directory, 'must be the path of a directory, or "" to keep the record in memory')


class RecordFile(Closing):
    """The record of a label in the session's home namespace, and its file.

    `directory` contains the file: None for the directory of the label below /run/vethlib, "" to keep the record in
    memory only. With `read_only`, nothing is written. Problems of the file raise nothing: `problem` describes them, ""
    if there are none. Close it, or use it in a ``with`` statement.
    """

    def __init__(self, session: Session, label: str, directory: str | None = None, *, read_only: bool = False) -> None:
        self._label = check_label(label)
        self.home: NetnsId = session.identity("")
        self._boot = boot_id()
        self._header = header(label, self._boot, self.home, session.cookie(""))
        self._name = f"pairs.{self.home[1]}"
        self._directory = directory = None if directory is None else _checked(directory)
        self._read_only = read_only
        self._in_memory = directory == ""
        self._at: int | None = None  # a descriptor of the directory
        self._version = _Version()  # version of the file that was read last
        self._offset = 0  # up to which it was read
        self._whole = True  # the next write has to write everything, because the file may lack some of it
        self._attempts = Attempts()  # attempts after a failure
        self._pid = os.getpid()
        self._closed = False
        self.problem = ""
        self.record = PairRecord()
        self.refresh()

    @property
    def label(self) -> str:
        """The label of the agent whose pairs it has."""
        return self._label

    def close(self) -> None:
        """Write what the file lacks, if that is possible, and close the directory. Closing twice is harmless."""
        try:
            if not self._closed and self._pid == os.getpid():  # a forked child only closes its copy
                if self._writes and self.record.size:
                    self.refresh()  # somebody may have removed it
                if self._is_behind:
                    self.write(())
        finally:
            self._closed = True
            self._close_directory()

    def _close_directory(self) -> None:
        if self._at is not None:
            os.close(self._at)
            self._at = None

    @property
    def path(self) -> str:
        """Return the path of the file; "" if the record is in memory only."""
        if self._in_memory:
            return ""
        return os.path.join(self._directory or os.path.join(base_directory(), self._label), self._name)

    @property
    def version(self) -> object:
        """Return a value that changes whenever this or another process changes the record or its file."""
        return self._version, self._offset, self.record.facts, self._whole

    # --- reading

    def refresh(self) -> None:
        """Apply what other processes have written since the last call."""
        if self.record.adopts:
            self._read_foreign()
        if self._in_memory:
            return
        try:
            self._catch_up()
            if not self._whole:
                self._succeed()
        except FileNotFoundError:
            self._whole = True  # it does not exist yet, or was removed
        except (OSError, VethError) as error:
            self._fail(error)
        if self.record.intents() and not self.record.adopts:
            self._read_foreign()  # the process that was to create those pairs has ended

    def _read_foreign(self) -> None:
        self.record.foreign = foreign_records(self._label, self._boot, self._directory, home=self.home)

    def _catch_up(self) -> None:
        file = os.open(self._name, _READ, dir_fd=self._open_directory())
        try:
            self._read(file)
        finally:
            os.close(file)

    def _read(self, file: int) -> None:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
            what = f"belongs to the user {status.st_uid}" if stat.S_ISREG(status.st_mode) else "is not a regular file"
            raise UnsafeDirectory(f"{self.path} {what}: remove it", path=self.path, uid=status.st_uid)
        version = self._version_of(file, status)
        if version is None:
            self._whole, self._version = True, _Version()
            return
        if version == self._version and status.st_size >= self._offset:
            start = self._offset
        else:
            start = 0
            has_all = version.replaces(self._version) and not self._whole
            unwritten = [] if has_all else [*self.record.lines()]
            self.record = PairRecord(adopts=False)
            self.record.read(unwritten)
            self._whole = bool(unwritten) or not version.record
        lines, self._offset = _lines(file, start)
        self.record.read(lines)
        self._version = version

    def _version_of(self, file: int, status: os.stat_result) -> _Version | None:
        """Return which file it is; None if it does not describe the present host.

        It is then of another boot, another namespace or an unknown version.
        """
        first, second, *_ = [*os.pread(file, _BEGIN, 0).decode("utf-8", "replace").splitlines(keepends=True), "", ""]
        return _Version(status.st_ino, *read_record_id(second)) if first == self._header else None

    # --- writing

    def write(self, facts: Iterable[str]) -> None:
        """Append these lines, which the record already contains."""
        lines = [fact for fact in facts if fact]
        if not (lines or self._whole) or not self._writes:
            return
        try:
            with self._locked():
                if not self._whole:
                    self._append("".join(lines))
                if self._whole:
                    try:
                        self._catch_up()
                    except (OSError, VethError):
                        self._version = _Version()  # what cannot be read is replaced, by a new record
                if self._whole or self.record.facts > 2 * self.record.size + _SLACK:
                    self._write_whole()
            self._succeed()
        except (OSError, VethError) as error:
            self._whole = True
            self._fail(error)

    def due(self) -> float | None:
        """Return the seconds until :meth:`try_again` should be called; None if nothing has to be tried again."""
        return self._attempts.left(time.monotonic()) if self._is_behind else None

    def try_again(self) -> None:
        """Read or write again what failed or is missing in the file, if the pause after the last attempt is over."""
        if not self._is_behind or self._attempts.waits(time.monotonic()):
            return
        if not self._whole:
            self.refresh()
        self.write(())

    @property
    def _writes(self) -> bool:
        return not (self._in_memory or self._read_only)

    @property
    def _is_behind(self) -> bool:
        """Return whether the file lacks something, or has something that could not be read.

        It lacks nothing before the first observation: without a file, the next process adopts pairs by their marks.
        """
        if not (self._whole or self.problem):
            return False
        has_begun = self.record.size > 0 or not self.record.adopts
        return has_begun and self._writes

    def _append(self, text: str) -> None:
        try:
            file = os.open(self._name, _APPEND, dir_fd=self._open_directory())
        except FileNotFoundError:
            self._whole = True
            return
        try:
            status = os.fstat(file)
            if self._version_of(file, status) != self._version or status.st_size < self._offset:
                self._whole = True
                return
            if status.st_size != self._offset:
                # Lines of another process; or a torn line, which is ended here.
                lines, self._offset = _lines(file, self._offset)
                self.record.read(lines)
                if self._offset != status.st_size:
                    text = "\n" + text
            write_all(file, text.encode())
            self._offset = os.fstat(file).st_size
        finally:
            os.close(file)

    def _write_whole(self) -> None:
        """Rewrite it in one step: every reader finds the old file or the new one."""
        record, rewritten = self._version.record or os.urandom(8).hex(), self._version.rewritten + 1
        text = self._header + record_id(record, rewritten) + "".join(self.record.lines())
        directory = self._open_directory()
        remove_unfinished(directory)
        replacement = Replacement(self._name, directory=directory)
        try:
            written = replacement.write(text.encode(), mode=0o644)
            replacement.replace()
        except BaseException:
            replacement.discard()
            raise
        self._version, self._offset, self._whole = _Version(written.st_ino, record, rewritten), written.st_size, False
        self.record.facts = 1 + text.count("\n")

    @contextmanager
    def _locked(self) -> Iterator[None]:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        lock = os.open(f"{self._name}.lock", flags, 0o600, dir_fd=self._open_directory(make=True))
        try:
            _lock(lock)
            yield
        finally:
            os.close(lock)

    def _open_directory(self, *, make: bool = False) -> int:
        if self._at is not None and make and os.fstat(self._at).st_nlink == 0:
            self._close_directory()  # it was removed
        if self._at is None:
            if self._directory:
                if not make and not os.path.lexists(self._directory):
                    raise FileNotFoundError
                self._at = open_own(self._directory, make=make)
            elif make or os.path.isdir(os.path.join(base_directory(), self._label)):
                self._at = open_directory(self._label)
            else:
                raise FileNotFoundError
        return self._at

    def _fail(self, error: OSError | VethError) -> None:
        reason = str(error) if isinstance(error, VethError) else errno_text(error.errno or 0)
        self.problem = f"the record of built pairs is kept in memory only: {reason}"
        now = time.monotonic()
        if not self._attempts.waits(now):  # a busy process must not defer the next attempt with each of its own
            self._attempts.fail(now)

    def _succeed(self) -> None:
        if self.problem:
            self.problem = ""
            self._attempts.succeed()


def _lines(file: int, start: int) -> tuple[list[str], int]:
    """Return the whole lines of a file from `start` on, and where the last of them ends."""
    parts = []
    offset = start
    while part := os.pread(file, 1 << 20, offset):
        parts.append(part)
        offset += len(part)
    data = b"".join(parts)
    whole = data.rfind(b"\n") + 1
    return data[:whole].decode("utf-8", "replace").splitlines(keepends=True), start + whole


def _lock(lock: int) -> None:
    """Wait up to half a second for the lock; then continue without it."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                return
        time.sleep(0.002)
