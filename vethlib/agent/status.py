"""The status of an interface: its state, the reason, the time of the last change, and its link as last observed."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from vethlib.links import Link

from .limits import DEFAULT
from .planning.plausibility import ConfigWarning
from .reasons import Reason
from .state import State

__all__ = ["Status", "iso"]


@dataclass(frozen=True, slots=True)
class Status:
    """The status of one interface: its state and all details. `since` is the start of the state, in seconds since 1970.

    `netns` is the reference in its configuration, `host_name` its kernel name, `peer` the name of the interface at the
    other end. `link` is its link as last observed, or None, and `peer_index` the ifindex of the peer. A RETRYING
    interface has the number of attempts made, and the time of the next, in seconds since 1970 (`attempt`, `due`).
    `reasons` are the parts of `reason`, each with a code, and `code` is that of the first. `warning` is information for
    operators that does not explain the state, `warning_code` its code; `warnings` are parts of the configuration
    that are valid but probably mistakes. Only `most_addresses` addresses are shown, because the tenant of the
    namespace can add a hundred thousand.
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
    warnings: tuple[ConfigWarning, ...] = ()
    most_addresses: int = field(default=DEFAULT.status_addresses, repr=False, compare=False)
    reasons: tuple[Reason, ...] = ()
    warning_code: str = ""

    @property
    def code(self) -> str:
        """The code of the first reason (a :class:`ReasonCode`); "" if there is none."""
        return self.reasons[0].code if self.reasons else ""

    def address_states(self) -> dict[str, str]:
        """Return the state of each address that is not plainly usable, except the kernel's own link-local address."""
        shown = () if self.link is None else self.link.ifaddrs[: self.most_addresses]
        return {str(address): address.state for address in shown if address.state != "usable" and not address.by_kernel}

    def as_dict(self) -> dict[str, Any]:
        """Return the status for JSON: name, state, reason, netns, host_name, ifindex, peer, since, code and more.

        Times are ISO 8601 in UTC. ``addresses_omitted`` is the number of addresses that are not shown.
        ``address_states`` has the state of each address that is "tentative", "dadfailed", "deprecated" or "expiring".
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
            "since": iso(self.since),
            "code": str(self.code),
            "reasons": [reason.as_dict() for reason in self.reasons],
        }
        if link is not None:
            entry |= {
                "peer_ifindex": self.peer_index,
                "mac": link.mac,
                "mtu": link.mtu,
                "up": link.up,
                "operstate": link.operstate,
                "addresses": [str(address) for address in link.addresses[: self.most_addresses]],
            }
            if (omitted := len(link.addresses) - self.most_addresses) > 0:
                entry["addresses_omitted"] = omitted
            if states := self.address_states():
                entry["address_states"] = states
        if self.warning:
            entry |= {"warning": self.warning, "warning_code": str(self.warning_code)}
        if self.warnings:
            entry["warnings"] = [warning.as_dict() for warning in self.warnings]
        if self.state is State.RETRYING:
            entry |= {"attempt": self.attempt, "next_try": iso(self.due)}
        return entry


def iso(seconds: float) -> str:
    """Format a time, in seconds since 1970, as ISO 8601 in UTC with milliseconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
