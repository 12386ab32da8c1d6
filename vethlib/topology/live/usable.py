"""Wait until the IPv6 addresses of nodes can be used.

Even without duplicate address detection, a work queue of the kernel makes them usable, some time after the link has got
its carrier (addrconf_dad_work, net/ipv6/addrconf.c).
"""

from __future__ import annotations

from collections.abc import Sequence

from vethlib._primitives import time
from vethlib.errors import WaitTimeout
from vethlib.ns import Netns

from .sockets import Sockets

__all__ = ["wait_until_usable"]

_PATIENCE = (
    30.0  # seconds; 2 are needed if detection cannot be switched off, and more if others keep the RTNL lock busy
)
_POLL = 0.0005
_SLAB = 64  # sockets that are open at a time


def wait_until_usable(links: Sequence[tuple[str, Netns, int]]) -> None:
    """Wait until no IPv6 address of the links is tentative.

    A link is given by the name of its node, the namespace and the ifindex, 0 for all links of the node. Links without a
    carrier are not waited for. Raises WaitTimeout after half a minute, and NetlinkError.
    """
    deadline = time.monotonic() + _PATIENCE
    for start in range(0, len(links), _SLAB):
        slab = links[start : start + _SLAB]
        waiting = [(node, index) for node, _, index in slab]
        with Sockets([node for node, _ in waiting], {node: netns for node, netns, _ in slab}) as sockets:
            while waiting := [link for link in waiting if sockets.has_tentative(*link)]:
                waiting = [link for link in waiting if link[1] == 0 or sockets.has_carrier(*link)]
                if waiting and time.monotonic() > deadline:
                    node = waiting[0][0]
                    text = f"node {node}: an IPv6 address is not usable after {_PATIENCE:g} s"
                    raise WaitTimeout(text, awaited="detection", name=node, seconds=_PATIENCE)
                time.sleep(_POLL)
