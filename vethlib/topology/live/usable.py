"""Wait until the IPv6 addresses of nodes can be used.

Even without duplicate address detection, it is a work queue of the kernel that makes them usable, some time after the
link has got its carrier (addrconf_dad_work, net/ipv6/addrconf.c).
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from vethlib._primitives import time
from vethlib.errors import WaitTimeout
from vethlib.ns import Netns
from vethlib.topology.sockets import Sockets

__all__ = ["PATIENCE", "SLAB", "wait_until_gone", "wait_until_usable", "wait_with"]

PATIENCE: Final = 30.0
"""Seconds to wait: 2 are needed if detection cannot be switched off, and more if others keep the RTNL lock busy."""

SLAB: Final = 64
"""The number of sockets that are open at a time."""

_POLL: Final = 0.0005


def wait_until_usable(links: Sequence[tuple[str, Netns, int]]) -> None:
    """Wait until no IPv6 address of the links, except link-local ones, is tentative.

    A link is given by the name of its node, the namespace and the ifindex, 0 for all links of the node. Links without a
    carrier are not waited for. Raises WaitTimeout after half a minute, and NetlinkError.
    """
    deadline = time.monotonic() + PATIENCE
    for start in range(0, len(links), SLAB):
        slab = links[start : start + SLAB]
        with Sockets([node for node, _, _ in slab], {node: netns for node, netns, _ in slab}) as sockets:
            wait_with(sockets, [(node, index) for node, _, index in slab], deadline)


def wait_until_gone(links: Sequence[tuple[str, Netns, int]], seconds: float) -> None:
    """Wait until the links, given as above, are gone, but no longer than that. Raises NetnsNotFound, NetlinkError."""
    deadline = time.monotonic() + seconds
    for start in range(0, len(links), SLAB):
        slab = links[start : start + SLAB]
        with Sockets([node for node, _, _ in slab], {node: netns for node, netns, _ in slab}) as sockets:
            while any(sockets.has_link(node, index) for node, _, index in slab) and time.monotonic() < deadline:
                time.sleep(_POLL)


def wait_with(
    sockets: Sockets,
    waiting: Sequence[tuple[str, int]],
    deadline: float,
    link_local: Mapping[str, Container[bytes]] = MappingProxyType({}),
) -> None:
    """Do the same with open sockets until `deadline`, for links that are given by node and ifindex.

    Of link-local addresses, only those that `link_local` has for a node are waited for: every link has one, but few are
    used.
    """
    while waiting := [link for link in waiting if sockets.has_tentative(*link, link_local.get(link[0], ()))]:
        waiting = [link for link in waiting if link[1] == 0 or sockets.has_carrier(*link)]
        if waiting and time.monotonic() > deadline:
            node = waiting[0][0]
            text = f"node {node}: an IPv6 address is not usable after {PATIENCE:g} s"
            raise WaitTimeout(text, awaited="detection", name=node, seconds=PATIENCE)
        time.sleep(_POLL)
