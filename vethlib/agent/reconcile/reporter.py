"""From the result of a pass to what follows from it: statuses, the next attempts, the registry and dependants."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Final

from vethlib._primitives import time
from vethlib.agent.config.problems import in_public
from vethlib.agent.planning.compare import unknown_addresses
from vethlib.agent.planning.confine import foreseen
from vethlib.agent.planning.observed import SeenLink
from vethlib.agent.planning.operations import AddNetns, DeletePair, Operation
from vethlib.agent.planning.planner import CONFIGURED
from vethlib.agent.reasons import Reason, address_owner_unknown, invalid_value, of_error, unchecked
from vethlib.agent.reconcile.passes.passresult import InterfaceResult, PassResult
from vethlib.agent.state import State, Verdict
from vethlib.errors import VethError
from vethlib.text import counted

from .backoff import NextStep, next_step
from .occasions import Scope
from .owners import Owners

__all__ = ["CHANGED", "GONE", "Reporter"]

_log = logging.getLogger("vethlib.agent")

CHANGED: Final = "its link was changed"
GONE: Final = "its link was deleted"


class Reporter:
    """Reports the state of every interface after a pass, and schedules the next attempts.

    `detecting` are the interfaces that are PENDING only until duplicate address detection has finished.
    """

    def __init__(self, owners: Owners) -> None:
        self._owners = owners
        self._desired = owners.desired
        self._backoff = owners.backoff
        self._observer = owners.observer
        self._statuses = owners.statuses
        self.detecting: set[str] = set()
        self._record_problem = ""  # as last logged
        self._unrecorded = 0  # likewise

    def settle(self, result: PassResult, scope: Scope) -> None:
        """Report the state of every interface that a pass has looked at, and schedule its next attempt."""
        self._warn(result)
        now = time.monotonic()
        self._schedule(result, scope, now)
        done = self._done_for_each(result.done)
        shared = scope.shared_cause()
        names = result.names
        if scope.everything:
            names = names | (self._statuses.now.keys() - result.deferred)
        for name in names:
            operations = done.get(name, ())
            try:
                outcome = result.of(name)
                if outcome.verdict is None and not operations and not self._is_known(name):
                    continue  # a peer that is not configured, and of which nothing is left
                doubt = self._doubt(name, result) if name in result.plan.doubtful else None
                verdict, changed = self._settle(name, outcome, doubt, now)
                if changed or operations:
                    cause = _cause(scope.names.get(name, shared), operations)
                    self._statuses.log(name, verdict, operations, cause)
            except Exception as error:  # it concerns this interface, and no other
                verdict = Verdict.because(State.RETRYING, of_error(foreseen(error, f"report the state of {name!r}")))
                self._backoff.record(name, NextStep.RETRY, now, configured=False, held=False)
                self._report(name, verdict, None, unseen=True)

    def nothing_has_changed(self) -> None:
        """Note that the whole host was observed to be as it was when nothing was left to do."""
        self._backoff.looking.succeed()

    def _schedule(self, result: PassResult, scope: Scope, now: float) -> None:
        """Schedule the next attempts of the work that concerns all interfaces."""
        backoff = self._backoff
        backoff.looking.succeed()
        if result.leftovers:
            backoff.leftovers.fail(now)
        elif scope.everything:
            backoff.leftovers.succeed()
        if not self._observer.watches.unwatched:
            backoff.watching.succeed()
        elif backoff.watching.due is None:
            backoff.watching.fail(now)

    def _done_for_each(self, operations: Iterable[Operation]) -> dict[str, list[Operation]]:
        """Return the operations for each interface, with the creation of its namespace last.

        The deletion of a pair that an earlier agent has built is for both its interfaces.
        """
        done: dict[str, list[Operation]] = {}
        created = []
        for operation in operations:
            names = dict.fromkeys(operation.interfaces)
            if isinstance(operation, AddNetns):
                created.append(operation)
            elif isinstance(operation, DeletePair):
                names |= dict.fromkeys(owner for owner in operation.owners if not self._is_known(owner))
                if not names:
                    self._statuses.log_unnamed(operation)
            for name in names:
                done.setdefault(name, []).append(operation)
        for addition in created:
            for name in self._desired.at(addition.ref) & done.keys():
                done[name].append(addition)
        return done

    def _is_known(self, name: str) -> bool:
        """Return whether an interface is, or was until now, configured."""
        return name in self._desired or name in self._statuses.now

    def _settle(
        self, name: str, outcome: InterfaceResult, doubt: Reason | None, now: float
    ) -> tuple[Verdict | None, bool]:
        """Report the state of one interface. Return it, and whether the state or its reason has changed."""
        verdict = self._judge(name, outcome, now, stands=doubt is not None)
        if doubt:
            # The registry and dependants keep the link that was seen last.
            return CONFIGURED, self._report(name, CONFIGURED, None, doubt, unseen=True)
        changed = self._statuses.remove(name) if verdict is None else self._report(name, verdict, outcome.seen)
        self._register(name, verdict, outcome.seen)
        return verdict, changed

    def _doubt(self, name: str, result: PassResult) -> Reason | None:
        """Return the warning for an interface that cannot be checked, but still matches as far as events show.

        That is an interface that was CONFIGURED and whose namespace reference has a source that does not answer. Return
        None for any other.
        """
        if name in result.errors or name in result.held:
            return None
        status, verdict = self._statuses.now.get(name), result.plan.verdicts.get(name)
        if verdict is None or verdict.state is not State.PENDING:
            return None
        if status is None or status.state is not State.CONFIGURED or status.link is None:
            return None
        if not self._backoff.settled({name}) or name in self._desired.refused:
            return None
        if not self._observer.stands(self._desired.interfaces[name], status.link):
            return None
        return unchecked(verdict.reason)

    def _judge(self, name: str, outcome: InterfaceResult, now: float, *, stands: bool) -> Verdict | None:
        """Return the state of an interface, and schedule its next attempt; None if nothing is left of it."""
        verdict = self._after_detection(name, outcome, now)
        error = outcome.error
        step = NextStep.DONE if verdict is None else next_step(verdict, error)
        self._owners.counters.outcomes[step.value] += 1
        held = outcome.held or self._backoff.duplicate(name) is not None
        self._backoff.record(name, step, now, configured=stands or outcome.settled, held=held)
        if step is NextStep.TERMINAL and error is not None:
            verdict = Verdict.because(State.FAILED, of_error(error))
        problems = self._desired.refused.get(name)
        if problems is not None:
            limits = self._owners.limits
            text = in_public(problems, limits)
            kept = "; the last valid value stays in force" if name in self._desired.interfaces else ""
            verdict = Verdict(State.INVALID, text + kept, tuple(map(invalid_value, problems[: limits.problems])))
        return verdict

    def _after_detection(self, name: str, outcome: InterfaceResult, now: float) -> Verdict | None:
        """Return the state of an interface; RETRYING while an address that was a duplicate is checked again."""
        self.detecting.discard(name)
        if outcome.duplicate is not None:
            self._backoff.find_duplicate(name, outcome.duplicate, now)
        elif outcome.detecting:
            if reason := self._backoff.duplicate(name):
                self._backoff.detect_again(name, now)
                return Verdict.because(State.RETRYING, reason)
            self.detecting.add(name)
        return outcome.verdict

    def _register(self, name: str, verdict: Verdict | None, seen: SeenLink | None) -> None:
        """Report the link of an interface, or that it has none, to the registry and to dependants."""
        former = self._owners.indexes.link_of(name)
        if former is not None and (seen is None or former != seen.id) and former[0] not in self._observer.watches.refs:
            self._owners.dependants.link_is_gone(*former)  # no event reports this
        if seen is None or verdict is None:
            self._owners.indexes.remove_managed(name)
        elif isinstance(seen.place, tuple):
            ref = self._desired.interfaces[name].namespace.ref
            self._owners.indexes.set_managed(name, seen.place, ref, seen.link)
            self._owners.dependants.link_is(seen.place, seen.link)

    def _report(
        self, name: str, verdict: Verdict, seen: SeenLink | None, doubt: Reason | None = None, *, unseen: bool = False
    ) -> bool:
        """Set the status of an interface; with its last known link if it is `unseen`. Return whether it has changed."""
        attempt, due = 0, 0.0
        if verdict.state is State.RETRYING:
            attempt, monotonic = self._backoff.explained(name)
            due = time.time() + monotonic - time.monotonic()
        interface = self._desired.interfaces.get(name)
        warning, warnings = doubt, self._desired.warnings(name)
        if interface is not None:
            warning = warning or self._observer.watches.remark(interface.namespace.ref)
            if seen is not None and warning is None and (addresses := unknown_addresses(interface, seen)):
                warning = address_owner_unknown(addresses)
            if not any(each.code == "similar-netns" for each in warnings):
                warnings += self._observer.creatable.warnings(interface)
        return self._statuses.report(
            name,
            verdict,
            interface,
            seen,
            attempt=attempt,
            due=due,
            warning=warning,
            warnings=warnings,
            unseen=unseen,
        )

    def fail(self, names: Iterable[str], error: VethError) -> None:
        """Report that these interfaces cannot be observed, so that their state is unknown, and schedule a retry."""
        self._backoff.looking.fail(time.monotonic())
        verdict = Verdict.because(State.RETRYING, of_error(error))
        for name in names:
            if self._report(name, verdict, None, unseen=True):
                self._statuses.log(name, verdict, (), "the host could not be observed")

    def warn_of_record(self) -> None:
        """Log a problem of the record once, and its end."""
        records = self._owners.records
        if records.problem != self._record_problem:
            self._record_problem = records.problem
            _log.warning("%s", records.problem or f"the record of built pairs is kept in {records.path} again")

    def _warn(self, result: PassResult) -> None:
        """Log that pairs without a record are left alone, once for each number of them."""
        if result.unrecorded > self._unrecorded:
            _log.warning(
                "left alone: %s outside this namespace with the marks of this label, but without a record that this "
                "agent has built them",
                counted(result.unrecorded, "pair"),
            )
        self._unrecorded = max(result.unrecorded, self._unrecorded)


def _cause(cause: str, operations: Iterable[Operation]) -> str:
    """Return the cause in words: a deletion of a link is often reported as a change first."""
    if cause != CHANGED:
        return cause
    kinds = {operation.op for operation in operations}
    return GONE if "create" in kinds and "delete" not in kinds else cause
