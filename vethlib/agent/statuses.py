"""What is said of every interface: its status, kept and compared, and the log of what changed and why."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from vethlib.links import Address, Link, describe

from .model import Interface
from .observed import SeenLink
from .operations import ChangeLink, CreatePair, DeletePair, Operation
from .state import State, Verdict
from .status import Status
from .subscriptions import Subscribers

__all__ = ["StatusChange", "Statuses"]

_log = logging.getLogger("vethlib.agent")

_LOGGED = ("netns", "host_name", "ifindex", "peer", "warning", "attempt", "next_try")
_LEVELS = {State.RETRYING: logging.WARNING, State.FAILED: logging.WARNING, State.INVALID: logging.WARNING}


@dataclass(frozen=True, slots=True)
class StatusChange:
    """The status of an interface as it is, None if it is no more, and as it was, None if it is new."""

    name: str
    status: Status | None
    old: Status | None = None


class Statuses:
    """The status of every interface, and which have changed since they were taken last."""

    def __init__(self) -> None:
        self.now: dict[str, Status] = {}
        self._taken: dict[str, Status | None] = {}
        self.subscribers: Subscribers[StatusChange] = Subscribers()
        self._changed: dict[str, Status | None] = {}

    def take_changes(self) -> dict[str, Status | None]:
        """Those that have changed since the last call, by name; None for an interface that is no more."""
        self._taken, self._changed = self._changed, {}
        return self._taken

    def take_back(self) -> None:
        """Nobody has got what was taken last."""
        self._changed = self._taken | self._changed

    def say(
        self,
        name: str,
        verdict: Verdict,
        interface: Interface | None,
        seen: SeenLink | None,
        *,
        attempt: int = 0,
        due: float = 0.0,
        warning: str = "",
        unseen: bool = False,
    ) -> bool:
        """The state of an interface, and the link it has; whether its state or the reason for it is another now.

        `unseen` says that nobody could look at its link, of which what was known last holds.
        """
        before = self.now.get(name)
        same = before is not None and before.state is verdict.state
        status = Status(
            name,
            verdict.state,
            verdict.reason,
            before.since if before is not None and same else time.time(),
            attempt=attempt,
            due=due,
            warning=warning,
        )
        if interface is not None:
            ref, kernel_name, peer = interface.namespace.ref, interface.kernel_name, interface.peer_if_name
            status = replace(status, netns=ref, host_name=kernel_name, peer=peer)
        if seen is not None:
            status = replace(status, link=seen.link, peer_index=None if seen.peer is None else seen.peer[1])
        elif unseen and before is not None:
            status = replace(status, link=before.link, peer_index=before.peer_index)
        if status != before:
            self._set(name, status, before)
        return before is None or not same or before.reason != verdict.reason

    def refresh(self, name: str, link: Link) -> Link | None:
        """The link of an interface may have changed, but not so that it is not right any more; as it is now, if so."""
        status = self.now.get(name)
        if status is not None and status.link is not None and status.link.index == link.index:
            fresh = replace(link, netns=status.link.netns, addresses=status.link.addresses)
            if fresh != status.link:
                self._set(name, replace(status, link=fresh), status)
                return fresh
        return None

    def refresh_address(self, name: str, address: Address, given: bool) -> None:
        """An address has come to the link of an interface, or has gone from it."""
        status = self.now.get(name)
        if status is not None and status.link is not None and status.link.index == address.index:
            others = tuple(one for one in status.link.addresses if one != address.interface)
            addresses = (*others, address.interface) if given else others
            if set(addresses) != set(status.link.addresses):
                self._set(name, replace(status, link=replace(status.link, addresses=addresses)), status)

    def remove(self, name: str) -> bool:
        """There is no such interface any more; whether there was one."""
        before = self.now.pop(name, None)
        if before is None:
            return False
        self._changed[name] = None
        self.subscribers.tell(StatusChange(name, None, before))
        return True

    def _set(self, name: str, status: Status, before: Status | None) -> None:
        self.now[name] = self._changed[name] = status
        self.subscribers.tell(StatusChange(name, status, before))

    def log(self, name: str, verdict: Verdict | None, done: Iterable[Operation], cause: str) -> None:
        """A line for one change of one interface: its state, what was done, and what it was done for.

        The record has more: `interface`, `state`, `reason`, `done` and `cause` in words, and, where they are known,
        `netns`, `host_name`, `ifindex`, `peer`, `warning`, `attempt` and `next_try`, as the status has them.
        """
        level = logging.INFO if verdict is None else _LEVELS.get(verdict.state, logging.INFO)
        if not _log.isEnabledFor(level):
            return
        state, reason = ("removed", "") if verdict is None else (str(verdict.state), verdict.reason)
        known = reason or ("" if verdict else f"{name} is not configured")
        acts = "; ".join(act for operation in done if (act := _told(operation, name, known)))
        fields: dict[str, Any] = {"interface": name, "state": state, "reason": reason, "done": acts, "cause": cause}
        if verdict is not None and (status := self.now.get(name)) is not None:
            said = status.as_dict()
            fields |= {field: said[field] for field in _LOGGED if said.get(field) not in (None, "")}
        text = f"{state} ({reason})" if reason else state
        warning = f" ({fields['warning']})" if "warning" in fields else ""
        extra = {"vethlib": fields}
        _log.log(level, "%s: %s%s%s, for: %s", name, text, warning, f", {acts}" if acts else "", cause, extra=extra)


def _told(operation: Operation, name: str, reason: str) -> str:
    """What was done for an interface, in words; not once more why, if that is the `reason` for its state."""
    if isinstance(operation, CreatePair):
        end = operation.veth.a if operation.a.name == name else operation.veth.b
        return f"created {end}"
    if isinstance(operation, ChangeLink):
        parts = [f"{field} {now} → {wanted}" for field, (now, wanted) in operation.changes.items()]
        parts += [f"address {one} added" for one in operation.added]
        parts += [f"address {one} removed" for one in operation.removed]
        return ", ".join(parts)
    if isinstance(operation, DeletePair):
        where = describe(operation.name, operation.ref)
        return f"deleted {where}" + (f" ({operation.why})" if operation.why != reason else "")
    return ""
