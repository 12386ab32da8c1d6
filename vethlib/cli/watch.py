"""watch: everything that happens to namespaces, links, addresses and states, as it happens."""

from __future__ import annotations

import json
import time
from argparse import Namespace
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Any, Final

from vethlib import ns
from vethlib.agent.mark import check_label
from vethlib.errors import InvalidValue
from vethlib.links import Link
from vethlib.monitor import HostEvent, Monitor
from vethlib.session import Session

from .exits import DONE, PENDING
from .linktext import change, painted_state
from .output import Output
from .states import state_text
from .stopping import until_stopped
from .text import paint
from .where import ref_text

__all__ = ["watch"]

_SIGNS: Final = {"is": ("=", "faint"), "new": ("+", "good"), "changed": ("~", "warning"), "deleted": ("-", "bad")}
_OPERSTATES: Final = {"up": "good", "down": "bad"}


def watch(args: Namespace, output: Output) -> int:
    """Tell what happens until interrupted, or as much or as long as was asked for."""
    check_label(args.label, "--label")
    chosen = _Filter(args.targets, args.only, args.type)
    deadline = None if args.timeout is None else time.monotonic() + args.timeout
    left = args.count
    with (
        until_stopped() as stopped,
        Session() as session,
        Monitor(session, chosen.refs, label=args.label, status_dir=args.status_dir) as monitor,
    ):
        batches = _batches(monitor, deadline, stopped)
        if args.initial:
            for event in filter(chosen, monitor.snapshot()):
                _tell(output, event)
            output.flush()
        for batch in batches:
            for event in filter(chosen, batch):
                _tell(output, event)
                if left is not None and (left := left - 1) <= 0:
                    return DONE
            output.flush()
    # Who waits for so many has not got them.
    return DONE if left is None or stopped() else PENDING


def _batches(monitor: Monitor, deadline: float | None, stopped: Any) -> Iterator[list[HostEvent]]:
    while not stopped():
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            return
        yield monitor.poll(left)


# --- which of them


@dataclass(frozen=True, slots=True)
class _Pattern:
    """LINK[@NETNS] with the wildcards of a shell; None: any."""

    name: str | None
    netns: str | None

    def fits(self, name: str, ref: str) -> bool:
        if self.netns is not None and not any(fnmatchcase(text, self.netns) for text in (ref, ref_text(ref))):
            return False
        return self.name is None or fnmatchcase(name, self.name)


class _Filter:
    """Whether an event is to be told. `refs` are namespaces that have to be watched for it and have no name."""

    def __init__(self, targets: Iterable[str], only: Iterable[str], kind: str | None) -> None:
        self.refs: list[str] = []
        self._patterns = [self._pattern(text) for text in targets]
        self._only = frozenset(only)
        self._kind = kind

    def _pattern(self, text: str) -> _Pattern:
        name, at, ref = text.partition("@")
        if not name and not ref:
            raise InvalidValue("LINK@NETNS", text, "write a name, @NETNS or NAME@NETNS, as in 'veth*@ns1'")
        if ":" in ref and not any(one in ref for one in "*?["):
            try:
                ref = str(ns.parse(ref))
            except InvalidValue as error:
                raise InvalidValue("LINK@NETNS", error.value, error.hint) from None
            if not ref.startswith("netns:"):
                self.refs.append(ref)
        return _Pattern(name or None, ref if at else None)

    def __call__(self, event: HostEvent) -> bool:
        if event.what == "resync":
            return True
        if self._only and event.what not in self._only:
            return False
        if self._kind is not None and (event.link is None or event.link.kind != self._kind):
            return False
        return not self._patterns or any(one.fits(event.name, event.netns) for one in self._patterns)


# --- how


def _tell(output: Output, event: HostEvent) -> None:
    output.line(json.dumps(as_dict(event)) if output.as_json else _line(event))


def as_dict(event: HostEvent) -> dict[str, Any]:
    """An event for JSON."""
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
        "state": dict(event.state) or None,
        "changes": {name: [old, new] for name, (old, new) in event.changes.items()},
    }


def _link(link: Link) -> dict[str, Any]:
    names = ("kind", "mac", "mtu", "up", "operstate", "alias")
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
        return paint("events were lost; what differs by now follows", "bad")
    if event.what == "netns":
        return f"{where}  namespace"
    if event.what == "state":
        return f"{name}  {_of_state(event)}"
    if event.what == "address":
        assert event.address is not None
        note = paint("  tentative", "faint") if event.address.tentative else ""
        note += paint("  duplicate", "bad") if event.address.dadfailed else ""
        return f"{where}  {name}  {paint(event.address.interface, 'address')}{note}"
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
        return ", ".join(_changes(event))
    peer = "" if event.peer is None else f"⇄ {event.peer.name}"
    if event.peer is not None and event.peer.netns != event.netns:
        peer += f"@{ref_text(event.peer.netns)}"
    return "  ".join(filter(None, (peer or link.kind, painted_state(link), f"mtu {link.mtu}", link.mac, link.alias)))


def _changes(event: HostEvent) -> Iterator[str]:
    for field, (old, new) in event.changes.items():
        role = "heading"
        if field == "up":
            role = "good" if new else "bad"
        elif field == "operstate":
            role = _OPERSTATES.get(new, "warning")
        yield change(field, old, new, role)
