"""Read the published statuses of an agent, and whether it is alive.

The agent of this host writes files to a directory, and is alive while it holds the lock of its name. In an etcd there
are keys for both.
"""

from __future__ import annotations

import json
import os
from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol, TypeAlias

from vethlib.agent.config.filecontent import content
from vethlib.agent.config.jsontext import decode
from vethlib.agent.process.instance import running
from vethlib.agent.process.rundir import open_for_writing
from vethlib.agent.progress import ProgressCallback, reported
from vethlib.errors import is_exhaustion
from vethlib.follow.inotify import INotify, flags
from vethlib.ns.descriptor import HERE
from vethlib.ns.opening import shown_identity

from .agentreport import AgentReport, read_report
from .directories import Identity, absolute, check_answer, identity
from .protocol import StoreError
from .statusdirectory import is_in_use
from .statuses import status_file

__all__ = ["BATCH", "Alive", "DirectoryStatuses", "Entry", "Published", "Statuses", "as_entry"]

Entry: TypeAlias = dict[str, Any]
"""The dict of :meth:`~vethlib.agent.status.Status.as_dict`; :class:`Published` describes additional keys."""

_LONGEST = 1 << 20  # bytes; no status has a tenth of this

BATCH = 0.1  # seconds during which changes are collected

_LOOK = 1.0  # seconds between two checks for the agent, whose end causes no event

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
_CHANGES = flags.MOVED_TO | flags.DELETE | flags.CLOSE_WRITE | flags.ATTRIB | flags.DELETE_SELF


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
    same namespace see; None if it is unknown. `is_elsewhere` is whether that agent runs with another home than ours.
    """

    entries: Mapping[str, Entry]
    agent: Alive | None
    untold: tuple[str, ...] = ()
    others: tuple[Alive, ...] = ()
    home: tuple[int, int] | None = None
    is_elsewhere: bool = False

    @property
    def current(self) -> Mapping[str, Entry]:
        """The statuses of an agent that runs; none before it has published a status of each interface.

        Namespaces and ifindexes in other statuses may be those of foreign links by now.
        """
        if self.is_of_earlier_run or (self.agent is None and not self.is_elsewhere):
            return {}
        return self.entries

    @property
    def is_of_earlier_run(self) -> bool:
        """Whether an agent runs that has not published a status of each interface yet."""
        report = None if self.agent is None else self.agent.report
        return report is not None and not report.ready


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

    def __init__(self, directory: str, label: str, progress: ProgressCallback | None = None) -> None:
        self.place = directory
        self._progress = progress
        self.life = "runs on this host"
        self._label = label
        self._entries: dict[str, Entry] = {}  # by file, as last read

    def read(self, changed: Iterable[str] | None = None) -> Published:
        """Return the present statuses; none if the directory is missing, or another agent's.

        Without an agent here, they may be those of an agent of the label that has another `home`. If only some files
        have `changed` since the last call, no others are read. Raises OSError if no descriptor is left, if the
        directory may not be read, or if its file system does not answer.
        """
        check_answer(self.place)
        if changed is None:
            changed, self._entries = self._files(), {}
        for file in reported("read", [*filter(_is_status, changed)], self._progress):
            entry = self._entry(file)
            if entry is None:
                self._check_access()
                self._entries.pop(file, None)
            else:
                self._entries[file] = entry
        pid = running(self._label)
        report = read_report(self.place)
        if report is not None and not report.is_of(self._label, None if pid is None else shown_identity(HERE)):
            return Published({}, None if pid is None else Alive(pid))
        agent = None if pid is None else Alive(pid, report=report)
        home = None if report is None else report.home
        is_elsewhere = pid is None and report is not None and self._is_of_another_home(report)
        entries = {entry["name"]: entry for entry in self._entries.values()}
        return Published(entries, agent, home=home, is_elsewhere=is_elsewhere)

    def watch(self, interval: float | None) -> Generator[Published | StoreError, None, None]:
        """Yield the present statuses, and again after each change. Creates the directory if it is missing.

        The start and the end of the agent also count as changes; they may be noticed a second late.
        """
        timeout = round(1000 * (_LOOK if interval is None else interval))
        with INotify() as inotify:
            watched: Identity | None = None
            changed: set[str] | None = None
            while True:
                if watched is None:
                    watched, changed = _watch(inotify, self.place), None
                published = self.read(changed)
                yield published
                pid = None if published.agent is None else published.agent.pid
                events = inotify.read(timeout=timeout, read_delay=round(BATCH * 1000))
                while interval is None and not events and running(self._label) == pid:
                    events = inotify.read(timeout=timeout, read_delay=round(BATCH * 1000))
                names = {event.name for event in events}
                changed = None if "" in names else names  # events were lost, or are about the directory itself
                if any(event.mask & flags.IGNORED for event in events) or not _is_at(self.place, watched):
                    watched = None  # somebody has removed or replaced the directory

    def _is_of_another_home(self, report: AgentReport) -> bool:
        """Return whether the statuses are all of an agent that runs, but not here."""
        return report.ready and report.home not in (None, shown_identity(HERE)) and is_in_use(self.place)

    def _files(self) -> list[str]:
        try:
            names = os.listdir(self.place)
        except FileNotFoundError:
            return []
        self._check_access()  # with r but without x, the directory can be listed, but nothing in it can be read
        return names

    def _check_access(self) -> None:
        """Raise PermissionError if no file of the directory can be read, which may have lost its permissions."""
        try:
            os.stat(os.path.join(self.place, "."))
        except FileNotFoundError:
            pass
        except PermissionError as error:
            error.filename = self.place
            raise

    def _entry(self, file: str) -> Entry | None:
        try:
            status = content(os.path.join(self.place, file), None, follow=False, longest=_LONGEST)
        except OSError as error:
            if is_exhaustion(error):
                raise
            return None  # it has just been removed, is not a regular file, or may not be read by this user
        entry = None if status is None else as_entry(status.raw)
        return entry if entry is not None and status_file(entry["name"]) == file else None


def _is_status(file: str) -> bool:
    return file.endswith(".json") and not file.startswith(".")


def _watch(inotify: INotify, path: str) -> Identity:
    """Watch the directory, which is created if it is missing, and return its identity."""
    try:
        directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        directory = open_for_writing(absolute(path))
    try:
        inotify.add_watch(f"/proc/self/fd/{directory}", _CHANGES)
        return identity(directory)
    finally:
        os.close(directory)


def _is_at(path: str, known: Identity) -> bool:
    try:
        status = os.stat(path)
    except OSError:
        return False
    return (status.st_dev, status.st_ino) == known


def as_entry(raw: bytes) -> Entry | None:
    """Parse a status; None if it is not one of an agent. Other users may be able to write anything there."""
    try:
        value = decode(raw)  # not nested too deeply to be printed
        if not isinstance(value, dict) or not _has_fields(value):
            return None
        value["name"].encode()
        json.dumps(value, allow_nan=False)  # raises ValueError for a number that JSON cannot hold
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
