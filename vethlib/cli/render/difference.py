"""A plan in the style of a unified diff: the host on one side, the configuration on the other, one hunk per link."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vethlib.addresses import identity_of
from vethlib.agent.planning.observed import Observed, SeenLink
from vethlib.agent.planning.operations import AddNetns, ChangeLink, CreatePair, DeletePair, Plan
from vethlib.cli.term.text import paint
from vethlib.links import End
from vethlib.text import value_text

__all__ = ["difference_lines"]

_ROLES = {"+": "good", "-": "bad", "@": "link", " ": ""}


def difference_lines(planned: Plan, observed: Observed, sources: Sequence[str]) -> Iterator[str]:
    """Yield the lines of the diff: ``-`` for what only the host has, ``+`` for what only the `sources` have."""
    if not planned.operations:
        return
    yield paint("--- host", "heading")
    yield paint(f"+++ {' '.join(sources)}", "heading")
    for line in _hunks(planned, observed):
        yield paint(line, _ROLES[line[0]])


def _hunks(planned: Plan, observed: Observed) -> Iterator[str]:
    for operation in planned.operations:
        match operation:
            case AddNetns():
                yield f"@@ namespace {operation.name} @@"
                yield f"+namespace {operation.name}"
            case DeletePair():
                for seen in observed.ends(observed.by_index[operation.place, operation.index]):
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
    """Yield the peer for context, then the old and the new value of each field."""
    for end in observed.ends(seen)[1:]:
        yield f" {_peer(end.link.name, end.ref)}"
    for name, (old, new) in change.differences.items():
        yield f"-{_value(name, old)}"
        yield f"+{_value(name, new)}"
    yield from (f"-{address}" for address in change.removed)
    yield from (f"+{address}" for address in change.added)
    if change.order:
        order = {identity_of(given): given for given in change.order}
        now = [order[address.identity] for address in seen.addresses if address.identity in order]
        yield f"-order {' '.join(map(str, now))}"
        yield f"+order {' '.join(map(str, change.order))}"
    states = {address.identity: address.state for address in seen.addresses}
    for address in (*change.renewed, *change.again):
        yield f"-{address} {states[identity_of(address)]}"
        yield f"+{address}"


def _created(end: End, peer: End) -> Iterator[str]:
    yield _peer(peer.name, str(peer.netns or ""))
    if end.mac:
        yield f"mac {end.mac}"
    if end.mtu:
        yield f"mtu {end.mtu}"
    if end.num_queues:
        yield f"queues {end.num_queues}"
    yield _value("up", end.up)
    if end.ipv6 is not None:
        yield _value("ipv6", end.ipv6)
    yield from map(str, end.interfaces)
    for name, value in end.further.items():
        yield _value(name, value)


def _seen(seen: SeenLink, observed: Observed) -> Iterator[str]:
    for end in observed.ends(seen)[1:]:
        yield _peer(end.link.name, end.ref)
    yield f"mac {seen.link.mac}"
    yield f"mtu {seen.link.mtu}"
    yield _value("up", seen.link.up)
    yield from (str(address) for address in seen.addresses if not address.by_kernel)
    for name, value in seen.further.items():
        if value not in (None, (), ""):
            yield _value(name, value)


def _peer(name: str, ref: str) -> str:
    return f"peer {name} in {ref or 'home'}"


def _value(name: str, value: object) -> str:
    return value_text(name, value) if name == "up" else f"{name} {value_text(name, value)}"
