"""The ring that every contestant makes: what it is, the proof that it is one, and when the last of it has ended."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from vethlib import End, Session, Veth, ns

from .protocol import Report

__all__ = ["address", "prove", "until_gone"]

_PORT = 7
_PATIENCE = 5.0
_MOST = 200  # wires, of two neighbours each


def address(wire: int, far: int, family: int) -> str:
    """Of an end of the wire from node `wire` to the next, whose end is the `far` one (1, else 0)."""
    if family == socket.AF_INET:
        return f"10.{wire >> 8}.{wire & 255}.{1 + far}"
    return f"fd00:{wire:x}::{1 + far}"


def prove(descriptors: Sequence[int]) -> None:
    """Have every node send to both its neighbours, by both families, and these hear it; raises OSError otherwise.

    Of more than 200 wires, 200 all around: the kernel has room for 1024 neighbours of a family, of all namespaces
    together, and forgets none that is younger than five seconds (gc_thresh3, neigh_forced_gc in net/core/neighbour.c).
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
    """Around the work: time, as the phase "gone", from its end until the kernel has taken all of it apart.

    Namespaces end in the order they were let go of, those with a netlink socket some milliseconds later (it is freed by
    RCU). So one with such a socket and a link to home is let go of last: when that link has gone, so have all others.
    How one asks decides what is seen: a dump waits for RTNL, and so until the links of all that end together have gone;
    an ioctl (if_nametoindex) finds the link gone while they are being taken away. All contestants ask by a dump. What
    the kernel frees of the namespaces themselves after that is not waited for.
    """
    with Session() as session:
        marker = ns.Netns.anonymous()
        session.create(Veth(End("marker"), End("marker", marker)))
        there = ns.call_in(marker.fd, lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW))
        yield
        with report.phase("gone"):
            there.close()
            marker.close()
            while "marker" in {name for _, name in socket.if_nameindex()}:
                time.sleep(0.0002)
