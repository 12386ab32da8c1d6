"""The directory of an agent's statuses, which no other agent uses meanwhile."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Final

from vethlib import ns
from vethlib._locks import holders, locked, remove
from vethlib._primitives import time
from vethlib.agent.process.rundir import base_directories, open_base, open_for_writing, status_directories
from vethlib.errors import InvalidValue
from vethlib.ns.descriptor import HERE
from vethlib.ns.opening import shown_identity

from .agentreport import read_report
from .directories import Identity, absolute, check_answer, identity

__all__ = ["StatusDirectory", "is_in_use", "opener"]

_GUARD: Final = "guard@status.lock"
_PATIENCE: Final = 5.0  # seconds for the guard, which is held for some system calls


class StatusDirectory:
    """The directory of the statuses of the agent of a label, which no other agent uses until :meth:`close`.

    It is the `given` one, or else /run/vethlib/LABEL/status; if that is used by the agent of the same label in another
    network namespace, or has its statuses, one beside it. The lock is not in the directory itself, because an open file
    would prevent an unmount. If somebody removes the directory, :meth:`open` creates and locks another one in its
    place. Raises InvalidValue for `given` if another agent uses it.
    """

    def __init__(self, label: str, given: str = "") -> None:
        self._lock: _Lock | None = None  # None if it cannot be locked
        own, usual = status_directories(label)
        if given:
            self.path = absolute(given)
            if not self._take(self.path):
                hint = f"is used by {_user_of(self.path)}, which runs: give each agent a directory of its own"
                raise InvalidValue("--status-dir", given, hint)
        elif os.path.isdir(own) or _is_of_another_host(usual) or not self._take(usual):
            self.path = own
            self._take(own)
        else:
            self.path = usual

    def close(self) -> None:
        """Let other agents use the directory; a forked child only closes its copies of the descriptors."""
        if self._lock is not None:
            self._lock.close()
        self._lock = None

    def __fspath__(self) -> str:
        return self.path

    def open(self) -> int:
        """Open the directory, which is created and locked again if somebody has removed it; the caller closes it.

        Raises OSError, also if another agent uses it by now.
        """
        check_answer(self.path)
        directory = open_for_writing(self.path)
        if self._lock_now(self.path, identity(directory)):
            return directory
        os.close(directory)
        raise OSError(errno.EBUSY, f"it is used by {_user_of(self.path)}, which runs")

    def _take(self, path: str) -> bool:
        """Lock a directory, as far as that is possible; return False if another agent has locked it."""
        try:
            check_answer(path)
            directory = open_for_writing(path)
        except OSError:
            return True  # reported when the statuses are written
        try:
            return self._lock_now(path, identity(directory))
        finally:
            os.close(directory)

    def _lock_now(self, path: str, directory: Identity) -> bool:
        """Lock a directory instead of the former one. Return False if another agent has locked it."""
        if self._lock is not None and self._lock.directory == directory and self._lock.is_held:
            return True
        try:
            lock = _Lock(path, directory)
        except OSError as error:
            return not isinstance(error, BlockingIOError)
        self.close()
        self._lock = lock
        return True


class _Lock:
    """The lock of a directory of statuses: a file below the directory for all agents, with the path of its holder.

    An agent that has lost the directory, because that was moved or removed, may hold the lock until it writes its next
    status; by then, another directory may have the same inode number. Such a lock is replaced. Raises BlockingIOError
    if another agent uses the directory, and OSError if it cannot be locked.
    """

    def __init__(self, path: str, directory: Identity) -> None:
        self.directory = directory
        self._maker = os.getpid()
        self._name = _name_of(directory)
        self._base = open_base()
        try:
            with _guarded(self._base):
                try:
                    self._file = locked(self._name, self._base)
                except BlockingIOError:
                    if not _is_lost(self._name, self._base, directory):
                        raise
                    remove(self._name, self._base)
                    self._file = locked(self._name, self._base)
                with suppress(OSError):
                    os.ftruncate(self._file, 0)  # a killed agent has left it
                    os.pwrite(self._file, os.fsencode(path), 0)
        except BaseException:
            os.close(self._base)
            raise

    @property
    def is_held(self) -> bool:
        """Whether no other agent has replaced the lock."""
        try:
            return os.path.samestat(os.fstat(self._file), os.stat(self._name, dir_fd=self._base))
        except OSError:
            return False

    def close(self) -> None:
        """Release the lock; a forked child only closes its copies of the descriptors."""
        if self._maker == os.getpid():
            with suppress(OSError), _guarded(self._base):
                if self.is_held:
                    os.unlink(self._name, dir_fd=self._base)  # before the lock is released
        os.close(self._file)
        os.close(self._base)


@contextmanager
def _guarded(base: int) -> Iterator[None]:
    """Let no other agent lock or release a directory meanwhile. Raises BlockingIOError if one takes too long."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            guard = locked(_GUARD, base)
            break
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.01)
    try:
        yield
    finally:
        with suppress(OSError):
            os.unlink(_GUARD, dir_fd=base)  # before the lock is released
        os.close(guard)


def _is_lost(name: str, base: int, directory: Identity) -> bool:
    """Return whether the path of the agent that holds a lock leads to another directory by now, or nowhere.

    A process in another mount namespace may mean another directory by that path, so that nothing is known of it.
    """
    try:
        with open(os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=base), "rb") as file:
            path, held_by = file.read(), holders(file.fileno())
        if not path or not held_by or not all(_sees_the_same(pid) for pid, _ in held_by):
            return False
        status = os.stat(path)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return (status.st_dev, status.st_ino) != directory


def _sees_the_same(process: int) -> bool:
    """Return whether paths lead a process to the same files as this one."""
    return all(
        os.path.samestat(os.stat(f"/proc/{process}/{what}"), os.stat(f"/proc/self/{what}"))
        for what in ("ns/mnt", "root")
    )


def opener(directory: str | os.PathLike[str]) -> Callable[[], int]:
    """Return a function that opens a directory for writing; for one of these, :meth:`StatusDirectory.open`."""
    return directory.open if isinstance(directory, StatusDirectory) else partial(_open, absolute(directory))


def _open(path: str) -> int:
    check_answer(path)
    return open_for_writing(path)


def _user_of(directory: str) -> str:
    report = read_report(directory)
    return f"the agent with the label {report.label}" if report and report.label else "another agent"


def _name_of(directory: Identity) -> str:
    """Return the name of the lock of a directory of statuses, below the directory for all agents."""
    dev, ino = directory
    return f"{dev}.{ino}@status.lock"


def is_in_use(directory: str) -> bool:
    """Return whether an agent that runs has locked a directory of statuses, as far as this process can see."""
    try:
        status = os.stat(directory)
    except OSError:
        return False  # it has just been removed
    name = _name_of((status.st_dev, status.st_ino))
    for base in base_directories():
        with suppress(OSError):
            lock = os.open(os.path.join(base, name), os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                if holders(lock):
                    return True
            finally:
                os.close(lock)
    return False


def _is_of_another_host(directory: str) -> bool:
    """Return whether the last agent that used a directory had another home than this process, which still exists."""
    report, here = read_report(directory), shown_identity(HERE)
    return report is not None and report.home not in (None, here) and bool(ns.find([report.home]))
