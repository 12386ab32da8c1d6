"""What an agent asks of a store, and what a store tells it; and what an operator asks of one.

A store is read without waiting. What it tells is one of these, in order:

* :class:`Snapshot`: all that there is now. The first thing a store tells, and again whenever it may have missed
  something (a connection that was lost, a directory that was away).
* :class:`Change`: one key has another value, or none.
* :class:`Outage`: the store cannot be read. Nothing is known to be deleted then; what was told last stays in force.
* :class:`Back`: it can be read again. What was told holds, except for what is told from here on.

A key is an interface's name. What is wrong and has no name that can be read is told under the place where it stands,
as in ``file:star.json[2]``; no interface can have such a name, since none has a ':'.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from vethlib.agent.model import Interface
from vethlib.agent.northbound import Parsed
from vethlib.agent.status import Status
from vethlib.errors import InvalidValue, VethError

__all__ = ["Back", "Change", "Edit", "Editor", "News", "Outage", "Snapshot", "Store", "StoreError", "Stored"]


class StoreError(VethError, OSError):
    """A store that refuses to be read or written.

    ``path`` is what refused, ``reason`` why (and, where one is known, the cure), ``errno`` the system's number.
    """

    def __init__(self, message: str, *, path: str = "", reason: str = "", errno: int | None = None) -> None:
        super().__init__(message)
        self.path = path
        self.reason = reason
        self.errno = errno

    def __str__(self) -> str:
        return str(self.args[0])


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Every value by its key, the refused ones too.

    `complete` is False where some keys may be missing because what holds them cannot be read: a key that is not in
    it is then not known to be deleted.
    """

    values: Mapping[str, Parsed]
    complete: bool = True


@dataclass(frozen=True, slots=True)
class Change:
    """The value of one key; None when it was deleted."""

    name: str
    value: Parsed | None


@dataclass(frozen=True, slots=True)
class Outage:
    """Why the store cannot be read, in words."""

    reason: str


@dataclass(frozen=True, slots=True)
class Back:
    """The store can be read again, and has missed nothing; a snapshot says that, too."""


News: TypeAlias = Snapshot | Change | Outage | Back


class Store(Protocol):
    """Where an agent's configuration comes from, and its status goes."""

    def read(self) -> list[News]:
        """What is new since the last call, in order; does not wait, and raises nothing: an error is an Outage."""

    def fileno(self) -> int:
        """A descriptor that is readable when :meth:`read` may have something; the same one until :meth:`close`."""

    def due(self) -> float | None:
        """In how many seconds :meth:`read` is to be called though the descriptor is not readable; None: need not."""

    def publish(self, statuses: Mapping[str, Status | None]) -> None:
        """Write the status of these interfaces; None takes one away. Called after all that was read was acted upon.

        Raises :class:`StoreError` where that fails; the next call then writes what is still to be written, too.
        """

    def close(self) -> None:
        """Give everything back; the values stay. A status that says who is alive goes."""


@dataclass(frozen=True, slots=True)
class Stored:
    """One value as it is written: its `text`, and the `name` by which it is got, "" where there is none.

    What a store could not take as a value says why in `problem`.
    """

    name: str
    text: str
    source: str
    problem: InvalidValue | None = None


@dataclass(frozen=True, slots=True)
class Edit:
    """What was done to one key: `op` is "add", "change" or "delete", `source` the place where it stands or stood.

    `made` is what had to be made first to store anything in.
    """

    op: str
    name: str
    source: str
    made: str = ""


class Editor(Protocol):
    """A store as an operator reads and writes it: each call for itself, from any process.

    Every method raises :class:`StoreError` where the store refuses.
    """

    def values(self) -> dict[str, Parsed]:
        """What an agent that starts now would be told."""

    def stored(self) -> list[Stored]:
        """What is written, good or bad, in the order of the places."""

    def put(self, *interfaces: Interface) -> list[Edit]:
        """Store these interfaces. Those that are stored just so are left alone, and have no edit."""

    def put_text(self, texts: Mapping[str, str]) -> list[Edit]:
        """Store these JSON objects by the names that are in them, unchecked."""

    def delete(self, *names: str) -> list[Edit]:
        """Delete what has exactly these names; those that are not stored have no edit."""
