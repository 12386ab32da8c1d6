"""Turn the kernel's messages into :class:`Link`, :class:`Address` and :class:`Stats`."""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache, partial
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface
from operator import attrgetter
from typing import Any, TypeVar

from vethlib._nl.addr import AddrMessage, dump_addrs, parse_if_ip
from vethlib._nl.batch import Outcome
from vethlib._nl.const import IFF_UP
from vethlib._nl.direct import ParseAlike
from vethlib._nl.link import (
    LinkMessage,
    dump_links,
    get_link,
    get_named,
    get_stats,
    index_of,
    new_link,
    parse_alike,
    parse_link,
    parse_stats,
)
from vethlib._nl.torn import repeat, union
from vethlib._nl.wire import encoded
from vethlib._values import filler
from vethlib.addresses import Address, IPAddress, IPInterface
from vethlib.errors import Malformed
from vethlib.links import Link, NetnsRef, Stats, describe
from vethlib.session.core.namespaces import Namespaces, OpenNetns
from vethlib.session.core.refusal import refusal

from .target import Target, not_found, read_body

__all__ = [
    "address_messages",
    "address_messages_if_whole",
    "addresses_of",
    "find",
    "find_at",
    "find_index",
    "find_known",
    "link_of",
    "read_addresses",
    "read_details",
    "read_link",
    "read_links",
    "read_stats",
    "table",
    "to_link",
    "with_addresses",
]


T = TypeVar("T")


def to_link(
    message: LinkMessage,
    netns: NetnsRef,
    ifaddrs: Sequence[Address] = (),
    addresses: tuple[IPInterface, ...] | None = None,
    cookie: int = 0,
) -> Link:
    """Return a link message as a Link, with addresses that were read (`ifaddrs`) or are known (`addresses`).

    IFLA_LINK is the peer of a veth only; of a macvlan, for example, it is the lower link.
    """
    index, flags, name, mac, mtu, link, netnsid, operstate, kind, alias, group, queues, altnames, ipv6 = message
    if kind != "veth":
        link = netnsid = None
    if addresses is None:
        addresses = tuple([address.interface for address in ifaddrs]) if ifaddrs else ()
    return link_of(
        index,
        name,
        netns,
        kind,
        mac.hex(":"),
        mtu,
        flags & IFF_UP != 0,
        operstate,
        addresses,
        link,
        netnsid,
        alias,
        group,
        queues,
        altnames,
        tuple(ifaddrs),
        ipv6,
        cookie,
    )


link_of = filler(Link)
"""Create a Link from all its fields, in their order."""


@lru_cache(maxsize=4096)  # an agent reads each address several times, and creating one takes thirty times as long
def _interface(address: bytes, prefixlen: int) -> IPInterface:
    return IPv4Interface((address, prefixlen)) if len(address) == 4 else IPv6Interface((address, prefixlen))


def to_address(message: AddrMessage) -> Address:
    """Return an address message as an Address."""
    peer = _ip(message.peer) if message.peer else None
    interface = _interface(message.address, message.prefixlen)
    return _address(message.ifindex, interface, message.flags, message.proto, message.body, peer)


_address = filler(Address)


def _ip(packed: bytes) -> IPAddress:
    return IPv4Address(packed) if len(packed) == 4 else IPv6Address(packed)


def find(namespaces: Namespaces, target: Target) -> LinkMessage:
    """Return the link with that name (or alternative name). Raises LinkNotFound."""
    return _found(namespaces, target, get_named(target.name))


def find_at(namespaces: Namespaces, target: Target, index: int) -> LinkMessage:
    """Return the link with that ifindex: other programs may have renamed it since. Raises LinkNotFound."""
    return _found(namespaces, target, get_link(index))


def _found(namespaces: Namespaces, target: Target, request: bytes) -> LinkMessage:
    outcome = namespaces.ask(target.place, request)
    if outcome.errno:
        raise target.not_found(outcome)
    message = target.read(outcome, parse_link)
    namespaces.caches.learn([(target.place.identity, message)])
    return message


