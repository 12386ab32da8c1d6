"""Which operations of a plan are carried out now: not those that were refused, have to wait, or are too many."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from ipaddress import IPv6Interface
from typing import Final, TypeVar

from vethlib._primitives import time
from vethlib.agent.planning.later.portions import count_values, portion
from vethlib.agent.planning.later.sources import create_without_waiting_routes, without_waiting_routes
from vethlib.agent.planning.operations import AddNetns, ChangeLink, CreatePair, Operation, RemoveSurplus
from vethlib.agent.planning.words import drift, drifted
from vethlib.agent.reasons import Reason, changed_repeatedly, duplicate_mac
from vethlib.agent.reconcile.backoff import Backoff
from vethlib.errors import LinkExists, LinkNotFound, NetnsNotFound, VethError
from vethlib.session import Session

from .passresult import PassResult

__all__ = ["Choice", "split", "without_unused_netns"]

T = TypeVar("T", bound=Operation)

AT_ONCE: Final = 256
"""Pairs created before other interfaces have their turn: a tenth of a second. Other operations count by their cost."""

_WEIGHTS: Final = {"create": 1.0, "delete": 0.25, "change": 0.25}

_VALUES: Final = 8  # this many addresses, routes or neighbours, added or removed, cost as much as a pair: 50 µs each

_PASSING: Final = (LinkExists, LinkNotFound, NetnsNotFound)
"""Errors that mean that the host has changed since the last observation. The next observation finds out how."""


class Choice:
    """Chooses the operations of each round of one pass.

    `deferred` are the interfaces whose operations are left to a later pass, because there was too much to do. Of these
    operations, `left` has the creations that need no other operation first, and the namespaces that they need.
    `unfinished` has the interfaces of which a chosen operation removes only a portion, each with the reason.
    """

    def __init__(self, session: Session, backoff: Backoff) -> None:
        self.deferred: set[str] = set()
        self.left: list[Operation] = []
        self.unfinished: dict[str, Reason] = {}
        self._session = session
        self._backoff = backoff
        self._tried: set[str] = set()  # interfaces whose duplicate addresses were added again

    def choose(self, result: PassResult, refused: Mapping[str, VethError]) -> list[Operation]:
        """Return those operations of the plan that are carried out now; `result` gets the reasons of the others.

        `refused` has what the kernel has refused in this pass, by interface.
        """
        chosen: list[Operation] = []
        for operation in self._due(result.plan.operations, result):
            names = operation.interfaces
            error = next((refused[name] for name in names if name in refused), None)
            if error is not None and not isinstance(error, _PASSING):
                result.errors.update(dict.fromkeys(names, error))
                continue
            complete = [name for name in names if result.plan.configures(name)]
            if repairs := self._backoff.hold(complete, time.monotonic()):
                reason = changed_repeatedly(drift(operation), drifted(operation), repairs)
                result.held.update(dict.fromkeys(names, reason))
            else:
                chosen.append(operation)
        return without_unused_netns(self._first_of(chosen)) if chosen else []

    def _due(self, operations: Iterable[Operation], result: PassResult) -> Iterator[Operation]:
        """Yield the operations, without what has to wait.

        That is adding a duplicate address again, routes whose source is still being checked for duplicates, and the
        rest of what has to be removed from a link with very many routes, neighbours or addresses.
        """
        for operation in operations:
            if isinstance(operation, CreatePair):
                operation = create_without_waiting_routes(operation)
            elif isinstance(operation, ChangeLink):
                name = operation.interface.name
                if lost := self._lost_for_a_duplicate(operation):
                    result.duplicates[name] = lost
                if name in result.duplicates and not self._may_try_again(name):
                    operation = replace(operation, again=())
                    if lost:
                        added = tuple(address for address in operation.added if not isinstance(address, IPv6Interface))
                        operation = replace(operation, added=added)
                    if operation.is_empty:
                        continue
                elif name in result.duplicates:
                    self._tried.add(name)
                operation, removal, unfinished = portion(operation)
                if unfinished is not None:
                    self.unfinished[name] = unfinished
                if removal is not None:
                    yield removal
                operation, reason = without_waiting_routes(operation, result.observed)
                if reason is not None:
                    result.postponed[name] = reason
                if operation.is_empty and (reason is not None or removal is not None):
                    continue
            yield operation

    def _may_try_again(self, name: str) -> bool:
        return name not in self._tried and self._backoff.may_try_again(name, time.monotonic())

    def _lost_for_a_duplicate(self, operation: ChangeLink) -> Reason | None:
        """Return why a link has lost the IPv6 addresses to be added, if the kernel removed them for a duplicate MAC."""
        lost = [address for address in operation.added if isinstance(address, IPv6Interface)]
        if not lost or "up" in operation.changes:
            return None
        try:
            settings = self._session.ipv6_settings(operation.name, operation.ref)
        except VethError:
            return None  # adding them reports the reason
        return duplicate_mac(lost) if settings.may_be_switched_off_for_a_duplicate else None

    def _first_of(self, operations: Sequence[Operation]) -> list[Operation]:
        """Return the operations of this pass; the interfaces of the others are deferred.

        No operation needs a later one, and those that belong to no interface are never deferred.
        """
        if len(operations) < 2:
            return [*operations]  # whatever it costs
        first, left = split(operations)
        self.deferred.update(name for operation in left for name in operation.interfaces)
        creations = [operation for operation in left if isinstance(operation, CreatePair)]
        if creations and len(creations) == len(left):
            additions = (operation for operation in operations if isinstance(operation, AddNetns))
            self.left += without_unused_netns([*additions, *creations])
        return first


def split(operations: Iterable[T]) -> tuple[list[T], list[T]]:
    """Return the operations that are done before other interfaces have their turn, and the others."""
    first: list[T] = []
    left: list[T] = []
    weight = 0.0
    for operation in operations:
        if weight >= AT_ONCE and operation.interfaces:
            left.append(operation)
        else:
            first.append(operation)
            weight += _WEIGHTS.get(operation.op, 0.0) + _values(operation) // _VALUES
    return first, left


def without_unused_netns(operations: Sequence[Operation]) -> list[Operation]:
    """Return the operations without the creation of namespaces that no created pair needs."""
    needed = {
        interface.namespace.name
        for operation in operations
        if isinstance(operation, CreatePair)
        for interface in (operation.a, operation.b)
    }
    return [each for each in operations if not isinstance(each, AddNetns) or each.name in needed]


def _values(operation: Operation) -> int:
    """Return how many addresses, routes and neighbours an operation adds and removes."""
    if isinstance(operation, CreatePair):
        ends = operation.veth.a, operation.veth.b
        return sum(len(end.interfaces) + count_values(end.further) for end in ends)
    if isinstance(operation, RemoveSurplus):
        return sum(map(len, operation.surplus.values()))
    if isinstance(operation, ChangeLink):
        addresses = len(operation.added) + len(operation.removed) + len(operation.order) + 2 * len(operation.again)
        present, wanted = ({name: each[side] for name, each in operation.changes.items()} for side in (0, 1))
        return addresses + count_values(present) + count_values(wanted)
    return 0
