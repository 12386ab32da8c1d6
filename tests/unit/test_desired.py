"""The desired interfaces by name, and which interfaces are affected by a change to one."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.live.applying import interface
from vethlib import InvalidValue
from vethlib.agent.planning.desired import Desired

HERE, THERE = (1, 1), (1, 2)


def wanted(*pairs: tuple[str, str]) -> Desired:
    desired = Desired()
    for name, peer in pairs:
        desired.put(interface(name, peer))
    return desired


def test_a_put_concerns_itself_its_peer_and_those_that_name_it() -> None:
    desired = wanted(("c", "a"), ("d", "a"))
    assert desired.put(interface("a", "b")) == {"a", "b", "c", "d"}


def test_another_peer_concerns_the_one_before_as_well() -> None:
    desired = wanted(("a", "b"))
    assert desired.put(interface("a", "c")) == {"a", "b", "c"}
    assert desired.delete("a") == {"a", "c"}
    assert desired.delete("a") == {"a"}


def test_a_deletion_forgets_everything() -> None:
    desired = wanted(("a", "b"))
    desired.put(interface("b", "a", "blue"))
    desired.claim("b", HERE)
    desired.refuse("b", [])
    assert "b" in desired
    desired.delete("b")
    assert "b" not in desired
    assert desired.names() == {"a"}
    assert desired.at("netns:blue") == set()
    assert set(desired.refs) == {""}
    assert desired.claimants(HERE, "b") == set()


def test_a_bad_value_leaves_the_last_good_one_and_a_good_one_ends_it() -> None:
    desired = wanted(("a", "b"))
    problem = InvalidValue("mtu", 3, "no")
    assert desired.refuse("a", [problem]) == {"a"}
    assert desired.interfaces["a"] == interface("a", "b")
    assert desired.refused == {"a": (problem,)}
    desired.put(interface("a", "b"))
    assert desired.refused == {}


def test_interfaces_are_found_by_the_spelling_of_their_namespace() -> None:
    desired = Desired()
    desired.put(interface("a", "b", "blue"))
    desired.put(interface("c", "d", "blue"))
    assert desired.at("netns:blue") == {"a", "c"}
    desired.put(interface("a", "b", "red"))
    assert (desired.at("netns:blue"), desired.at("netns:red"), desired.at("")) == ({"c"}, {"a"}, set())


def test_who_wants_the_same_kernel_name_in_the_same_namespace_is_a_rival() -> None:
    desired = Desired()
    for name in "abc":
        desired.put(interface(name, "z", host_if_name="eth0"))
        desired.claim(name, THERE if name == "c" else HERE)
    assert desired.rivals("a") == {"a", "b"}
    assert desired.rivals("c") == set()
    assert desired.claimants(HERE, "eth0") == {"a", "b"}
    desired.claim("b", THERE)
    assert desired.rivals("a") == set()
    assert desired.rivals("b") == {"b", "c"}
    desired.claim("b", None)
    assert desired.claimants(THERE, "eth0") == {"c"}
    desired.claim("nobody", HERE)
    assert desired.claimants(HERE, "nobody") == set()


def test_what_gives_up_a_name_concerns_who_wants_it_too() -> None:
    for change in ("delete", "put"):
        desired = Desired()
        for name in "ab":
            desired.put(interface(name, "z", host_if_name="eth0"))
            desired.claim(name, HERE)
        concerned = desired.delete("a") if change == "delete" else desired.put(interface("a", "z"))
        assert "b" in concerned


def test_judged_together_are_an_interface_and_its_peer_if_that_points_back_or_is_not_configured() -> None:
    desired = wanted(("a", "b"), ("b", "a"), ("x", "a"), ("y", "x"), ("z", "nobody"))
    assert desired.with_peers(["a"]) == desired.with_peers(["b"]) == {"a", "b"}
    assert desired.with_peers(["x"]) == {"x"}
    assert desired.with_peers(["y"]) == {"y"}
    assert desired.with_peers(["z"]) == {"z", "nobody"}
    assert desired.with_peers(["nobody"]) == {"nobody"}
    assert desired.with_peers(["x", "b"]) == {"x", "a", "b"}


def chain(length: int) -> list[tuple[str, str]]:
    return [(f"s{number}", f"s{number + 1}") for number in range(length)]


def ring(length: int) -> list[tuple[str, str]]:
    return [(f"s{number}", f"s{(number + 1) % length}") for number in range(length)]


def star(length: int) -> list[tuple[str, str]]:
    return [("s0", "s1"), *((f"s{number}", "s0") for number in range(1, length))]


@pytest.mark.parametrize("shape", [chain, ring, star])
def test_however_peers_are_chained_few_are_judged_together(shape: Callable[[int], list[tuple[str, str]]]) -> None:
    """Only the last of a chain has a peer that is not configured, and only one interface of a star has a peer."""
    desired = wanted(*shape(300))
    assert max(len(desired.with_peers([name])) for name in desired.names()) == (1 if shape is ring else 2)
    assert len(desired.with_peers(f"s{number}" for number in range(100))) <= 101


def test_only_what_is_wanted_is_among_it() -> None:
    desired = wanted(("a", "b"))
    assert desired.among("ab") == {"a": interface("a", "b")}


def test_of_very_many_that_name_one_interface_or_want_its_name_few_are_judged_along_with_it() -> None:
    desired = wanted(("a", "b"), ("b", "a"))
    for number in range(200):
        desired.put(interface(f"n{number}", "a"))
        desired.put(interface(f"c{number}", "z", host_if_name="a"))
    for name in desired.names():
        desired.claim(name, HERE)
    assert desired.with_peers(["a"]) == {"a", "b"}
    assert desired.with_peers(["n7"]) == {"n7"}
    assert desired.rivals(["b"]) == set()
    assert desired.rivals(["a"]) == desired.rivals(["c50", "c60"]) == desired.claimants(HERE, "a") == {"a"}
    assert len(desired.put(interface("a", "c"))) > 200


def test_a_deleted_name_is_remembered_until_nothing_of_it_is_left() -> None:
    desired = wanted(("a", "b"))
    for name in "abc":
        desired.delete(name)
    assert desired.deleted == {"a", "b", "c"}
    desired.put(interface("b", "a"))
    desired.forget_deleted(["c", "x"])
    assert desired.deleted == {"a"}
    desired.declare(complete=True)
    desired.delete("b")
    assert desired.deleted == set()


def test_unknown_is_what_never_had_a_valid_value() -> None:
    desired = wanted(("a", "b"))
    for name in "abc":
        desired.refuse(name, [InvalidValue("mtu", 3, "no")])
    assert desired.unknown(["a", "b", "x"]) == {"b"}
