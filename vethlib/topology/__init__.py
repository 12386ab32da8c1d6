"""Topologies of real network namespaces in milliseconds, for tests, experiments and benchmarks.

    from vethlib.topology import Topology

    with Topology.build("client -- router -- server", routes=True) as net:
        net["client"].run(["ping", "-c1", net["server"].ipv4])

The syntax of a description is in `design/text.py`, ready-made shapes are in `design/shapes.py`. All namespaces are
anonymous: a topology leaves no names on disk and no links in the caller's namespace. It ends with
:meth:`Topology.close` or with the process, even if the process is killed.
"""

from typing import TYPE_CHECKING, Any

from .design.description import Description, Layout, Member, Port, Route, Wire
from .design.impairment import Impairment
from .design.shapes import fat_tree, line, mesh, ring, star
from .design.text import parse
from .live.node import Node
from .live.topology import Topology

if TYPE_CHECKING:
    from .impair.netem import ImpairmentNotSupported
    from .live.pinging import Pings
    from .live.wire import LiveWire

__all__ = [
    "Description",
    "Impairment",
    "ImpairmentNotSupported",
    "Layout",
    "LiveWire",
    "Member",
    "Node",
    "Pings",
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

_ON_DEMAND = {"ImpairmentNotSupported": "impair.netem", "LiveWire": "live.wire", "Pings": "live.pinging"}


def __getattr__(name: str) -> Any:
    # Imported on demand, because not every topology has impaired wires or pings.
    if module := _ON_DEMAND.get(name):
        from importlib import import_module

        return getattr(import_module(f".{module}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
