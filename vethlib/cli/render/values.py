"""Values that commands look up in a host or ask an agent for, and that are rendered as text or as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final

from vethlib.links import Address, Link, Stats
from vethlib.rates import Rates, Sample

if TYPE_CHECKING:  # it imports protobuf, which most commands do not need
    from vethlib.agent.stores.published import Entry
    from vethlib.errors import InvalidValue

__all__ = ["COUNTERS", "Description", "EndState", "MeasuredLink", "fields_as_dict", "problem_as_dict"]

_OF_LINK: Final = ("index", "up", "operstate", "mtu", "mac", "addresses", "counters", "problem", "fields")
_LONGEST: Final = 300  # characters of an invalid value

COUNTERS = ("rx_bytes", "rx_packets", "rx_dropped", "rx_errors", "tx_bytes", "tx_packets", "tx_dropped", "tx_errors")
"""The counters that are shown of an end, by their names in :class:`vethlib.Stats`."""


@dataclass(frozen=True, slots=True)
class MeasuredLink:
    """A link with its counters. `link` is None if only its counters were read, `rates` is None for the first sample."""

    ref: str
    name: str
    sample: Sample
    rates: Rates | None
    link: Link | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return namespace, name, counters and their growth per second for JSON; null if that is not known yet."""
        entry = self.counters_as_dict(index=True)
        rates = None if self.rates is None else asdict(self.rates)
        return entry | {"interval": rates and rates.pop("interval"), "rates": rates}

    def counters_as_dict(self, *, index: bool = False) -> dict[str, Any]:
        """Return namespace, name and counters for JSON, with the ifindex on request."""
        entry: dict[str, Any] = {"netns": self.ref, "name": self.name}
        if index:
            entry["index"] = self.sample.index
        return entry | asdict(self.sample.stats)


@dataclass(frozen=True, slots=True)
class EndState:
    """An end of a pair as observed in the kernel; if there is no `link`, `problem` is the reason.

    `fields` are those that :meth:`vethlib.Session.fields` returns.
    """

    interface: str
    ref: str
    name: str
    link: Link | None = None
    addresses: tuple[Address, ...] = ()
    stats: Stats | None = None
    problem: str = ""
    fields: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return the end for JSON; without a link, what is known of links is null."""
        entry: dict[str, Any] = {"interface": self.interface, "netns": self.ref, "name": self.name}
        if self.link is None:
            return entry | dict.fromkeys(_OF_LINK) | {"problem": self.problem}
        link, stats = self.link, self.stats
        return entry | {
            "index": link.index,
            "up": link.up,
            "operstate": link.operstate,
            "mtu": link.mtu,
            "mac": link.mac,
            "addresses": [{"address": str(address), "state": address.state} for address in self.addresses],
            "counters": None if stats is None else {name: getattr(stats, name) for name in COUNTERS},
            "problem": "",
            "fields": fields_as_dict(self.fields),
        }


def problem_as_dict(problem: InvalidValue) -> dict[str, str]:
    """Return a problem of a configuration for JSON."""
    return {"field": problem.field, "value": str(problem.value)[:_LONGEST], "hint": problem.hint}


def fields_as_dict(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return fields of an end for JSON, without settings, of which there are many."""
    listed = {name: list(map(str, value)) if isinstance(value, tuple) else value for name, value in fields.items()}
    listed.pop("sysctls", None)
    if "master" in listed:
        listed["master"] = str(listed["master"])
    return listed


@dataclass(slots=True)
class Description:
    """Everything known about the interface `name`; unknown parts are None or empty.

    `notes` are warnings about sources that did not answer.
    """

    name: str
    label: str
    agent: int | None = None  # process ID; 0 if it is unknown
    status: Entry | None = None
    peer_status: Entry | None = None
    configuration: dict[str, Any] | None = None
    source: str = ""  # where the configuration was read
    problems: tuple[InvalidValue, ...] = ()
    ends: list[EndState] = field(default_factory=list)
    changes: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Return the description for JSON."""
        return {
            "name": self.name,
            "label": self.label,
            "agent": None if self.agent is None else {"pid": self.agent},
            "status": self.status,
            "configuration": self.configuration,
            "source": self.source,
            "problems": [problem_as_dict(problem) for problem in self.problems],
            "links": [end.as_dict() for end in self.ends],
            "changes": self.changes,
            "notes": self.notes,
        }
