"""Build a layout: all namespaces in one round, all pairs in bulk, then bridges and routes."""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from contextlib import ExitStack
from types import MappingProxyType
from typing import TYPE_CHECKING

from vethlib import ns
from vethlib._nl.dependents.route import new_route
from vethlib._nl.link import create_bridge, get_link, index_of, set_master
from vethlib._nl.wire import encoded
from vethlib._primitives import time
from vethlib.links import End, IPInterface, Pair, Veth
from vethlib.ns import Netns
from vethlib.session import Session
from vethlib.session.core.refusal import refusal, system_errors
from vethlib.topology.descriptors import make_room
from vethlib.topology.design.description import BRIDGE, Layout, Port, Route, Wire
from vethlib.topology.sockets import Sockets

from .lost_routes import UNREACHABLE, LostRoutes
from .node import Node, end_programs, release
from .peers import Peer
from .settings import Settings
from .usable import PATIENCE, SLAB, wait_until_usable, wait_with

if TYPE_CHECKING:
    from vethlib.topology.design.impairment import Impairment
    from vethlib.topology.impair.relay import Relay

__all__ = ["build", "restore"]

# The MTU of the relay's ends. The MTU of the nodes' ends, which nodes may change, limits what they send and receive.
_LARGEST_MTU = 65535


def build(
    session: Session,
    layout: Layout,
    *,
    relayed: bool = False,
    prepare: Callable[[Mapping[str, Node]], object] | None = None,
    files: Mapping[str, Mapping[str, str | Callable[[], str]]] = MappingProxyType({}),
) -> tuple[dict[str, Node], Relay | None]:
    """Build a layout, and return its nodes by name, and its relay, if any, once everything is up and usable.

    Impaired wires lead through the relay if `relayed`. `prepare` is called with the nodes before they have links.
    `files` has texts that replace files for the programs of a node, by node and path.
    Raises NotPermitted, NotSupported, NetlinkError; nothing is left behind then.
    """
    impaired = [number for number, wire in enumerate(layout.wires) if wire.a_to_b or wire.b_to_a]
    make_room(len(layout.members) + 2 * len(impaired))
    relay = None
    with ExitStack() as undoing:
        namespaces = _make_namespaces(layout)
        for netns in namespaces.values():
            undoing.callback(netns.close)
        given = _addresses(layout)
        peers = _peers(layout, namespaces)
        switches = {member.name: peers[member.name] for member in layout.members if member.kind == "switch"}
        indexes: dict[tuple[str, str], int] = {}
        nodes = {
            name: Node(name, netns, session, given.get(name, ()), peers[name], switches, files.get(name, {}), indexes)
            for name, netns in namespaces.items()
        }
        for node in nodes.values():
            undoing.callback(release, node)
        if prepare is not None:
            undoing.callback(end_programs, nodes.values())
            prepare(MappingProxyType(nodes))
        if relayed and impaired:
            pairs, relay = _create_relayed(session, layout, namespaces, impaired)
            undoing.callback(relay.close)
        else:
            pairs = session.create_many(_veth(wire, namespaces) for wire in layout.wires)
        for wire, pair in zip(layout.wires, pairs, strict=True):
            indexes[wire.a.node, wire.a.link], indexes[wire.b.node, wire.b.link] = pair.a.index, pair.b.index
        _make_bridges(layout, pairs, namespaces)
        _add_routes_and_wait(layout.routes, given, namespaces)
        if impaired:
            _impair(layout, impaired, pairs, namespaces, relay)
        undoing.pop_all()
    return nodes, relay


def _veth(wire: Wire, namespaces: Mapping[str, Netns]) -> Veth:
    return Veth(_end(wire.a, wire, namespaces), _end(wire.b, wire, namespaces))


