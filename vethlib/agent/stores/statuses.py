"""Statuses as files: NAME.json in a directory, for whoever wants to know.

A reader never sees half a status: each is written beside its place and renamed into it. Nothing is flushed to the disk;
after a crash of the host no status is true any more.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping
from hashlib import blake2s

from vethlib.agent.state import State
from vethlib.agent.status import Status

from .protocol import StoreError
from .reading import Identity, content, file_names, identity, why

__all__ = ["StatusFiles", "status_file"]

_TEMPORARY = ".status"
_NAME_MAX = 255  # NAME_MAX, include/uapi/linux/limits.h


def status_file(name: str) -> str:
    """The file for a key, in which '/', a leading '.' and what is too long are written otherwise.

    No two keys share a file: what stands in their stead begins with '%', which no interface's name has.
    """
    text = name.replace("%", "%25").replace("/", "%2F").replace("\0", "%00")
    if text.startswith("."):
        text = f"%2E{text[1:]}"
    encoded = os.fsencode(text)
    if len(encoded) > _NAME_MAX - len(".json"):
        text = os.fsdecode(encoded[:200]) + f"%{blake2s(encoded, digest_size=8).hexdigest()}"
    return f"{text}.json"


class StatusFiles:
    """The status files of one agent. Those of interfaces that are no more are removed with the first publication."""

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self._path = os.path.join(os.getcwd(), os.fspath(directory))
        self._published: dict[str, Status] = {}
        self._waiting: dict[str, Status | None] = {}
        self._directory: Identity | None = None

    def publish(self, statuses: Mapping[str, Status | None]) -> None:
        """Write these, and what could not be written before. Raises StoreError."""
        self._waiting.update(statuses)
        try:
            self._publish()
        except OSError as error:
            reason = why(error)
            message = f"cannot write statuses to {self._path}: {reason}"
            raise StoreError(message, path=self._path, reason=reason, errno=error.errno) from error

    def _publish(self) -> None:
        directory = self._open()
        try:
            if identity(directory) != self._directory:
                # The first time, or somebody has removed the directory: then they are all to be written.
                self._waiting = {**self._published, **self._waiting}
                self._remove_former(directory)
                self._directory = identity(directory)
            for name in list(self._waiting):
                status = self._waiting[name]
                if status is None:
                    _remove(status_file(name), directory)
                    self._published.pop(name, None)
                else:
                    _write(status, status_file(name), directory)
                    self._published[name] = status
                del self._waiting[name]
        finally:
            os.close(directory)

    def _open(self) -> int:
        how = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        try:
            return os.open(self._path, how)
        except FileNotFoundError:
            os.makedirs(self._path, exist_ok=True)
            os.chmod(self._path, 0o755)
            self._directory = None  # a new one may have the old one's inode
            return os.open(self._path, how)

    def _remove_former(self, directory: int) -> None:
        """Remove the statuses of an earlier run that are not about to be written; nothing that is not a status."""
        wanted = {status_file(name) for name, status in self._waiting.items() if status is not None}
        _remove(_TEMPORARY, directory)
        for file in file_names(directory):
            if file not in wanted and _is_status(file, directory):
                _remove(file, directory)


def _write(status: Status, file: str, directory: int) -> None:
    how = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(_TEMPORARY, how, 0o644, dir_fd=directory), "wb", buffering=0) as temporary:
        os.fchmod(temporary.fileno(), 0o644)
        text = f"{json.dumps(status.as_dict())}\n".encode()
        if temporary.write(text) != len(text):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    os.rename(_TEMPORARY, file, src_dir_fd=directory, dst_dir_fd=directory)


def _remove(file: str, directory: int) -> None:
    try:
        os.unlink(file, dir_fd=directory)
    except FileNotFoundError:
        pass


def _is_status(file: str, directory: int) -> bool:
    """Whether a file is one of ours, which is what its name and its content say then."""
    try:
        found = content(file, directory, follow=False)
        value = {} if found is None else json.loads(found.raw)
        return value["state"] in State.__members__ and file == status_file(value["name"])
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return False
