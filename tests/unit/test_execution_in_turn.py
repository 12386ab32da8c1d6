"""The account of operations whose routes are changed in turn: those that were begun, but not completed."""

from __future__ import annotations

from ipaddress import ip_interface
from typing import Any, cast

import pytest

from tests.proportion import is_proportional
from tests.unit.planning import end
from vethlib import Route, Session
from vethlib.agent.host.executed import Execution
from vethlib.agent.host.inturn import RoutesInTurn
from vethlib.agent.planning.operations import ChangeLink


class Accepting:
    """A session in which every change succeeds."""

    def set(self, *_: Any, **__: Any) -> None:
        """Change a link."""

    def remove_dependents(self, *_: Any, **__: Any) -> None:
        """Remove routes of a link."""

    def identity(self, ref: str) -> str:
        """Return where a reference leads."""
        return ref


def change(number: int, link: int, **fields: Any) -> ChangeLink:
    interface = end(f"v{number}-{link}", "peer")
    changes = {"routes": fields.pop("routes")} if "routes" in fields else {}
    return ChangeLink(interface, f"netns:n{number}", (4, number + 1), link, f"v{link}", changes, **fields)


def moved(number: int) -> list[ChangeLink]:
    """A route moves from one link to another."""
    route = (Route("10.5.0.0/16"),)
    return [change(number, 2, routes=(route, ())), change(number, 3, routes=((), route))]


def sourced(number: int) -> list[ChangeLink]:
    """A link gets the address that a new route over another one has as its source."""
    added = (ip_interface("10.9.9.9/32"),)
    return [change(number, 2, added=added), change(number, 3, routes=((), (Route("10.5.0.0/16", src="10.9.9.9"),)))]


def carry_out(operations: list[ChangeLink]) -> tuple[Execution, list[ChangeLink]]:
    """Carry out operations in turn; return the account, and the operations that were begun once routes were removed."""
    execution = Execution()
    routes = RoutesInTurn(cast(Session, Accepting()), operations, execution)
    routes.take_first()
    begun = cast("list[ChangeLink]", [*execution.begun])
    for operation in operations:
        routes.part(operation)
        routes.made(operation)
    routes.change_last(waits=False)
    return execution, begun


@pytest.mark.parametrize(("kind", "touched"), [(moved, 0), (sourced, 1)])
def test_an_operation_with_routes_in_turn_is_begun_until_it_is_done(kind: Any, touched: int) -> None:
    operations = [operation for number in range(3) for operation in kind(number)]
    execution, begun = carry_out(operations)
    assert begun == operations[touched::2]
    assert execution.begun == []
    assert sorted(map(id, execution.done)) == sorted(map(id, operations))


@pytest.mark.parametrize("kind", [moved, sourced])
def test_many_operations_with_routes_in_turn_take_proportional_time(kind: Any) -> None:
    few = [operation for each in range(1500) for operation in kind(each)]
    many = [operation for each in range(12_000) for operation in kind(each)]
    assert is_proportional(lambda number: carry_out(many if number > 1500 else few), 1500)
