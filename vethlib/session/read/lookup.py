"""Look up many links: one slab of namespaces at a time, and the links of each namespace in one datagram.

Asking through home, by the id that a namespace has there (IFLA_TARGET_NETNSID), would save the sockets. But the kernel
then writes IFLA_LINK_NETNSID as an id of the asking namespace, not of the link's own, and assigns home a permanent id
for itself as a side effect (rtnl_fill_link_netnsid in net/core/rtnetlink.c).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Final

from vethlib._nl.batch import Outcome, outcome_of
from vethlib._nl.link import LinkMessage, get_named, parse_link
from vethlib.addresses import Address
from vethlib.linkref import Located
from vethlib.links import Link, describe
from vethlib.session.core.namespaces import Namespaces, OpenNetns
from vethlib.session.core.slabs import read_in_slabs

from .reading import read_addresses, to_link
from .target import is_another_in, not_found, read_body, replaced, same_link

__all__ = ["look_up"]

_FEW: Final = 8


def look_up(open_namespaces: Callable[[], Namespaces], items: Sequence[Located], *, addresses: bool) -> list[Link]:
    """Return a Link for each item, in order. Raises LinkNotFound, NetnsNotFound for the first that is missing."""
    read = partial(_in_slab, items, addresses=addresses)
    found = read_in_slabs(open_namespaces, (netns for _, netns, *_ in items), read)
    return [found[position] for position in range(len(items))]


def _in_slab(
    items: Sequence[Located], namespaces: Namespaces, groups: Iterable[Sequence[int]], *, addresses: bool
) -> Iterator[tuple[int, Link]]:
    """Yield the position of each of these items, and its link."""
    by_place: dict[OpenNetns, list[int]] = {}
    for positions in groups:
        by_place.setdefault(namespaces(items[positions[0]][1]), []).extend(positions)
    answered: dict[OpenNetns, bytes | None] = {}
    if not addresses:
        lone = {place: items[at[0]][0] for place, at in by_place.items() if len(at) == 1 and not place.is_home}
        answers = namespaces.ask_once(list(lone), list(map(get_named, lone.values())))
        answered = dict(zip(lone, answers, strict=True))
    namespaces.open_sockets([place for place in by_place if answered.get(place) is None])
    for place, positions in by_place.items():
        if (body := answered.get(place)) is not None:
            item = items[positions[0]]
            message = _meant(namespaces, place, item, outcome_of((0, "", (body,))))
            yield positions[0], to_link(message, item[1], cookie=place.cookie)
            continue
        here = [items[position] for position in positions]
        outcomes = namespaces.ask_all(place, [get_named(name) for name, *_ in here])
        yield from zip(positions, _links(namespaces, place, here, outcomes, addresses=addresses), strict=True)


def _meant(namespaces: Namespaces, place: OpenNetns, item: Located, outcome: Outcome) -> LinkMessage:
    """Return the link of an item. Raises LinkNotFound, with name and namespace as its item, if it was replaced."""
    name, netns, index, seen = item
    if outcome.errno:
        error = not_found(outcome, name, netns)
        error.item = (name, netns)
        raise error
    message = read_body(place, outcome, parse_link, (name, netns))
    same_link(message.ifindex, index, name, netns)
    if seen is not None and is_another_in(namespaces, place, seen, message):
        error = replaced(name, netns, f"look up {describe(name, netns)}")
        error.item = (name, netns)
        raise error
    return message


def _links(
    namespaces: Namespaces, place: OpenNetns, wanted: Sequence[Located], outcomes: Sequence[Outcome], *, addresses: bool
) -> list[Link]:
    pairs = zip(wanted, outcomes, strict=True)
    messages = [_meant(namespaces, place, item, outcome) for item, outcome in pairs]
    cookie = place.cookie
    if not addresses:
        return [to_link(message, item[1], cookie=cookie) for message, item in zip(messages, wanted, strict=True)]
    own: dict[int, list[Address]] = {}
    # One dump for each link if they are few, otherwise one dump for all.
    indexes = {message.ifindex for message in messages} if len(messages) <= _FEW else {0}
    for index in indexes:
        for address in read_addresses(namespaces, place, index):
            own.setdefault(address.index, []).append(address)
    return [
        to_link(message, item[1], own.get(message.ifindex, ()), cookie=cookie)
        for message, item in zip(messages, wanted, strict=True)
    ]
