"""The operations of a plan in words, and the states of the interfaces after them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from vethlib.agent.planning.operations import AddNetns, ChangeLink, CreatePair, DeletePair, Operation, RemoveNetns
from vethlib.agent.planning.words import changes
from vethlib.agent.state import State, Verdict
from vethlib.cli.term.text import counted, paint, table_lines
from vethlib.links import End, describe

__all__ = ["count_operations", "count_states", "operation_lines"]

_COUNTED = (
    (AddNetns, "namespace", "add", "added"),
    (CreatePair, "pair", "create", "created"),
    (ChangeLink, "link", "change", "changed"),
    (DeletePair, "pair", "delete", "deleted"),
    (RemoveNetns, "namespace", "remove", "removed"),
)


def count_operations(operations: Iterable[Operation], *, done: bool) -> str:
    """Return ``added 1 namespace, created 2 pairs``, or ``add`` and ``create`` if not `done`; "" for no operations."""
    kinds = Counter(map(type, operations))
    return ", ".join(
        f"{past if done else verb} {counted(kinds[kind], what)}" for kind, what, verb, past in _COUNTED if kinds[kind]
    )


def count_states(verdicts: Mapping[str, Verdict]) -> str:
    """Return ``2 interfaces are as configured``, ``of 3 interfaces 2 are as configured, 1 is PENDING``."""
    states = Counter(verdict.state for verdict in verdicts.values())
    if not states:
        return "no interfaces are configured"
    counts = [
        f"{states[state]} {'is' if states[state] == 1 else 'are'} {_STATE_WORDS.get(state, state)}"
        for state in State
        if states[state]
    ]
    total = counted(len(verdicts), "interface")
    if len(counts) == 1:
        return f"{total} {counts[0].partition(' ')[2]}"
    return f"of {total} {', '.join(counts)}"


_STATE_WORDS = {State.CONFIGURED: "as configured"}


def operation_lines(operations: Iterable[Operation]) -> Iterator[str]:
    """Yield one line per operation; for a pair to be created, one more per end."""
    for operation in operations:
        match operation:
            case AddNetns():
                yield f"{paint('+', 'good')} namespace {operation.name}"
            case RemoveNetns():
                yield f"{paint('-', 'bad')} namespace {operation.name}"
            case DeletePair():
                yield f"{paint('-', 'bad')} {describe(operation.name, operation.ref)} and its peer: {operation.why}"
            case CreatePair(veth=veth):
                yield f"{paint('+', 'good')} {veth}"
                yield from table_lines([_end(veth.a), _end(veth.b)], roles=("", "faint", "faint"))
            case ChangeLink():
                yield f"{paint('~', 'warning')} {describe(operation.name, operation.ref)}: {changes(operation, paint)}"


def _end(end: End) -> tuple[str, str, str]:
    words = [f"mac {end.mac}"] if end.mac else []
    words += [f"mtu {end.mtu}"] if end.mtu else []
    words += [f"queues {end.num_queues}"] if end.num_queues else []
    words += [str(address) for address in end.interfaces]
    return f"    {end.name}", "up" if end.up else "down", "  ".join(words)