def _create_relayed(
    session: Session, layout: Layout, namespaces: Mapping[str, Netns], impaired: Container[int]
) -> tuple[list[Pair], Relay]:
    """Create a pair per wire, two for an impaired wire with the relay between them; return the ends of each wire."""
    from vethlib.topology.impair.relay import Relay, relay_netns

    veths: list[Veth] = []
    with relay_netns() as netns:
        for number, wire in enumerate(layout.wires):
            if number not in impaired:
                veths.append(_veth(wire, namespaces))
                continue
            for side, port in (("a", wire.a), ("b", wire.b)):
                half = End(f"w{number}{side}", netns, mtu=_LARGEST_MTU, num_queues=1)
                veths.append(Veth(_end(port, wire, namespaces), half))
        created = iter(session.create_many(veths))
        pairs: list[Pair] = []
        halves: dict[int, tuple[Pair, Pair]] = {}
        for number in range(len(layout.wires)):
            pair = next(created)
            if number in impaired:
                halves[number] = pair, next(created)
                pair = Pair(pair.a, halves[number][1].a)
            pairs.append(pair)
        return pairs, Relay(netns, halves, layout.wires)


def _impair(
    layout: Layout, impaired: Iterable[int], pairs: Sequence[Pair], namespaces: Mapping[str, Netns], relay: Relay | None
) -> None:
    from vethlib.topology.impair.netem import impair

    links: list[tuple[str, int, Impairment]] = []
    for number in impaired:
        wire, pair = layout.wires[number], pairs[number]
        for port, link, impairment in ((wire.a, pair.a, wire.a_to_b), (wire.b, pair.b, wire.b_to_a)):
            if impairment is None:
                continue
            if relay is not None:
                relay.set(number, impairment, to_b=port is wire.a)
            else:
                links.append((port.node, link.index, impairment))
    impair(links, namespaces)


def _peers(layout: Layout, namespaces: Mapping[str, Netns]) -> dict[str, dict[str, Peer]]:
    """Return the other ends of the links of each node."""
    peers: dict[str, dict[str, Peer]] = {name: {} for name in namespaces}
    for wire in layout.wires:
        for port, other in ((wire.a, wire.b), (wire.b, wire.a)):
            peers[port.node][port.link] = Peer(other.node, namespaces[other.node], other.link)
    return peers


def _end(port: Port, wire: Wire, namespaces: Mapping[str, Netns]) -> End:
    # A single queue, because creating a pair takes twice as long with the default: one for each possible CPU.
    return End(
        port.link,
        namespaces[port.node],
        addresses=port.addresses or (),
        mtu=wire.mtu,
        num_queues=1,
        ipv6=wire.ipv6,
        **port.fields,
    )


def _addresses(layout: Layout) -> dict[str, list[IPInterface]]:
    given: dict[str, list[IPInterface]] = {}
    for wire in layout.wires:
        for port in (wire.a, wire.b):
            given.setdefault(port.node, []).extend(port.addresses or ())
    return given


def _make_namespaces(layout: Layout) -> dict[str, Netns]:
    """Create the namespaces, with their settings and the loopback up, and return them by node."""
    names = [member.name for member in layout.members]
    plain = [name for name in names if name not in layout.forwarding]
    forwarding = [name for name in names if name in layout.forwarding]
    wires = Counter(port.node for wire in layout.wires for port in (wire.a, wire.b))
    # Forwarding makes a difference only for a node with two wires. A switch has no addresses.
    between = {member.name for member in layout.members if member.kind != "switch" and wires[member.name] > 1}
    made: dict[str, Netns] = {}
    with ExitStack() as undoing:
        for group, forward in ((plain, False), (forwarding, True)):
            if not group:
                continue
            settings = Settings(forward=forward)
            with system_errors("create the namespaces of a topology"):
                owners = ns.map_in_new(len(group), settings.settle)
            for name, owner in zip(group, owners, strict=True):
                made[name] = Netns(owner)
                undoing.callback(made[name].close)
            if forward or between.intersection(group):
                settings.check_forwarding()
        undoing.pop_all()
    return {name: made[name] for name in names}


