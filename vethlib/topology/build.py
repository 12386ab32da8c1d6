"""Building a layout: all namespaces in one round, all pairs in bulk, then bridges and routes where there are any.

What a test must not have to wait for, or depend on the host for, is settled in each namespace before it has a link:

- Duplicate address detection takes a second or two per IPv6 address, and nobody else is on these wires: off
  (net.ipv6.conf.default.accept_dad, addrconf_dad_begin in net/ipv6/addrconf.c).
- A link that goes down loses its IPv6 addresses, and keeps those of IPv4: here it keeps both (keep_addr_on_down).
- A new namespace takes the IPv4 settings of the host's first one over (devinet_init_net, net/ipv4/devinet.c), on a
  host of containers ip_forward=1 with them: forwarding and reverse path filtering are set to what the layout says.

A file of /proc/sys costs 40 µs to write or read in a namespace that is new (its directory entries are), so the values
that are right already are not written; what new namespaces have is read in one of them, for a second.
"""

from __future__ import annotations

import errno
import os
import resource
import socket
import struct
import time
from collections.abc import Container, Iterable, Mapping, Sequence
from contextlib import ExitStack
from fcntl import ioctl
from types import TracebackType

from .. import ns
from .._nl.addr import dump_addrs, parse_addr
from .._nl.batch import Outcome
from .._nl.const import IFA_F_TENTATIVE
from .._nl.link import create_bridge, get_link, index_of, set_master
from .._nl.route import new_route
from .._nl.sock import RtnlSocket
from ..errors import NotPermitted, WaitTimeout, errno_text
from ..links import End, Interface, Pair, Veth
from ..ns import Netns
from ..ns.descriptor import opened
from ..session import Session
from ..session.refusal import refusal, system_errors
from .description import BRIDGE, Layout, Port, Route
from .node import Node
from .topology import Topology

__all__ = ["build", "restore"]

_SYS = "/proc/sys/net/"
_FORWARDING = ("ipv4/ip_forward", "ipv6/conf/all/forwarding")
_ALWAYS = {
    "ipv6/conf/default/accept_dad": "0",
    "ipv6/conf/all/keep_addr_on_down": "1",
    "ipv4/conf/all/rp_filter": "0",
    "ipv4/conf/default/rp_filter": "0",
}
_PATIENCE = 10.0  # seconds for addresses to become usable; where detection cannot be switched off they need 2
_POLL = 0.0005
_LINK_LOCAL = 0xFE  # the first byte of fe80::/10: such an address is the kernel's own affair
_SLAB = 64  # sockets that are open at a time
_FRESH_FOR = 1.0  # seconds
_SPARE = 768  # descriptors for what a topology takes while it is built, and for its user


def build(session: Session, layout: Layout) -> Topology:
    """Build it; all is up and usable when this returns.

    Raises NotPermitted, NotSupported, NetlinkError; then nothing is left.
    """
    _make_room(len(layout.members))
    with ExitStack() as undoing:
        namespaces = _make_namespaces(layout)
        for netns in namespaces.values():
            undoing.callback(netns.close)
        veths = [Veth(_end(wire.a, wire.mtu, namespaces), _end(wire.b, wire.mtu, namespaces)) for wire in layout.wires]
        pairs = session.create_many(veths)
        _make_bridges(layout, pairs, namespaces)
        _add_routes(layout.routes, namespaces)
        given = _addresses(layout)
        _wait_until_usable(
            [name for name, those in given.items() if any(one.version == 6 for one in those)], namespaces
        )
        undoing.pop_all()
    nodes = {name: Node(name, netns, session, given.get(name, ())) for name, netns in namespaces.items()}
    return Topology(nodes, layout)


