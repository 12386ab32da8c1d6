"""The shapes: how many nodes of which kind, and which are connected."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from vethlib.errors import InvalidValue
from vethlib.topology.design.description import Description
from vethlib.topology.design.layout import lay_out
from vethlib.topology.design.shapes import fat_tree, line, mesh, ring, star


def joined(shape: Description) -> list[tuple[str, str]]:
    return [(wire.a.node, wire.b.node) for wire in shape.wires]


def degrees(shape: Description) -> Counter[str]:
    return Counter(port.node for wire in shape.wires for port in (wire.a, wire.b))


def names(shape: Description) -> list[str]:
    return [member.name for member in shape.members]


def test_a_line_goes_from_one_to_the_next() -> None:
    assert names(line(3)) == ["n0", "n1", "n2"]
    assert joined(line(3)) == [("n0", "n1"), ("n1", "n2")]


def test_a_ring_is_a_line_that_comes_back() -> None:
    assert joined(ring(3)) == [("n0", "n1"), ("n1", "n2"), ("n2", "n0")]
    assert set(degrees(ring(50)).values()) == {2}


def test_in_a_mesh_each_is_joined_to_each_once() -> None:
    assert joined(mesh(3)) == [("n0", "n1"), ("n0", "n2"), ("n1", "n2")]
    assert len({frozenset(pair) for pair in joined(mesh(10))}) == 45


def test_a_star_has_a_switch_in_the_middle_or_what_is_asked_for() -> None:
    assert joined(star(2)) == [("leaf0", "hub"), ("leaf1", "hub")]
    assert {member.name: member.kind for member in star(2).members} == {
        "hub": "switch",
        "leaf0": "node",
        "leaf1": "node",
    }
    assert star(2, hub="router").members[0].kind == "router"
    assert star(2, hub="node").members[0].kind == "node"


@pytest.mark.parametrize("k", [2, 4, 6])
def test_in_a_fat_tree_every_router_has_k_ports_and_every_host_one(k: int) -> None:
    shape = fat_tree(k)
    kinds = Counter("".join(filter(str.isalpha, name)) for name in names(shape))
    assert kinds == {"core": k * k // 4, "agg": k * k // 2, "edge": k * k // 2, "host": k**3 // 4}
    for member in shape.members:
        assert degrees(shape)[member.name] == (1 if member.name.startswith("host") else k)
        assert member.kind == ("node" if member.name.startswith("host") else "router")


def test_in_a_fat_tree_each_core_router_is_joined_to_every_pod_once() -> None:
    pods: dict[str, list[str]] = {}
    for a, b in joined(fat_tree(4)):
        if a.startswith("core"):
            pods.setdefault(a, []).append(b[3])
    assert pods == {f"core{number}": ["0", "1", "2", "3"] for number in range(4)}


SHAPES: list[Callable[..., Description]] = [line, ring, star, mesh, fat_tree]


@pytest.mark.parametrize("shape", SHAPES)
def test_an_mtu_is_of_all_wires(shape: Callable[..., Description]) -> None:
    assert {wire.mtu for wire in shape(4, mtu=9000).wires} == {9000}
    assert {wire.mtu for wire in shape(4).wires} == {None}


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_can_be_laid_out(shape: Callable[..., Description]) -> None:
    assert lay_out(shape(4), routes=True).wires


WRONG: list[tuple[Callable[..., Description], Any, str]] = [
    (line, 1, "a line must have 2 nodes or more"),
    (ring, 2, "a ring must have 3 nodes or more"),
    (mesh, 1, "a mesh must have 2 nodes or more"),
    (star, 0, "must be 1 or more leaves"),
    (fat_tree, 0, "an even number of ports, 2 or more"),
    (fat_tree, 3, "an even number of ports, 2 or more"),
    *((shape, bad, "or more|from 2 on") for shape in SHAPES for bad in (-4, 4.5, "4", None, True)),
]


@pytest.mark.parametrize(("shape", "count", "hint"), WRONG)
def test_a_count_that_makes_no_such_shape_is_refused(shape: Callable[..., Description], count: Any, hint: str) -> None:
    with pytest.raises(InvalidValue, match=hint) as caught:
        shape(count)
    assert (caught.value.field, caught.value.value) == ("k" if shape is fat_tree else "n", count)


def test_a_hub_of_no_kind_is_refused() -> None:
    hub: Any = "bridge"
    with pytest.raises(InvalidValue, match='hub \'bridge\': must be "switch", "router" or "node"'):
        star(3, hub=hub)
