"""What the states of interfaces come to, and how they and times are shown."""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import datetime

from vethlib.agent.stores.published import Entry, Published

from .exits import DONE, PENDING, REFUSED
from .text import paint

__all__ = ["SEVERITY", "age", "age_of", "code_of", "is_late", "reason_of", "state_text", "two_agents"]

_ROLES = {"CONFIGURED": "good", "PENDING": "warning", "RETRYING": "bad", "FAILED": "bad", "INVALID": "bad"}
SEVERITY = ("CONFIGURED", "PENDING", "RETRYING", "INVALID", "FAILED")  # the last is the worst


def state_text(state: str) -> str:
    """A state, coloured by what it means."""
    return paint(state, _ROLES.get(state, ""))


def reason_of(entry: Entry) -> str:
    """Why it is in its state, and what else there is to know."""
    late = ""
    if is_late(entry):
        late = f"the agent has yet to see {'its last change' if entry['stored_revision'] else 'that it was deleted'}"
    return "; ".join(filter(None, (entry["reason"], entry.get("warning"), late)))


def is_late(entry: Entry) -> bool:
    """Whether it speaks of a configuration that is not the stored one any more."""
    if "stored_revision" not in entry:
        return False
    told, stored = entry.get("config_revision", 0), entry["stored_revision"]
    return bool(told < stored or (told and not stored))


def code_of(entries: Iterable[Entry]) -> int:
    """The exit code that these states stand for."""
    states = {"PENDING" if is_late(entry) and entry["state"] == "CONFIGURED" else entry["state"] for entry in entries}
    if states <= {"CONFIGURED"}:
        return DONE
    return PENDING if states <= {"CONFIGURED", "PENDING"} else REFUSED


def age(since: str | None) -> str:
    """How long ago a time in ISO 8601 is; "" for none."""
    return "" if since is None else age_of(datetime.fromisoformat(since).timestamp())


def age_of(since: float | None) -> str:
    """How long ago, in the largest unit that says something: ``42 s``, ``7 min``, ``3 h``, ``12 d``."""
    if since is None:
        return ""
    seconds = time.time() - since
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds // size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def two_agents(label: str, published: Published) -> str:
    """That several hosts have agents of one label, and which."""
    agents = [one for one in (published.agent, *published.others) if one is not None]
    who = " and ".join(f"process {one.pid or '?'} on {one.host or '?'}" for one in agents)
    cure = "give each a label of its own"
    return f"{len(agents)} agents have the label {label}, and overwrite each other's status: {who}; {cure}"
