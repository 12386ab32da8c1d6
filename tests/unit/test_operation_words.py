"""The operations of a plan in words."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_interface

import pytest

from tests.live.applying import interface
from vethlib.agent.planning.observed import Observed
from vethlib.agent.planning.operations import (
    AddNetns,
    ChangeLink,
    CreatePair,
    DeletePair,
    Operation,
    Plan,
    RemoveNetns,
    RemoveSurplus,
)
from vethlib.agent.planning.words import action, changes, count, drift, drifted, line
from vethlib.cli.render.difference import difference_lines
from vethlib.cli.render.operations import operation_lines
from vethlib.cli.term.text import render
from vethlib.endfields.routes import Route
from vethlib.links import End, Veth

A, B = interface("a", "b"), interface("b", "a")
ONE, TWO = ip_interface("10.0.0.1/24"), ip_interface("10.0.0.2/24")
NONE = ChangeLink(A, "netns:blue", (4, 1), 5, "a", {})
CREATE = CreatePair(A, B, Veth(End("a", "netns:blue"), End("b")))
DELETE = DeletePair("netns:blue", (4, 1), 5, "a", "a", "a is not configured")

WORDS = [
    (replace(NONE, changes={"mtu": (1400, 1500)}), "mtu is 1400, not 1500", "mtu 1400 → 1500"),
    (replace(NONE, changes={"up": (False, True)}), "it is down, not up", "down → up"),
    (replace(NONE, changes={"alias": ("", "x")}), "alias is '', not x", "alias '' → x"),
    (
        replace(NONE, added=(ONE,), removed=(TWO,)),
        "address 10.0.0.2/24 is not configured, address 10.0.0.1/24 is missing",
        "-10.0.0.2/24, +10.0.0.1/24",
    ),
    (replace(NONE, order=(TWO, ONE)), "its addresses are in another order", "order 10.0.0.2/24 10.0.0.1/24"),
    (replace(NONE, renewed=(ONE,)), "address 10.0.0.1/24 expires", "10.0.0.1/24 made permanent"),
    (replace(NONE, again=(ONE,)), "address 10.0.0.1/24 is a duplicate", "10.0.0.1/24 added again"),
    (CREATE, "the pair is missing", "created 'a' in netns:blue"),
    (DELETE, "a is not configured", "deleted 'a' in netns:blue (a is not configured)"),
    (AddNetns("blue"), "", ""),
]


@pytest.mark.parametrize(("operation", "found", "done"), WORDS)
def test_an_operation_has_words_for_what_was_found_and_for_what_is_done(
    operation: Operation, found: str, done: str
) -> None:
    assert (drift(operation), action(operation, "a", "", ())) == (found, done)


def test_the_log_and_apply_word_a_change_alike() -> None:
    for operation in (operation for operation, _, _ in WORDS if isinstance(operation, ChangeLink)):
        (shown,) = operation_lines([operation])
        assert render(shown, colored=False) == f"~ 'a' in netns:blue: {changes(operation)}"


LINES: list[tuple[Operation, str]] = [
    (AddNetns("blue"), "+ namespace blue"),
    (CREATE, "+ 'a' in netns:blue ⇄ 'b'"),
    (replace(NONE, changes={"mtu": (1400, 1500)}), "~ 'a' in netns:blue: mtu 1400 → 1500"),
    (DELETE, "- 'a' in netns:blue and its peer: a is not configured"),
    (RemoveNetns("blue", (4, 1)), "- namespace blue"),
]


def test_the_fields_of_a_new_end_are_in_the_plan_and_in_the_diff() -> None:
    end = End("a", "netns:blue", routes=[Route("default", via="10.0.0.1")], master="br0", offload=False, txqlen=7)
    create = replace(CREATE, veth=Veth(end, End("b")))
    fields = ["txqlen 7", "master br0", "routes default via 10.0.0.1", "offload off"]
    _, shown, _ = (render(text, colored=False) for text in operation_lines([create]))
    assert shown.split(maxsplit=2)[2] == "  ".join(fields)
    plan, nothing = Plan((create,), {}), Observed({}, [])
    lines = [render(text, colored=False) for text in difference_lines(plan, nothing, ["x"])]
    assert {f"+{field}" for field in fields} <= set(lines)


@pytest.mark.parametrize(("operation", "text"), LINES)
def test_an_operation_has_a_line(operation: Operation, text: str) -> None:
    assert line(operation) == text


def test_operations_are_counted_by_kind() -> None:
    every: list[Operation] = [CREATE, *(operation for operation, _ in reversed(LINES))]
    assert count(every, done=True) == (
        "added 1 namespace, created 2 pairs, changed 1 link, deleted 1 pair, removed 1 namespace"
    )
    assert (
        count(every, done=False) == "add 1 namespace, create 2 pairs, change 1 link, delete 1 pair, remove 1 namespace"
    )
    assert count([], done=True) == ""
    assert count([NONE, NONE, replace(NONE, index=8)], done=True) == "changed 2 links"  # one of them in two steps


def test_the_log_does_not_repeat_a_known_reason_and_names_new_namespaces() -> None:
    assert action(DELETE, "a", "a is not configured", ()) == "deleted 'a' in netns:blue"
    assert action(CREATE, "a", "", {"netns:blue"}) == "created 'a' in netns:blue (a new namespace)"
    assert action(CREATE, "b", "", {"netns:blue"}) == "created 'b'"


def test_the_removal_of_a_portion_is_counted_and_not_listed() -> None:
    routes = tuple(Route(f"10.{number}.0.0/16") for number in range(200))
    removal = RemoveSurplus(NONE.interface, NONE.ref, NONE.place, NONE.index, "a", {"routes": routes})
    assert line(removal) == "~ 'a' in netns:blue: 200 routes removed"
    assert action(removal, "a", "", ()) == "200 routes removed"
    assert (drift(removal), drifted(removal)) == ("routes are not configured", "routes")


@pytest.mark.parametrize("number", [5, 32, 33, 5000])
def test_the_log_lists_the_first_changes_of_a_link_only(number: int) -> None:
    removed = tuple(ip_interface(f"172.16.{each >> 8}.{each & 255}/32") for each in range(number))
    change = replace(NONE, removed=removed)
    more = f", and {number - 32} more" if number > 32 else ""
    for text in (action(change, "a", "", ()), drift(change)):
        assert text.count("172.16.") == min(number, 32)
        assert text.endswith(more)
    assert line(change).count("-172.16.") == number
