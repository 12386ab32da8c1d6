"""The report of an agent on itself, in a file beside its statuses.

Statuses cannot contain that report: in an outage of the store they stay as they are, so all interfaces may be
CONFIGURED while no change of the store reaches the host. Nor can they show that newer ones cannot be written. And it
shows whose the statuses are, also when the agent has ended: a directory is one agent's.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import Final

from vethlib.agent.config.filecontent import content

from .directories import Identity

__all__ = ["FILE", "AgentReport", "read_report"]

FILE: Final = ".agent"
"""Its name: none of a status (see `status_file`), and not seen by readers of *.json."""

_LONGEST = 1 << 16  # bytes; other users may be able to write anything there
_END = 253402300799.0  # the end of the year 9999, the latest time that datetime can represent


@dataclass(frozen=True, slots=True)
class AgentReport:
    """The report of an agent on itself, or of the last agent that published its statuses there.

    `store` is the URL of its store without the password. `ready` is True once it has published a status of each
    interface. `outage` is the reason why the store cannot be read, "" if it can be, and `outage_since` the start of the
    outage, in seconds since 1970; `outage_code` is the reason for programs, "" also if an older agent has written it.
    `unwritten` is the reason why it cannot write its statuses, "" if it can, and `unwritten_since` the time since when.
    `home` is (st_dev, st_ino) of the namespace that the agent calls home, and `label` is its label; None and "" if an
    older agent has written the file.
    """

    store: str
    ready: bool = False
    outage: str = ""
    outage_since: float = 0.0
    outage_code: str = ""
    home: Identity | None = None
    label: str = ""
    unwritten: str = ""
    unwritten_since: float = 0.0

    def is_of(self, label: str, home: Identity | None = None) -> bool:
        """Return whether the agent had this label and this home, as far as that is known."""
        return self.label in ("", label) and (home is None or self.home in (None, home))


def read_report(directory: str) -> AgentReport | None:
    """Read the report of the agent that publishes its statuses to `directory`; None if there is no valid one."""
    try:
        file = content(os.path.join(directory, FILE), None, follow=False, longest=_LONGEST)
        if file is None:
            return None
        value = json.loads(file.raw)
        since, code = float(value["outage_since"]), value.get("outage_code", "")
        home, label = _identity(value.get("home")), value.get("label", "")
        unwritten, unwritten_since = value.get("unwritten", ""), float(value.get("unwritten_since", 0))
        report = AgentReport(
            value["store"], value["ready"], value["outage"], since, code, home, label, unwritten, unwritten_since
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return None
    texts = (report.store, report.outage, report.outage_code, report.label, report.unwritten)
    has_types = isinstance(report.ready, bool) and all(isinstance(text, str) for text in texts)
    has_times = all(0 <= since < _END for since in (report.outage_since, report.unwritten_since))
    return report if has_types and has_times else None


def _identity(value: object) -> Identity | None:
    if isinstance(value, list) and len(value) == 2 and all(type(number) is int for number in value):
        return value[0], value[1]
    return None