def _make_room(nodes: int) -> None:
    """Raise the limit of open files where it is near: a node takes one, and the usual 1024 is for nobody's good.

    It is as low as that only for programs that use select(2), on descriptors beyond (getrlimit(2), systemd.exec(5)).
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = len(os.listdir("/proc/self/fd")) + nodes + _SPARE
    if soft != resource.RLIM_INFINITY and wanted > soft:
        enough = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, enough), hard))


def _end(port: Port, mtu: int | None, namespaces: Mapping[str, Netns]) -> End:
    # One queue: the default, one for each possible CPU, makes a pair take twice as long to create.
    return End(port.link, namespaces[port.node], addresses=port.addresses or (), mtu=mtu, num_queues=1)


def _addresses(layout: Layout) -> dict[str, list[Interface]]:
    given: dict[str, list[Interface]] = {}
    for wire in layout.wires:
        for port in (wire.a, wire.b):
            given.setdefault(port.node, []).extend(port.addresses or ())
    return given


def _make_namespaces(layout: Layout) -> dict[str, Netns]:
    """The namespaces by node, settled and with the loopback up."""
    names = [member.name for member in layout.members]
    plain = [name for name in names if name not in layout.forwarding]
    forwarding = [name for name in names if name in layout.forwarding]
    made: dict[str, Netns] = {}
    with ExitStack() as undoing:
        for group, forward in ((plain, "0"), (forwarding, "1")):
            if not group:
                continue
            settings = _Settings(_ALWAYS | dict.fromkeys(_FORWARDING, forward))
            with system_errors("make the namespaces of a topology"):
                owners = ns.map_in_new(len(group), settings.settle)
            for name, owner in zip(group, owners, strict=True):
                made[name] = Netns(owner)
                undoing.callback(made[name].close)
            settings.check_forwarding(forward)
        undoing.pop_all()
    return {name: made[name] for name in names}


class _Settings:
    """The sysctls of new namespaces, written from inside each; a value the kernel refuses is in `refused`."""

    def __init__(self, wanted: Mapping[str, str]) -> None:
        self.refused: dict[str, int] = {}
        self._wanted = wanted
        self._to_write: dict[str, bytes] | None = None

    def settle(self) -> ns.Descriptor:
        """Settle the namespace that the calling thread is in, and return a descriptor of it."""
        if self._to_write is None:
            self._to_write = self._different()
        for file, value in self._to_write.items():
            try:
                _write(file, value)
            except OSError as error:
                self.refused[file] = error.errno or 0
        _set_loopback_up()
        return ns.current()

    def _different(self) -> dict[str, bytes]:
        global _fresh
        until, values = _fresh
        if time.monotonic() > until or values.keys() != self._wanted.keys():
            values = {name: _read(_SYS + name) for name in self._wanted}
            _fresh = time.monotonic() + _FRESH_FOR, values
        wanted = self._wanted.items()
        return {_SYS + name: value.encode() for name, value in wanted if values[name] not in ("", value)}

    def check_forwarding(self, wanted: str) -> None:
        """Raise NotPermitted if a namespace was to forward and cannot."""
        for name in _FORWARDING:
            if wanted == "1" and (number := self.refused.get(_SYS + name)):
                message = f"cannot make a node forward: {_SYS + name}: {errno_text(number)}"
                if number == errno.EROFS:
                    message += " (a container has /proc/sys read-only, unless it is privileged)"
                raise NotPermitted(message, errno=number)


_fresh: tuple[float, Mapping[str, str]] = (0.0, {})
"""What these settings are in a new namespace, which is the host's affair, and until when we take that for granted."""


def _read(path: str) -> str:
    try:
        with open(path) as file:
            return file.read().strip()
    except FileNotFoundError:
        return ""  # a kernel without IPv6 has none of its settings


def _write(path: str, value: bytes) -> None:
    with opened(path, os.O_WRONLY | os.O_CLOEXEC) as owned:
        os.write(owned.fileno(), value)


_LO_UP = struct.pack("16sh14x", b"lo", 0x1)  # struct ifreq with IFF_UP
_SIOCSIFFLAGS = 0x8914


def _set_loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        ioctl(any_socket, _SIOCSIFFLAGS, _LO_UP)


def _make_bridges(layout: Layout, pairs: Sequence[Pair], namespaces: Mapping[str, Netns]) -> None:
    ports: dict[str, list[int]] = {member.name: [] for member in layout.members if member.kind == "switch"}
    if not ports:
        return
    for wire, pair in zip(layout.wires, pairs, strict=True):
        for port, link in zip((wire.a, wire.b), pair, strict=True):
            if port.node in ports:
                ports[port.node].append(link.index)
    name = os.fsencode(BRIDGE)
    with _Sockets(ports, namespaces) as sockets:
        for switch, indexes in ports.items():
            made, found = sockets.exchange(switch, [create_bridge(name), get_link(name=name)])
            if made.errno == errno.EOPNOTSUPP:
                says = "this kernel has no bridge (try: modprobe bridge)"
                raise refusal(made, f"make the switch {switch}", "", says=says)
            sockets.check(switch, "make its bridge", [made, found])
            bridge = index_of(found.bodies[0])
            joined = sockets.exchange(switch, [set_master(index, bridge) for index in indexes])
            sockets.check(switch, "join its links", joined)


