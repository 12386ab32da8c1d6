"""Looking up many links: one slab of namespaces at a time, and the links of each namespace in one datagram.

Asking through home, by the id that a namespace has there (IFLA_TARGET_NETNSID), would save the sockets. But the kernel
then writes IFLA_LINK_NETNSID as an id of the asking namespace, not of the link's own, and assigns home a permanent id
for itself as a side effect (rtnl_fill_link_netnsid in net/core/rtnetlink.c).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Final

from vethlib._nl.link import LinkMessage, get_link, parse_link
from vethlib.addresses import Address
from vethlib.links import Link, NetnsRef
from vethlib.session.core.namespaces import Namespaces, OpenNetns

from .reading import addresses_of, read_addresses, to_link
from .target import not_found, read_body

__all__ = ["look_up"]

_SLAB: Final = 64  # namespaces open at a time
_FEW: Final = 8

Named = tuple[str, NetnsRef]


def look_up(open_namespaces: Callable[[], Namespaces], items: Sequence[Named], *, addresses: bool) -> list[Link]:
    """Return a Link for each item, in order. Raises LinkNotFound, NetnsNotFound for the first that is missing."""
    by_ref: dict[object, list[int]] = {}
    for position, (_, netns) in enumerate(items):
        by_ref.setdefault(netns or "", []).append(position)
    refs = list(by_ref.values())
    found: dict[int, Link] = {}
    for start in range(0, len(refs), _SLAB):
        with open_namespaces() as namespaces:
            slab = [(namespaces(items[positions[0]][1]), positions) for positions in refs[start : start + _SLAB]]
            namespaces.open_sockets(place for place, _ in slab)
            for place, positions in slab:
                names = [items[position] for position in positions]
                found.update(zip(positions, _links(namespaces, place, names, addresses=addresses), strict=True))
    return [found[position] for position in range(len(items))]


def _links(namespaces: Namespaces, place: OpenNetns, wanted: Sequence[Named], *, addresses: bool) -> list[Link]:
    messages: list[LinkMessage] = []
    requests = [get_link(name=os.fsencode(name)) for name, _ in wanted]
    for item, outcome in zip(wanted, namespaces.ask_all(place, requests), strict=True):
        if outcome.errno:
            error = not_found(outcome, *item)
            error.item = item
            raise error
        messages.append(read_body(place, outcome, parse_link, item))
    own: dict[int, list[Address]] = {}
    if addresses:
        # One dump for each of a few links, or else one for all.
        indexes = {message.ifindex for message in messages} if len(messages) <= _FEW else {0}
        for index in indexes:
            for address in addresses_of(read_addresses(namespaces, place, index)):
                own.setdefault(address.index, []).append(address)
    return [
        to_link(message, netns, own.get(message.ifindex, ()))
        for message, (_, netns) in zip(messages, wanted, strict=True)
    ]
