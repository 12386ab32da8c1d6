"""Addresses on the wire (struct ifaddrmsg and IFA_* of include/uapi/linux/if_addr.h)."""

from __future__ import annotations

from functools import lru_cache, partial
from socket import AF_INET, AF_INET6
from struct import Struct
from typing import Final, NamedTuple

from vethlib.errors import Malformed

from .const import (
    IFA_ADDRESS,
    IFA_BROADCAST,
    IFA_CACHEINFO,
    IFA_F_DADFAILED,
    IFA_F_DEPRECATED,
    IFA_F_NODAD,
    IFA_F_NOPREFIXROUTE,
    IFA_F_PERMANENT,
    IFA_F_SECONDARY,
    IFA_F_TENTATIVE,
    IFA_FLAGS,
    IFA_LABEL,
    IFA_LOCAL,
    IFA_PROTO,
    NLM_F_CREATE,
    NLM_F_DUMP,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    NLM_F_REQUEST,
    RTM_DELADDR,
    RTM_GETADDR,
    RTM_NEWADDR,
)
from .layout import Layouts
from .wire import Part, Template, attribute, attributes, decoded, encoded, hole, message, template_cache, without

# family, prefix length, flags (the old 8 bits of them), scope, ifindex
_IFADDRMSG: Final = Struct("=BBBBI")
_U32: Final = Struct("=I")
# IFA_FLAGS has all 32 bits of the flags.
_LAYOUTS: Final = Layouts("=xBBxI", {IFA_ADDRESS: "s", IFA_LOCAL: "s", IFA_FLAGS: "I", IFA_PROTO: "B"})
_LIFETIMES: Final = Struct("=II")  # struct ifa_cacheinfo begins with ifa_prefered and ifa_valid
_FOR_EVER: Final = 0xFFFF_FFFF  # INFINITY_LIFE_TIME, include/net/addrconf.h


def new_addr(index: int, address: bytes, prefixlen: int, proto: int = 0, *, replace: bool = False) -> bytes:
    """RTM_NEWADDR: add an address (4 or 16 bytes) to link `index`; `proto` marks its owner (IFA_PROTO, Linux 5.18).

    Older kernels ignore IFA_PROTO. EEXIST: the link already has the address; with `replace`, the existing one no longer
    expires, and keeps its position among the others.
    """
    flags = NLM_F_REQUEST | NLM_F_CREATE | (NLM_F_REPLACE if replace else NLM_F_EXCL)
    template = _addr_template(RTM_NEWADDR, flags, len(address), bool(proto))
    values: list[bytes | int] = [prefixlen, index, address, address]
    if proto:
        values.append(proto)
    return template.fill(values)


def del_addr(index: int, address: bytes, prefixlen: int, peer: bytes = b"") -> bytes:
    """RTM_DELADDR: remove an address from link `index`. EADDRNOTAVAIL: it has no such address.

    Of several IPv4 addresses that differ in their `peer`, the kernel removes the first with a peer in the same subnet.
    """
    template = _addr_template(RTM_DELADDR, NLM_F_REQUEST, len(address), False)
    return template.fill((prefixlen, index, address, peer or address))


@template_cache
def _addr_template(kind: int, flags: int, size: int, with_proto: bool) -> Template:
    family = AF_INET if size == 4 else AF_INET6
    # IFA_LOCAL is the address itself; IFA_ADDRESS is the peer on a point-to-point link, and otherwise equal.
    parts: list[Part] = [bytes([family]), "B", b"\0\0", "I"]
    parts += hole(IFA_LOCAL, f"{size}s") + hole(IFA_ADDRESS, f"{size}s")
    if with_proto:
        parts += hole(IFA_PROTO, "B")
    return Template(kind, flags, parts)


def delete_same(body: bytes) -> bytes:
    """RTM_DELADDR of the address in the body of an RTM_NEWADDR, with its label and its peer."""
    return message(RTM_DELADDR, NLM_F_REQUEST, body)


_DUMP: Final = Struct("=16sB3xI")
_DUMP_HEADER: Final = message(RTM_GETADDR, NLM_F_REQUEST | NLM_F_DUMP, bytes(8))[:16]


