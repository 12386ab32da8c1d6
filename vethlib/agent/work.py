"""One bout of work: look, plan, execute, and look again until a look finds nothing left to do.

How the interfaces that are looked at come together: those that are dirty, with whom they are to be judged; then whoever
wants a name that one of them wants in the same namespace; then the owner of every link of ours that was come across.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, field
from typing import Final, Literal

from vethlib.errors import LinkExists, LinkNotFound, NetnsNotFound, VethError
from vethlib.session import Session

from .desired import Desired
from .execute import execute, interfaces_of
from .observed import Observed
from .operations import AddNetns, ChangeLink, CreatePair, DeletePair, Operation, Plan
from .ours import OurPairs
from .plan import plan
from .sight import Sight
from .state import State, Verdict
from .tally import Tally

__all__ = ["Findings", "Work"]

_ROUNDS: Final = 4  # in a race that never ends they would never end

_PASSING: Final = (LinkExists, LinkNotFound, NetnsNotFound)
"""What says that something was not as the last look had found it. The next one will see."""

_log = logging.getLogger("vethlib.agent")


@dataclass(slots=True)
class Findings:
    """What came of it, for the interfaces in `names`: the last look and the plan after it.

    `errors` has what the kernel refused and is still to be done, `held` what is to be done and was not tried, in
    words. `done` are the operations that were carried out, in order.
    """

    names: set[str]
    observed: Observed
    plan: Plan
    done: list[Operation] = field(default_factory=list)
    errors: dict[str, VethError] = field(default_factory=dict)
    held: dict[str, str] = field(default_factory=dict)
    leftovers: bool = False  # whether one that is no interface's could not be deleted

    def verdict(self, name: str) -> Verdict | None:
        """The state of an interface, None if it is not wanted and nothing is left of it."""
        if name in self.errors:
            return Verdict(State.RETRYING, str(self.errors[name]))
        if name in self.held:
            return Verdict(State.RETRYING, self.held[name])
        return self.plan.verdicts.get(name)


class Work:
    """A bout for the interfaces in `names`; with `everything`, for all there are and ever were.

    `prune` says of which interfaces a pair is deleted if nobody wants it; True for any. `may_act(names)` is asked
    before something is done to have these interfaces as they are wanted: "" lets it happen, anything else is why not.
    `before(operations, observed, plan)` is called before they happen. The `tally` is kept.
    """

    def __init__(
        self,
        session: Session,
        sight: Sight,
        desired: Desired,
        label: str,
        names: set[str],
        *,
        everything: bool,
        prune: Literal[True] | Set[str],
        may_act: Callable[[Sequence[str]], str],
        before: Callable[[Sequence[Operation], Observed, Plan], None],
        tally: Tally,
    ) -> None:
        self._session = session
        self._sight = sight
        self._desired = desired
        self._label = label
        self._everything = everything
        self._names = names | desired.names() if everything else desired.with_peers(names)
        self._prune = prune
        self._may_act = may_act
        self._before = before
        self._tally = tally
        self._done: list[Operation] = []
        self._errors: dict[str, VethError] = {}
        self._freed: set[str] = set()  # who may have a name that another has given up
        self._leftovers = False

    def run(self) -> Findings:
        """Do it. Raises what makes looking impossible."""
        for left in reversed(range(_ROUNDS)):
            with self._tally.timing("look"):
                observed, ours = self._look()
            with self._tally.timing("plan"):
                planned = self._plan(observed, ours)
            operations, findings = self._choose(observed, planned)
            acting = bool(operations) and left > 0
            if acting:
                self._act(operations, planned, observed)
            if not self._watch(observed, planned) and not acting:
                break
        for operation in operations:
            for name in interfaces_of(operation):
                if name in self._errors:
                    findings.errors[name] = self._errors[name]
                else:
                    findings.held[name] = f"{_what(operation)}, again and again"
        findings.leftovers = self._leftovers
        return findings

    def _look(self) -> tuple[Observed, OurPairs]:
        if self._everything:
            observed = self._sight.look_everywhere(self._desired)
            ours = OurPairs(observed, self._label)
            self._names |= set(ours.names())
            self._claim(observed)
            self._sight.learn(ours, observed)
            # What is to be looked at after acting are these; nothing else has changed.
            self._everything = False
            return observed, ours
        while True:
            observed = self._sight.look(self._desired, self._names)
            ours = OurPairs(observed, self._label)
            self._claim(observed)
            more = (self._desired.rivals(self._names) | self._freed | set(ours.names())) - self._names
            if not more:
                self._sight.learn(ours, observed, self._names)
                return observed, ours
            self._names |= self._desired.with_peers(more)

    def _claim(self, observed: Observed) -> None:
        for name, interface in self._desired.among(self._names).items():
            self._freed |= self._desired.claim(name, observed.netns[interface.namespace.ref].place)

    def _plan(self, observed: Observed, ours: OurPairs) -> Plan:
        wanted = self._desired.among(self._names)
        refused = self._desired.refused.keys() - self._desired.interfaces.keys()
        return plan(
            wanted,
            observed,
            label=self._label,
            prune=self._prune is True or (self._prune | wanted.keys()) - refused,
            leave=refused,
            ours=ours,
        )

    def _choose(self, observed: Observed, planned: Plan) -> tuple[list[Operation], Findings]:
        """The operations that are to be carried out, and what is to be said if none is."""
        findings = Findings(self._names, observed, planned, self._done)
        for name in self._names - self._desired.interfaces.keys():
            if reason := self._sight.hidden(name, observed):
                findings.held[name] = f"it cannot be deleted: {reason}"
        chosen: list[Operation] = []
        for operation in planned.operations:
            names = interfaces_of(operation)
            error = next((self._errors[name] for name in names if name in self._errors), None)
            if error is not None and not isinstance(error, _PASSING):
                findings.errors.update(dict.fromkeys(names, error))
            elif reason := self._may_act([name for name in names if _is_wanted(name, planned)]):
                findings.held.update(dict.fromkeys(names, f"{_what(operation)}; {reason}"))
            else:
                chosen.append(operation)
        wanted = {
            one.namespace.name
            for operation in chosen
            if isinstance(operation, CreatePair)
            for one in (operation.a, operation.b)
        }
        return [one for one in chosen if not isinstance(one, AddNetns) or one.name in wanted], findings

    def _act(self, operations: Sequence[Operation], planned: Plan, observed: Observed) -> None:
        self._before(operations, observed, planned)
        with self._tally.timing("execute"):
            execution = execute(self._session, Plan(tuple(operations), planned.verdicts, planned.found))
        self._tally.done.update(operation.op for operation in execution.done)
        self._tally.failed.update(operation.op for operation, _ in execution.errors)
        self._done += execution.done
        for operation, error in execution.errors:
            names = interfaces_of(operation)
            for name in names:
                # What is refused after it may have been refused for it.
                self._errors.setdefault(name, error)
            if not names:
                self._leftovers = True
                _log.warning("%s", error)

    def _watch(self, observed: Observed, planned: Plan) -> bool:
        """Watch the namespaces in which there is something to be kept, or to be waited for."""
        states = (State.CONFIGURED, State.FAILED)
        wanted = [name for name, verdict in planned.verdicts.items() if verdict.state in states]
        return self._sight.watch(self._desired, wanted, observed)


def _is_wanted(name: str, planned: Plan) -> bool:
    """Whether all is there that the interface needs."""
    verdict = planned.verdicts.get(name)
    return verdict is not None and verdict.state is State.CONFIGURED


def _what(operation: Operation) -> str:
    """What is amiss, of which the operation is the cure."""
    if isinstance(operation, ChangeLink):
        parts = [f"{field} is {now}, not {wanted}" for field, (now, wanted) in operation.changes.items()]
        parts += [f"address {one} is missing" for one in operation.added]
        parts += [f"address {one} is not wanted" for one in operation.removed]
        return ", ".join(parts)
    if isinstance(operation, CreatePair):
        return "the pair is not there"
    return operation.why if isinstance(operation, DeletePair) else f"{operation.ref} is not there"
