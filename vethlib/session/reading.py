"""From the kernel's messages to :class:`Link`, :class:`Address` and :class:`Stats`."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from ipaddress import IPv4Interface, IPv6Interface

from .._nl.addr import AddrMessage, dump_addrs, parse_addr
from .._nl.batch import DUMP_ATTEMPTS, Outcome
from .._nl.link import LinkMessage, dump_links, get_link, get_stats, index_of, new_link, parse_link, parse_stats
from ..errors import NetlinkError
from ..links import Address, Interface, Link, NetnsRef, Stats, describe
from .places import Place, Places
from .refusal import refusal

__all__ = [
    "addresses_of",
    "find",
    "find_index",
    "find_known",
    "not_found",
    "read_addresses",
    "read_details",
    "read_link",
    "read_links",
    "read_stats",
    "table",
    "to_link",
]


def to_link(message: LinkMessage, netns: NetnsRef, addresses: tuple[Interface, ...]) -> Link:
    """The public view of a link message. Only a veth's IFLA_LINK is a peer; a macvlan's, say, is its lower link."""
    is_veth = message.kind == "veth"
    return Link(
        message.ifindex,
        message.name,
        netns,
        message.kind,
        message.mac.hex(":"),
        message.mtu,
        message.up,
        message.operstate,
        addresses,
        message.link if is_veth else None,
        message.link_netnsid if is_veth else None,
        message.alias,
        message.group,
        message.num_tx_queues,
        message.altnames,
    )


def to_interface(message: AddrMessage) -> Interface:
    """The address with its prefix."""
    cls = IPv4Interface if len(message.address) == 4 else IPv6Interface
    return cls((message.address, message.prefixlen))


def missing(name: str, netns: NetnsRef, request: str) -> NetlinkError:
    """LinkNotFound, in words."""
    says = f"there is no link {describe(name, netns)}"
    return refusal(Outcome(errno.ENODEV, "", ()), request, netns, says=says)


def not_found(outcome: Outcome, name: str, netns: NetnsRef, request: str = "") -> NetlinkError:
    """Why there is no answer to the question for a link."""
    request = request or f"look up {describe(name, netns)}"
    return missing(name, netns, request) if outcome.errno == errno.ENODEV else refusal(outcome, request, netns)


def find(places: Places, place: Place, name: str, netns: NetnsRef, request: str = "") -> LinkMessage:
    """The link of that name (or alternative name) in `place`. Raises LinkNotFound; `request` is for its message."""
    outcome = places.ask(place, get_link(name=os.fsencode(name)))
    if outcome.errno:
        raise not_found(outcome, name, netns, request)
    message = parse_link(outcome.bodies[0])
    places.known.learn(place.identity, message)
    return message


def find_known(places: Places, place: Place, name: str, netns: NetnsRef, request: str = "") -> LinkMessage:
    """As :func:`find`, but a cache may know it. Then its peer is as of its last event: a move of that makes none."""
    if places.known and (message := places.known.find(place.identity, name)) is not None:
        return message
    return find(places, place, name, netns, request)


def find_index(places: Places, place: Place, name: str, netns: NetnsRef) -> int:
    """The ifindex of the link of that name (or alternative name) in `place`. Raises LinkNotFound."""
    if places.known:
        return find_known(places, place, name, netns).ifindex
    outcome = places.ask(place, get_link(name=os.fsencode(name)))
    if outcome.errno:
        raise not_found(outcome, name, netns)
    return index_of(outcome.bodies[0])


def read_details(places: Places, place: Place, name: str, netns: NetnsRef) -> dict[str, object]:
    """Every attribute of one link, as pyroute2 decodes it. Raises LinkNotFound."""
    from .._nl.trace import decode  # imports pyroute2

    outcome = places.ask(place, get_link(name=os.fsencode(name), stats=True))
    if outcome.errno:
        raise not_found(outcome, name, netns)
    (decoded,) = decode(new_link(outcome.bodies[0]))
    attrs = decoded["attrs"]
    assert isinstance(attrs, list)
    return {key: decoded[key] for key in ("index", "ifi_type", "flags")} | dict(attrs)


def table(places: Places, place: Place, kind: bytes = b"") -> list[LinkMessage]:
    """Every link in `place`, or those of one kind."""
    outcome = places.dump(place, dump_links(kind), parse_link)
    if outcome.errno:
        raise refusal(outcome, "list the links", place.ref)
    return list(outcome.bodies)


def read_addresses(places: Places, place: Place, index: int = 0, attempts: int = DUMP_ATTEMPTS) -> list[AddrMessage]:
    """The addresses of one link, or of every link in `place`. Raises EAGAIN if they change during all attempts."""
    outcome = places.dump(place, dump_addrs(index), parse_addr, attempts)
    # A namespace where no link ever had an IPv4 or IPv6 device refuses the filter by a link that has none.
    if outcome.errno == errno.ENODEV:
        return []
    if outcome.errno:
        raise refusal(outcome, "list the addresses", place.ref)
    # Kernels before 4.20 do not filter by link.
    return [one for one in outcome.bodies if not index or one.ifindex == index]


def addresses_of(messages: Iterable[AddrMessage]) -> list[Address]:
    """The public view of address messages."""
    return [Address(one.ifindex, to_interface(one), one.flags, one.proto, one.body) for one in messages]


def read_link(places: Places, place: Place, name: str, netns: NetnsRef, request: str = "") -> Link:
    """One link with its addresses. Raises LinkNotFound."""
    message = find(places, place, name, netns, request)
    found = read_addresses(places, place, message.ifindex)
    return to_link(message, netns, tuple(map(to_interface, found)))


def read_links(places: Places, place: Place, netns: NetnsRef) -> list[Link]:
    """Every link in `place` with its addresses, in the kernel's order."""
    links = table(places, place)
    addresses: dict[int, list[Interface]] = {}
    for one in read_addresses(places, place):
        addresses.setdefault(one.ifindex, []).append(to_interface(one))
    return [to_link(link, netns, tuple(addresses.get(link.ifindex, ()))) for link in links]


def read_stats(places: Places, place: Place, name: str, netns: NetnsRef) -> Stats:
    """The counters of one link. Raises LinkNotFound."""
    request = f"read the counters of {describe(name, netns)}"
    message = find_known(places, place, name, netns, request)
    outcome = places.ask(place, get_stats(message.ifindex))
    if outcome.errno:
        raise not_found(outcome, name, netns, request)
    # struct rtnl_link_stats64 keeps rx and tx side by side in the order Stats has them.
    return Stats(*parse_stats(outcome.bodies[0]))