def dump_addrs(index: int = 0, family: int = 0) -> bytes:
    """RTM_GETADDR of a namespace, or of one link (with NETLINK_GET_STRICT_CHK the kernel filters, Linux 4.20)."""
    return _DUMP.pack(_DUMP_HEADER, family, index)


def index_of(body: bytes) -> int:
    """Return only the ifindex of an address message. Raises Malformed."""
    if len(body) < _IFADDRMSG.size:
        raise Malformed(f"an address message of {len(body)} bytes")
    index: int = _U32.unpack_from(body, 4)[0]
    return index


class AddrMessage(NamedTuple):
    """The parts of an RTM_NEWADDR that are read. `address` has 4 or 16 bytes.

    `body` is the whole message, for :func:`restore_addr`. `peer` is the address of the other end of a point-to-point
    address, otherwise b"".
    """

    ifindex: int
    address: bytes
    prefixlen: int
    flags: int
    proto: int
    body: bytes
    peer: bytes = b""


def restore_addr(address: AddrMessage, index: int = 0, *, replace: bool = False) -> bytes:
    """RTM_NEWADDR that restores an address exactly as it was read: label, lifetimes, flags and everything else.

    It is added to the link that it was read from, or to link `index`; with `replace`, an existing one gets its
    lifetimes, and keeps its position among the others.
    """
    body = _with_its_end(address.body) if _is_deprecated_for_good(address) else address.body
    if index:
        body = body[:4] + _U32.pack(index) + body[8:]
    return message(RTM_NEWADDR, NLM_F_REQUEST | NLM_F_CREATE | (NLM_F_REPLACE if replace else NLM_F_EXCL), body)


_FOR_GOOD: Final = IFA_F_PERMANENT | IFA_F_DEPRECATED


def _is_deprecated_for_good(address: AddrMessage) -> bool:
    """Return whether it is an IPv4 address that never expires, but is deprecated."""
    return len(address.address) == 4 and address.flags & _FOR_GOOD == _FOR_GOOD


def _with_its_end(body: bytes) -> bytes:
    """Return the body of such an address with a preferred lifetime that is over.

    The kernel reports that lifetime as infinite, but goes by it, not by the flag, when an address is added
    (inet_fill_ifaddr, set_ifa_lifetime).
    """
    end = attribute(IFA_CACHEINFO, _LIFETIMES.pack(0, _FOR_EVER) + bytes(8))
    return without(body, _IFADDRMSG.size, IFA_CACHEINFO) + end


class AddrExtras(NamedTuple):
    """Attributes that few addresses have.

    `broadcast` has 4 bytes or none; `valid` and `preferred` are seconds (None: for ever).

    Without a `label`, an IPv4 address that is added gets the name of the link as its label.
    """

    peer: bytes = b""
    broadcast: bytes = b""
    label: bytes = b""
    scope: int = 0
    flags: int = 0
    valid: int | None = None
    preferred: int | None = None


def addr_body(index: int, address: bytes, prefixlen: int, proto: int, extras: AddrExtras) -> bytes:
    """Return the body of an RTM_NEWADDR for an address with extras, for :func:`restore_addr`."""
    peer, broadcast, label, scope, flags, valid, preferred = extras
    body = _IFADDRMSG.pack(AF_INET if len(address) == 4 else AF_INET6, prefixlen, flags & 0xFF, scope, index)
    body += attribute(IFA_ADDRESS, peer or address) + attribute(IFA_LOCAL, address)
    body += attribute(IFA_FLAGS, _U32.pack(flags))
    if broadcast:
        body += attribute(IFA_BROADCAST, broadcast)
    if label:
        body += attribute(IFA_LABEL, label + b"\0")
    if proto:
        body += attribute(IFA_PROTO, bytes([proto]))
    if (valid, preferred) != (None, None):
        seconds = [_FOR_EVER if each is None else each for each in (preferred, valid)]
        body += attribute(IFA_CACHEINFO, _LIFETIMES.pack(*seconds) + bytes(8))
    return body


