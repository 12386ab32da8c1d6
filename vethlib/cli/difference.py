"""A plan in the style of a unified diff: the host on one side, the files on the other, a hunk for each link."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from vethlib.agent.inverse import ends_of
from vethlib.agent.observed import Observed, SeenLink
from vethlib.agent.operations import AddNetns, ChangeLink, CreatePair, DeletePair, Plan
from vethlib.links import End

from .output import Output
from .text import paint

__all__ = ["show_difference"]

_ROLES = {"+": "good", "-": "bad", "@": "link", " ": ""}


def show_difference(output: Output, wanted: Plan, observed: Observed, paths: Sequence[str]) -> None:
    """Each line that the host has and the files do not begins with ``-``, and the other way round with ``+``."""
    if not wanted.operations:
        return
    output.line(paint("--- host", "heading"))
    output.line(paint(f"+++ {' '.join(paths)}", "heading"))
    for line in _hunks(wanted, observed):
        output.line(paint(line, _ROLES[line[0]]))


def _hunks(wanted: Plan, observed: Observed) -> Iterator[str]:
    for operation in wanted.operations:
        match operation:
            case AddNetns():
                yield f"@@ namespace {operation.name} @@"
                yield f"+namespace {operation.name}"
            case DeletePair():
                for seen in ends_of(observed, observed.by_index[operation.place, operation.index]):
                    yield f"{_header(seen.link.name, seen.ref)} {operation.why}"
                    yield from (f"-{line}" for line in _seen(seen, observed))
            case ChangeLink():
                yield _header(operation.name, operation.ref)
                yield from _changed(operation, observed.by_index[operation.place, operation.index], observed)
            case CreatePair(veth=veth):
                for end, peer in ((veth.a, veth.b), (veth.b, veth.a)):
                    yield _header(end.name, str(end.netns or ""))
                    yield from (f"+{line}" for line in _created(end, peer))


def _header(name: str, ref: str) -> str:
    return f"@@ {name} in {ref or 'home'} @@"


def _changed(change: ChangeLink, seen: SeenLink, observed: Observed) -> Iterator[str]:
    """The peer for context, then each field as it is and as it is to be."""
    for end in ends_of(observed, seen)[1:]:
        yield f" {_peer(end.link.name, end.ref)}"
    for name, (old, new) in change.changes.items():
        yield f"-{_value(name, old)}"
        yield f"+{_value(name, new)}"
    yield from (f"-{address}" for address in change.removed)
    yield from (f"+{address}" for address in change.added)


def _created(end: End, peer: End) -> Iterator[str]:
    yield _peer(peer.name, str(peer.netns or ""))
    if end.mac:
        yield f"mac {end.mac}"
    if end.mtu:
        yield f"mtu {end.mtu}"
    if end.num_queues:
        yield f"queues {end.num_queues}"
    yield _value("up", end.up)
    yield from map(str, end.interfaces)


def _seen(seen: SeenLink, observed: Observed) -> Iterator[str]:
    for end in ends_of(observed, seen)[1:]:
        yield _peer(end.link.name, end.ref)
    yield f"mac {seen.link.mac}"
    yield f"mtu {seen.link.mtu}"
    yield _value("up", seen.link.up)
    yield from (str(one.interface) for one in seen.addresses if not one.by_kernel)


def _peer(name: str, ref: str) -> str:
    return f"peer {name} in {ref or 'home'}"


def _value(name: str, value: Any) -> str:
    if name == "up":
        return "up" if value else "down"
    text = str(value)
    return f"{name} {value!r}" if text == "" or " " in text else f"{name} {text}"
