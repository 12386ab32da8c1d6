"""States of interfaces and times as text, and the exit code for states."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Iterable
from datetime import datetime

from vethlib.agent.stores.agentreport import AgentReport
from vethlib.agent.stores.published import Entry, Published
from vethlib.cli.arguments.parser import STATES
from vethlib.cli.term.exits import DONE, PENDING, REFUSED
from vethlib.cli.term.text import counted, paint

__all__ = [
    "SEVERITY",
    "age",
    "age_of",
    "code_of",
    "is_late",
    "reason_of",
    "state_text",
    "summary",
    "two_agents",
    "unwritten",
]

_ROLES = {"CONFIGURED": "good", "PENDING": "warning", "RETRYING": "bad", "FAILED": "bad", "INVALID": "bad"}
SEVERITY = STATES
_MOST_NAMED = 8  # agents of one label that a message names


def state_text(state: str) -> str:
    """Return a state, coloured by its meaning."""
    return paint(state, _ROLES.get(state, ""))


def reason_of(entry: Entry) -> str:
    """Return the reason for the state of an interface, with its warnings."""
    late = ""
    if is_late(entry):
        late = f"the agent has not read {'its last change' if entry['stored_revision'] else 'its deletion'} yet"
    warnings = [warning["message"] for warning in entry.get("warnings", ())]
    return "; ".join(filter(None, (entry["reason"], entry.get("warning"), *warnings, late)))


def is_late(entry: Entry) -> bool:
    """Return whether a status is about a configuration that has been changed in the store since."""
    if "stored_revision" not in entry:
        return False
    published, stored = entry.get("config_revision", 0), entry["stored_revision"]
    return bool(published < stored or (published and not stored))


def code_of(entries: Iterable[Entry]) -> int:
    """Return the exit code for these states."""
    states = {"PENDING" if is_late(entry) and entry["state"] == "CONFIGURED" else entry["state"] for entry in entries}
    if states <= {"CONFIGURED"}:
        return DONE
    return PENDING if states <= {"CONFIGURED", "PENDING"} else REFUSED


def summary(entries: Collection[Entry], among: int = 0) -> str:
    """Count states, the worst first: ``600 interfaces: 2 RETRYING, 598 CONFIGURED``; or ``3 of 600 interfaces: …``."""
    counts = Counter(entry["state"] for entry in entries)
    order = [*reversed(SEVERITY), *(state for state in counts if state not in SEVERITY)]
    states = ", ".join(f"{counts[state]} {state_text(state)}" for state in order if counts[state])
    part = f"{len(entries)} of " if among > len(entries) else ""
    return f"{part}{counted(max(among, len(entries)), 'interface')}" + (f": {states}" if states else "")


def is_placed(entry: Entry) -> bool:
    """Return whether the namespace of an interface is known; it is not if the interface never had a valid value."""
    return entry["netns"] is not None and (entry["host_name"] != "" or entry["state"] != "INVALID")


def age(since: str | None) -> str:
    """Return the age of a time in ISO 8601; "" for None."""
    return "" if since is None else age_of(datetime.fromisoformat(since).timestamp())


def age_of(since: float | None) -> str:
    """Return the age of a time since 1970 in a suitable unit: ``42 s``, ``7 min``, ``3 h``, ``12 d``; "" for None."""
    if since is None:
        return ""
    seconds = time.time() - since
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds // size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def unwritten(report: AgentReport) -> str:
    """Return the message for an agent that cannot write its statuses."""
    return f"the agent has been unable to write its statuses for {age_of(report.unwritten_since)}: {report.unwritten}"


def two_agents(label: str, published: Published) -> str:
    """Return the message for several agents with the same label."""
    agents = [agent for agent in (published.agent, *published.others) if agent is not None]
    named = [f"process {agent.pid or '?'} on {agent.host or '?'}" for agent in agents]
    if (more := len(named) - _MOST_NAMED) > 0:
        named[_MOST_NAMED:] = [f"{more} more"]
    who = " and ".join(named)
    cure = "give each agent a label of its own"
    return f"{len(agents)} agents have the label {label}, and overwrite each other's status: {who}; {cure}"
