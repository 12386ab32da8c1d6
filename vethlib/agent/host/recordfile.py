"""The file of the record: its format, and how processes of one label share it.

It is /run/vethlib/LABEL/pairs.INODE, with the home namespace's inode: only the agent's user may write there, it does
not outlive a boot, and two hosts that share a /run, each in its own network namespace, have separate files.

1. Facts are appended, with one write for many. A process that is killed leaves at most a torn last line.
2. A writer holds the lock (flock, on a file next to it) and has read what others have appended before. It waits half a
   second for the lock: a process that holds it longer is stopped, and appending without it can lose one line at most.
3. When most lines are outdated, the file is rewritten and renamed into its place, which others notice.
4. If a write fails, the record is kept in memory, `problem` has the reason, and the next write tries to write all of
   it.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final

from vethlib._closing import Closing
from vethlib._files import Replacement, write_all
from vethlib._primitives import time
from vethlib.agent.config.mark import check_label
from vethlib.agent.planning.observed import NetnsId
from vethlib.agent.planning.recorded import PairRecord, header
from vethlib.agent.process.rundir import UnsafeDirectory, base_directory, open_directory, open_own
from vethlib.errors import VethError, errno_text
from vethlib.session import Session

__all__ = ["RecordFile"]

_BOOT_ID: Final = "/proc/sys/kernel/random/boot_id"
_PATIENCE: Final = 0.5  # seconds for the lock; it is held for a millisecond, or 30 of them to rewrite the file
_SLACK: Final = 512  # outdated lines that are no reason to rewrite the file
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_APPEND: Final = os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


class RecordFile(Closing):
    """The record of a label in the session's home namespace, and its file.

    `directory` contains the file: None for the directory of the label below /run/vethlib, "" to keep the record in
    memory only. With `read_only`, nothing is written. Problems of the file raise nothing: `problem` describes them, ""
    if there are none. Close it, or use it in a ``with`` statement.
    """

    def __init__(self, session: Session, label: str, directory: str | None = None, *, read_only: bool = False) -> None:
        self._label = check_label(label)
        self.home: NetnsId = session.identity("")
        self._header = header(label, _boot_id(), self.home, session.cookie(""))
        self._name = f"pairs.{self.home[1]}"
        self._directory = directory
        self._read_only = read_only
        self._in_memory = directory == ""
        self._at: int | None = None  # a descriptor of the directory
        self._inode = 0  # of the file that was read last
        self._offset = 0  # up to which it was read
        self._whole = True  # the next write has to write everything
        self.problem = ""
        self.record = PairRecord()
        self.refresh()

    @property
    def label(self) -> str:
        """The label of the agent whose pairs it has."""
        return self._label

    def close(self) -> None:
        """Close the directory. Closing twice is harmless."""
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
    def version(self) -> tuple[int, int, int]:
        """Return a value that changes with the record, whoever changes it."""
        return self._inode, self._offset, self.record.facts

    # --- reading

    def refresh(self) -> None:
        """Apply what other processes have written since the last call."""
        if self._in_memory:
            return
        try:
            self._catch_up()
        except FileNotFoundError:
            self._whole = True  # it does not exist yet, or was removed
        except (OSError, VethError) as error:
            self._fail(error)

    def _catch_up(self) -> None:
        status = os.stat(self._name, dir_fd=self._open_directory(), follow_symlinks=False)
        if status.st_ino == self._inode and status.st_size == self._offset:
            return
        file = os.open(self._name, _READ, dir_fd=self._at)
        try:
            self._read(file)
        finally:
            os.close(file)

    def _read(self, file: int) -> None:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
            what = f"belongs to the user {status.st_uid}" if stat.S_ISREG(status.st_mode) else "is not a regular file"
            raise UnsafeDirectory(f"{self.path} {what}: remove it", path=self.path, uid=status.st_uid)
        start = self._offset if status.st_ino == self._inode and self._offset <= status.st_size else 0
        lines, end = _lines(file, start)
        if start == 0:
            if not lines or lines[0] != self._header:
                # Of another boot, another namespace or an unknown version: it does not describe the present host.
                self._whole = True
                return
            self.record = PairRecord(adopts=False)
            lines = lines[1:]
        self.record.read(lines)
        self._inode, self._offset, self._whole = status.st_ino, end, False

    # --- writing

    def write(self, facts: Iterable[str]) -> None:
        """Append these lines, which the record already contains."""
        lines = [fact for fact in facts if fact]
        if self._in_memory or self._read_only or not (lines or self._whole):
            return
        try:
            with self._locked():
                if not self._whole:
                    self._append("".join(lines))
                if self._whole or self.record.facts > 2 * self.record.size + _SLACK:
                    self._write_whole()
            self.problem = ""
        except (OSError, VethError) as error:
            self._whole = True
            self._fail(error)

    def _append(self, text: str) -> None:
        try:
            file = os.open(self._name, _APPEND, dir_fd=self._open_directory())
        except FileNotFoundError:
            self._whole = True
            return
        try:
            status = os.fstat(file)
            if status.st_ino != self._inode or status.st_size < self._offset:
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
        text = self._header + "".join(self.record.lines())
        replacement = Replacement(self._name, directory=self._open_directory())
        try:
            written = replacement.write(text.encode(), mode=0o644)
            replacement.replace()
        except BaseException:
            replacement.discard()
            raise
        self._inode, self._offset, self._whole = written.st_ino, written.st_size, False
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
            self.close()  # it was removed
        if self._at is None:
            if self._directory:
                self._at = open_own(self._directory, make=make)
            elif make or os.path.isdir(os.path.join(base_directory(), self._label)):
                self._at = open_directory(self._label)
            else:
                raise FileNotFoundError
        return self._at

    def _fail(self, error: OSError | VethError) -> None:
        reason = str(error) if isinstance(error, VethError) else errno_text(error.errno or 0)
        self.problem = f"the record of built pairs is kept in memory only: {reason}"


def _boot_id() -> str:
    try:
        with open(_BOOT_ID, encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


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