def _make_bridges(layout: Layout, pairs: Sequence[Pair], namespaces: Mapping[str, Netns]) -> None:
    ports: dict[str, list[int]] = {member.name: [] for member in layout.members if member.kind == "switch"}
    if not ports:
        return
    for wire, pair in zip(layout.wires, pairs, strict=True):
        for port, link in zip((wire.a, wire.b), pair, strict=True):
            if port.node in ports:
                ports[port.node].append(link.index)
    name = encoded(BRIDGE)
    with Sockets(ports, namespaces) as sockets:
        for switch, indexes in ports.items():
            made, bridge_link = sockets.exchange(switch, [create_bridge(name), get_link(name=name)])
            if made.errno == errno.EOPNOTSUPP:
                says = "this kernel has no bridge (try: modprobe bridge)"
                raise refusal(made, f"create the switch {switch}", "", says=says)
            sockets.check(switch, "create its bridge", [made, bridge_link])
            bridge = index_of(bridge_link.bodies[0])
            joined = sockets.exchange(switch, [set_master(index, bridge) for index in indexes])
            sockets.check(switch, "join its links", joined)


def _add_routes_and_wait(
    routes: Mapping[str, Sequence[Route]], given: Mapping[str, Sequence[IPInterface]], namespaces: Mapping[str, Netns]
) -> None:
    """Add the routes of all nodes, and wait until their IPv6 addresses can be used, with one socket for both."""
    tentative = {name for name, those in given.items() if any(address.version == 6 for address in those)}
    nodes = [name for name in namespaces if name in routes or name in tentative]
    link_local = {
        name: {address.ip.packed for address in those if address.version == 6 and address.ip.is_link_local}
        for name, those in given.items()
        if name in tentative
    }
    deadline = time.monotonic() + PATIENCE
    for start in range(0, len(nodes), SLAB):
        slab = nodes[start : start + SLAB]
        with Sockets(slab, namespaces) as sockets:
            _add_routes({name: routes[name] for name in slab if name in routes}, sockets)
            wait_with(sockets, [(name, 0) for name in slab if name in tentative], deadline, link_local)


def _add_routes(routes: Mapping[str, Sequence[Route]], sockets: Sockets, tolerated: Container[int] = ()) -> None:
    for node, desired in routes.items():
        outcomes = sockets.exchange(node, [_request(route) for route in desired])
        for route, outcome in zip(desired, outcomes, strict=True):
            if outcome.errno and outcome.errno not in tolerated:
                sockets.check(node, f"add the route to {route.network} via {route.via}", [outcome])


def restore(
    layout: Layout, wire: Wire, nodes: Mapping[str, Netns], links: Mapping[str, int], lost: LostRoutes
) -> set[str]:
    """Restore the routes that nodes have lost: the kernel removes those of a link that is set down.

    They are those in `lost` or, for a link that Topology.down has not set down, those of the layout. Return the nodes
    of the former. `links` has, for each node, the ifindex of the link of the wire, which is up again. Raises
    WaitTimeout, NetlinkError.
    """
    wait_until_usable([(name, nodes[name], index) for name, index in links.items()])
    known = lost.restore(links, nodes)
    of_these = {
        port.node: routes
        for port in (wire.a, wire.b)
        if port.node not in known
        and (routes := [route for route in layout.routes.get(port.node, ()) if _is_through(port, route)])
    }
    with Sockets(of_these, nodes) as sockets:
        _add_routes(of_these, sockets, (errno.EEXIST, *UNREACHABLE))
    return known


def _is_through(port: Port, route: Route) -> bool:
    return any(
        address.version == route.via.version and route.via in address.network for address in port.addresses or ()
    )


def _request(route: Route) -> bytes:
    return new_route(route.network.network_address.packed, route.network.prefixlen, route.via.packed)
