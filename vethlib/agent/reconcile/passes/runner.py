"""Which pass is next, and what its result means for the state of the configurator.

A pass covers what is marked (`occasions`). While many pairs are being created, passes over what is urgent and further
portions of that creation take turns. If a pass fails as a whole, everything is looked at again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

from vethlib._primitives import time
from vethlib.agent.config.model import Interface
from vethlib.agent.planning.confine import foreseen
from vethlib.agent.planning.later.portions import count_values
from vethlib.agent.planning.operations import Operation
from vethlib.agent.reconcile.occasions import CONFIGURATION, Scope
from vethlib.agent.reconcile.owners import Owners
from vethlib.agent.reconcile.pace import SHARE
from vethlib.agent.reconcile.reporter import Reporter
from vethlib.agent.state import State

from .passresult import PassResult
from .plannedcreation import PlannedCreation
from .reconcilepass import ReconcilePass

__all__ = ["PassRunner"]

LONGEST_REST: Final = 10.0
"""Seconds between two portions of what has to be removed from a link with very many values."""

DEAF_LOOK: Final = 0.5
"""Seconds between two observations of an interface in a namespace whose events are ignored."""


class PassRunner:
    """Runs passes, one at a time.

    `loopback` sets the loopback of new namespaces up.
    """

    def __init__(self, owners: Owners, reporter: Reporter, *, loopback: bool) -> None:
        self._owners = owners
        self._reporter = reporter
        self._loopback = loopback
        self._desired = owners.desired
        self._occasions = owners.occasions
        self._backoff = owners.backoff
        self._observer = owners.observer
        self._statuses = owners.statuses
        self._counters = owners.counters
        self._creation: PlannedCreation | None = None  # in progress, if a plan has more pairs than one pass may create
        self._creation_is_next = False  # after an urgent pass, so that it does not wait as long as there are any
        self._values_seen: dict[str, int] = {}  # routes and neighbours of the links that have any
        self._outcomes_at_rest: Counter[str] = Counter()  # at the last observation that left nothing to do

    @property
    def has_work(self) -> bool:
        """Whether there is a pass to run now."""
        return bool(self._occasions or self._creation) and (self._backoff.looking.due or 0.0) <= time.monotonic()

    @property
    def being_created(self) -> int:
        """The number of interfaces of a planned creation that were not looked at yet."""
        return 0 if self._creation is None else len(self._creation.scope.names)

    def abandon_creation(self) -> None:
        """Forget the pairs that were to be created: everything is looked at again."""
        self._creation = None

    def run_next(self) -> None:
        """Run one pass, or create some of the pairs that one has left, and report the result.

        Both take turns while there is something urgent.
        """
        creation = self._creation
        if creation is not None:
            creation.give_way()
            if self._creation_is_next or not self._occasions.is_urgent:
                self._creation_is_next = False
                self._go_on(creation)
                return
            self._creation_is_next = True
        scope = self._occasions.take(self._values, time.monotonic())
        if scope.everything:
            self._counters.resyncs[scope.everything] += 1
        self._run(ReconcilePass(self._owners, scope, loopback=self._loopback))

    def _go_on(self, creation: PlannedCreation) -> None:
        try:
            with self._counters.timing("bout"):
                run = creation.go_on()
        except BaseException as error:
            self._creation = None
            self._fail(creation.scope, error)
            return
        if creation.is_finished:
            self._creation = None
        if run is not None:
            self._run(run)

    def _run(self, run: ReconcilePass) -> None:
        scope = run.scope
        began = time.thread_time()  # because waiting is not the fault of an interface
        try:
            if scope.everything and not scope.names and self._is_at_rest():
                self._occasions.finish(scope, (), ())
                return
            self._observer.note_work()
            with self._counters.timing("bout"):
                result = run.run()
        except BaseException as error:
            self._fail(scope, error)
            return
        self._occasions.finish(scope, result.names, result.deferred - self._create(result.left, scope))
        self._put_off(result, time.thread_time() - began)
        before = self._counters.outcomes.copy()
        self._reporter.settle(result, scope)
        self._keep_pace(scope, result, began)
        if self._observer.watches.left:
            for place in self._observer.release(self._desired, self._owners.dependants.refs):
                self._owners.dependants.place_is_gone(place)
        if result.at_rest:
            self._outcomes_at_rest = self._counters.outcomes - before
            self._observer.note_at_rest(self._desired, result.observed)

    def _fail(self, scope: Scope, error: BaseException) -> None:
        """Look at everything again: the state of the host is unknown now, in particular after an interruption."""
        self._observer.note_work()  # a host that is as it was has to be judged again, too
        self._occasions.restore(scope, "the state of the host is unknown")
        if not isinstance(error, Exception):
            raise error
        names = scope.names.keys() | self._desired.names() if scope.everything else scope.names
        self._reporter.fail(names, foreseen(error, "observe the host"))

    def _create(self, planned: Sequence[Operation], scope: Scope) -> set[str]:
        """Begin to create what a pass has left, unless something else is being created. Return its interfaces."""
        if not planned or self._creation is not None:
            return set()
        names = {name for operation in planned for name in operation.interfaces}
        causes = {name: scope.everything or scope.names.get(name, CONFIGURATION) for name in names}
        self._creation = PlannedCreation(self._owners, planned, causes, loopback=self._loopback)
        return names

    def _is_at_rest(self) -> bool:
        """Observe the whole host, and return whether it is as it was when nothing was left to do."""
        with self._counters.timing("bout"), self._counters.timing("look"):
            if not self._observer.is_at_rest(self._desired):
                return False
        self._counters.outcomes.update(self._outcomes_at_rest)
        self._reporter.nothing_has_changed()
        return True

    def _put_off(self, result: PassResult, seconds: float) -> None:
        """Schedule the next observations of interfaces with a surplus left: they take a share of the time."""
        if result.unfinished:
            self._backoff.put_off(result.unfinished, time.monotonic() + min(SHARE * seconds, LONGEST_REST))

    def _keep_pace(self, scope: Scope, result: PassResult, began: float) -> None:
        """Schedule the next observations: later after costly ones, and regularly where events are ignored."""
        now, watches = time.monotonic(), self._observer.watches
        self._note_values(result)
        # Events that were caused by this agent do not count as noise.
        watches.cache.excuse(result.changed_netns())
        looked_at = result.names if scope.everything else scope.names  # without what is only judged together with them
        self._occasions.looked(looked_at, time.thread_time() - began, now)
        configured = self._desired.interfaces
        interfaces = [interface for name in result.names if (interface := configured.get(name)) is not None]
        needed = {each.name for each in interfaces if each.further or _waits_for_a_silent_name(each, result)}
        rarely = {each.name for each in interfaces if not each.enabled} - needed
        self._occasions.look_regularly(result.names, needed, rarely, now)
        if not watches.any_rests():
            return
        for name in result.names:
            interface = configured.get(name)
            if interface is not None and watches.rests_at(interface.namespace.ref):
                self._occasions.look_later(name, now + DEAF_LOOK)

    def _values(self, name: str) -> int:
        """Return how many addresses, routes and neighbours an interface should have, or had when last observed."""
        interface, status = self._desired.interfaces.get(name), self._statuses.now.get(name)
        configured = 0
        if interface is not None:
            configured = len(interface.ip_addresses) + len(interface.routes) + len(interface.neighbours)
        addresses = 0 if status is None or status.link is None else len(status.link.addresses)
        return max(configured, addresses + self._values_seen.get(name, 0))

    def _note_values(self, result: PassResult) -> None:
        """Note how many routes and neighbours the links of these interfaces have."""
        for name in result.names:
            seen = result.plan.found.get(name)
            if seen is not None and seen.further and (number := count_values(seen.further)):
                self._values_seen[name] = number
            else:
                self._values_seen.pop(name, None)


def _waits_for_a_silent_name(interface: Interface, result: PassResult) -> bool:
    """Return whether an interface is FAILED until a link that is down gives up its name, which may be no event.

    The kernel sends no event about the alias, the group or the alternative names of a link that is down
    (netdev_state_change, net/core/dev.c). For the same reason, the takeover of a link that is not enabled is none.
    """
    verdict = result.plan.verdicts.get(interface.name)
    if verdict is None or verdict.state is not State.FAILED:
        return False
    netns = result.observed.netns.get(interface.namespace.ref)
    place = None if netns is None else netns.place
    holder = None if place is None else result.observed.by_name.get((place, interface.kernel_name))
    return holder is not None and not holder.link.up
