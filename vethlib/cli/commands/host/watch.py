"""watch: changes of namespaces, links, addresses and states, as they happen."""

from __future__ import annotations

import json
import os
import time
from argparse import Namespace
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Any, Final

from vethlib import ns
from vethlib.agent.config.mark import check_label
from vethlib.agent.process.claim import NoUnixSockets
from vethlib.agent.stores.opening import open_statuses
from vethlib.cli.render.linktext import address_text, change, operstate_word, painted_state, ref_text
from vethlib.cli.render.states import state_text
from vethlib.cli.term.exits import DONE, PENDING
from vethlib.cli.term.output import Output
from vethlib.cli.term.signals import until_stopped
from vethlib.cli.term.text import paint
from vethlib.errors import InvalidValue
from vethlib.links import Link
from vethlib.monitor import HostEvent, Monitor
from vethlib.ns.opening import NETNS_DIR, identity_at
from vethlib.session import Session

__all__ = ["watch"]

_CALLED_HOME: Final = ns.parse("netns:home").path
_SIGNS: Final = {"is": ("=", "faint"), "new": ("+", "good"), "changed": ("~", "warning"), "deleted": ("-", "bad")}
_OPERSTATES: Final = {"up": "good", "down": "bad"}


def watch(args: Namespace, output: Output) -> int:
    """Print events until interrupted, or until --count or --timeout; return the exit code."""
    check_label(args.label, "--label")
    chosen = _Filter(args.targets, args.only, args.type)
    deadline = None if args.timeout is None else time.monotonic() + args.timeout
    left = args.count
    with (
        until_stopped() as stopped,
        Session() as session,
        Monitor(session, chosen.refs, label=args.label, status_dir=args.status_dir) as monitor,
    ):
        if "label" in args.given or "state" in chosen.only:
            _warn_without_agent(args, output)
        _warn_of_unwatched(monitor, chosen, output)
        batches = _batches(monitor, deadline, stopped)
        if args.initial:
            for event in chosen.of(monitor, monitor.snapshot()):
                _print(output, event)
            output.flush_to_reader()
        for batch in batches:
            for event in chosen.of(monitor, batch):
                _print(output, event)
                if left is None or event.what == "resync":
                    continue
                left -= 1
                if left <= 0:
                    return DONE
            output.flush_to_reader()
    # With --count, fewer events than expected have arrived.
    return DONE if left is None or stopped() else PENDING


def _warn_without_agent(args: Namespace, output: Output) -> None:
    """Warn if states are expected of an agent that does not run: those on this host are of the last one, or missing."""
    try:
        published = open_statuses("", label=args.label, status_dir=args.status_dir).read()
    except NoUnixSockets:
        return  # it is unknown whether one runs
    if published.agent is None and not published.is_elsewhere:
        output.warning(f"no agent with the label {args.label} runs")


def _warn_of_unwatched(monitor: Monitor, chosen: _Filter, output: Output) -> None:
    """Warn of named namespaces whose events will be missing, because capabilities are."""
    watched = set(monitor.netns)
    unwatched = [name for name in ns.names() if (ref := f"netns:{name}") not in watched and chosen.may_have(ref)]
    if any(identity_at(f"{NETNS_DIR}/{name}") is not None for name in unwatched):
        needed = "CAP_SYS_ADMIN, CAP_NET_ADMIN and CAP_NET_BROADCAST"
        output.warning(f"only this namespace is watched: watching others needs {needed}")


def _batches(monitor: Monitor, deadline: float | None, stopped: Any) -> Iterator[list[HostEvent]]:
    while not stopped():
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            return
        yield monitor.poll(left)


# --- filtering


@dataclass(frozen=True, slots=True)
class _Pattern:
    """LINK[@NETNS] with wildcards of a shell; None matches everything."""

    name: str | None
    netns: str | None

    def fits(self, name: str | None, ref: str) -> bool:
        """Return whether it matches a link of that name or, if no name is given, any link of that namespace."""
        if name is not None and self.name is not None and not fnmatchcase(name, self.name):
            return False
        if self.netns is None or any(fnmatchcase(text, self.netns) for text in (ref, ref.removeprefix("netns:"))):
            return True
        # Lines call this namespace home, but another namespace may have that name.
        return not ref and fnmatchcase("home", self.netns) and not os.path.lexists(_CALLED_HOME)


