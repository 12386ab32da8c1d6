"""One reconcile pass: observe, plan, execute, and observe again until there is nothing left to do.

A pass looks at the interfaces in its scope together with those that have to be judged with them: their peers, the
interfaces that claim the same name in the same namespace, and the owner of every owned link that it finds.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from vethlib._primitives import time
from vethlib.agent.config.model import Interface
from vethlib.agent.host.executed import CreatedPair
from vethlib.agent.host.execution import execute
from vethlib.agent.host.recording import facts_of_look
from vethlib.agent.planning.compare import is_as_created
from vethlib.agent.planning.confine import plan_apart
from vethlib.agent.planning.detection import unusable
from vethlib.agent.planning.later.portions import SURPLUS
from vethlib.agent.planning.observed import NetnsId, Observed, SeenLink
from vethlib.agent.planning.operations import ChangeLink, DeletePair, Operation, Plan
from vethlib.agent.planning.owned import OwnedPairs
from vethlib.agent.planning.planner import plan
from vethlib.agent.planning.words import drift, drifted
from vethlib.agent.reasons import Reason, drift_persists, not_deletable, of_peer
from vethlib.agent.reconcile.occasions import Scope
from vethlib.agent.reconcile.owners import Owners
from vethlib.agent.state import State
from vethlib.errors import VethError
from vethlib.ifindex.dumps import FirstLook
from vethlib.session.core.namespaces import Birth

from .choice import Choice
from .passresult import PassResult

__all__ = ["ReconcilePass"]

_ROUNDS: Final = 4  # per pass; in an endless race, they would never end

_MOMENTS: Final = (0.0005, 0.001, 0.002, 0.004, 0.008)  # seconds
_SAMPLE: Final = 4  # namespaces
_NOTHING: Final = Observed({})
_MANY_DELETED: Final = 4096  # names that were deleted, of which not all can have links left

_log = logging.getLogger("vethlib.agent")


class ReconcilePass:
    """A pass over the interfaces in its `scope`.

    `loopback` sets the loopback of new namespaces up.
    """

    def __init__(self, owners: Owners, scope: Scope, *, loopback: bool) -> None:
        self.scope = scope
        self._owners = owners
        self._session = owners.session
        self._observer = owners.observer
        self._desired = owners.desired
        self._backoff = owners.backoff
        self._records = owners.records
        self._counters = owners.counters
        self._loopback = loopback
        self._everything = bool(scope.everything)
        self._names: set[str] = set()
        self._done: list[Operation] = []
        self._errors: dict[str, VethError] = {}
        self._unplanned: dict[str, VethError] = {}
        self._is_whole = False  # the last observation was of the whole host
        self._freed: set[str] = set()  # interfaces that may have a name that another one has given up
        self._choice = Choice(owners.session, owners.backoff)
        self._aside: list[tuple[PassResult, set[str], dict[str, Reason]]] = []
        self._leftovers = False
        self._unrecorded = 0
        self._created: Sequence[CreatedPair] = ()
        self._first: Mapping[str, FirstLook] = {}

    def expect(self, created: Sequence[CreatedPair], looks: Mapping[str, FirstLook]) -> None:
        """Skip the observation of the pairs that are still as they were created.

        `looks` has what each of their namespaces had when it was first watched.
        """
        self._created = created
        self._first = looks

    def run(self) -> PassResult:
        """Run the pass. Raises VethError if the host cannot be observed."""
        observed, settled = self._settled() if self._created else (_NOTHING, {})
        self._names |= self._desired.with_peers(self.scope.names.keys() - settled.keys())
        if self._names or self._freed or not settled:
            result = self._run()
        else:
            result = PassResult(self._names, observed, Plan((), {}), self._done)
        if settled:
            result.add_settled(observed, settled)
        return result

    def _settled(self) -> tuple[Observed, dict[str, SeenLink]]:
        """Return the links of the pairs that are as they were created, and whose configuration is still the same."""
        with self._counters.timing("look"):
            observed = self._observer.look_at_created(self._created, self._first)
        settled: dict[str, SeenLink] = {}
        for create, made in self._created:
            a = self._end_of(create.a, observed, made.a, made.pair.a.index)
            b = self._end_of(create.b, observed, made.b, made.pair.b.index)
            if a is not None and b is not None and is_as_created(create, a, b, self._owners.label):
                settled[create.a.name], settled[create.b.name] = a, b
        self._freed |= self._desired.claim_seen(settled, observed)
        return observed, settled

    def _end_of(self, interface: Interface, observed: Observed, birth: Birth, index: int) -> SeenLink | None:
        """Return the only end of an interface, if it was observed and the interface is still configured like this."""
        end = birth[0], index
        if self._desired.interfaces.get(interface.name) is not interface:
            return None
        return observed.by_index.get(end) if self._observer.known.get(interface.name, {}).keys() == {end} else None

    def _run(self) -> PassResult:
        for left in reversed(range(_ROUNDS)):
            with self._counters.timing("look"):
                observed, owned = self._look()
            with self._counters.timing("plan"):
                planned = self._plan(observed, owned)
                self._record(observed, owned, planned)
            operations, result = self._choose(observed, planned)
            acting = bool(operations) and left > 0
            if acting:
                self._detach(operations, observed)
                self._count_repairs(operations, planned)
                self.act(operations)
                self._set_aside(operations, result)
            if not self._watch(observed, planned) and not acting:
                break
        else:
            # A namespace has been watched only since the last observation, so a change in between may have caused no
            # event.
            names = self._names & self._desired.names()
            self._owners.occasions.look_at(dict.fromkeys(names, "its namespace is watched"))
        if self._desired.deleted:
            self._desired.forget_deleted(self._gone(owned))
        if not operations and result.detecting:
            self._wait_a_moment(result)
        for operation in operations:
            for name in operation.interfaces:
                if name in self._errors:
                    result.errors[name] = self._errors[name]
                else:
                    result.held[name] = drift_persists(drift(operation), drifted(operation), _ROUNDS - 1)
        result.leftovers = self._leftovers
        result.unrecorded = self._unrecorded
        result.deferred = self._choice.deferred - self._names
        for aside in self._aside:
            result.add_unfinished(*aside)
        result.left = self._choice.left
        result.at_rest = self._is_whole and not planned.operations and not planned.doubtful and result.is_undisturbed()
        return result

    # --- looking

    def _look(self) -> tuple[Observed, OwnedPairs]:
        self._is_whole = self._everything
        if self._everything:
            observed = self._observer.look_everywhere(self._desired)
            owned = self._owned(observed)
            self._names |= self._desired.names() | self._desired.deleted | set(owned.names())
            self._unrecorded = len(owned.unrecorded) if self._desired.is_known else 0
            self._freed |= self._desired.claim_seen(self._names, observed)
            self._observer.learn(owned, observed)
            # The observations after acting are of these interfaces only, because nothing else was changed.
            self._everything = False
            return observed, owned
        while True:
            observed = self._observer.look(self._desired, self._names)
            owned = self._owned(observed)
            self._freed |= self._desired.claim_seen(self._names, observed)
            more = (self._desired.rivals(self._names) | self._freed | set(owned.names())) - self._names
            if not more:
                self._observer.learn(owned, observed, self._names)
                return observed, owned
            self._names |= self._desired.with_peers(more)

    def _gone(self, owned: OwnedPairs) -> set[str]:
        """Return the deleted interfaces of which nothing is left, not even a recorded pair that was not found.

        A record of the latter is kept until an observation of the whole host, or until there are many of them.
        """
        known, record = self._observer.known, self._records.record
        deleted = self._desired.deleted
        if len(deleted) < _MANY_DELETED:
            deleted = deleted & self._names
        return {
            name for name in deleted if name not in known and not owned.built_for(name) and not any(record.of(name))
        }

    def _owned(self, observed: Observed) -> OwnedPairs:
        return OwnedPairs(observed, self._owners.label, self._records.record, self._desired.interfaces)

    def _record(self, observed: Observed, owned: OwnedPairs, planned: Plan) -> None:
        """Record what the observation has found, before anything is done about it."""
        if self._records.record.adopts and not self._desired.is_known:
            return  # pairs are adopted by the configuration, and only until something is recorded
        self._records.write(
            facts_of_look(
                self._records.record,
                owned,
                observed,
                found=planned.found,
                desired=self._desired.interfaces,
                missing=self._observer.missing,
                names=None if self._is_whole else self._names,
            )
        )

    def _watch(self, observed: Observed, planned: Plan) -> bool:
        """Watch the namespaces in which there is something to keep or to wait for."""
        states = (State.CONFIGURED, State.FAILED)
        deferred = self._choice.deferred
        watched = [
            name for name, verdict in planned.verdicts.items() if verdict.state in states and name not in deferred
        ]
        return self._observer.watches.watch(self._desired, watched, observed)

    def _wait_a_moment(self, result: PassResult) -> None:
        """Look again at addresses that were just added and are tentative, but are not checked for duplicates.

        They are tentative until a work queue of the kernel handles them (addrconf_dad_work), some 100 µs later.
        """
        changed = {name for operation in self._done for name in operation.interfaces}
        waiting = self._unchecked(result, [name for name in result.detecting if name in changed])
        for moment in _MOMENTS:
            if not waiting:
                return
            time.sleep(moment)
            latest = self._observer.look_again([result.plan.found[name] for name in waiting])
            usable = {}
            for name in waiting:
                interface = self._desired.interfaces[name]
                seen = latest.get(result.plan.found[name].id)
                peer = self._desired.interfaces.get(interface.peer_if_name)
                if seen is not None and unusable(interface, seen, peer) is None:
                    usable[name] = replace(seen, peer=result.plan.found[name].peer)
            result.note_usable(usable)
            waiting -= usable.keys()

    def _unchecked(self, result: PassResult, names: Sequence[str]) -> set[str]:
        """Return the interfaces whose addresses are not checked for duplicates.

        If all of a few namespaces check them, the other namespaces are not asked.
        """
        checked: dict[NetnsId, bool] = {}
        unchecked = set()
        for name in names:
            seen = result.plan.found[name]
            if seen.place not in checked:
                if len(checked) >= _SAMPLE and all(checked.values()):
                    continue
                try:
                    checked[seen.place] = self._session.ipv6_settings(seen.link.name, seen.ref).accept_dad > 0
                except VethError:
                    checked[seen.place] = True
            if not checked[seen.place]:
                unchecked.add(name)
        return unchecked

    # --- planning

    def _plan(self, observed: Observed, owned: OwnedPairs) -> Plan:
        desired = self._desired.among(self._names)
        # The owners of all links that were found are among the names of the pass.
        refused = self._desired.unknown(self._names)
        prune = self._desired.complete or ((self._desired.deleted & self._names) | desired.keys()) - refused
        label, configured = self._owners.label, self._desired.interfaces
        how: dict[str, Any] = {"label": label, "prune": prune, "owned": owned, "configured": configured}
        self._unplanned = {}
        try:
            return plan(desired, observed, leave=refused, **how)
        except Exception as error:
            planned, self._unplanned = plan_apart(self._desired, desired, observed, error, leave=refused, **how)
            return planned

    def _choose(self, observed: Observed, planned: Plan) -> tuple[list[Operation], PassResult]:
        """Return the operations to carry out, and the result if there are none."""
        result = PassResult(self._names, observed, planned, self._done, unseen=self._unseen(observed))
        result.errors.update(self._unplanned)
        for name, verdict in planned.unusable.items():
            reasons = result.duplicates if verdict.state is State.RETRYING else result.detecting
            reasons[name] = verdict.reasons[0]
        for name in self._names - self._desired.interfaces.keys():
            if reason := self._observer.hidden(name, observed):
                result.held[name] = not_deletable(name, reason)
        operations = self._choice.choose(result, self._errors)
        self._names -= self._choice.deferred
        return operations, result

    def _unseen(self, observed: Observed) -> set[str]:
        """Return the interfaces whose pair has an end in a namespace that could not be inspected."""
        refused = {ref for ref, netns in observed.netns.items() if netns.refused}
        if not refused:
            return set()
        desired = self._desired.among(self._names)
        unseen = {name for name, interface in desired.items() if interface.namespace.ref in refused}
        peers = {desired[name].peer_if_name for name in unseen}
        return unseen | {name for name in peers if name in desired and desired[name].peer_if_name in unseen}

    # --- acting

    def act(self, operations: Iterable[Operation]) -> list[CreatedPair]:
        """Carry out these operations; return the pairs that were created."""
        with self._counters.timing("execute"):
            chosen = Plan(tuple(operations), {})
            execution = execute(
                self._session, chosen, records=self._records, loopback=self._loopback, waits=False, surplus=SURPLUS
            )
        self._counters.done.update(operation.op for operation in execution.done)
        self._counters.failed.update(operation.op for operation, _ in execution.errors)
        self._done += execution.done
        self._observer.note_execution(execution)
        for operation, error in execution.errors:
            names = operation.interfaces
            for name in names:
                # Later refusals may be a consequence of the first.
                self._errors.setdefault(name, error)
            if not names:
                self._leftovers = True
                _log.warning("%s", error)
        return execution.made

    def _set_aside(self, operations: Iterable[Operation], result: PassResult) -> None:
        """Observe no further the interfaces of which only a portion was removed, nor their peers.

        Each observation reads all that is left, and a pair is not judged without one of its ends.
        """
        if not self._choice.unfinished:
            return
        changed = {name for operation in operations for name in operation.interfaces} - self._errors.keys()
        reasons = {name: reason for name, reason in self._choice.unfinished.items() if name in changed}
        self._choice.unfinished.clear()
        if not reasons:
            return
        for name, reason in list(reasons.items()):
            if (peer := self._desired.interfaces[name].peer_if_name) in changed:
                reasons.setdefault(peer, of_peer(name, reason))
        names = self._desired.with_peers(reasons) & self._names
        result.errors.update((name, self._errors[name]) for name in names & self._errors.keys())
        self._aside.append((result, names, reasons))
        self._names -= names

    def _detach(self, operations: Iterable[Operation], observed: Observed) -> None:
        """Detach the dependants of links that are about to be deleted, renamed or set down."""
        link_is_gone = self._owners.dependants.link_is_gone
        for operation in operations:
            if isinstance(operation, DeletePair):
                end = operation.place, operation.index
                for place, index in filter(None, (end, observed.by_index[end].peer)):
                    link_is_gone(place, index)
            elif isinstance(operation, ChangeLink) and not operation.changes.keys().isdisjoint(("name", "up")):
                link_is_gone(operation.place, operation.index)

    def _count_repairs(self, operations: Iterable[Operation], planned: Plan) -> None:
        """Count the repair of interfaces that were as configured, and whose configuration has not changed since."""
        now = time.monotonic()
        names = {name for operation in operations for name in operation.interfaces} - self._choice.unfinished.keys()
        for name in self._backoff.settled(names):
            if planned.configures(name) and not self._backoff.duplicate(name):
                self._backoff.repaired(name, now)
