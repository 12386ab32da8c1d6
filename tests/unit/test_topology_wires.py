"""Finding the wires of a large topology."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from tests.proportion import is_proportional
from vethlib.topology import Topology, line
from vethlib.topology.design.layout import lay_out

FEW, MANY = 800, 6400


def test_all_wires_of_a_topology_are_found_in_proportional_time() -> None:
    nets = {}
    for number in (FEW, MANY):
        layout = lay_out(line(number))
        nodes: dict[str, Any] = {each.name: SimpleNamespace(name=each.name, netns=None) for each in layout.members}
        nets[number] = Topology(nodes, layout)

    def work(number: int) -> None:
        net = nets[number]
        for wire in net.layout.wires:
            found = net.wire(wire.b.node, wire.a.node)
            assert (found.a, found.b) == (wire.b, wire.a)

    assert is_proportional(work, FEW)
