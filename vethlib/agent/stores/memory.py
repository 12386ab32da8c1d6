"""A store in the memory of the program that embeds the agent."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

from vethlib.agent.config.model import Interface
from vethlib.agent.config.northbound import Parsed
from vethlib.agent.status import Status
from vethlib.errors import InvalidValue, check_type
from vethlib.linkref import as_list
from vethlib.ns.descriptor import owned

from .protocol import Change, Outage, Snapshot, StoreEvent

__all__ = ["MemoryStore"]


class MemoryStore:
    """A store in memory: the program puts values, and finds the published statuses in `statuses`.

    A value is an Interface, or the Parsed result of reading one, which may be invalid. Raises InvalidValue for anything
    else.
    """

    def __init__(self, values: Iterable[Interface | Parsed] = ()) -> None:
        parsed = map(_as_parsed, as_list(values, "values", "must be a list of values"))
        self.statuses: dict[str, Status] = {}
        self._values = {value.name: value for value in parsed}
        self._events: list[StoreEvent] = []
        self._down: str | None = None
        self._event = owned(os.eventfd, 0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._add(Snapshot(dict(self._values)))

    def put(self, value: Interface | Parsed) -> None:
        """Set the value for its name."""
        parsed = _as_parsed(value)
        if self._values.get(parsed.name) == parsed:
            return
        self._values[parsed.name] = parsed
        self._change(parsed.name, parsed)

    def delete(self, name: str) -> None:
        """Delete a value. Does nothing if there is none."""
        if self._values.pop(name, None) is not None:
            self._change(name, None)

    def replace(self, values: Mapping[str, Interface | Parsed]) -> None:
        """Replace all values; the next result is a snapshot."""
        if not isinstance(values, Mapping):
            raise InvalidValue("values", values, "must map names to values")
        self._values = {name: _as_parsed(value) for name, value in values.items()}
        if self._down is None:
            self._add(Snapshot(dict(self._values)))

    def down(self, reason: str) -> None:
        """Act as a store that cannot be read until :meth:`up`. Values put meanwhile are returned then."""
        if reason != self._down:
            self._down = reason
            self._add(Outage(reason))

    def up(self) -> None:
        """Act as a store that can be read again."""
        if self._down is not None:
            self._down = None
            self._add(Snapshot(dict(self._values)))

    def read(self) -> list[StoreEvent]:
        """Return the results since the last call."""
        if self._event.closed:
            return []
        try:
            os.eventfd_read(self._event.fileno())
        except BlockingIOError:
            pass  # no event; it is read before the list is taken, so that a later event makes it readable again
        events, self._events = self._events, []
        return events

    def fileno(self) -> int:
        """Return a descriptor that is readable when there are results."""
        return -1 if self._event.closed else self._event.fileno()

    def due(self) -> float | None:
        """Return None: all results make the descriptor readable."""
        return None

    def publish(self, statuses: Mapping[str, Status | None]) -> None:
        """Store the statuses in `statuses`."""
        for name, status in statuses.items():
            if status is None:
                self.statuses.pop(name, None)
            else:
                self.statuses[name] = status

    def close(self) -> None:
        """Close the descriptor. A second call does nothing."""
        self._event.close()

    def _change(self, name: str, value: Parsed | None) -> None:
        if self._down is None:
            self._add(Change(name, value))

    def _add(self, event: StoreEvent) -> None:
        if not self._event.closed:
            self._events.append(event)
            os.eventfd_write(self._event.fileno(), 1)


def _as_parsed(value: Interface | Parsed) -> Parsed:
    if isinstance(value, Parsed):
        return value
    check_type(value, Interface, "value", "must be an Interface, or the Parsed result of reading one")
    return Parsed(value, value.name, warnings=value.warnings, source="memory")
