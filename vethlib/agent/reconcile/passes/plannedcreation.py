"""The creation of many pairs, a few at a time.

If a pass would create more pairs than one pass may, the others are created as planned, and then looked at, a few at a
time. Other passes have their turn in between. The namespaces of these pairs are watched when all are created: each
watched namespace makes every event of a link more expensive, and creating a pair causes a dozen. When a namespace is
first watched, everything in it is read, and from then on every change is an event (in the home namespace, since the
start). So a pair that is then still as it was created needs no observation of its own. All other pairs get an
observation: those that other programs have changed meanwhile, and those with settings that are in no message.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping

from vethlib.agent.host.executed import CreatedPair
from vethlib.agent.planning.operations import AddNetns, CreatePair, Operation
from vethlib.agent.reconcile.occasions import Scope
from vethlib.agent.reconcile.owners import Owners

from .choice import split, without_unused_netns
from .reconcilepass import ReconcilePass

__all__ = ["PlannedCreation"]


class PlannedCreation:
    """Creates pairs that a pass has planned and left, and then looks at them.

    `causes` has their interfaces, each with the cause of its observation.
    """

    def __init__(
        self, owners: Owners, planned: Iterable[Operation], causes: Mapping[str, str], *, loopback: bool
    ) -> None:
        self._owners = owners
        self._loopback = loopback
        self._causes = dict(causes)  # for the interfaces that were not observed yet
        self._additions = [operation for operation in planned if isinstance(operation, AddNetns)]
        self._left = [operation for operation in planned if isinstance(operation, CreatePair)]
        self._created: set[str] = set()
        self._looks: deque[tuple[ReconcilePass, list[CreatedPair]]] = deque()  # each with the pairs created for it

    @property
    def scope(self) -> Scope:
        """The part of the scope that was not looked at yet."""
        return Scope(self._causes)

    @property
    def is_finished(self) -> bool:
        """Whether everything was created, and every pass was returned."""
        return not self._left and not self._looks

    def give_way(self) -> None:
        """Leave marked interfaces to other passes, except those already created, which are looked at here."""
        occasions = self._owners.occasions
        if not (marked := occasions.marked()):
            return
        occasions.forget(marked & self._created)
        left, self._left = self._left, []
        for create in left:
            names = create.interfaces
            if marked.isdisjoint(names):
                self._left.append(create)
            else:
                occasions.look_at({name: self._causes.pop(name) for name in names})

    def go_on(self) -> ReconcilePass | None:
        """Create some more pairs, or return the next pass to run.

        Raises VethError if a bulk operation fails as a whole.
        """
        if self._left:
            self._create_some()
            return None
        if not self._looks:
            return None
        look, created = self._looks.popleft()
        refs = {end.namespace.ref for create, _ in created for end in (create.a, create.b)}
        look.expect(created, self._owners.observer.watches.watch_more(refs))
        for name in look.scope.names:
            del self._causes[name]
            self._created.discard(name)
        return look

    def _create_some(self) -> None:
        first, left = split(self._left)
        causes = {name: self._causes[name] for create in first for name in create.interfaces}
        look = ReconcilePass(self._owners, Scope(causes), loopback=self._loopback)
        created = look.act(without_unused_netns([*self._additions, *first]))
        self._left = left
        self._created.update(name for create, _ in created for name in create.interfaces)
        self._looks.append((look, created))