def _add_routes(
    routes: Mapping[str, Sequence[Route]], namespaces: Mapping[str, Netns], *, tolerated: Container[int] = ()
) -> None:
    with _Sockets(routes, namespaces) as sockets:
        for node, wanted in routes.items():
            outcomes = sockets.exchange(node, [_request(route) for route in wanted])
            for route, outcome in zip(wanted, outcomes, strict=True):
                if outcome.errno not in tolerated:
                    sockets.check(node, f"add the route to {route.network} via {route.via}", [outcome])


def restore(layout: Layout, nodes: Mapping[str, Netns], links: Mapping[str, int]) -> None:
    """Give some nodes the routes of the layout again that they have lost: with a link that goes down go its routes.

    `links` has the ifindex of the link that is up again, of each node. A route through a link that is still down is not
    to be had. Raises WaitTimeout, NetlinkError.
    """
    of_these = {name: layout.routes[name] for name in nodes if name in layout.routes}
    _wait_until_usable(list(nodes), nodes, links)
    _add_routes(of_these, nodes, tolerated=(errno.EEXIST, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN))


def _request(route: Route) -> bytes:
    return new_route(route.network.network_address.packed, route.network.prefixlen, route.via.packed)


def _wait_until_usable(
    nodes: Sequence[str], namespaces: Mapping[str, Netns], links: Mapping[str, int] | None = None
) -> None:
    """Return when no IPv6 address of the nodes is tentative, or of one link of each.

    Without detection, too, it is a work queue of the kernel that makes them usable, some time after the link has its
    carrier (addrconf_dad_work, net/ipv6/addrconf.c).
    """
    deadline = time.monotonic() + _PATIENCE
    for start in range(0, len(nodes), _SLAB):
        waiting = list(nodes[start : start + _SLAB])
        with _Sockets(waiting, namespaces) as sockets:
            while waiting := [node for node in waiting if sockets.has_tentative(node, links[node] if links else 0)]:
                if time.monotonic() > deadline:
                    raise WaitTimeout(f"node {waiting[0]}: an IPv6 address is not usable after {_PATIENCE:g} s")
                time.sleep(_POLL)


class _Sockets:
    """A socket in each of some nodes: what Session does for links, for what it knows nothing of."""

    def __init__(self, nodes: Iterable[str], namespaces: Mapping[str, Netns]) -> None:
        names = list(nodes)
        with system_errors("open rtnetlink sockets in the nodes of a topology"):
            sockets = ns.map_in([namespaces[name].fd for name in names], RtnlSocket) if names else []
        self._of = dict(zip(names, sockets, strict=True))

    def __enter__(self) -> _Sockets:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for one in self._of.values():
            one.close()

    def exchange(self, node: str, requests: Sequence[bytes]) -> list[Outcome]:
        """Send the requests in `node`; one outcome for each."""
        with system_errors("talk rtnetlink", node):
            return self._of[node].exchange(requests)

    def has_tentative(self, node: str, index: int) -> bool:
        """Whether an IPv6 address of `node` that was given cannot be used yet; on one link, or on any with 0."""
        with system_errors("talk rtnetlink", node):
            outcome = self._of[node].dump(dump_addrs(index), parse_addr)
        self.check(node, "read its addresses", [outcome])
        return any(
            one.flags & IFA_F_TENTATIVE and one.address[0] != _LINK_LOCAL and index in (0, one.ifindex)
            for one in outcome.bodies
        )

    def check(self, node: str, what: str, outcomes: Iterable[Outcome]) -> None:
        """Raise NetlinkError for the first that was refused."""
        for outcome in outcomes:
            if outcome.errno:
                raise refusal(outcome, f"node {node}: {what}", "")
