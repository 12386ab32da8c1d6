"""Routes of a plan that are removed before everything else, or changed afterwards: only those of one namespace."""

from __future__ import annotations

from typing import Any

import pytest

from tests.proportion import is_proportional
from tests.unit.planning import end
from vethlib import End, Route, Veth
from vethlib.agent import Namespace
from vethlib.agent.planning.later.turns import Turns, turns
from vethlib.agent.planning.observed import NetnsId
from vethlib.agent.planning.operations import ChangeLink, CreatePair, Operation

ROUTE = Route("default", via="10.0.0.1")
SOURCED = Route("10.5.0.0/16", src="10.9.9.9")


def found(ref: str) -> NetnsId:
    """Two references lead to the first namespace, and any other to one of its own."""
    return (4, 1) if ref in ("netns:n1", "path:/n1") else ref


def change(number: int, before: list[Route], after: list[Route], ref: str = "netns:n1") -> ChangeLink:
    interface = end(f"v{number}", "peer")
    return ChangeLink(interface, ref, found(ref), number, f"v{number}", {"routes": (tuple(before), tuple(after))})


def pair(ref: str, **fields: Any) -> CreatePair:
    here, there = Namespace(2, name=ref.removeprefix("netns:")), Namespace(2, name="other")
    veth = Veth(End("a", ref, **fields), End("b", "netns:other"))
    return CreatePair(end("a", "b", namespace=here), end("b", "a", namespace=there), veth)


def in_turn(*operations: Operation) -> Turns:
    return turns(operations, found)


@pytest.mark.parametrize(
    ("other", "concerned"),
    [
        (change(2, [], [ROUTE]), True),
        (change(2, [], [ROUTE], "path:/n1"), True),
        (change(2, [], [ROUTE], "netns:n2"), False),
        (change(2, [], [Route("default", via="10.0.0.1", metric=7)]), False),
        (change(2, [], [Route("default", via="10.0.0.7")]), True),
        (pair("netns:n1", routes=[ROUTE]), True),
        (pair("netns:n2", routes=[ROUTE]), False),
    ],
)
def test_a_route_is_removed_first_if_another_link_of_its_namespace_gets_one_like_it(
    other: Operation, concerned: bool
) -> None:
    removing = change(1, [ROUTE], [])
    for operations in ((removing, other), (other, removing)):
        assert in_turn(*operations).first == ({id(removing): (ROUTE,)} if concerned else {})


def test_a_route_that_only_changes_on_its_link_is_changed_with_it() -> None:
    changed = change(1, [ROUTE], [Route("default", via="10.0.0.7")])
    assert in_turn(changed, change(2, [], [SOURCED])) == Turns()


@pytest.mark.parametrize(("ref", "waits"), [("netns:n1", True), ("netns:n2", False)])
def test_a_route_is_added_last_if_another_link_of_its_namespace_gets_its_source(ref: str, waits: bool) -> None:
    adding = change(1, [], [SOURCED])
    other = pair(ref, addresses=["10.9.9.9/24"])
    for operations in ((adding, other), (other, adding)):
        assert in_turn(*operations).last == ({id(adding)} if waits else set())


def test_many_links_with_the_same_route_are_told_apart_in_proportional_time() -> None:
    other = Route("default", via="10.0.0.7")

    def work(number: int) -> None:
        made = [change(each, [ROUTE], [other], f"netns:x{each}") for each in range(number)]
        assert in_turn(*made) == Turns()

    assert is_proportional(work, 300)
