"""Wires that are set down and up again: their state, and the routes over them."""

from __future__ import annotations

from itertools import count
from typing import Any

import pytest

from tests.live.reaching import all_reach_all, of, reaches
from tests.refusing import raises
from vethlib import LinkNotFound
from vethlib.topology import Node, Topology


def test_a_wire_that_was_down_is_up_again_with_the_routes_of_both_ends() -> None:
    with Topology.build("a -- r1 -- r2 -- b", routes=True) as net:
        net.down("r2", "r1")
        assert not reaches(net["a"], net["b"], net["b"].ipv4)
        assert of(net["r1"], "route", "show", "10.0.2.0/24") == []
        net.up("r2", "r1")
        assert all_reach_all(net)
        net.up("r1", "r2")  # which it is already
        with raises(LookupError):
            net.down("a", "b")


def static(node: Node, *words: str) -> set[str]:
    """Return the routes over wires that the kernel has not added itself, as text."""
    shown = [node.run(["ip", family, "route", "show", *words]).stdout for family in ("-4", "-6")]
    return {line.strip() for line in "".join(shown).splitlines() if "proto kernel" not in line}


def test_a_wire_that_is_up_again_has_the_routes_that_the_test_has_added() -> None:
    with Topology.build("a -- r1 -- r2 -- b", routes=True) as net:
        r1, r2 = net["r1"], net["r2"]
        r1.route("10.77.0.0/16", via=r2)
        r1.route("10.77.0.0/16", via=net["a"], metric=50)  # over another wire
        r1.route("fd77::/48", via=r2, metric=7)
        r1.route("10.78.0.0/16", link="eth1")
        r1.run(["ip", "route", "add", "10.79.0.0/16", "via", "10.0.1.2", "mtu", "1300", "table", "100"])
        r1.run(["ip", "route", "add", "fd79::/48", "via", "fd00:1::2", "table", "100"])
        r1.run(["ip", "route", "add", "10.80.0.0/16", "via", "10.78.0.1", "onlink", "dev", "eth1"])
        before = [static(r1), static(r1, "table", "100"), static(r2)]
        for _ in range(2):
            net.down(r1, r2)
            net.down(r1, r2)  # has nothing to remove any more
            assert static(r1) != before[0]
            net.up(r1, r2)
            assert [static(r1), static(r1, "table", "100"), static(r2)] == before
        assert all_reach_all(net)


def test_a_wire_that_is_up_again_has_no_route_that_the_test_has_removed_or_replaced() -> None:
    text = "a(default via 10.0.0.2, 10.9.0.0/16 via 10.0.0.2) -- r1; a -- r2; r1 -- b; r2 -- b; router r1 r2"
    with Topology.build(text, routes=True) as net:
        a = net["a"]
        a.remove_route("10.9.0.0/16")
        a.remove_route("default", via="fd00::2", missing_ok=True)
        before = static(a)
        net.down("a", "r1")
        net.up("a", "r1")
        assert static(a) == before
        net.down("a", "r1")
        a.route("default", via=net["r2"])
        net.up("a", "r1")
        assert [route["gateway"] for route in of(a, "route", "show", "default")] == [net["r2"].address(towards=a)]


def test_a_wire_that_is_up_again_has_no_route_of_a_daemon_which_follows_the_link_itself() -> None:
    with Topology.build("a -- b") as net:
        net["a"].run(["ip", "route", "add", "10.7.0.0/16", "via", "10.0.0.2", "proto", "bird"])
        net.down("a", "b")
        net.up("a", "b")
        assert static(net["a"]) == set()


@pytest.mark.parametrize("impair", ["kernel", "userspace"])
@pytest.mark.parametrize("changed", ["a", "b"])
def test_a_wire_of_which_a_link_is_missing_is_set_neither_down_nor_up(changed: str, impair: Any) -> None:
    other = "b" if changed == "a" else "a"
    text = "a -- b" if impair == "kernel" else "a -- b delay=0ms"
    with Topology.build(text, impair=impair) as net:
        net[changed].set("eth0", up=False)
        net[changed].set("eth0", new_name="wan")
        for use, is_up in ((net.down, True), (net.up, False)):
            net[other].set("eth0", up=is_up)
            for ends in (("a", "b"), ("b", "a")):
                with raises(LinkNotFound):
                    use(*ends)
            (link,) = of(net[other], "link", "show", "eth0")
            assert ("UP" in link["flags"]) is is_up


def test_of_a_wire_that_comes_up_routes_through_another_that_is_down_stay_away() -> None:
    with Topology.build("a -- r -- b; r -- c", routes=True) as net:
        net.down("r", "b")
        net.down("r", "a")
        net.up("r", "a")
        assert reaches(net["a"], net["c"], net["c"].ipv4)
        assert not reaches(net["a"], net["b"], net["b"].ipv4)


@pytest.mark.parametrize("version", [4, 6])
def test_a_wire_that_is_up_again_restores_no_route_over_another_wire(version: int) -> None:
    with Topology.build("a -- r1 -- r2 -- b; r1 -- c", routes=True) as net:
        r1, c = net["r1"], net["c"]

        def routes(node: Node) -> set[str]:
            return {one["dst"] for one in of(node, f"-{version}", "route") if "gateway" in one}

        removed = routes(r1)
        assert removed
        for destination in removed:
            r1.remove_route(destination)
        of_c = routes(c)
        net.down("r1", "c")
        net.up("r1", "c")
        assert routes(r1) == set()
        assert routes(c) == of_c


@pytest.mark.parametrize("then", [["up"], ["down", "up"], ["down"]], ids="-".join)
@pytest.mark.parametrize("end", [1, 2])
@pytest.mark.parametrize("verb", ["down", "up"])
def test_after_an_interruption_both_ends_are_set_down_and_up_with_their_routes(
    monkeypatch: pytest.MonkeyPatch, verb: str, end: int, then: list[str]
) -> None:
    numbers, set_link = count(1), Node.set

    def interrupt(node: Node, *arguments: Any, **changes: Any) -> Any:
        link = set_link(node, *arguments, **changes)
        if next(numbers) == end:
            raise KeyboardInterrupt
        return link

    def state() -> list[Any]:
        shown = [of(net[name], "link", "show", "eth0") for name in "ab"]
        return [[["UP" in link["flags"] for link in links] for links in shown], static(net["a"]), static(net["b"])]

    with Topology.build("a -- b -- c", routes=True) as net:
        net["a"].route("10.77.0.0/16", via=net["b"])
        net["b"].route("10.78.0.0/16", via=net["a"])
        states = {"up": state()}
        net.down("a", "b")
        states["down"] = state()
        if verb == "down":
            net.up("a", "b")
        with monkeypatch.context() as patch:
            patch.setattr(Node, "set", interrupt)
            with pytest.raises(KeyboardInterrupt):
                getattr(net, verb)("a", "b")
        for each in then:
            getattr(net, each)("a", "b")
        assert state() == states[then[-1]]
