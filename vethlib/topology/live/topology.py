"""A running topology: its nodes by name, and its layout."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Literal

from vethlib._closing import Closing
from vethlib.endfields.table import FIELDS
from vethlib.errors import InvalidValue
from vethlib.links import check_mtu
from vethlib.session import Session
from vethlib.session.core.ipv6 import lacks_ipv6
from vethlib.topology.design.description import Description, Layout

from .lost_routes import LostRoutes
from .node import Node, check_text, end_programs, release

if TYPE_CHECKING:
    from vethlib.graph import Graph
    from vethlib.topology.impair.relay import Relay

    from .wire import LiveWire

__all__ = ["Topology"]

_RESOLV_CONF = "/etc/resolv.conf"
_MOST_LISTED = 8  # names in one text
_NO_NAME_SERVER = "# This topology has no name server.\n"


class Topology(Closing, Mapping[str, Node]):
    """Real nodes connected by wires: ``net["r1"]`` is a node. `layout` has their addresses and routes.

    with Topology.build("client -- router -- server", routes=True) as net:
        net["client"].run(["ping", "-c1", net["server"].ipv4])

    ``print(net)`` draws the topology. Close it, or use it in a ``with`` statement; its namespaces end with it.
    """

    def __init__(self, nodes: Mapping[str, Node], layout: Layout, relay: Relay | None = None) -> None:
        self.layout = layout
        self._nodes = dict(nodes)
        self._relay = relay
        self._lost = LostRoutes()
        self._first_wires: dict[frozenset[str], int] = {}  # by the two nodes
        for number, wire in enumerate(layout.wires):
            self._first_wires.setdefault(frozenset((wire.a.node, wire.b.node)), number)
        self._session: Session | None = None  # set if the topology has created its own

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
        mtu: int | None = None,
        hosts: bool = False,
        resolv_conf: str | None = None,
        impair: Literal["kernel", "userspace"] = "kernel",
        prepare: Callable[[Mapping[str, Node]], object] | None = None,
    ) -> Topology:
        """Build a topology from its text form (see :mod:`vethlib.topology.design.text`) or from a shape.

        `ipv4` and `ipv6` select the families of addresses that are chosen (on a kernel without IPv6, only IPv4). With
        `routes`, every address can reach every other, and nodes with two or more wires forward. `first` is the number
        of the first segment, for topologies that must not share addresses. `mtu` applies to wires that specify none.
        With `hosts`, programs in the nodes can use the names of the nodes (/etc/hosts), and have no name server
        (/etc/resolv.conf); names that are not host names, such as 7 or localhost, or that are the same host name, such
        as A and a, are then refused. `resolv_conf` is the text of /etc/resolv.conf for programs in the nodes. When this
        returns, everything is up and usable.

        `impair` selects what delays and drops the packets of wires with such attributes: netem in the kernel, or a
        relay in user space, which needs no kernel support but is slower and less accurate.

        `prepare` is called with the nodes by name, before any of them has a link. It can create the bridges and VRFs
        that ports have as their master: ``prepare=lambda nodes: nodes["h"].run(["ip", "link", "add", …])``.

        Raises InvalidValue before anything is created, and NotPermitted, ImpairmentNotSupported (this kernel has no
        netem), LinkNotFound (a master is missing), NetlinkError or what `prepare` raises, without leaving anything
        behind.
        """
        from .build import build

        if mtu is not None:
            check_mtu(mtu)
        if resolv_conf is not None:
            check_text(resolv_conf, "resolv_conf")
        if impair not in ("kernel", "userspace"):
            raise InvalidValue("impair", impair, 'must be "kernel" or "userspace"')
        if not isinstance(description, (str, Description)):
            raise InvalidValue("topology", description, 'must be text, such as "a -- b", or a Description')
        ipv6 = ipv6 and not lacks_ipv6()
        try:
            layout = _laid_out(description, ipv4, ipv6, routes, first, mtu)
        except TypeError:  # a description with lists, which cannot be a key of the cache
            layout = _laid_out.__wrapped__(description, ipv4, ipv6, routes, first, mtu)
        own = None
        if session is None:
            own = session = Session()
        try:
            nodes, relay = build(
                session,
                layout,
                relayed=impair == "userspace",
                prepare=prepare,
                files=_files(layout, hosts=hosts, resolv_conf=resolv_conf),
            )
        except BaseException:
            if own is not None:
                own.close()
            raise
        topology = cls(nodes, layout, relay)
        topology._session = own
        return topology

    def __getitem__(self, name: str) -> Node:
        try:
            return self._nodes[name]
        except KeyError:
            raise KeyError(f"no node {name!r}; the nodes are {_listed(self._nodes)}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._nodes)

    def __len__(self) -> int:
        return len(self._nodes)

    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other

    def graph(self) -> Graph:
        """Return the layout as a graph, for a diagram: ``Path("net.svg").write_text(svg(net.graph()))``."""
        from vethlib.topology.design.graph import graph_of

        return graph_of(self.layout)

    def __str__(self) -> str:
        from vethlib.topology.design.picture import draw

        return "\n".join(draw(self.layout))

    def __repr__(self) -> str:
        return f"<Topology {_listed(self._nodes)}{' closed' if self.closed else ''}>"

    def wire(self, a: str | Node, b: str | Node) -> LiveWire:
        """Return the first wire between two nodes, with the port of `a` as ``a``.

        ``net.wire("a", "b").set(loss="100%")`` changes what happens to its packets. Raises LookupError if there is no
        such wire, or a node belongs to another topology.
        """
        from .wire import LiveWire, as_described  # not every test changes wires

        a, b = map(self._own_name, (a, b))
        number = self._first_wires.get(frozenset((self[a].name, self[b].name)))
        if number is None:
            raise LookupError(f"no wire between {a} and {b}")
        wire = self.layout.wires[number]
        seen = wire.seen_from(a)
        of_ends = {port.node: self[port.node].netns for port in (wire.a, wire.b)}
        return LiveWire(
            **as_described(seen), _number=number, _is_turned=seen is not wire, _namespaces=of_ends, _relay=self._relay
        )

    def _own_name(self, node: str | Node) -> str:
        """Return the name of a node of this topology; nodes of other topologies may have the same name."""
        if not isinstance(node, Node):
            return node
        if self._nodes.get(node.name) is not node:
            raise LookupError(f"node {node.name} belongs to another topology")
        return node.name

    def down(self, a: str | Node, b: str | Node) -> None:
        """Set the first wire between two nodes down, at both ends.

        Raises LookupError if there is no such wire. If one of its links no longer exists, or has another name than in
        `layout`, this method and :meth:`up` raise LinkNotFound, and neither end is changed.
        """
        links = self._links(self.wire(a, b))
        self._lost.note(links, {name: self[name].netns for name in links})
        self._set(a, b, up=False)

    def up(self, a: str | Node, b: str | Node) -> None:
        """Set the wire up again, and restore the routes that both nodes have lost. Raises as :meth:`down` does.

        After :meth:`down`, these are all routes over the wire that it has removed, except those of routing daemons. If
        a link was set down in another way, only the routes of the topology are known.
        """
        from .build import restore

        links = self._set(a, b, up=True)
        wire = self.wire(a, b)
        known = restore(self.layout, wire, {name: self[name].netns for name in links}, links, self._lost)
        for port in (wire.a, wire.b):
            late = {name: value for name, value in port.fields.items() if FIELDS[name].late}
            if port.node in known:
                late.pop("routes", None)
            if late:
                self[port.node].set(port.link, **late)

    def _set(self, a: str | Node, b: str | Node, *, up: bool) -> dict[str, int]:
        """Set both ends up or down, unless one of them is missing, and return their ifindexes by node."""
        wire = self.wire(a, b)
        self._links(wire)
        changed = {port.node: self[port.node].set(port.link, up=up).index for port in (wire.a, wire.b)}
        if self._relay is not None and wire._number in self._relay:
            self._relay.look()
        return changed

    def _links(self, wire: LiveWire) -> dict[str, int]:
        """Return the ifindexes of both ends, by node. Raises LinkNotFound."""
        return {port.node: self[port.node]._index(port.link) for port in (wire.a, wire.b)}

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return all(node.closed for node in self._nodes.values())

    def close(self) -> None:
        """End the programs of all nodes and release their namespaces, which then end. Closing twice is harmless.

        If this is interrupted, everything is ended and released nevertheless; then the interruption is raised.
        """
        try:
            end_programs(self._nodes.values())
            self._release(release)
        except BaseException:
            self._close_the_rest()
            raise

    def _close_the_rest(self) -> None:
        try:
            end_programs(self._nodes.values())  # before releasing the mount namespaces, which show what is left
        finally:
            self._release(release)

    def let_go(self) -> None:
        """Release the namespaces without ending programs; each namespace ends when nothing else uses it.

        Raises NetlinkError if the relay of the topology does not answer, unless it has ended with its last wire; the
        namespaces are released nevertheless.
        """
        try:
            self._let_go()
        except BaseException:
            self._release(Node.let_go)
            raise

    def _let_go(self) -> None:
        try:
            if self._relay is not None and not self.closed:
                self._relay.keep()
        finally:
            self._release(Node.let_go)

    def _release(self, release_node: Callable[[Node], object]) -> None:
        """Release everything, the relay first. If an error or an interruption ends one step, the others follow."""
        with ExitStack() as releasing:
            if self._session is not None:
                releasing.callback(self._session.close)
            for node in self._nodes.values():
                releasing.callback(release_node, node)
            if self._relay is not None:
                releasing.callback(self._relay.close)


@lru_cache(maxsize=32)  # tests use the same few descriptions again and again; laying out two nodes takes 0.3 ms
def _laid_out(
    description: str | Description, ipv4: bool, ipv6: bool, routes: bool, first: int, mtu: int | None
) -> Layout:
    from vethlib.topology.design.layout import lay_out
    from vethlib.topology.design.text import parse

    described = parse(description) if isinstance(description, str) else description
    return lay_out(described, ipv4=ipv4, ipv6=ipv6, routes=routes, first=first, mtu=mtu)


def _files(layout: Layout, *, hosts: bool, resolv_conf: str | None) -> dict[str, dict[str, str | Callable[[], str]]]:
    """Return the texts that replace files for the programs of each node. Raises InvalidValue."""
    if not hosts:
        return {} if resolv_conf is None else {member.name: {_RESOLV_CONF: resolv_conf} for member in layout.members}
    from vethlib.topology.design.hosts import check_host_names
    from vethlib.topology.design.hosts import hosts as text
    from vethlib.topology.programs.mounts import is_missing

    check_host_names(layout.members)
    names: dict[str, str | Callable[[], str]] = {}
    if resolv_conf is not None:
        names = {_RESOLV_CONF: resolv_conf}
    elif not is_missing(_RESOLV_CONF):  # without it, programs ask 127.0.0.1, where nobody answers (resolv.conf(5))
        names = {_RESOLV_CONF: _NO_NAME_SERVER}
    return {member.name: {"/etc/hosts": partial(text, layout, member.name), **names} for member in layout.members}


def _listed(names: Mapping[str, object]) -> str:
    listed = ", ".join(list(names)[:_MOST_LISTED])
    return f"{listed}, … ({len(names)} in all)" if len(names) > _MOST_LISTED else listed