def find_known(namespaces: Namespaces, target: Target) -> LinkMessage:
    """Do the same as :func:`find`, but let an attached cache answer if it can.

    The peer of such a link is that of the link's last event, because the kernel sends none when the peer is moved.
    """
    caches = namespaces.caches
    if caches and (message := caches.find(target.place.identity, target.name)) is not None:
        return message
    return find(namespaces, target)


def find_index(namespaces: Namespaces, place: OpenNetns, name: str, netns: NetnsRef) -> int:
    """Return the ifindex of the link with that name (or alternative name). Raises LinkNotFound."""
    if namespaces.caches:
        return find_known(namespaces, Target(place, name, netns)).ifindex
    outcome = namespaces.ask(place, get_named(name))
    if outcome.errno:
        raise not_found(outcome, name, netns)
    return read_body(place, outcome, index_of, (name, netns))


def read_details(namespaces: Namespaces, target: Target) -> dict[str, object]:
    """Return every attribute of a link, as pyroute2 decodes it. Raises LinkNotFound."""
    from vethlib._nl.trace import decode  # imports pyroute2

    outcome = namespaces.ask(target.place, get_link(name=encoded(target.name), stats=True))
    if outcome.errno:
        raise target.not_found(outcome)

    def details(body: bytes) -> dict[str, object]:
        try:
            (decoded,) = decode(new_link(body))
            attrs = decoded["attrs"]
            assert isinstance(attrs, list)
            return {key: decoded[key] for key in ("index", "ifi_type", "flags")} | dict(attrs)
        except Exception as error:  # other programs choose the bytes, and pyroute2 may fail at any
            raise Malformed(f"pyroute2 cannot decode {len(body)} bytes: {error!r}") from error

    request = f"read the details of {describe(target.name, target.netns)}"
    return target.requesting(request).read(outcome, details)


def _dump(
    namespaces: Namespaces,
    place: OpenNetns,
    request: bytes,
    parse: Callable[[bytes], Any],
    parse_alike: ParseAlike | None = None,
) -> tuple[Outcome, Sequence[Sequence[Any]]]:
    """Repeat a dump until it is whole; see :func:`.torn.repeat`."""
    outcome = namespaces.dump(place, request, parse, 1, parse_alike)
    if outcome.errno != errno.EAGAIN:
        return outcome, ()
    return repeat(partial(namespaces.dump, place, request, parse, 1), namespaces.patience, outcome)


def table(namespaces: Namespaces, place: OpenNetns, kind: bytes = b"") -> list[LinkMessage]:
    """Return every link in `place`, or those of one kind."""
    outcome, torn = _dump(namespaces, place, dump_links(kind), parse_link, parse_alike)
    if torn:
        return _links_of_torn(namespaces, place, torn)
    if outcome.errno:
        raise refusal(outcome, "list the links", place.ref)
    return list(outcome.bodies)


def _links_of_torn(
    namespaces: Namespaces, place: OpenNetns, torn: Sequence[Sequence[LinkMessage]]
) -> list[LinkMessage]:
    """Merge torn dumps; each link that is doubtful, or that another link names as its peer, is requested on its own."""
    links, doubtful = union(torn, attrgetter("ifindex"))
    named = {link.link for link in links.values() if link.link and link.kind == "veth" and link.link_netnsid is None}
    asked = [*doubtful, *(named - links.keys())]
    for index, outcome in zip(asked, namespaces.ask_all(place, [get_link(index) for index in asked]), strict=True):
        if not outcome.errno:
            links[index] = read_body(place, outcome, parse_link, "list the links")
        elif outcome.errno == errno.ENODEV:
            links.pop(index, None)
        else:
            raise refusal(outcome, "list the links", place.ref)
    return [links[index] for index in sorted(links)]


