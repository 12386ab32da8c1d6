"""The result of a pass: as a whole, and for each interface."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

from vethlib.agent.planning.observed import NetnsId, Observed, SeenLink
from vethlib.agent.planning.operations import ChangeLink, CreatePair, DeletePair, Operation, Plan, RemoveSurplus
from vethlib.agent.reasons import Reason, of_error
from vethlib.agent.state import State, Verdict
from vethlib.errors import VethError

__all__ = ["InterfaceResult", "PassResult"]

V = TypeVar("V")


@dataclass(slots=True)
class InterfaceResult:
    """The result for one interface.

    `verdict` is its state, None if it is not configured and nothing is left of it; `seen` is its link. `error` is the
    refusal of the kernel, and `held` means that something is still to be done that was not tried. If nothing but its
    addresses keeps it from being usable, `duplicate` is the reason for a duplicate one, and `detecting` is whether they
    are still being checked. It is `settled` if everything is as configured, even if the addresses cannot be used yet.
    """

    verdict: Verdict | None
    seen: SeenLink | None
    error: VethError | None
    held: bool
    duplicate: Reason | None
    detecting: bool
    settled: bool


@dataclass(slots=True)
class PassResult:
    """The result for the interfaces in `names`: the last observation, and the plan after it.

    `done` are the operations that were carried out, in order. `errors` has the refusal of the kernel for each interface
    that is still to be changed; `held` has the reason why something still to be done was not tried. `unseen` are the
    interfaces that wait for a namespace that could not be inspected, and has to be tried again. Nothing was done yet
    for those that are `deferred`, because there was too much to do; of their operations, `left` can be carried out as
    planned. `duplicates` has the interfaces with a duplicate address, `detecting` those with an address that is still
    being checked, and `postponed` those with a route that waits for its source, each with the reason. `unfinished` are
    interfaces of whose surplus only a portion was removed: the next observation of them has to wait.

    `leftovers` is true if a pair that belongs to no interface could not be deleted. `unrecorded` is the number of pairs
    that have the marks of this label and are not owned. `at_rest` is true if the whole host was looked at, once, and
    nothing is left to do, to be tried again or to be waited for except namespaces and peers.
    """

    names: set[str]
    observed: Observed
    plan: Plan
    done: list[Operation] = field(default_factory=list)
    errors: dict[str, VethError] = field(default_factory=dict)
    held: dict[str, Reason] = field(default_factory=dict)
    unseen: set[str] = field(default_factory=set)
    unrecorded: int = 0
    deferred: set[str] = field(default_factory=set)
    left: list[Operation] = field(default_factory=list)
    leftovers: bool = False
    duplicates: dict[str, Reason] = field(default_factory=dict)
    detecting: dict[str, Reason] = field(default_factory=dict)
    postponed: dict[str, Reason] = field(default_factory=dict)
    unfinished: set[str] = field(default_factory=set)
    at_rest: bool = False

    def of(self, name: str) -> InterfaceResult:
        """Return the result for one interface."""
        error, held = self.errors.get(name), self.held.get(name)
        duplicate, postponed = self.duplicates.get(name), self.postponed.get(name)
        detecting = postponed or self.detecting.get(name)
        verdict = self.plan.verdicts.get(name)
        configured = verdict is not None and verdict.state is State.CONFIGURED
        stands = error is None and held is None and configured
        if error is not None:
            verdict = Verdict.because(State.RETRYING, of_error(error))
        elif held is not None:
            verdict = Verdict.because(State.RETRYING, held)
        elif verdict is not None and verdict.state is State.PENDING and name in self.unseen:
            verdict = replace(verdict, state=State.RETRYING)
        elif stands and duplicate is not None:
            verdict = Verdict.because(State.RETRYING, duplicate)
        elif stands and detecting is not None:
            verdict = Verdict.because(State.PENDING, detecting)
        return InterfaceResult(
            verdict,
            self.plan.found.get(name) or self.plan.standing.get(name),
            error,
            held is not None,
            duplicate if stands else None,
            stands and detecting is not None and duplicate is None,
            stands and duplicate is None and postponed is None,
        )

    def note_usable(self, seen: Mapping[str, SeenLink]) -> None:
        """Note that the addresses of these interfaces can be used by now."""
        for name in seen:
            self.detecting.pop(name, None)
        self.plan = replace(self.plan, found={**self.plan.found, **seen})

    def add_settled(self, observed: Observed, found: Mapping[str, SeenLink]) -> None:
        """Add interfaces whose links were found to be as configured without an observation of the pass."""
        self.names |= found.keys()
        verdicts = {**self.plan.verdicts, **dict.fromkeys(found, Verdict(State.CONFIGURED))}
        self.plan = replace(self.plan, verdicts=verdicts, found={**self.plan.found, **found})
        self.observed = replace(self.observed, netns={**self.observed.netns, **observed.netns})

    def add_unfinished(self, judged: PassResult, names: Collection[str], reasons: Mapping[str, Reason]) -> None:
        """Add interfaces that an earlier round has judged; for those with `reasons`, something is left to remove."""
        self.names.update(names)
        self.unfinished.update(reasons)
        self.held.update(reasons)
        self.errors.update(_among(names, judged.errors))
        self.held.update(_among(set(names) - reasons.keys(), judged.held))
        for mine, theirs in (
            (self.duplicates, judged.duplicates),
            (self.detecting, judged.detecting),
            (self.postponed, judged.postponed),
        ):
            mine.update(_among(names, theirs))
        verdicts = {**self.plan.verdicts, **_among(names, judged.plan.verdicts)}
        found = {**self.plan.found, **_among(names, judged.plan.found)}
        standing = {**self.plan.standing, **_among(names, judged.plan.standing)}
        self.plan = replace(self.plan, verdicts=verdicts, found=found, standing=standing)

    def is_undisturbed(self) -> bool:
        """Return whether a later observation would judge every interface the same, unless something happens."""
        return not (self.done or self.errors or self.held or self.unseen or self.deferred) and not (
            self.leftovers or self.duplicates or self.detecting or self.postponed
        )

    def changed_netns(self) -> set[tuple[int, int]]:
        """Return the namespaces in which the pass has changed something."""
        places: set[NetnsId | None] = set()
        for operation in self.done:
            if isinstance(operation, CreatePair):
                refs = (operation.a.namespace.ref, operation.b.namespace.ref)
                places.update(self.observed.netns[ref].place for ref in refs if ref in self.observed.netns)
            elif isinstance(operation, (ChangeLink, DeletePair, RemoveSurplus)):
                places.add(operation.place)
        return {place for place in places if isinstance(place, tuple)}


def _among(names: Collection[str], values: Mapping[str, V]) -> dict[str, V]:
    return {name: values[name] for name in names if name in values}