def _payloads(body: bytes) -> dict[int, bytes]:
    return {attr: body[start:end] for attr, start, end in attributes(body, _IFADDRMSG.size, len(body))}


def extras(address: AddrMessage) -> AddrExtras:
    """Return the attributes that an address that was read has beyond those of a plain one."""
    body = address.body
    attrs = _payloads(body)
    label = attrs.get(IFA_LABEL, b"").rstrip(b"\0")
    preferred, valid = lifetimes(body)
    return AddrExtras(
        address.peer, attrs.get(IFA_BROADCAST, b""), label, body[3], address.flags & ADDED_FLAGS, valid, preferred
    )


_BROADCAST_HEADER: Final = attribute(IFA_BROADCAST, bytes(4))[:4]


@lru_cache(maxsize=4096)
def _label_attribute(name: str) -> bytes:
    return attribute(IFA_LABEL, encoded(name) + b"\0")


def is_bare(body: bytes, flags: int, name: str) -> bool:
    """Return whether an address of a link called `name` has no attributes that can be given, except perhaps a peer.

    A label that the kernel makes does not count: the name of the link, or "NAME:2" on a link that was renamed.
    """
    if flags & ADDED_FLAGS:
        return False
    if body[0] != AF_INET:
        return True
    if body[3]:
        return False
    if _BROADCAST_HEADER not in body and _label_attribute(name) in body:
        return True  # most addresses, in a tenth of the time that the rest takes
    attrs = _payloads(body)
    label = attrs.get(IFA_LABEL, b"").rstrip(b"\0")
    return IFA_BROADCAST not in attrs and is_own_label(decoded(label), name)


_LONGEST_LABEL: Final = 15  # bytes: IFNAMSIZ - 1


def is_own_label(label: str, name: str) -> bool:
    """Return whether a label was made from the name of the link, when the address was added or the link renamed.

    A rename replaces the name in the label of each address (inetdev_changename, net/ipv4/devinet.c): the first gets the
    new name alone, the others get a number after it, for which a long name is cut.
    """
    first, colon, number = label.rpartition(":")
    if not colon:
        return label in (name, "")
    was_cut = len(encoded(label)) == _LONGEST_LABEL and name.startswith(first)
    return (first == name or was_cut) and _is_of_a_rename(number)


def without_own_label(body: bytes, name: str) -> bytes:
    """Return the body of an address message without the label if the kernel made it of the name of the link.

    Then the address gets the name that the link has when it is added.
    """
    if body[0] != AF_INET:
        return body
    label = _payloads(body).get(IFA_LABEL, b"").rstrip(b"\0")
    return without(body, _IFADDRMSG.size, IFA_LABEL) if is_own_label(decoded(label), name) else body


def relabelled(body: bytes, name: str, number: int) -> bytes:
    """Return the body of an IPv4 address as it is once its link is renamed; `number` is its position there, from 1.

    The label of the first address is the new name; the others keep what follows a colon, or get their number
    (inetdev_changename, net/ipv4/devinet.c).
    """
    label, former = encoded(name), _payloads(body).get(IFA_LABEL)
    if former is not None and number > 1:
        _, colon, rest = former.rstrip(b"\0").partition(b":")
        ending = b":" + (rest if colon else b"%d" % number)
        label = label[: _LONGEST_LABEL - len(ending)] + ending
    return without(body, _IFADDRMSG.size, IFA_LABEL) + attribute(IFA_LABEL, label + b"\0")


def _is_of_a_rename(number: str) -> bool:
    return number.isascii() and number.isdecimal() and int(number) > 1


ADDED_FLAGS: Final = IFA_F_NODAD | IFA_F_NOPREFIXROUTE
"""The flags with which an address can be added."""

_PLAIN: Final = {IFA_ADDRESS, IFA_LOCAL, IFA_LABEL, IFA_CACHEINFO, IFA_FLAGS, IFA_PROTO}
_FLAGS_OF_NEW: Final = IFA_F_PERMANENT | IFA_F_SECONDARY | IFA_F_TENTATIVE | IFA_F_DADFAILED
_PASSING: Final = IFA_F_TENTATIVE | IFA_F_DADFAILED | IFA_F_DEPRECATED


