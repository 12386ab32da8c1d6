"""The other ends of the links of a node."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from vethlib.ns import Netns

__all__ = ["Peer", "reached"]


class Peer(NamedTuple):
    """The other end of a link: the name of its node, its namespace, and its name there."""

    node: str
    netns: Netns
    link: str


def reached(peer: Peer, switches: Mapping[str, Mapping[str, Peer]]) -> Iterator[Peer]:
    """Yield the ends that frames sent to `peer` reach: itself, or, if it is a port of a switch, those beyond.

    `switches` has the peers of each port of each switch, by the names of the switch and the port.
    """
    to_follow = [peer]
    while to_follow:
        entry = to_follow.pop()
        if entry.node not in switches:
            yield entry
            continue
        # A topology has no loops of switches.
        to_follow += [beyond for port, beyond in switches[entry.node].items() if port != entry.link]
