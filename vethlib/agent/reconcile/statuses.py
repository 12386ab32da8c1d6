"""The status of every interface, the changes that led to it, and the log of these changes."""

from __future__ import annotations

import logging
import time
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address
from operator import attrgetter
from typing import Any, Final

from vethlib import links
from vethlib.addresses import Identity
from vethlib.agent.config.model import Interface
from vethlib.agent.limits import DEFAULT, Limits
from vethlib.agent.planning.observed import SeenLink
from vethlib.agent.planning.operations import AddNetns, Operation
from vethlib.agent.planning.plausibility import ConfigWarning
from vethlib.agent.planning.words import action
from vethlib.agent.reasons import Reason
from vethlib.agent.registry.subscriptions import Subscribers
from vethlib.agent.state import State, Verdict
from vethlib.agent.status import Status, iso
from vethlib.links import Address, Link
from vethlib.text import bounded, cut

__all__ = ["MOST", "Change", "History", "StatusChange", "Statuses"]

_log = logging.getLogger("vethlib.agent")

MOST: Final = 16
"""Changes that are kept for one interface."""

_REMOVED: Final = 256  # removed interfaces whose changes are kept
_LONGEST: Final = 300  # characters of each text; the log has more

_LEVELS = {State.RETRYING: logging.WARNING, State.FAILED: logging.WARNING, State.INVALID: logging.WARNING}


