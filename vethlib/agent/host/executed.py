"""The result of executing a plan."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from vethlib.agent.planning.observed import NetnsId
from vethlib.agent.planning.operations import CreatePair, Operation, Plan
from vethlib.agent.reasons import of_error
from vethlib.agent.state import State, Verdict
from vethlib.errors import VethError
from vethlib.session.write.create import Made

__all__ = ["CreatedPair", "Execution"]

CreatedPair: TypeAlias = tuple[CreatePair, Made]
"""The creation of a pair, and its result."""


@dataclass(slots=True)
class Execution:
    """The result of a plan: the operations that were `done`, and the `errors` of those that were refused.

    `added` has the identities of the namespaces that were added, by their references; if pairs are recorded, `made` has
    each pair that was created.
    """

    done: list[Operation] = field(default_factory=list)
    errors: list[tuple[Operation, VethError]] = field(default_factory=list)
    added: dict[str, NetnsId] = field(default_factory=dict)
    made: list[CreatedPair] = field(default_factory=list)

    def verdicts(self, plan: Plan) -> dict[str, Verdict]:
        """Return the state of every interface: the verdict of the plan, or FAILED with the refusal of the kernel."""
        verdicts = dict(plan.verdicts)
        for operation, error in self.errors:
            for name in operation.interfaces:
                if name in verdicts:
                    verdicts[name] = Verdict.because(State.FAILED, of_error(error))
        return verdicts
