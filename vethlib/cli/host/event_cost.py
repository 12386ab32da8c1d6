"""How long the kernel takes for an event of a link, with all that listen on this host.

For each socket that listens to other namespaces (see `_nl/events.py`), the kernel searches for the namespace of the
event among all that the socket has ids for: 10 to 20 ns for each. It does so before it runs a filter of the socket, and
whether or not the namespace is found. So programs that watch many namespaces make all events of a host slower, and any
event shows by how much.
"""

from __future__ import annotations

import os
from typing import Final

from vethlib._nl.link import NewEnd, create_veth, get_link, index_of, set_link
from vethlib._nl.sock import RtnlSocket
from vethlib._primitives import time

__all__ = ["event_cost"]

_BURST: Final = 10
_BURSTS: Final = 30  # the shortest counts, because other programs use the CPU as well


def event_cost() -> float:
    """Return the seconds that the kernel takes for one event in the calling thread's namespace.

    Two links are created in it, so it is to be a new one that ends afterwards. The cost is the difference between
    changing an MTU, which is an event, and changing nothing. Raises OSError.
    """
    sock = RtnlSocket()
    try:
        a, b = (NewEnd(name, None, 1500, 1, None) for name in (b"a", b"b"))
        # Not `ask`: before Linux 6.2, the request is not answered with the link.
        created, read = sock.exchange([create_veth(a, b, None), get_link(name=b"a")])
        if number := created.errno or read.errno:
            raise OSError(number, os.strerror(number))
        index = index_of(read.bodies[0])
        nothing = [set_link(index, mtu=1500)] * _BURST
        changes = [set_link(index, mtu=1400 + number % 2 * 100) for number in range(_BURST)]
        return max(0.0, _shortest(sock, changes) - _shortest(sock, nothing)) / _BURST
    finally:
        sock.close()


def _shortest(sock: RtnlSocket, requests: list[bytes]) -> float:
    shortest = float("inf")
    for _ in range(_BURSTS):
        began = time.perf_counter()
        sock.exchange(requests)
        shortest = min(shortest, time.perf_counter() - began)
    return shortest
