"""The result of executing a plan."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeAlias

from vethlib.agent.planning.observed import NetnsId
from vethlib.agent.planning.operations import CreatePair, Operation, Plan
from vethlib.agent.reasons import of_error
from vethlib.agent.state import State, Verdict
from vethlib.errors import VethError
from vethlib.session.write.creating.create import Made

__all__ = ["CreatedPair", "Execution"]

CreatedPair: TypeAlias = tuple[CreatePair, Made]
"""The creation of a pair, and its result."""


@dataclass(slots=True)
class Execution:
    """The result of a plan: the operations that were `done`, and the `errors` of those that were refused.

    `begun` has operations that may have been done in part: a later step of a change was refused, or an error or an
    interruption has ended the call.
    `added` has the identities of the namespaces that were added, by their references, and `cookies` distinguishes them
    from later ones, where that is known; if pairs are recorded, `made` has each pair that was created.
    """

    done: list[Operation] = field(default_factory=list)
    errors: list[tuple[Operation, VethError]] = field(default_factory=list)
    added: dict[str, NetnsId] = field(default_factory=dict)
    cookies: dict[str, int] = field(default_factory=dict)
    made: list[CreatedPair] = field(default_factory=list)
    _begun: dict[int, Operation] = field(default_factory=dict, init=False)  # by id(), because thousands end one by one

    @property
    def begun(self) -> list[Operation]:
        """Operations that may have been done in part."""
        return list(self._begun.values())

    def begin(self, operations: Iterable[Operation]) -> None:
        """Note operations as begun."""
        self._begun |= {id(each): each for each in operations}

    def end(self, operation: Operation) -> None:
        """Note that an operation was done as a whole."""
        self._begun.pop(id(operation), None)
        self.done.append(operation)

    @contextmanager
    def beginning(self, operations: Sequence[Operation]) -> Iterator[None]:
        """Note operations as begun as long as their results are not known: while the block runs, and if it raises."""
        before = self._begun
        self._begun = before | {id(each): each for each in operations}
        yield
        self._begun = before

    def verdicts(self, plan: Plan) -> dict[str, Verdict]:
        """Return the state of every interface: the verdict of the plan, or FAILED with the refusal of the kernel."""
        verdicts = dict(plan.verdicts)
        for operation, error in self.errors:
            for name in operation.interfaces:
                if name in verdicts:
                    verdicts[name] = Verdict.because(State.FAILED, of_error(error))
        return verdicts
