"""What an agent says of an interface: its state, why, since when, and the link that it has."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from vethlib.links import Link

from .state import State

__all__ = ["Status"]


@dataclass(frozen=True, slots=True)
class Status:
    """The state of one interface. `since` is when it came into that state, in seconds since 1970.

    `netns` is the reference of its configuration, `host_name` its kernel name, `peer` the name of the interface at the
    other end. `link` is what the kernel said of it last, None while there is none; `peer_index` the other end's
    ifindex. A RETRYING one has the number of attempts made and the seconds since 1970 of the next (`attempt`, `due`).
    `warning` is what an operator should know, though it is no reason for the state.
    """

    name: str
    state: State
    reason: str
    since: float
    netns: str = ""
    host_name: str = ""
    peer: str = ""
    link: Link | None = None
    peer_index: int | None = None
    attempt: int = 0
    due: float = 0.0
    warning: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The status for JSON: name, state, reason, netns, host_name, ifindex, peer, since, and what else is known.

        Times are ISO 8601 in UTC.
        """
        link = self.link
        entry: dict[str, Any] = {
            "name": self.name,
            "state": str(self.state),
            "reason": self.reason,
            "netns": self.netns,
            "host_name": self.host_name,
            "ifindex": None if link is None else link.index,
            "peer": self.peer,
            "since": _iso(self.since),
        }
        if link is not None:
            entry |= {
                "peer_ifindex": self.peer_index,
                "mac": link.mac,
                "mtu": link.mtu,
                "up": link.up,
                "operstate": link.operstate,
                "addresses": [str(address) for address in link.addresses],
            }
        if self.warning:
            entry["warning"] = self.warning
        if self.state is State.RETRYING:
            entry |= {"attempt": self.attempt, "next_try": _iso(self.due)}
        return entry


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
