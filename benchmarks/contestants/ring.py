"""The ring that every contestant builds, the proof that it works, and the wait for its end."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from vethlib import End, Session, Veth, ns

from .protocol import Report

__all__ = ["address", "prove", "until_gone"]

_PORT = 7
_PATIENCE = 20.0
_MOST = 200  # wires, each with two neighbour entries


def address(wire: int, far: int, family: int) -> str:
    """Return the address of one end of the wire from node `wire` to the next; `far` is 1 at the next node."""
    if family == socket.AF_INET:
        return f"10.{wire >> 8}.{wire & 255}.{1 + far}"
    return f"fd00:{wire:x}::{1 + far}"


def prove(descriptors: Sequence[int]) -> None:
    """Check that every node reaches both its neighbours by both families. Raises OSError otherwise.

    Of more than 200 wires, 200 evenly distributed ones are checked: the kernel has room for 1024 neighbour entries of a
    family in all namespaces together, and drops none that is younger than five seconds (gc_thresh3, neigh_forced_gc in
    net/core/neighbour.c).
    """
    for wire in range(0, len(descriptors), max(1, len(descriptors) // _MOST)):
        both = [descriptors[wire], descriptors[(wire + 1) % len(descriptors)]]
        for family in (socket.AF_INET, socket.AF_INET6):
            node, following = ns.map_in(both, lambda family=family: _bound(family))  # type: ignore[misc]
            with node, following:
                _send(node, following, address(wire, 1, family))
                _send(following, node, address(wire, 0, family))


def _bound(family: int) -> socket.socket:
    udp = socket.socket(family, socket.SOCK_DGRAM)
    if family == socket.AF_INET6:
        udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    udp.settimeout(_PATIENCE)
    udp.bind(("", _PORT))
    return udp


def _send(sender: socket.socket, receiver: socket.socket, to: str) -> None:
    sender.sendto(b"x", (to, _PORT))
    receiver.recv(1)


@contextmanager
def until_gone(report: Report) -> Iterator[None]:
    """Measure, as the phase "gone", the time from the end of the work until the kernel has deleted all links.

    Namespaces end in the order in which they were released, those with a netlink socket some milliseconds later (it is
    freed by RCU). So a namespace with such a socket and a link to the home namespace is released last: when that link
    has gone, so have all others. The result depends on the request: a dump waits for RTNL, and so until the links of
    all namespaces that end together are deleted; an ioctl (if_nametoindex) misses the link while they are being
    deleted. All contestants use a dump. Freeing the namespaces themselves is not waited for.
    """
    with Session() as session:
        marker = ns.Netns.anonymous()
        session.create(Veth(End("marker"), End("marker", marker)))
        marker_socket = ns.call_in(marker.fd, lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW))
        yield
        with report.phase("gone"):
            marker_socket.close()
            marker.close()
            while "marker" in {name for _, name in socket.if_nameindex()}:
                time.sleep(0.0002)