@dataclass(slots=True)
class Change:
    """A change of an interface, and when it happened (`at`, in seconds since 1970).

    `state` is the new state, or "removed"; `reason` explains it, with its `code`, `done` lists what the agent did, and
    `cause` is why it looked at the interface. A change that repeats the one before, such as another attempt with the
    same result, is counted instead of kept: it happened `count` times, the last time at `last`.
    """

    at: float
    state: str
    reason: str
    done: str
    cause: str
    count: int = 1
    last: float = 0.0
    code: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return the change for JSON; times are ISO 8601 in UTC."""
        entry = {"at": iso(self.at), "state": self.state, "reason": self.reason, "done": self.done, "cause": self.cause}
        return entry | {"count": self.count, "last": iso(self.last), "code": self.code}


_what: Final = attrgetter("state", "reason", "done", "cause")


class History:
    """The latest changes of all interfaces. Their number and their texts are bounded."""

    def __init__(self) -> None:
        self._changes: dict[str, deque[Change]] = {}
        self._removed: OrderedDict[str, None] = OrderedDict()  # the oldest first

    def add(self, name: str, at: float, *, state: str, reason: str, done: str, cause: str, code: str = "") -> None:
        """Add a change of an interface."""
        reason, done, cause = (cut(text, _LONGEST) for text in (reason, done, cause))
        changes = self._changes.get(name)
        if changes is None:
            changes = self._changes[name] = deque(maxlen=MOST)
        if changes and _what(changes[-1]) == (state, reason, done, cause):
            changes[-1].count += 1
            changes[-1].last = at
        else:
            changes.append(Change(at, state, reason, done, cause, last=at, code=code))
        self._removed.pop(name, None)
        if state == "removed":
            self._removed[name] = None
            if len(self._removed) > _REMOVED:
                del self._changes[self._removed.popitem(last=False)[0]]

    def of(self, name: str) -> list[Change]:
        """Return the changes of an interface, oldest first."""
        return list(self._changes.get(name, ()))

    def __iter__(self) -> Iterator[str]:
        return iter(self._changes)


@dataclass(frozen=True, slots=True)
class StatusChange:
    """The new status of an interface (None if it was removed) and the old one (None if it is new)."""

    name: str
    status: Status | None
    old: Status | None = None


class Statuses:
    """The status of every interface, and which have changed since they were taken last. Their texts are bounded.

    `now` has the status of each interface; `subscribers` receive every change, and `history` keeps the latest.
    """

    def __init__(self, limits: Limits = DEFAULT) -> None:
        self._limits = limits
        self.now: dict[str, Status] = {}
        self._taken: dict[str, Status | None] = {}
        self.subscribers: Subscribers[StatusChange] = Subscribers()
        self.history = History()
        self._changed: dict[str, Status | None] = {}

    def take_changes(self) -> dict[str, Status | None]:
        """Return the statuses that have changed since the last call, by name; None for a removed interface."""
        self._taken, self._changed = self._changed, {}
        return self._taken

    def take_back(self) -> None:
        """Make the changes that were taken last available again, because they were not received."""
        self._changed = self._taken | self._changed

    def report(
        self,
        name: str,
        verdict: Verdict,
        interface: Interface | None,
        seen: SeenLink | None,
        *,
        attempt: int = 0,
        due: float = 0.0,
        warning: Reason | None = None,
        warnings: Iterable[ConfigWarning] = (),
        unseen: bool = False,
    ) -> bool:
        """Set the status of an interface, and return whether its state or the reason for it has changed.

        `seen` is its link; if it is `unseen`, it keeps its last known link. New `warnings` are logged.
        """
        before = self.now.get(name)
        same = before is not None and before.state is verdict.state
        reason = self._bounded(verdict.reason)
        link, peer_index = None, None
        if seen is not None:
            link, peer_index = seen.link, None if seen.peer is None else seen.peer[1]
        elif unseen and before is not None:
            link, peer_index = before.link, before.peer_index
        kernel_name = "" if interface is None else interface.kernel_name
        status = Status(
            name,
            verdict.state,
            reason,
            before.since if before is not None and same else time.time(),
            netns="" if interface is None else interface.namespace.ref,
            host_name=kernel_name if link is None else link.name,  # it may not have been renamed yet
            peer="" if interface is None else interface.peer_if_name,
            link=link,
            peer_index=peer_index,
            attempt=attempt,
            due=due,
            warning="" if warning is None else self._bounded(warning.text),
            warning_code="" if warning is None else warning.code,
            reasons=tuple(map(self._bounded_reason, verdict.reasons)) if verdict.reasons else (),
            warnings=tuple([replace(each, message=self._bounded(each.message)) for each in warnings]),
            most_addresses=self._limits.status_addresses,
        )
        if status != before or _address_states(status) != _address_states(before):
            self._set(name, status, before)
            if status.warnings:
                _log_new(status, before)
        else:
            self.now[name] = status  # with current flags and lifetimes, which are not reported
        return before is None or not same or before.reason != reason

    def _bounded(self, text: str) -> str:
        return bounded(text, self._limits.reason_chars)

    def _bounded_reason(self, reason: Reason) -> Reason:
        return reason._replace(text=self._bounded(reason.text), about=self._bounded(reason.about))

    def fresh(self, name: str, link: Link) -> Link | None:
        """Return the current link of an interface, if it differs from that of its status; None otherwise."""
        status = self.now.get(name)
        if status is not None and status.link is not None and status.link.index == link.index:
            was = status.link
            fresh = replace(link, netns=was.netns, addresses=was.addresses, ifaddrs=was.ifaddrs)
            if fresh != status.link:
                return fresh
        return None

    def refresh(self, name: str, link: Link) -> None:
        """Update the link of an interface that has changed, but still matches its configuration."""
        status = self.now[name]
        self._set(name, replace(status, link=link), status)

    def refresh_addresses(self, name: str, changes: Iterable[tuple[Address, bool]]) -> None:
        """Update the addresses of an interface: each was added or has changed (True), or was removed (False)."""
        status = self.now.get(name)
        if status is None or status.link is None:
            return
        ifaddrs = _after(status.link, changes)
        if ifaddrs is None:
            return
        link = replace(status.link, addresses=tuple(address.interface for address in ifaddrs), ifaddrs=ifaddrs)
        fresh = replace(status, link=link)
        if set(link.addresses) != set(status.link.addresses) or _address_states(fresh) != _address_states(status):
            self._set(name, fresh, status)
        else:
            self.now[name] = fresh

    def is_usability_changed(
        self, name: str, changes: Iterable[tuple[Address, bool]], desired: Mapping[Identity, links.Interface]
    ) -> bool:
        """Return whether these changes decide that the `desired` addresses can be used, or can no longer be used.

        They do if an address has become a duplicate, if the first address has become unusable, or if the last one has
        become usable.
        """
        status = self.now.get(name)
        if status is None or status.link is None or (ifaddrs := _after(status.link, changes)) is None:
            return False
        before = {address.identity: address.dadfailed for address in status.link.ifaddrs if not address.usable}
        after = {address.identity: address.dadfailed for address in ifaddrs if not address.usable}
        if any(failed and not before.get(address) for address, failed in after.items() if address in desired):
            return True
        return desired.keys().isdisjoint(before) != desired.keys().isdisjoint(after)

    def duplicates(self, name: str) -> set[IPv4Address | IPv6Address]:
        """Return the addresses of an interface that detection has found to be duplicates."""
        status = self.now.get(name)
        ifaddrs = () if status is None or status.link is None else status.link.ifaddrs
        return {address.interface.ip for address in ifaddrs if address.dadfailed}

    def remove(self, name: str) -> bool:
        """Remove the status of an interface, and return whether there was one."""
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
        """Log one reported change of an interface, in one line: its state, what was done, and the cause.

        It is added to the history as well.

        The log record also has these fields: `interface`, `state`, `reason`, `reason_code`, `done` and `cause` as
        text, and, if known, `netns`, `host_name`, `ifindex`, `peer`, `warning`, `warning_code`, `attempt` and
        `next_try`, as in the status.
        """
        level = logging.INFO if verdict is None else _LEVELS.get(verdict.state, logging.INFO)
        most = self._limits.reason_chars
        status = None if verdict is None else self.now[name]
        state, reason = ("removed", "") if status is None else (str(status.state), status.reason)
        known = reason or ("" if status else f"{name} is not configured")
        done = list(done)
        new = {operation.ref for operation in done if isinstance(operation, AddNetns)}
        acts = cut("; ".join(act for operation in done if (act := action(operation, name, known, new))), most)
        cause = cut(cause, most)
        code = "" if verdict is None else str(verdict.code)
        self.history.add(name, time.time(), state=state, reason=reason, done=acts, cause=cause, code=code)
        if not _log.isEnabledFor(level):
            return
        fields: dict[str, Any] = {"interface": name, "state": state, "reason": reason, "reason_code": code}
        fields |= {"done": acts, "cause": cause}
        if status is not None:
            fields |= _logged(status)
        text = f"{state} ({reason})" if reason else state
        warning = f" ({fields['warning']})" if "warning" in fields else ""
        extra = {"vethlib": fields}
        _log.log(level, "%s: %s%s%s, cause: %s", name, text, warning, f", {acts}" if acts else "", cause, extra=extra)

    def log_unnamed(self, operation: Operation) -> None:
        """Log an operation on links of which it is not known for which interface they were built."""
        done = action(operation, "", "", ())
        _log.info("%s", done, extra={"vethlib": {"done": done}})


def _log_new(status: Status, before: Status | None) -> None:
    """Log the warnings that are new; those about a pair for its first interface."""
    known = () if before is None else before.warnings
    for warning in status.warnings:
        if warning not in known and warning.interfaces[0] == status.name:
            fields = {"interface": status.name, "code": warning.code, "interfaces": list(warning.interfaces)}
            extra = {"vethlib": fields | {"fields": list(warning.fields)}}
            _log.warning("%s (%s)", warning.message, warning.code, extra=extra)


def _logged(status: Status) -> dict[str, Any]:
    """Return the fields of a status that are in the log, as in :meth:`Status.as_dict`, if they are known."""
    fields: dict[str, Any] = {"netns": status.netns, "host_name": status.host_name}
    if status.link is not None:
        fields["ifindex"] = status.link.index
    fields["peer"] = status.peer
    if status.warning:
        fields |= {"warning": status.warning, "warning_code": str(status.warning_code)}
    if status.state is State.RETRYING:
        fields |= {"attempt": status.attempt, "next_try": iso(status.due)}
    return {field: value for field, value in fields.items() if value != ""}


def _after(link: Link, changes: Iterable[tuple[Address, bool]]) -> tuple[Address, ...] | None:
    """Return the addresses of a link after these changes; None if none of them concerns it."""
    ifaddrs = {(address.interface, address.peer): address for address in link.ifaddrs}
    concerned = False
    for address, added in changes:
        if address.index != link.index:
            continue
        concerned = True
        if added:
            ifaddrs[address.interface, address.peer] = address
        else:
            ifaddrs.pop((address.interface, address.peer), None)
    return tuple(ifaddrs.values()) if concerned else None


def _address_states(status: Status | None) -> Mapping[str, str]:
    return {} if status is None else status.address_states()
