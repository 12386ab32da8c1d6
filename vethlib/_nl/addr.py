"""Addresses on the wire (struct ifaddrmsg and IFA_* of include/uapi/linux/if_addr.h)."""

from __future__ import annotations

import os
from socket import AF_INET, AF_INET6
from struct import Struct
from typing import Final, NamedTuple

from .const import (
    IFA_ADDRESS,
    IFA_CACHEINFO,
    IFA_F_DADFAILED,
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
    NLM_F_REQUEST,
    RTM_DELADDR,
    RTM_GETADDR,
    RTM_NEWADDR,
)
from .wire import Malformed, Part, Template, attributes, hole, message, template_cache

__all__ = ["AddrMessage", "del_addr", "dump_addrs", "is_plain", "lasting", "new_addr", "parse_addr", "restore_addr"]

# family, prefix length, flags (the old 8 bits of them), scope, ifindex
_IFADDRMSG: Final = Struct("=BBBBI")
_U32: Final = Struct("=I")


def new_addr(index: int, address: bytes, prefixlen: int, proto: int = 0) -> bytes:
    """RTM_NEWADDR: give link `index` an address (4 or 16 bytes); `proto` marks whose it is (IFA_PROTO, Linux 5.18).

    Kernels that do not know IFA_PROTO ignore it. EEXIST: the link has the address already.
    """
    template = _addr_template(RTM_NEWADDR, NLM_F_REQUEST | NLM_F_CREATE | NLM_F_EXCL, len(address), bool(proto))
    values: list[bytes | int] = [prefixlen, index, address, address]
    if proto:
        values.append(proto)
    return template.fill(values)


def del_addr(index: int, address: bytes, prefixlen: int) -> bytes:
    """RTM_DELADDR: take an address from link `index`. EADDRNOTAVAIL: it has no such address."""
    template = _addr_template(RTM_DELADDR, NLM_F_REQUEST, len(address), False)
    return template.fill((prefixlen, index, address, address))


@template_cache
def _addr_template(kind: int, flags: int, size: int, with_proto: bool) -> Template:
    family = AF_INET if size == 4 else AF_INET6
    # IFA_LOCAL is the address itself; IFA_ADDRESS would be the far end of a point-to-point link, and is the same here.
    parts: list[Part] = [bytes([family]), "B", b"\0\0", "I"]
    parts += hole(IFA_LOCAL, f"{size}s") + hole(IFA_ADDRESS, f"{size}s")
    if with_proto:
        parts += hole(IFA_PROTO, "B")
    return Template(kind, flags, parts)


def dump_addrs(index: int = 0) -> bytes:
    """RTM_GETADDR of a namespace, or of one link (with NETLINK_GET_STRICT_CHK the kernel filters, Linux 4.20)."""
    return message(RTM_GETADDR, NLM_F_REQUEST | NLM_F_DUMP, _IFADDRMSG.pack(0, 0, 0, 0, index))


class AddrMessage(NamedTuple):
    """What we read of an RTM_NEWADDR; `address` has 4 or 16 bytes, `body` is the whole, for :func:`restore_addr`."""

    ifindex: int
    address: bytes
    prefixlen: int
    flags: int
    proto: int
    body: bytes


def restore_addr(there: AddrMessage) -> bytes:
    """RTM_NEWADDR that gives an address back just as it was seen: label, lifetimes, flags and all."""
    return message(RTM_NEWADDR, NLM_F_REQUEST | NLM_F_CREATE | NLM_F_EXCL, there.body)


_PLAIN: Final = {IFA_ADDRESS, IFA_LOCAL, IFA_LABEL, IFA_CACHEINFO, IFA_FLAGS, IFA_PROTO}
_FLAGS_OF_NEW: Final = IFA_F_PERMANENT | IFA_F_SECONDARY | IFA_F_TENTATIVE | IFA_F_DADFAILED


def lasting(there: AddrMessage) -> tuple[object, ...]:
    """What makes two sights of an address the same: all but when it was made, and how far IPv6 has got with it."""
    body = there.body
    found: dict[int, bytes] = {attr: body[start:end] for attr, start, end in attributes(body, 8, len(body))}
    # struct ifa_cacheinfo: preferred and valid lifetime, then two times of the clock since the start of the host.
    lifetimes = found.pop(IFA_CACHEINFO, b"")[:8]
    found.pop(IFA_FLAGS, None)
    flags = there.flags & ~(IFA_F_TENTATIVE | IFA_F_DADFAILED)
    return there.prefixlen, flags, body[3], lifetimes, tuple(sorted(found.items()))


def is_plain(there: AddrMessage, name: str) -> bool:
    """Whether it is as :func:`new_addr` would make it on a link of that name: it expires never, and has no extras."""
    body = there.body
    found = {attr: body[start:end] for attr, start, end in attributes(body, 8, len(body))}
    label, scope = found.get(IFA_LABEL), body[3]
    return (
        found.keys() <= _PLAIN
        and not there.flags & ~_FLAGS_OF_NEW
        and bool(there.flags & IFA_F_PERMANENT)
        and found.get(IFA_LOCAL, there.address) == found.get(IFA_ADDRESS, there.address)
        and (len(there.address) == 16 or not scope)
        and (label is None or label.rstrip(b"\0") == os.fsencode(name))
    )


def parse_addr(body: bytes) -> AddrMessage:
    """Read the body of an RTM_NEWADDR or RTM_DELADDR message. Raises Malformed."""
    if len(body) < 8:
        raise Malformed(f"an address message of {len(body)} bytes")
    _family, prefixlen, flags, _scope, index = _IFADDRMSG.unpack_from(body)
    local = address = b""
    proto = 0
    for attr, start, end in attributes(body, 8, len(body)):
        if attr == IFA_LOCAL:
            local = body[start:end]
        elif attr == IFA_ADDRESS:
            address = body[start:end]
        elif attr == IFA_FLAGS and end - start >= 4:
            flags = _U32.unpack_from(body, start)[0]
        elif attr == IFA_PROTO and end > start:
            proto = body[start]
    # IPv6 sends IFA_LOCAL only with a peer address, IPv4 always (inet6_fill_ifaddr, inet_fill_ifaddr).
    own = local or address
    if len(own) not in (4, 16):
        raise Malformed(f"an address of {len(own)} bytes")
    return AddrMessage(index, own, prefixlen, flags, proto, body)
