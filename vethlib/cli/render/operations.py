"""The operations of a plan as coloured lines with details, and the states of the interfaces after them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from vethlib.agent.planning import words
from vethlib.agent.planning.operations import CreatePair, Operation
from vethlib.agent.state import State, Verdict
from vethlib.cli.term.text import counted, paint, table_lines
from vethlib.links import End
from vethlib.text import value_text

__all__ = ["count_states", "operation_lines"]


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
        yield words.line(operation, paint)
        if isinstance(operation, CreatePair):
            ends = operation.veth.a, operation.veth.b
            yield from table_lines(map(_end, ends), roles=("", "faint", "faint"))


def _end(end: End) -> tuple[str, str, str]:
    values = [f"mac {end.mac}"] if end.mac else []
    values += [f"mtu {end.mtu}"] if end.mtu else []
    values += [f"queues {end.num_queues}"] if end.num_queues else []
    values += [str(address) for address in end.interfaces]
    values += [f"{name} {value_text(name, value)}" for name, value in end.further.items()]
    return f"    {end.name}", "up" if end.up else "down", "  ".join(values)