def address_messages(namespaces: Namespaces, place: OpenNetns, index: int = 0) -> list[AddrMessage]:
    """Return the messages of the addresses of one link, or of every link in `place`."""
    outcome, torn = _dump(namespaces, place, dump_addrs(index), parse_if_ip)
    addresses = _readable(outcome.bodies)
    if torn:
        addresses = _addresses_of_torn(namespaces, place, list(map(_readable, torn)), index)
    elif outcome.errno:
        # A namespace in which no link ever had an IPv4 or IPv6 device refuses to filter by a link without one.
        if outcome.errno == errno.ENODEV:
            return []
        raise refusal(outcome, "list the addresses", place.ref)
    # Kernels before 4.20 do not filter by link.
    return [address for address in addresses if not index or address.ifindex == index]


def address_messages_if_whole(namespaces: Namespaces, place: OpenNetns) -> list[AddrMessage] | None:
    """Return those of every link in `place` by one dump; None if it is torn."""
    outcome = namespaces.dump(place, dump_addrs(0), parse_if_ip, 1)
    if outcome.errno == errno.EAGAIN:
        return None
    if outcome.errno:
        raise refusal(outcome, "list the addresses", place.ref)
    return _readable(outcome.bodies)


def _readable(addresses: Iterable[AddrMessage | None]) -> list[AddrMessage]:
    return [address for address in addresses if address is not None]


def _addresses_of_torn(
    namespaces: Namespaces, place: OpenNetns, torn: Sequence[Sequence[AddrMessage]], index: int
) -> list[AddrMessage]:
    """Merge torn dumps; links with doubtful addresses are read again.

    A single IPv4 address cannot be requested, but the addresses of a link arrive in one part unless there are hundreds.
    Then an address counts if it was in the last dump or in two of them.
    """
    found, doubtful = union(torn, _identity)
    if index:
        last = {_identity(address) for address in torn[-1]}
        seen = Counter(identity for version in torn for identity in {_identity(address) for address in version})
        return [address for identity, address in found.items() if identity in last or seen[identity] > 1]
    links = dict.fromkeys(identity[0] for identity in doubtful)
    return [
        *(address for address in found.values() if address.ifindex not in links),
        *(address for link in links for address in address_messages(namespaces, place, link)),
    ]


_identity: Callable[[AddrMessage], tuple[int, bytes, int, bytes]] = attrgetter(
    "ifindex", "address", "prefixlen", "peer"
)


def read_addresses(namespaces: Namespaces, place: OpenNetns, index: int = 0) -> list[Address]:
    """Return the addresses of one link, or of every link in `place`, as Addresses."""
    return list(map(to_address, address_messages(namespaces, place, index)))


def addresses_of(messages: Iterable[AddrMessage]) -> list[Address]:
    """Return address messages as Addresses."""
    return [to_address(message) for message in messages]


def read_link(namespaces: Namespaces, target: Target) -> Link:
    """Return a link with its addresses. Raises LinkNotFound."""
    return with_addresses(namespaces, target, find(namespaces, target))


def with_addresses(namespaces: Namespaces, target: Target, message: LinkMessage) -> Link:
    """Return a link that was read, with its addresses."""
    ifaddrs = read_addresses(namespaces, target.place, message.ifindex)
    return to_link(message, target.netns, ifaddrs, cookie=target.place.cookie)


def read_links(namespaces: Namespaces, place: OpenNetns, netns: NetnsRef) -> list[Link]:
    """Return every link in `place` with its addresses, in the kernel's order."""
    links: list[Any] = table(namespaces, place)
    addresses: dict[int, list[Address]] = {}
    for address in read_addresses(namespaces, place):
        addresses.setdefault(address.index, []).append(address)
    cookie = place.cookie
    # In place, so that each message is freed at once, instead of leaving a second list to the garbage collector.
    for position, message in enumerate(links):
        links[position] = to_link(message, netns, addresses.get(message.ifindex, ()), cookie=cookie)
    return links


def read_stats(namespaces: Namespaces, target: Target, ifindex: int) -> Stats:
    """Return the counters of the link with this ifindex. Raises LinkNotFound."""
    outcome = namespaces.ask(target.place, get_stats(ifindex))
    if outcome.errno:
        raise target.not_found(outcome)
    # struct rtnl_link_stats64 has rx and tx side by side, in the same order as Stats.
    return Stats(*target.read(outcome, parse_stats))
