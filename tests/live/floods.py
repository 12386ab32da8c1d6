"""Bursts of changes that a tenant makes to one of its links, each of them an event or more."""

from __future__ import annotations

from collections.abc import Callable

from tests.flapping import addresses
from tests.witness import seen
from vethlib import ns
from vethlib._nl.addr import new_addr
from vethlib._nl.link import set_link
from vethlib._nl.sock import RtnlSocket

__all__ = ["address", "burst", "mtu"]


def burst(netns: str, name: str, make: Callable[[int, int], bytes], count: int, first: int = 0) -> None:
    """Requests of which each makes an event or more."""
    index = seen(name, netns)["ifindex"]
    with ns.Netns.open(netns) as held:
        sock = ns.call_in(held.fileno(), RtnlSocket)
    try:
        for start in range(first, first + count, 100):
            sock.exchange([make(index, number) for number in range(start, min(start + 100, first + count))])
    finally:
        sock.close()


def mtu(index: int, number: int) -> bytes:
    return set_link(index, mtu=1000 + number % 400)


def address(index: int, number: int) -> bytes:
    own = addresses(number, 1)[0]
    return new_addr(index, own, 8 * len(own))
