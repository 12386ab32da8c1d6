"""Real topologies of network namespaces, in milliseconds: for tests, experiments and benchmarks.

    from vethlib.topology import Topology

    with Topology.build("client -- router -- server", routes=True) as net:
        net["client"].run(["ping", "-c1", net["server"].ipv4])

How a description is written: text.py; ready-made shapes: shapes.py. Everything is anonymous: no name of it is on disk,
no link of it in the namespace of the caller, and all of it ends with :meth:`Topology.close` or with the process; but
what a node has started outlives a process that is killed.
"""

from .description import Description, Layout, Member, Port, Route, Wire
from .node import Node
from .shapes import fat_tree, line, mesh, ring, star
from .text import parse
from .topology import Topology

__all__ = [
    "Description",
    "Layout",
    "Member",
    "Node",
    "Port",
    "Route",
    "Topology",
    "Wire",
    "fat_tree",
    "line",
    "mesh",
    "parse",
    "ring",
    "star",
]
