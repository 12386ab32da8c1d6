"""What a hook is told: that the state of one interface is another now. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

from ..status import Status
from ..statuses import StatusChange

__all__ = ["REMOVED", "Event", "event_of"]

REMOVED: Final = "removed"
"""The state of an interface that is no longer configured."""

_LONGEST: Final = 4096  # of a text in the environment, where a single string may have 128 KiB (MAX_ARG_STRLEN)


@dataclass(frozen=True, slots=True)
class Event:
    """One interface is in `state`, after `old_state` ("" where it is new).

    `status` is what is known of it now (of one that was removed: what was known last), `at` seconds since 1970, and
    `missed` how many changes there were in between that this hook was not told of, for newer ones took their place.
    """

    name: str
    state: str
    old_state: str
    status: Status
    at: float
    label: str
    host: str
    missed: int = 0

    def after(self, waiting: Event) -> Event:
        """This one, in place of one that was not told yet."""
        return replace(self, old_state=waiting.old_state, missed=self.missed + waiting.missed + 1)

    def as_dict(self) -> dict[str, Any]:
        """The event for JSON: an entry of ``vethctl status --json``, and what makes it an event."""
        entry = self.status.as_dict()
        if self.state == REMOVED:
            entry |= {"state": REMOVED, "reason": "", "ifindex": None}
        at = datetime.fromtimestamp(self.at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        told = {"old_state": self.old_state, "at": at, "label": self.label, "host": self.host, "missed": self.missed}
        return entry | told

    def json(self) -> bytes:
        """One line; all ASCII, for a name may hold bytes that are no text."""
        return json.dumps(self.as_dict()).encode() + b"\n"

    def environment(self) -> dict[str, str]:
        """What a command has in its environment: strings, "" for what is not known."""
        entry = self.as_dict()
        keys = ("name", "state", "old_state", "reason", "netns", "host_name", "ifindex", "peer", "label")
        values = {f"VETHLIB_{key.upper()}": entry[key] for key in keys}
        return {key: "" if value is None else _safe(str(value)) for key, value in values.items()}


def _safe(text: str) -> str:
    # What is no text, as the bytes of a name, stays those bytes; a surrogate that stands for none cannot be said.
    text = text.replace("\0", "")[:_LONGEST]
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape") if _sayable(text) else ascii(text)


def _sayable(text: str) -> bool:
    try:
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return True


def event_of(change: StatusChange, *, at: float, label: str, host: str) -> Event | None:
    """The event a change of a status is; None where the state is the same as before."""
    status = change.status or change.old
    if status is None:
        return None
    state = REMOVED if change.status is None else str(change.status.state)
    old_state = "" if change.old is None else str(change.old.state)
    return None if state == old_state else Event(change.name, state, old_state, status, at, label, host)
