"""The note, beside the statuses, of which file system has the files of a store, for the next run.

That run compares an empty directory with it (:mod:`.directory`, 8), so without the note it may delete every pair. If
the note cannot be written, that is tried again; if somebody has removed it, it is written again with the next statuses.
Both happen at the latest when the store is closed.
"""

from __future__ import annotations

import json
import logging
import os

from vethlib._files import write_whole
from vethlib._primitives import time
from vethlib.agent.attempts import Attempts
from vethlib.agent.config.filecontent import content
from vethlib.agent.stores.directories import absolute, check_answer, why
from vethlib.agent.stores.statusdirectory import opener

__all__ = ["DeviceNote"]

_FILE = ".store"  # no name of a status
_LONGEST = 1 << 16  # bytes; other users may be able to write anything there

_log = logging.getLogger("vethlib.agent")


class DeviceNote:
    """Which file system has the files of the store at `path`: `device`, in this run or the last; None if it has none.

    It is noted in `status_dir`; with None, it is only remembered. No method raises anything.
    """

    def __init__(self, status_dir: str | os.PathLike[str] | None, path: str) -> None:
        self._directory = "" if status_dir is None else absolute(status_dir)
        self._opened = None if status_dir is None else opener(status_dir)
        self._path = path
        self._file = os.path.join(self._directory, _FILE)
        self._attempts = Attempts()
        self._pid = os.getpid()
        self._creates = True  # the directory, if it is missing: until statuses are published there
        self.device = self._read() if self._directory else None

    def set(self, device: int | None) -> None:
        """Note this device, if it is another one."""
        if device != self.device:
            self.device = device
            self._write()

    def published(self) -> None:
        """Write the note again, beside statuses just published, if it could not be written or was removed."""
        self._creates = True
        if self._is_missing():
            self._write()
        self._creates = False

    def due(self) -> float | None:
        """Return the seconds until :meth:`try_again` should be called; None if the note is written."""
        return self._attempts.left(time.monotonic()) if self._attempts.failed else None

    def try_again(self) -> None:
        """Write the note if the last attempt failed and the pause after it is over."""
        if self._attempts.take(time.monotonic()):
            self._write()

    def close(self) -> None:
        """Write the note if it is missing, even if that creates its directory again."""
        if self._pid == os.getpid():  # what a forked child knows may be outdated
            self.published()

    def _is_missing(self) -> bool:
        if not self._directory:
            return False
        if self._attempts.failed or self.device is None:
            return self._attempts.failed > 0
        try:
            check_answer(self._directory)
        except OSError:
            return False  # it will be seen when it answers again
        return not os.path.lexists(self._file)

    def _read(self) -> int | None:
        """Return what the last run has noted for this path; None if there is nothing that can be understood."""
        try:
            check_answer(self._directory)
            file = content(self._file, None, follow=False, longest=_LONGEST)
            value = {} if file is None else json.loads(file.raw)
            device = value["device"] if value["path"] == self._path else None
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None
        return device if type(device) is int else None

    def _write(self) -> None:
        if self._opened is None:
            return
        try:
            check_answer(self._directory)
            if not self._creates:
                # If the note created a removed directory, StatusFiles might take it for the former one, in which all
                # statuses are written, because it may have the same inode number.
                os.stat(self._directory)
            directory = self._opened()
            try:
                note = {"path": self._path, "device": self.device}
                write_whole(_FILE, f"{json.dumps(note)}\n".encode(), directory=directory)
            finally:
                os.close(directory)
        except OSError as error:
            if not self._attempts.failed and (self._creates or not isinstance(error, FileNotFoundError)):
                text = "%s cannot be written: %s; without it, a start before the file system of %s is mounted deletes "
                text += "all its pairs"
                _log.warning(text, self._file, why(error), self._path)
            self._attempts.fail(time.monotonic())
        else:
            self._attempts.succeed()
