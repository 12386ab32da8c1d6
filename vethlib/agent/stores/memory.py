"""A store in the memory of the program that embeds the agent."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

from vethlib.agent.model import Interface
from vethlib.agent.northbound import Parsed
from vethlib.agent.status import Status

from .protocol import Change, News, Outage, Snapshot

__all__ = ["MemoryStore"]


class MemoryStore:
    """What the program puts is told to the agent; what the agent publishes is in `statuses`.

    Values are put as an Interface, or as the Parsed that reading one gave, which may be a refused one.
    """

    def __init__(self, values: Iterable[Interface | Parsed] = ()) -> None:
        parsed = map(_as_parsed, values)
        self.statuses: dict[str, Status] = {}
        self._values = {one.name: one for one in parsed}
        self._news: list[News] = []
        self._down = ""
        self._event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._tell(Snapshot(dict(self._values)))

    def put(self, value: Interface | Parsed) -> None:
        """Set the value of its name."""
        parsed = _as_parsed(value)
        if self._values.get(parsed.name) == parsed:
            return
        self._values[parsed.name] = parsed
        self._change(parsed.name, parsed)

    def delete(self, name: str) -> None:
        """Forget a value; does nothing where there is none."""
        if self._values.pop(name, None) is not None:
            self._change(name, None)

    def replace(self, values: Mapping[str, Interface | Parsed]) -> None:
        """Set all values at once, by their names; told as a snapshot."""
        self._values = {name: _as_parsed(value) for name, value in values.items()}
        if not self._down:
            self._tell(Snapshot(dict(self._values)))

    def down(self, reason: str) -> None:
        """Be a store that cannot be read, until :meth:`up`. What is put meanwhile is told then."""
        if reason != self._down:
            self._down = reason
            self._tell(Outage(reason))

    def up(self) -> None:
        """Be a store that can be read again."""
        if self._down:
            self._down = ""
            self._tell(Snapshot(dict(self._values)))

    def read(self) -> list[News]:
        """What is new since the last call."""
        if self._event < 0:
            return []
        try:
            os.eventfd_read(self._event)
        except BlockingIOError:
            pass  # nothing new; it is read first, so that what is told from here on makes it readable again
        news, self._news = self._news, []
        return news

    def fileno(self) -> int:
        """Readable when there is something new."""
        return self._event

    def due(self) -> float | None:
        """Never: all that is new makes the descriptor readable."""
        return None

    def publish(self, statuses: Mapping[str, Status | None]) -> None:
        """Keep these in `statuses`."""
        for name, status in statuses.items():
            if status is None:
                self.statuses.pop(name, None)
            else:
                self.statuses[name] = status

    def close(self) -> None:
        """Close the descriptor; a second time, nothing."""
        if self._event >= 0:
            os.close(self._event)
            self._event = -1

    def _change(self, name: str, value: Parsed | None) -> None:
        if not self._down:
            self._tell(Change(name, value))

    def _tell(self, news: News) -> None:
        if self._event >= 0:
            self._news.append(news)
            os.eventfd_write(self._event, 1)


def _as_parsed(value: Interface | Parsed) -> Parsed:
    if isinstance(value, Parsed):
        return value
    return Parsed(value, value.name, warnings=value.warnings, source="memory")
