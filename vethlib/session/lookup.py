"""Looking up many links: the namespaces a slab at a time, the links of each in one datagram.

Why not through home, by the id a namespace has there (IFLA_TARGET_NETNSID), which would save the sockets: the kernel
then writes IFLA_LINK_NETNSID as the asking namespace numbers it, not as the link's own does, and gives home an id for
itself on the way, which stays (rtnl_fill_link_netnsid in net/core/rtnetlink.c).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Final

from .._nl.link import LinkMessage, get_link, parse_link
from ..links import Interface, Link, NetnsRef
from .places import Place, Places
from .reading import not_found, read_addresses, to_interface, to_link

__all__ = ["look_up"]

_SLAB: Final = 64  # namespaces open at a time
_FEW: Final = 8

Named = tuple[str, NetnsRef]


def look_up(open_places: Callable[[], Places], items: Sequence[Named], *, addresses: bool) -> list[Link]:
    """A Link for each item, in order. Raises LinkNotFound, NetnsNotFound for the first that is not there."""
    by_ref: dict[object, list[int]] = {}
    for position, (_, netns) in enumerate(items):
        by_ref.setdefault(netns or "", []).append(position)
    refs = list(by_ref.values())
    found: dict[int, Link] = {}
    for start in range(0, len(refs), _SLAB):
        with open_places() as places:
            slab = [(places(items[positions[0]][1]), positions) for positions in refs[start : start + _SLAB]]
            places.open_sockets(place for place, _ in slab)
            for place, positions in slab:
                names = [items[position] for position in positions]
                found.update(zip(positions, _links(places, place, names, addresses=addresses), strict=True))
    return [found[position] for position in range(len(items))]


def _links(places: Places, place: Place, wanted: Sequence[Named], *, addresses: bool) -> list[Link]:
    messages: list[LinkMessage] = []
    requests = [get_link(name=os.fsencode(name)) for name, _ in wanted]
    for item, outcome in zip(wanted, places.ask_all(place, requests), strict=True):
        if outcome.errno:
            error = not_found(outcome, *item)
            error.item = item
            raise error
        messages.append(parse_link(outcome.bodies[0]))
    own: dict[int, list[Interface]] = {}
    if addresses:
        # One dump each while they are few; one of all of them then.
        indexes = [message.ifindex for message in messages] if len(messages) <= _FEW else [0]
        for index in indexes:
            for address in read_addresses(places, place, index):
                own.setdefault(address.ifindex, []).append(to_interface(address))
    return [
        to_link(message, netns, tuple(own.get(message.ifindex, ())))
        for message, (_, netns) in zip(messages, wanted, strict=True)
    ]
