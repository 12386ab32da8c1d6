"""A topology that is up: its nodes by name, and what was settled of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from types import TracebackType
from typing import TYPE_CHECKING

from ..errors import InvalidValue
from ..session import Session
from .description import Description, Layout, Wire
from .node import Node, end_processes, forget

if TYPE_CHECKING:
    from ..graph import Graph

__all__ = ["Topology"]


class Topology(Mapping[str, Node]):
    """Nodes joined by wires, all real: ``net["r1"]`` is a node. `layout` says which addresses and routes they have.

    with Topology.build("client -- router -- server", routes=True) as net:
        net["client"].run(["ping", "-c1", net["server"].ipv4])

    ``print(net)`` draws it. Close it, or use it in a ``with``: its namespaces end with it.
    """

    def __init__(self, nodes: Mapping[str, Node], layout: Layout) -> None:
        self.layout = layout
        self._nodes = dict(nodes)
        self._session: Session | None = None  # where it has one of its own

    @classmethod
    def build(
        cls,
        description: str | Description,
        *,
        session: Session | None = None,
        ipv4: bool = True,
        ipv6: bool = True,
        routes: bool = False,
        first: int = 0,
    ) -> Topology:
        """Build what is described: a text (see :mod:`vethlib.topology.text`) or what a shape returned.

        `ipv4` and `ipv6` say which addresses are given where the description leaves it open; with `routes` every
        address reaches every other, nodes with two wires or more forwarding; `first` numbers the first segment, for
        topologies that are to have no address in common. Everything is up and usable at once.

        Raises InvalidValue before anything is made; NotPermitted, NetlinkError: then nothing is left.
        """
        from .build import build

        if not isinstance(description, (str, Description)):
            raise InvalidValue("topology", description, 'describe it by text, "a -- b", or by a Description')
        try:
            layout = _laid_out(description, ipv4, ipv6, routes, first)
        except TypeError:  # a description of lists, which cannot be remembered by
            layout = _laid_out.__wrapped__(description, ipv4, ipv6, routes, first)
        if session is not None:
            return build(session, layout)
        session = Session()
        try:
            topology = build(session, layout)
        except BaseException:
            session.close()
            raise
        topology._session = session
        return topology

    def __getitem__(self, name: str) -> Node:
        try:
            return self._nodes[name]
        except KeyError:
            raise KeyError(f"there is no node {name!r}; there are {_listed(self._nodes)}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._nodes)

    def __len__(self) -> int:
        return len(self._nodes)

    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other

    def graph(self) -> Graph:
        """The topology as it was described, for a picture: ``Path("net.svg").write_text(svg(net.graph()))``."""
        from .graph import graph_of

        return graph_of(self.layout)

    def __str__(self) -> str:
        from .picture import draw

        return "\n".join(draw(self.layout))

    def __repr__(self) -> str:
        return f"<Topology {_listed(self._nodes)}{' closed' if self.closed else ''}>"

    def __enter__(self) -> Topology:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def wire(self, a: str, b: str) -> Wire:
        """The first wire between two nodes, with the port of `a` as its ``a``. LookupError if there is none."""
        ends = {self[a].name, self[b].name}
        for wire in self.layout.wires:
            if {wire.a.node, wire.b.node} == ends:
                return wire.seen_from(a)
        raise LookupError(f"there is no wire between {a} and {b}")

    def down(self, a: str, b: str) -> None:
        """Take the first wire between two nodes down, at both ends. LookupError if there is none."""
        self._set(a, b, up=False)

    def up(self, a: str, b: str) -> None:
        """Bring it up again, and give both nodes back the routes that went with it. LookupError if there is none."""
        from .build import restore

        links = self._set(a, b, up=True)
        restore(self.layout, {name: self[name].netns for name in links}, links)

    def _set(self, a: str, b: str, *, up: bool) -> dict[str, int]:
        """Set both ends up or down; returns their ifindexes by node."""
        wire = self.wire(a, b)
        return {port.node: self[port.node].set(port.link, up=up).index for port in (wire.a, wire.b)}

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return all(node.closed for node in self._nodes.values())

    def close(self) -> None:
        """End what was started in its nodes, and let go of their namespaces, which end with that. Twice is harmless."""
        try:
            end_processes([process for node in self._nodes.values() for process in node.started])
        finally:
            self.let_go()

    def let_go(self) -> None:
        """Let go of the namespaces only: they end if nobody else keeps them, and what runs in them goes on."""
        for node in self._nodes.values():
            forget(node.started)
            node.netns.close()
        if self._session is not None:
            self._session.close()


@lru_cache(maxsize=32)  # tests ask for the same few, over and over; 0.3 ms for two nodes
def _laid_out(description: str | Description, ipv4: bool, ipv6: bool, routes: bool, first: int) -> Layout:
    from .layout import lay_out
    from .text import parse

    described = parse(description) if isinstance(description, str) else description
    return lay_out(described, ipv4=ipv4, ipv6=ipv6, routes=routes, first=first)


def _listed(names: Mapping[str, object], most: int = 8) -> str:
    listed = ", ".join(list(names)[:most])
    return f"{listed}, … ({len(names)} in all)" if len(names) > most else listed
