"""The events that hooks receive: a change of the state of one interface. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

from vethlib._nl.wire import encoded, to_system
from vethlib.agent.reconcile.statuses import StatusChange
from vethlib.agent.status import Status
from vethlib.text import without_controls

__all__ = ["REMOVED", "Event", "event_of"]

REMOVED: Final = "removed"
"""The state of an interface that is no longer configured."""

_LONGEST: Final = 4096  # characters of an environment variable; the kernel accepts 128 KiB (MAX_ARG_STRLEN)


@dataclass(frozen=True, slots=True)
class Event:
    """A change of the state of an interface, from `old_state` ("" if it is new) to `state`.

    `status` is its present status, or its last one if it was removed; `at` is the time, in seconds since 1970. `missed`
    is the number of earlier changes that this hook has not received, because newer ones have replaced them.
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
        """Return this event as the replacement of an older event, which still waits."""
        return replace(self, old_state=waiting.old_state, missed=self.missed + waiting.missed + 1)

    def as_dict(self) -> dict[str, Any]:
        """Return the event for JSON: an entry of ``vethctl status --json``, and the keys of the event."""
        entry = self.status.as_dict()
        if self.state == REMOVED:
            entry |= {"state": REMOVED, "reason": "", "ifindex": None, "code": "", "reasons": []}
        at = datetime.fromtimestamp(self.at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        event = {"old_state": self.old_state, "at": at, "label": self.label, "host": self.host, "missed": self.missed}
        return entry | event

    def json(self) -> bytes:
        """Return the event as one line of JSON, in ASCII, because names may contain undecodable bytes."""
        return json.dumps(self.as_dict()).encode() + b"\n"

    def environment(self) -> dict[str, str]:
        """Return the environment variables of a command, "" for unknown values."""
        entry = self.as_dict()
        # A shell may print them, so they contain no character that a terminal interprets.
        keys = ("name", "state", "old_state", "reason", "netns", "host_name", "ifindex", "peer", "label")
        values = {f"VETHLIB_{key.upper()}": entry[key] for key in keys} | {"VETHLIB_REASON_CODE": entry["code"]}
        return {key: "" if value is None else _safe(str(value)) for key, value in values.items()}


def _safe(text: str) -> str:
    # Undecodable bytes of a name stay those bytes; other surrogates cannot be encoded.
    text = text.replace("\0", "")
    text = without_controls(text)[:_LONGEST]
    if not _is_encodable(text):
        return ascii(text)
    return to_system(text)


def _is_encodable(text: str) -> bool:
    try:
        encoded(text)
    except UnicodeEncodeError:
        return False
    return True


def event_of(change: StatusChange, *, at: float, label: str, host: str) -> Event | None:
    """Return the event for a change of a status; None if the state is the same as before."""
    status = change.status or change.old
    if status is None:
        return None
    state = REMOVED if change.status is None else str(change.status.state)
    old_state = "" if change.old is None else str(change.old.state)
    return None if state == old_state else Event(change.name, state, old_state, status, at, label, host)