def lasting(address: AddrMessage) -> tuple[object, ...]:
    """Return the lasting part of an address: without its age, position and progress of duplicate address detection.

    Of the lifetimes only their existence counts, because they decrease all the time.
    """
    body = address.body
    attrs = _payloads(body)
    attrs.pop(IFA_CACHEINFO, None)
    attrs.pop(IFA_FLAGS, None)
    expires = (*[seconds is not None for seconds in lifetimes(body)], _is_deprecated_for_good(address))
    passing = _PASSING | IFA_F_SECONDARY if len(address.address) == 4 else _PASSING
    return address.prefixlen, address.flags & ~passing, body[3], expires, tuple(sorted(attrs.items()))


def is_plain(address: AddrMessage, name: str) -> bool:
    """Return whether it is as :func:`new_addr` adds it to a link of that name: permanent, and without extras."""
    body = address.body
    attrs = _payloads(body)
    label, scope = attrs.get(IFA_LABEL), body[3]
    return (
        attrs.keys() <= _PLAIN
        and not address.flags & ~_FLAGS_OF_NEW
        and bool(address.flags & IFA_F_PERMANENT)
        and attrs.get(IFA_LOCAL, address.address) == attrs.get(IFA_ADDRESS, address.address)
        and (len(address.address) == 16 or not scope)
        and (label is None or label.rstrip(b"\0") == encoded(name))
    )


def can_be_given(address: AddrMessage) -> bool:
    """Return whether it has nothing but what :func:`addr_body` writes."""
    attrs = _payloads(address.body)
    return attrs.keys() <= _PLAIN | {IFA_BROADCAST} and not address.flags & ~(_FLAGS_OF_NEW | ADDED_FLAGS)


def lifetimes(body: bytes) -> tuple[int | None, int | None]:
    """Return the seconds for which an address remains preferred and valid, as of its message; None: for ever."""
    for attr, start, end in attributes(body, _IFADDRMSG.size, len(body)):
        if attr == IFA_CACHEINFO and end - start >= 8:
            preferred, valid = _LIFETIMES.unpack_from(body, start)
            return None if preferred == _FOR_EVER else preferred, None if valid == _FOR_EVER else valid
    return None, None


def parse_addr(body: bytes) -> AddrMessage:
    """Read the body of an RTM_NEWADDR or RTM_DELADDR message of IPv4 or IPv6. Raises Malformed."""
    prefixlen, flags, index, address, local, all_flags, proto = _LAYOUTS.read(body)
    # IPv6 sends IFA_LOCAL only with a peer address, IPv4 always (inet6_fill_ifaddr, inet_fill_ifaddr).
    if address is None and local is not None and len(local) == 4:
        # IPv4 leaves out the peer 0.0.0.0. A request without IFA_ADDRESS would be for an address without a peer.
        address = bytes(4)
        body += attribute(IFA_ADDRESS, address)
    own = local or address or b""
    if len(own) not in (4, 16) or prefixlen > 8 * len(own):
        raise Malformed(f"an address of {len(own)} bytes with a prefix of {prefixlen} bits")
    peer = address if local and address and address != local else b""
    return _addr_message((index, own, prefixlen, flags if all_flags is None else all_flags, proto or 0, body, peer))


_IP: Final = (bytes([AF_INET]), bytes([AF_INET6]))


def is_ip(body: bytes) -> bool:
    """Return whether an address in a dump of all families is one of IPv4 or IPv6.

    MCTP, Phonet and DECnet (before Linux 6.1) have addresses, too, and answer as well (rtnl_dump_all,
    net/core/rtnetlink.c).
    """
    return body[:1] in _IP


def parse_if_ip(body: bytes) -> AddrMessage | None:
    """Read an address in a dump of all families; None unless it :func:`is_ip`. Raises Malformed."""
    return parse_addr(body) if is_ip(body) else None


_addr_message = partial(tuple.__new__, AddrMessage)  # as in link.py
