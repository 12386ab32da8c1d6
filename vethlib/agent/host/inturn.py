"""Carrying out what a plan does to routes that depend on several of its operations, in three steps.

Before everything else, routes are removed that another operation adds; last, routes are changed that need what another
operation has done (:mod:`vethlib.agent.planning.later.turns`). Until then, these operations count as begun.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from vethlib._values import replace as replace_value
from vethlib.agent.planning.confine import foreseen
from vethlib.agent.planning.later.turns import turns
from vethlib.agent.planning.observed import NetnsId, is_same_netns
from vethlib.agent.planning.operations import ChangeLink, CreatePair, Operation
from vethlib.endfields.table import ROUTES
from vethlib.errors import VethError
from vethlib.links import Link, describe
from vethlib.session import Session
from vethlib.session.core.namespaces import Birth
from vethlib.session.session import open_namespaces

from .executed import Execution

if TYPE_CHECKING:
    from vethlib.endfields.routes import Route

__all__ = ["RoutesInTurn"]

T = TypeVar("T", ChangeLink, CreatePair)


class RoutesInTurn:
    """The routes of a plan that are not changed together with their links."""

    def __init__(
        self, session: Session, operations: Sequence[Operation], execution: Execution, surplus: int | None = None
    ) -> None:
        self._session = session
        self._surplus = surplus
        self._execution = execution
        self._turns = turns(operations, self._find)
        self._last: list[ChangeLink | CreatePair] = []
        self._touched = [each for each in operations if id(each) in self._turns.first or id(each) in self._turns.last]

    def _find(self, ref: str) -> NetnsId:
        try:
            return self._session.identity(ref)
        except VethError:
            return ref  # it is created by the plan, or nothing in it can be changed

    def take_first(self) -> None:
        """Remove the routes that have to be removed before everything else."""
        self._execution.begin(self._touched)
        for operation in self._touched:
            routes = self._turns.first.get(id(operation))
            if not routes or not isinstance(operation, ChangeLink):
                continue
            is_observed = partial(_is_in_place, operation)
            try:
                self._session.remove_dependents(
                    operation.name, operation.ref, index=operation.index, only_if=is_observed, routes=routes
                )
            except Exception as error:  # the change of the link reports it
                foreseen(error, f"change {describe(operation.name, operation.ref)}")

    def part(self, operation: T) -> T:
        """Return an operation without the routes that are changed last."""
        if id(operation) not in self._turns.last:
            return operation
        if isinstance(operation, ChangeLink):
            changes = {name: values for name, values in operation.changes.items() if name != ROUTES}
            return replace(operation, changes=changes)
        veth = operation.veth
        a, b = (replace_value(end, routes=()) for end in (veth.a, veth.b))
        return replace(operation, veth=replace_value(veth, a=a, b=b))

    def made(self, operation: ChangeLink | CreatePair) -> None:
        """Note that everything was done, except for routes that are changed last."""
        if id(operation) in self._turns.last:
            self._last.append(operation)
        else:
            self._execution.end(operation)

    def change_last(self, *, waits: bool) -> None:
        """Change the routes that have to be changed after everything else.

        With `waits`, wait until the kernel has checked their sources for duplicates.
        """
        for operation in self._last:
            try:
                for name, ref, how in _changes(operation):
                    if waits:
                        self._await_sources(ref, how["routes"])
                    self._session.set(name, ref, surplus=self._surplus, **how)
            except Exception as error:
                self._execution.errors.append((operation, foreseen(error, _described(operation))))
            else:
                self._execution.end(operation)

    def _await_sources(self, ref: str, routes: Iterable[Route]) -> None:
        from vethlib.session.read.sources import sources_of, until_checked_anywhere  # for few plans

        if sources := sources_of(routes):
            with open_namespaces(self._session) as namespaces:
                until_checked_anywhere(namespaces, namespaces(ref), sources)


def _changes(operation: ChangeLink | CreatePair) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield the name and the namespace of each link that an operation gives routes, and how to change it."""
    if isinstance(operation, ChangeLink):
        _, name = operation.changes.get("name", ("", operation.name))
        _, routes = operation.changes[ROUTES]
        is_in_place = partial(_is_in_place, operation)
        yield name, operation.ref, {"index": operation.index, "only_if": is_in_place, "routes": routes}
        return
    for interface, end in ((operation.a, operation.veth.a), (operation.b, operation.veth.b)):
        if end.routes:
            is_created = partial(_has_alias, end.alias or "")
            yield end.name, interface.namespace.ref, {"only_if": is_created, "routes": end.routes}


def _is_in_place(operation: ChangeLink, _link: Link, birth: Birth) -> bool:
    seen = operation.seen
    return is_same_netns(operation.place, 0 if seen is None else seen.cookie, *birth)


def _has_alias(alias: str, link: Link, _birth: Birth) -> bool:
    return link.alias == alias


def _described(operation: ChangeLink | CreatePair) -> str:
    if isinstance(operation, ChangeLink):
        return f"change {describe(operation.name, operation.ref)}"
    return f"create {operation.veth}"
