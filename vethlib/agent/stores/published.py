"""Read the published statuses of an agent, and whether it is alive.

The agent of this host writes files to a directory, and is alive while it holds the lock of its name. In an etcd there
are keys for both.
"""

from __future__ import annotations

import json
import os
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol, TypeAlias

from vethlib.agent.config.jsontext import decode
from vethlib.agent.process.instance import running
from vethlib.agent.process.rundir import open_for_writing
from vethlib.follow.inotify import INotify, flags

from .agentfile import AgentReport, read_report
from .protocol import StoreError
from .reading import absolute, content
from .statuses import status_file

__all__ = ["BATCH", "Alive", "DirectoryStatuses", "Entry", "Published", "Statuses", "as_entry"]

Entry: TypeAlias = dict[str, Any]
"""The dict of :meth:`~vethlib.agent.status.Status.as_dict`; :class:`Published` describes additional keys."""

_LONGEST = 1 << 20  # bytes; no status has a tenth of this

BATCH = 0.1  # seconds during which changes are collected

_FIELDS: Mapping[str, tuple[type, ...]] = {
    "name": (str,),
    "state": (str,),
    "reason": (str,),
    "netns": (str,),
    "host_name": (str,),
    "ifindex": (int, type(None)),
    "peer": (str,),
    "since": (str,),
}
_MORE: Mapping[str, tuple[type, ...]] = {
    "code": (str,),  # older agents write neither this nor reasons
    "reasons": (list,),
    "warning": (str,),
    "warning_code": (str,),
    "warnings": (list,),
    "config_revision": (int,),
    "stored_revision": (int,),
}
_CHANGES = flags.MOVED_TO | flags.DELETE | flags.CLOSE_WRITE | flags.DELETE_SELF


@dataclass(frozen=True, slots=True)
class Alive:
    """A running agent: its process, its host ("" for this host), and its start in seconds since 1970, if known.

    `report` is its report on its store; None if there is none, and for an agent of an etcd.
    """

    pid: int
    host: str = ""
    since: float | None = None
    report: AgentReport | None = None


@dataclass(frozen=True, slots=True)
class Published:
    """The statuses by name, and the running `agent` that published them, or None.

    An entry from an etcd has a `config_revision`, the revision of the configuration that the status is about, and, if
    it could be read, a `stored_revision`, that of the present configuration; 0 means none. `untold` are the configured
    interfaces without a status. `others` are other agents of the same label that run at the same time. `home` is
    (st_dev, st_ino) of the namespace that an agent of this host calls home, whose abstract sockets only readers in the
    same namespace see; None if it is unknown.
    """

    entries: Mapping[str, Entry]
    agent: Alive | None
    untold: tuple[str, ...] = ()
    others: tuple[Alive, ...] = ()
    home: tuple[int, int] | None = None


class Statuses(Protocol):
    """The statuses published by the agent of one label.

    `place` is their location, `life` a phrase for messages about a running agent, such as "runs on this host".

    Both methods raise :class:`StoreError`.
    """

    place: str
    life: str

    def read(self) -> Published:
        """Return the present statuses."""

    def watch(self, interval: float | None) -> Generator[Published | StoreError, None, None]:
        """Yield the present statuses, again after each change, and after `interval` seconds without one.

        If the statuses become unreadable after the first time, it yields the error and continues to try.
        """


class DirectoryStatuses:
    """The statuses of an agent of this host, in a directory; see :class:`Statuses`."""

    def __init__(self, directory: str, label: str) -> None:
        self.place = directory
        self.life = "runs on this host"
        self._label = label

    def read(self) -> Published:
        """Return the present statuses; none if the directory is missing."""
        entries = filter(None, map(self._entry, self._files()))
        pid = running(self._label)
        report = read_report(self.place)
        agent = None if pid is None else Alive(pid, report=report)
        return Published(
            {entry["name"]: entry for entry in entries}, agent, home=None if report is None else report.home
        )

    def watch(self, interval: float | None) -> Generator[Published | StoreError, None, None]:
        """Yield the present statuses, and again after each change. Creates the directory if it is missing."""
        timeout = None if interval is None else round(interval * 1000)
        with INotify() as inotify:
            watched = -1
            while True:
                if watched < 0:
                    watched = _watch(inotify, self.place)
                yield self.read()
                for event in inotify.read(timeout=timeout, read_delay=round(BATCH * 1000)):
                    if event.mask & flags.IGNORED:
                        watched = -1  # somebody has removed the directory

    def _files(self) -> list[str]:
        try:
            names = os.listdir(self.place)
            os.stat(os.path.join(self.place, "."))  # with r but without x it can be listed, but has nothing to read
        except FileNotFoundError:
            return []
        except PermissionError as error:
            error.filename = self.place
            raise
        return [name for name in names if name.endswith(".json") and not name.startswith(".")]

    def _entry(self, file: str) -> Entry | None:
        try:
            status = content(os.path.join(self.place, file), None, follow=False, longest=_LONGEST)
        except OSError:
            return None  # it has just been removed, is not a regular file, or may not be read by this user
        entry = None if status is None else as_entry(status.raw)
        return entry if entry is not None and status_file(entry["name"]) == file else None


def _watch(inotify: INotify, path: str) -> int:
    try:
        directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        directory = open_for_writing(absolute(path))
    try:
        return int(inotify.add_watch(f"/proc/self/fd/{directory}", _CHANGES))
    finally:
        os.close(directory)


def as_entry(raw: bytes) -> Entry | None:
    """Parse a status; None if it is not one of an agent. Other users may be able to write anything there."""
    try:
        value = decode(raw)  # not nested too deeply to be printed
        if not isinstance(value, dict) or not _has_fields(value):
            return None
        value["name"].encode()
        json.dumps(value, allow_nan=False)  # nor has it a number that JSON cannot hold
        datetime.fromisoformat(value["since"]).timestamp()
    except (ValueError, OverflowError):
        return None
    return value


def _has_fields(value: Entry) -> bool:
    # type(), not isinstance(), because bool is an int.
    return (
        all(type(value.get(name, ())) in types for name, types in _FIELDS.items())
        and all(type(value[name]) in types for name, types in _MORE.items() if name in value)
        and all(isinstance(item, dict) and type(item.get("message")) is str for item in value.get("warnings", ()))
        and all(isinstance(item, dict) and type(item.get("code")) is str for item in value.get("reasons", ()))
    )
