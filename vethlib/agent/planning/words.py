"""The operations of a plan in words: what each corrects, and what it does.

The same difference of a link is worded as it was found (``mtu is 1400, not 1500``), and as it is removed
(``mtu 1400 → 1500``).
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator

from vethlib.links import describe
from vethlib.text import change_text, value_text

from .operations import ChangeLink, CreatePair, DeletePair, Operation, listed_identity

__all__ = ["action", "changes", "drift", "drifted"]

Paint = Callable[[object, str], str]
"""Marks a text with a role: "good", "bad", "warning", or "heading" for a new value."""


def drift(operation: Operation) -> str:
    """Return the drift of interfaces that an operation corrects; "" if it is for none."""
    match operation:
        case ChangeLink():
            return ", ".join(_differences(operation))
        case CreatePair():
            return "the pair is missing"
        case DeletePair():
            return operation.why
    return ""


def drifted(operation: Operation) -> str:
    """Return the first field that an operation corrects; "" if that is the whole pair."""
    return next(iter(operation.differences), "addresses") if isinstance(operation, ChangeLink) else ""


def _differences(change: ChangeLink) -> Iterator[str]:
    for field, (old, new) in change.differences.items():
        yield f"{'it' if field == 'up' else field} is {value_text(field, old)}, not {value_text(field, new)}"
    replaced = change.replaced
    yield from (f"address {each} is not configured" for each in change.removed if listed_identity(each) not in replaced)
    for address in change.added:
        yield f"address {address} {'has other attributes' if listed_identity(address) in replaced else 'is missing'}"
    if change.order:
        yield "its addresses are in another order"
    yield from (f"address {address} expires" for address in change.renewed)
    yield from (f"address {address} is a duplicate" for address in change.again)


def changes(change: ChangeLink, paint: Paint = lambda text, _: str(text)) -> str:
    """Return what changes of a link: ``mtu 1400 → 1500, -10.0.0.1/24, +10.0.0.2/24``."""
    return ", ".join(_changes(change, paint))


def _changes(change: ChangeLink, paint: Paint) -> Iterator[str]:
    for field, (old, new) in change.differences.items():
        yield change_text(field, old, new, lambda text: paint(text, "heading"))
    yield from (paint(f"-{address}", "bad") for address in change.removed)
    yield from (paint(f"+{address}", "good") for address in change.added)
    if change.order:
        yield f"order {' '.join(map(str, change.order))}"
    yield from (paint(f"{address} made permanent", "warning") for address in change.renewed)
    yield from (paint(f"{address} added again", "warning") for address in change.again)


def action(operation: Operation, name: str, known: str, new: Container[str]) -> str:
    """Return what was done for the interface called `name`; "" if that goes without saying.

    The reason for a deletion is left out if it is `known`. `new` has the references of namespaces that were created.
    """
    match operation:
        case CreatePair():
            end = operation.veth.a if operation.a.name == name else operation.veth.b
            return f"created {end}{' (a new namespace)' if str(end.netns or '') in new else ''}"
        case ChangeLink():
            return changes(operation)
        case DeletePair():
            where = describe(operation.name, operation.ref)
            return f"deleted {where}" + (f" ({operation.why})" if operation.why != known else "")
    return ""
