"""The interface between an agent and a store, and between an operator and a store.

Reading a store never blocks. It returns these results, in order:

* :class:`Snapshot`: all values. It is the first result, and is returned again whenever the store may have missed a
  change (a lost connection, a directory that was missing for a while).
* :class:`Change`: the new value of one key, or its deletion.
* :class:`Outage`: the store cannot be read. Nothing is considered deleted then: the last values stay in force.
* :class:`Back`: the store can be read again. The last values are still right, apart from changes that follow.

A key is the name of an interface. A bad value from which no name can be read has its place as the key, as in
``file:star.json[2]``; no interface can have such a name, because names do not contain ':'.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, TypeAlias, runtime_checkable

from vethlib.agent.config.files import SourceError
from vethlib.agent.config.model import Interface
from vethlib.agent.config.northbound import Parsed
from vethlib.agent.status import Status
from vethlib.errors import InvalidValue

from .storecode import StoreCode, code_of

__all__ = [
    "Back",
    "Change",
    "Edit",
    "Editor",
    "Outage",
    "Rereadable",
    "Snapshot",
    "Store",
    "StoreError",
    "StoreEvent",
    "Stored",
]


class StoreError(SourceError):
    """A store cannot be read or written; ``code`` is the reason for programs, by default that of ``errno``.

    If an edit of several interfaces was cut short, ``names`` are those at which it ended, ``done`` is the number
    of interfaces that were stored or deleted before, and ``left`` the number of those that were not.
    """

    names: tuple[str, ...] = ()
    done: int = 0
    left: int = 0

    def __init__(
        self, message: str, *, path: str = "", reason: str = "", errno: int | None = None, code: StoreCode | None = None
    ) -> None:
        super().__init__(message, path=path, reason=reason, errno=errno)
        self.code = code_of(errno) if code is None else code


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All values by key, including invalid ones.

    `complete` is False if keys may be missing because their file or page cannot be read. A missing key then does not
    mean that the value was deleted.
    """

    values: Mapping[str, Parsed]
    complete: bool = True


@dataclass(frozen=True, slots=True)
class Change:
    """The new value of one key; None if it was deleted."""

    name: str
    value: Parsed | None


@dataclass(frozen=True, slots=True)
class Outage:
    """The store cannot be read; `reason` is the reason as text, and `code` for programs."""

    reason: str
    code: StoreCode = StoreCode.OTHER


@dataclass(frozen=True, slots=True)
class Back:
    """The store can be read again and has missed no change. A snapshot after an outage implies the same."""


StoreEvent: TypeAlias = Snapshot | Change | Outage | Back


class Store(Protocol):
    """A source of configuration, to which statuses are published."""

    def read(self) -> list[StoreEvent]:
        """Return the results since the last call, in order. Never blocks or raises: an error is an Outage."""

    def fileno(self) -> int:
        """Return a descriptor that is readable when :meth:`read` may have results; the same until :meth:`close`."""

    def due(self) -> float | None:
        """Return the seconds until :meth:`read` must be called even if nothing is readable; None for never."""

    def publish(self, statuses: Mapping[str, Status | None]) -> None:
        """Write the statuses of these interfaces; None deletes one. Called after all results have been processed.

        Raises :class:`StoreError` on failure. The next call then also writes what is still missing. A failure that
        belongs to one interface is not raised, but logged; :meth:`read` tries it again.
        """

    def close(self) -> None:
        """Release all resources. Values stay in the store; the status that reports this agent as alive is deleted."""


@runtime_checkable
class Rereadable(Protocol):
    """A store that may miss changes, and can be asked to read everything again."""

    def reread(self) -> None:
        """Let the next :meth:`Store.read` return all values as they are stored now."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A value as it is stored: its `text`, and the `name` of its interface, "" if it has none.

    `problem` is the reason why a text is not a valid value.
    """

    name: str
    text: str
    source: str
    problem: InvalidValue | None = None


@dataclass(frozen=True, slots=True)
class Edit:
    """A change to one key: `op` is "add", "change" or "delete", `source` the place of the value.

    `made` is the directory that had to be created first, if any.
    """

    op: str
    name: str
    source: str
    made: str = ""


class Editor(Protocol):
    """A store as operators read and write it. Each call is independent, and can be made from any process.

    Every method raises :class:`StoreError` if the store cannot be read or written.
    """

    def values(self) -> dict[str, Parsed]:
        """Return the values of :meth:`snapshot`."""

    def snapshot(self) -> Snapshot:
        """Return the values that an agent starting now would read."""

    def stored(self) -> list[Stored]:
        """Return all stored values, valid or not, ordered by place."""

    def put(self, *interfaces: Interface) -> list[Edit]:
        """Store these interfaces and return the changes. An interface that is already stored like this has none."""

    def put_text(self, texts: Mapping[str, str]) -> list[Edit]:
        """Store these JSON objects, by the names that they contain, without checking them."""

    def delete(self, *names: str) -> list[Edit]:
        """Delete the values with exactly these names and return the changes. A name that is not stored has none."""
