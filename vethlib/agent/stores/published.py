"""What an agent has said of its interfaces, and whether it is alive: for whoever asks, and from where it was left.

The agent of this host leaves files in a directory, and is alive while it holds its name; in an etcd there are keys for
both.
"""

from __future__ import annotations

import json
import os
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol, TypeAlias

from vethlib.agent.inotify import INotify, flags
from vethlib.agent.instance import running

from .agentfile import Said, read_said
from .protocol import StoreError
from .statuses import status_file

__all__ = ["BATCH", "Alive", "DirectoryStatuses", "Entry", "Published", "Statuses", "as_entry"]

Entry: TypeAlias = dict[str, Any]
"""A status, as :meth:`~vethlib.agent.status.Status.as_dict` has it; see :class:`Published` for what may be added."""

BATCH = 0.1  # seconds: many changes are one picture

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
_MORE: Mapping[str, tuple[type, ...]] = {"warning": (str,), "config_revision": (int,), "stored_revision": (int,)}
_CHANGES = flags.MOVED_TO | flags.DELETE | flags.CLOSE_WRITE | flags.DELETE_SELF


@dataclass(frozen=True, slots=True)
class Alive:
    """An agent that runs: its process, on which host (of another one), and since when, in seconds since 1970.

    `said` is what it says of its store; None if it says nothing, and for one of an etcd, which has the status itself.
    """

    pid: int
    host: str = ""
    since: float | None = None
    said: Said | None = None


@dataclass(frozen=True, slots=True)
class Published:
    """The statuses by name, and who is there to answer for them; `agent` is None if nobody is.

    An entry from an etcd has a `config_revision`, that of the configuration of which it speaks, and, where it could
    be read, a `stored_revision`, that of the configuration as it is; 0 is that of none. `untold` are those that are
    configured, and of which nothing is said. `others` are agents of the same label that run elsewhere at the same time.
    """

    entries: Mapping[str, Entry]
    agent: Alive | None
    untold: tuple[str, ...] = ()
    others: tuple[Alive, ...] = ()


class Statuses(Protocol):
    """What the agent of one label says. `place` is where it is written, `life` what an agent that is alive does.

    Both methods raise :class:`StoreError`.
    """

    place: str
    life: str

    def read(self) -> Published:
        """What is said now."""

    def watch(self, interval: float | None) -> Generator[Published | StoreError, None, None]:
        """What is said now, and again whenever that changes, and after so many seconds.

        An error is told where what was read before cannot be read any more; it goes on to be tried.
        """


class DirectoryStatuses:
    """What the agent of this host says, in a directory; see :class:`Statuses`."""

    def __init__(self, directory: str, label: str) -> None:
        self.place = directory
        self.life = "runs on this host"
        self._label = label

    def read(self) -> Published:
        """What is said now; nothing, if there is no directory."""
        entries = filter(None, map(self._entry, self._files()))
        pid = running(self._label)
        agent = None if pid is None else Alive(pid, said=read_said(self.place))
        return Published({entry["name"]: entry for entry in entries}, agent)

    def watch(self, interval: float | None) -> Generator[Published | StoreError, None, None]:
        """What is said now, and again whenever something changes. Makes the directory."""
        timeout = None if interval is None else round(interval * 1000)
        with INotify() as inotify:
            watched = -1
            while True:
                if watched < 0:
                    os.makedirs(self.place, exist_ok=True)
                    watched = inotify.add_watch(self.place, _CHANGES)
                yield self.read()
                for event in inotify.read(timeout=timeout, read_delay=round(BATCH * 1000)):
                    if event.mask & flags.IGNORED:
                        watched = -1  # somebody has removed the directory

    def _files(self) -> list[str]:
        try:
            return [name for name in os.listdir(self.place) if name.endswith(".json") and not name.startswith(".")]
        except FileNotFoundError:
            return []

    def _entry(self, file: str) -> Entry | None:
        try:
            with open(os.path.join(self.place, file), "rb") as found:
                entry = as_entry(found.read())
        except FileNotFoundError:
            return None  # it went away just now
        return entry if entry is not None and status_file(entry["name"]) == file else None


def as_entry(raw: bytes) -> Entry | None:
    """The status that some bytes are; None if they are none of an agent's. Who may write there may write anything."""
    try:
        value = json.loads(raw)
        if not isinstance(value, dict) or not _has_fields(value):
            return None
        value["name"].encode()
        datetime.fromisoformat(value["since"]).timestamp()
    except (ValueError, OverflowError, RecursionError):
        return None
    return value


def _has_fields(value: Entry) -> bool:
    # By type(): True is an int, too.
    return all(type(value.get(name, ())) in types for name, types in _FIELDS.items()) and all(
        type(value[name]) in types for name, types in _MORE.items() if name in value
    )
