"""A plan in words: its operations, and the states it leaves interfaces in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from vethlib.agent.operations import AddNetns, ChangeLink, CreatePair, DeletePair, Operation, RemoveNetns
from vethlib.agent.state import State, Verdict
from vethlib.links import End, describe

from .linktext import change
from .output import Output
from .text import counted, paint

__all__ = ["count_operations", "count_states", "show_operations", "tell_unsettled"]

_COUNTED = (
    (AddNetns, "namespace", "add", "added"),
    (CreatePair, "pair", "create", "created"),
    (ChangeLink, "link", "change", "changed"),
    (DeletePair, "pair", "delete", "deleted"),
    (RemoveNetns, "namespace", "remove", "removed"),
)


def count_operations(operations: Iterable[Operation], *, done: bool) -> str:
    """``added 1 namespace, created 2 pairs``, or ``add`` and ``create``; "" for none."""
    kinds = Counter(map(type, operations))
    return ", ".join(
        f"{past if done else verb} {counted(kinds[kind], what)}" for kind, what, verb, past in _COUNTED if kinds[kind]
    )


def count_states(verdicts: Mapping[str, Verdict]) -> str:
    """``2 interfaces are as configured``, ``of 3 interfaces 2 are as configured, 1 is PENDING``."""
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


def tell_unsettled(output: Output, verdicts: Mapping[str, Verdict]) -> None:
    """Say on stderr which interfaces are not as configured, and why; an error each where that is JSON."""
    for name, verdict in verdicts.items():
        if verdict.state is State.CONFIGURED:
            continue
        if output.as_json:
            output.error(f"{name} is {verdict}", code=verdict.state.lower(), field=name)
        else:
            role = "warning" if verdict.state is State.PENDING else "bad"
            output.remark(f"{paint('?', role)} {name} is {paint(verdict.state, role)}: {verdict.reason}")


def show_operations(output: Output, operations: Iterable[Operation]) -> None:
    """A line for each operation, and for a pair that is created one for each of its ends."""
    for operation in operations:
        match operation:
            case AddNetns():
                output.line(f"{paint('+', 'good')} namespace {operation.name}")
            case RemoveNetns():
                output.line(f"{paint('-', 'bad')} namespace {operation.name}")
            case DeletePair():
                where = describe(operation.name, operation.ref)
                output.line(f"{paint('-', 'bad')} {where} and its peer: {operation.why}")
            case CreatePair(veth=veth):
                output.line(f"{paint('+', 'good')} {veth}")
                output.table([_end(veth.a), _end(veth.b)], roles=("", "faint", "faint"))
            case ChangeLink():
                where = describe(operation.name, operation.ref)
                output.line(f"{paint('~', 'warning')} {where}: {', '.join(_changes(operation))}")


def _end(end: End) -> tuple[str, str, str]:
    words = [f"mac {end.mac}"] if end.mac else []
    words += [f"mtu {end.mtu}"] if end.mtu else []
    words += [f"queues {end.num_queues}"] if end.num_queues else []
    words += [str(one) for one in end.interfaces]
    return f"    {end.name}", "up" if end.up else "down", "  ".join(words)


def _changes(operation: ChangeLink) -> Iterator[str]:
    for name, (old, new) in operation.changes.items():
        yield change(name, old, new)
    for address in operation.removed:
        yield paint(f"-{address}", "bad")
    for address in operation.added:
        yield paint(f"+{address}", "good")
