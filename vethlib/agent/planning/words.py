"""The operations of a plan in words, wherever these are read: by vethctl, in the log and history, in a reason.

Each kind of operation has a row in the table of verbs. The difference of a link is worded as it was found (``mtu is
1400, not 1500``), and as it is removed (``mtu 1400 → 1500``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator
from typing import Final, NamedTuple

from vethlib.endfields.table import ROUTES
from vethlib.links import describe
from vethlib.text import change_text, counted, value_text

from .observed import LinkId
from .operations import (
    AddNetns,
    ChangeLink,
    CreatePair,
    DeletePair,
    Operation,
    RemoveNetns,
    RemoveSurplus,
    listed_identity,
)

__all__ = ["Paint", "action", "changes", "count", "drift", "drifted", "line", "to_be_done"]

Paint = Callable[[object, str], str]
"""Marks a text with a role: "good", "bad", "warning", or "heading" for a new value."""


class _Verb(NamedTuple):
    """The words for one kind of operation: the sign of its line, the role of the sign, what it is done to, the verb."""

    sign: str
    role: str
    noun: str
    do: str
    done: str


_VERBS: Final[dict[type[Operation], _Verb]] = {
    AddNetns: _Verb("+", "good", "namespace", "add", "added"),
    CreatePair: _Verb("+", "good", "pair", "create", "created"),
    ChangeLink: _Verb("~", "warning", "link", "change", "changed"),
    RemoveSurplus: _Verb("~", "warning", "link", "change", "changed"),
    DeletePair: _Verb("-", "bad", "pair", "delete", "deleted"),
    RemoveNetns: _Verb("-", "bad", "namespace", "remove", "removed"),
}


_LISTED: Final = 32  # changes in the log, in the history and in a reason


def _plain(text: object, _role: str) -> str:
    return str(text)


# --- all operations of a plan


def count(operations: Iterable[Operation], *, done: bool) -> str:
    """Return ``added 1 namespace, created 2 pairs``, or ``add`` and ``create`` if not `done`; "" for no operations.

    A link that is changed in several steps counts once.
    """
    kinds: Counter[type[Operation]] = Counter()
    changed: set[LinkId] = set()
    for operation in operations:
        if isinstance(operation, ChangeLink):
            changed.add((operation.place, operation.index))
        else:
            kinds[type(operation)] += 1
    kinds[ChangeLink] = len(changed)
    return ", ".join(
        f"{verb.done if done else verb.do} {counted(kinds[kind], verb.noun)}"
        for kind, verb in _VERBS.items()
        if kinds[kind]
    )


# --- one operation


def line(operation: Operation, paint: Paint = _plain) -> str:
    """Return an operation in one line: ``~ 'a' in netns:blue: mtu 1400 → 1500``."""
    verb = _VERBS[type(operation)]
    return f"{paint(verb.sign, verb.role)} {_subject(operation, paint)}"


def _subject(operation: Operation, paint: Paint) -> str:
    match operation:
        case CreatePair(veth=veth):
            return str(veth)
        case ChangeLink(name=name, ref=ref):
            return f"{describe(name, ref)}: {changes(operation, paint)}"
        case RemoveSurplus(name=name, ref=ref):
            return f"{describe(name, ref)}: {_removal(operation)}"
        case DeletePair(name=name, ref=ref, why=why):
            return f"{describe(name, ref)} and its peer: {why}"
        case AddNetns(name=name) | RemoveNetns(name=name):
            return f"{_VERBS[type(operation)].noun} {name}"


def to_be_done(operation: Operation) -> str:
    """Return what is to be done to the links of an operation: ``to be created``."""
    return f"to be {_VERBS[type(operation)].done}"


# --- what an operation means for one of its interfaces


def action(operation: Operation, name: str, known: str, new: Container[str]) -> str:
    """Return what was done for the interface called `name`; "" if that is obvious.

    The reason for a deletion is left out if it is `known`. `new` has the references of namespaces that were created.
    """
    done = _VERBS[type(operation)].done
    match operation:
        case CreatePair():
            end = operation.veth.a if operation.a.name == name else operation.veth.b
            return f"{done} {end}{' (a new namespace)' if str(end.netns or '') in new else ''}"
        case ChangeLink():
            return _first(_changes(operation, _plain))
        case RemoveSurplus():
            return _removal(operation)
        case DeletePair():
            where = describe(operation.name, operation.ref)
            return f"{done} {where}" + (f" ({operation.why})" if operation.why != known else "")
    return ""


def drift(operation: Operation) -> str:
    """Return the drift of interfaces that an operation corrects; "" if it is for none."""
    match operation:
        case ChangeLink():
            return _first(_differences(operation))
        case RemoveSurplus(surplus=surplus):
            return ", ".join(f"{field} are not configured" for field in surplus)
        case CreatePair():
            return "the pair is missing"
        case DeletePair():
            return operation.why
    return ""


def drifted(operation: Operation) -> str:
    """Return the first field that an operation corrects; "" if that is the whole pair."""
    if isinstance(operation, RemoveSurplus):
        return next(iter(operation.surplus))
    if not isinstance(operation, ChangeLink):
        return ""
    return next(iter(operation.differences), ROUTES if operation.sets_again else "addresses")


# --- the change of a link


def _first(texts: Iterable[str]) -> str:
    """List the first of these texts, and the number of the others: a link may have thousands of addresses."""
    texts = list(texts)
    more = [f"and {len(texts) - _LISTED} more"] if len(texts) > _LISTED else []
    return ", ".join([*texts[:_LISTED], *more])


def _differences(change: ChangeLink) -> Iterator[str]:
    for field, (old, new) in change.differences.items():
        yield f"{'it' if field == 'up' else field} is {value_text(field, old)}, not {value_text(field, new)}"
    if change.sets_again:
        yield "the source address of its routes is removed"
    replaced = change.replaced
    yield from (f"address {each} is not configured" for each in change.removed if listed_identity(each) not in replaced)
    for address in change.added:
        yield f"address {address} {'has other attributes' if listed_identity(address) in replaced else 'is missing'}"
    if change.order:
        yield "its addresses are in another order"
    yield from (f"address {address} expires" for address in change.renewed)
    yield from (f"address {address} is a duplicate" for address in change.again)


def _removal(operation: RemoveSurplus) -> str:
    """Return what is removed: ``512 routes removed``."""
    return ", ".join(f"{len(values)} {field} removed" for field, values in operation.surplus.items())


def changes(change: ChangeLink, paint: Paint = _plain) -> str:
    """Return what changes of a link: ``mtu 1400 → 1500, -10.0.0.1/24, +10.0.0.2/24``."""
    return ", ".join(_changes(change, paint))


def _changes(change: ChangeLink, paint: Paint) -> Iterator[str]:
    for field, (old, new) in change.differences.items():
        yield change_text(field, old, new, lambda text: paint(text, "heading"))
    if change.sets_again:
        yield "routes added again"
    yield from (paint(f"-{address}", "bad") for address in change.removed)
    yield from (paint(f"+{address}", "good") for address in change.added)
    if change.order:
        yield f"order {' '.join(map(str, change.order))}"
    yield from (paint(f"{address} made permanent", "warning") for address in change.renewed)
    yield from (paint(f"{address} added again", "warning") for address in change.again)