class _Filter:
    """Decides whether to print an event. `refs` are unnamed namespaces that must be watched, `only` kinds of events."""

    def __init__(self, targets: Iterable[str], only: Iterable[str], kind: str | None) -> None:
        self.refs: list[str] = []
        self._patterns = [self._pattern(text) for text in targets]
        self.only = frozenset(only)
        self._kind = kind

    def _pattern(self, text: str) -> _Pattern:
        name, at, ref = text.partition("@")
        if not text:
            raise InvalidValue("LINK@NETNS", text, "must be NAME, @NETNS or NAME@NETNS, such as 'veth*@ns1'")
        if ":" in ref and not any(one in ref for one in "*?["):
            try:
                ref = str(ns.parse(ref))
            except InvalidValue as error:
                raise InvalidValue("LINK@NETNS", error.value, error.hint) from None
            if not ref.startswith("netns:"):
                self.refs.append(ref)
        return _Pattern(name or None, ref if at else None)

    def of(self, monitor: Monitor, events: Iterable[HostEvent]) -> Iterator[HostEvent]:
        """Yield the events to print."""
        return (event for event in events if self._fits(monitor, event))

    def may_have(self, ref: str) -> bool:
        """Return whether events of a namespace may be printed."""
        if self.only == {"state"}:
            return False
        return not self._patterns or any(pattern.fits(None, ref) for pattern in self._patterns)

    def _is_of_kind(self, event: HostEvent) -> bool:
        if self.only and event.what not in self.only:
            return False
        return self._kind is None or (event.link is not None and event.link.kind == self._kind)

    def _fits(self, monitor: Monitor, event: HostEvent) -> bool:
        names: list[str | None] = [event.name]
        if event.what == "resync":
            names = [None]  # any event of the namespace may have been lost, or without a namespace any event
            if not event.netns:
                return True
        elif not self._is_of_kind(event):
            return False
        elif event.what == "link" and "name" in event.changes:
            names.append(event.changes["name"][0])  # who watches a link by its name also wants to know that it is gone
        if not self._patterns or any(pattern.fits(name, event.netns) for pattern in self._patterns for name in names):
            return True
        # A namespace may have several references, of which an event has one.
        refs = [] if all(pattern.netns is None for pattern in self._patterns) else monitor.references(event.netns)
        return any(pattern.fits(name, ref) for pattern in self._patterns for ref in refs for name in names)


# --- printing


def _print(output: Output, event: HostEvent) -> None:
    output.line(json.dumps(as_dict(event)) if output.as_json else _line(event))


def as_dict(event: HostEvent) -> dict[str, Any]:
    """Return an event for JSON."""
    link, peer = event.link, event.peer
    return {
        "time": _utc(event.time),
        "what": event.what,
        "action": event.action,
        "netns": event.netns,
        "name": event.name,
        "index": None if link is None else link.index,
        "link": None if link is None or event.what != "link" else _link(link),
        "peer": None if peer is None else {"netns": peer.netns, "name": peer.name},
        "address": None if event.address is None else str(event.address.interface),
        "address_state": None if event.address is None else event.address.state,
        "state": dict(event.state) or None,
        "changes": {name: [old, new] for name, (old, new) in event.changes.items()},
    }


def _link(link: Link) -> dict[str, Any]:
    names = ("kind", "mac", "mtu", "up", "operstate", "carrier", "alias")
    return {name: getattr(link, name) for name in names}


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _line(event: HostEvent) -> str:
    clock = time.strftime("%H:%M:%S", time.localtime(event.time)) + f".{int(event.time * 1000) % 1000:03d}"
    sign, role = _SIGNS[event.action]
    return f"{paint(clock, 'faint')} {paint(sign, role)} {_words(event)}"


def _words(event: HostEvent) -> str:
    where = paint(ref_text(event.netns), "heading")
    name = paint(event.name, "link")
    if event.what == "resync":
        return paint("events were lost; the differences follow", "bad")
    if event.what == "netns":
        return f"{where}  namespace"
    if event.what == "state":
        return f"{name}  {_of_state(event)}"
    if event.what == "address":
        assert event.address is not None
        return f"{where}  {name}  {address_text(event.address, event.name)}"
    assert event.link is not None
    return f"{where}  {name}  {_of_link(event, event.link)}".rstrip()


def _of_state(event: HostEvent) -> str:
    old, new = event.changes.get("state", (None, None))
    words = [] if old is None else [state_text(old), "→", "removed" if new is None else state_text(new)]
    if not words:
        words = [state_text(event.state["state"])]
    if reason := event.state.get("reason"):
        words.append(reason)
    return " ".join(words)


def _of_link(event: HostEvent, link: Link) -> str:
    if event.action == "deleted":
        return ""
    if event.action == "changed":
        return ", ".join(_changes(event, link))
    peer = "" if event.peer is None else f"⇄ {event.peer.name}"
    if event.peer is not None and event.peer.netns != event.netns:
        peer += f"@{ref_text(event.peer.netns)}"
    return "  ".join(filter(None, (peer or link.kind, painted_state(link), f"mtu {link.mtu}", link.mac, link.alias)))


def _changes(event: HostEvent, link: Link) -> Iterator[str]:
    was = replace(link, **{field: old for field, (old, _) in event.changes.items()})
    for field, (old, new) in event.changes.items():
        role = "heading"
        if field == "up":
            role = "good" if new else "bad"
        elif field == "operstate":
            words = operstate_word(was), operstate_word(link)
            old, new = words if words[0] != words[1] else (old, new)
            role = _OPERSTATES.get(new, "warning")
        yield change(field, old, new, role)
