"""Publish statuses as files: NAME.json in a directory.

A reader never sees half a status: each is written beside its path and renamed into place. Nothing is flushed to the
disk, because no status is true after a crash of the host.

If only some files cannot be written, because a directory has the name of one or the file system takes no name of that
length, the others are. That is logged once and tried again, with pauses of its own.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import re
from collections.abc import Mapping
from hashlib import blake2s

from vethlib._files import Replacement, is_unfinished
from vethlib._nl.wire import decoded, encoded, to_system
from vethlib._primitives import time
from vethlib._trusted import who_else_writes
from vethlib.agent.attempts import Attempts
from vethlib.agent.config.filecontent import content
from vethlib.agent.state import State
from vethlib.agent.status import Status

from .directories import Identity, absolute, check_answer, file_names, identity, why
from .protocol import StoreError
from .statusdirectory import opener

__all__ = ["StatusFiles", "status_file"]

_log = logging.getLogger("vethlib.agent")

_FORMER_TEMPORARY = ".status"  # suffix used by vethlib 0.1.0
_LONE = re.compile("[\ud800-\udc7f\udd00-\udfff]")  # surrogates that represent no byte of a file name (PEP 383)
_LONGEST = 1 << 20  # bytes; no status has a tenth of this
_NAME_MAX = 255  # NAME_MAX, include/uapi/linux/limits.h

# Errors of renaming and removing that other names in the directory would have, too.
_OF_ALL = (errno.EDQUOT, errno.EIO, errno.ENOENT, errno.ENOMEM, errno.ENOSPC, errno.EROFS, errno.ESTALE)


class _NameRefused(OSError):
    """A file cannot have this name, or the one that has it cannot be replaced; the directory can be used."""


def status_file(name: str) -> str:
    """Return the file name for a key: '/', a leading '.' and the end of a long key are replaced.

    No two keys share a file, because each replacement begins with '%', which is in no interface name.
    """
    text = name.replace("%", "%25").replace("/", "%2F").replace("\0", "%00")
    if text.startswith("."):
        text = f"%2E{text[1:]}"
    text = _LONE.sub(lambda match: f"%u{ord(match[0]):04x}", text)
    whole = encoded(text)
    if len(whole) > _NAME_MAX - len(".json"):
        text = f"{decoded(whole[:200])}%{blake2s(whole, digest_size=8).hexdigest()}"
    return to_system(f"{text}.json")


class StatusFiles:
    """The status files of one agent. The first publication removes the files of former interfaces."""

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self._opened = opener(directory)
        self._path = absolute(directory)
        self._published: dict[str, Status] = {}
        self._waiting: dict[str, Status | None] = {}
        self._directory: Identity | None = None
        self._refused: set[str] = set()  # statuses that only try_again() tries to write
        self._attempts = Attempts()  # the attempts of try_again()

    def publish(self, statuses: Mapping[str, Status | None]) -> None:
        """Write these statuses, and those that could not be written before. Raises StoreError.

        An error that belongs to one file is not raised; see :meth:`try_again`.
        """
        self._waiting.update(statuses)
        try:
            self._publish()
        except OSError as error:
            reason = why(error)
            message = f"cannot write statuses to {self._path}: {reason}"
            raise StoreError(message, path=self._path, reason=reason, errno=error.errno) from error

    def due(self) -> float | None:
        """Return the seconds until :meth:`try_again` should be called; None if everything is written."""
        return self._attempts.left(time.monotonic()) if self._waiting else None

    def try_again(self) -> None:
        """Write what could not be written before, if the pause after the last attempt is over. Raises nothing."""
        now = time.monotonic()
        if not self._waiting or self._attempts.waits(now):
            return
        self._attempts.fail(now)
        try:
            self._publish(again=True)
        except OSError as error:  # the next publication raises it, too
            _log.debug("statuses cannot be written to %s", self._path, exc_info=error)

    def _publish(self, *, again: bool = False) -> None:
        directory = self._open()
        try:
            if identity(directory) != self._directory or self._is_emptied(directory):
                # This is the first publication, or somebody has removed the directory: write all statuses.
                self._waiting = {**self._published, **self._waiting}
                self._remove_former(directory)
                self._directory = identity(directory)
                self._refused.clear()
            names = [name for name in self._waiting if again or name not in self._refused]
            errors = {name: error for name in names if (error := self._publish_one(name, directory)) is not None}
        finally:
            os.close(directory)
        refused = {name for name, error in errors.items() if isinstance(error, _NameRefused)}
        if new := sorted(refused - self._refused):
            self._attempts.succeed()
            self._attempts.fail(time.monotonic())
            more = f" (and {len(new) - 1} more)" if len(new) > 1 else ""
            text = "the status of %r%s cannot be written to %s: %s"
            _log.warning(text, new[0], more, self._path, why(errors[new[0]]))
        self._refused = self._refused.difference(names) | refused
        if not self._waiting:
            self._attempts.succeed()
        for error in errors.values():
            if not isinstance(error, _NameRefused):
                raise error

    def _publish_one(self, name: str, directory: int) -> OSError | None:
        """Write or remove one status; return the error if trying again may help, as when a directory has its name.

        A status that cannot be formatted at all is left out, and does not prevent the others.
        """
        status = self._waiting[name]
        try:
            if status is None:
                self._published.pop(name, None)
                _remove(status_file(name), directory)
            else:
                _write(status, status_file(name), directory)
                self._published[name] = status
        except OSError as error:
            return error
        except Exception as error:
            _log.debug("the status of %r cannot be written", name, exc_info=error)
        del self._waiting[name]
        return None

    def _is_emptied(self, directory: int) -> bool:
        """Return whether a published status is missing: a new directory may have the same inode number."""
        name = next(iter(self._published), None)
        if name is None:
            return False
        try:
            os.stat(status_file(name), dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError:
            return True
        return False

    def _open(self) -> int:
        check_answer(self._path)
        if not os.path.lexists(self._path):
            self._directory = None
        directory = self._opened()
        if self._directory is None and (others := who_else_writes(os.fstat(directory))):
            _log.warning("statuses may be forged: %s can write to %s", others, self._path)
        return directory

    def _remove_former(self, directory: int) -> None:
        """Remove the statuses of an earlier run that are not about to be written, and no other files."""
        kept = {status_file(name) for name, status in self._waiting.items() if status is not None}
        temporary = [file for file in os.listdir(directory) if file == _FORMER_TEMPORARY or is_unfinished(file)]
        former = (file for file in file_names(directory) if file not in kept and _is_status(file, directory))
        for file in (*temporary, *former):
            try:
                _remove(file, directory)
            except _NameRefused as error:
                _log.warning("%s of an earlier run cannot be removed: %s", os.path.join(self._path, file), why(error))


def _write(status: Status, file: str, directory: int) -> None:
    replacement = Replacement(file, directory=directory)
    try:
        replacement.write(f"{json.dumps(status.as_dict())}\n".encode())
        _rename(replacement)
    except BaseException:
        replacement.discard()
        raise


def _rename(replacement: Replacement) -> None:
    try:
        replacement.replace()
    except OSError as error:
        if error.errno in _OF_ALL:
            raise
        raise _NameRefused(*error.args) from error


def _remove(file: str, directory: int) -> None:
    try:
        os.unlink(file, dir_fd=directory)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EISDIR, errno.ENAMETOOLONG):
            return  # there is no such file
        if error.errno in (*_OF_ALL, errno.EACCES):
            raise
        raise _NameRefused(*error.args) from error


def _is_status(file: str, directory: int) -> bool:
    """Return whether a file is a status, by its name and content."""
    try:
        status = content(file, directory, follow=False, longest=_LONGEST)
        value = {} if status is None else json.loads(status.raw)
        return value["state"] in State.__members__ and file == status_file(value["name"])
    except Exception:  # other users may have put anything there
        return False
