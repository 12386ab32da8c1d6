"""Neighbours on the wire (struct ndmsg and NDA_* of include/uapi/linux/neighbour.h): permanent ones, added and read."""

from __future__ import annotations

from socket import AF_INET, AF_INET6
from struct import Struct
from typing import Final, NamedTuple

from vethlib._nl.const import (
    NDA_DST,
    NDA_IFINDEX,
    NDA_LLADDR,
    NDA_PROTOCOL,
    NLM_F_CREATE,
    NLM_F_DUMP,
    NLM_F_REPLACE,
    NLM_F_REQUEST,
    NTF_EXT_LEARNED,
    NTF_ROUTER,
    NUD_NOARP,
    NUD_PERMANENT,
    RTM_DELNEIGH,
    RTM_GETNEIGH,
    RTM_NEWNEIGH,
)
from vethlib._nl.wire import attribute, attributes_of, message
from vethlib.errors import Malformed

_U32: Final = Struct("=I")
_NDMSG: Final = Struct("=BxxxiHBB")  # family, ifindex, state, flags, type


class NeighbourMessage(NamedTuple):
    """An RTM_NEWNEIGH; `address` and `mac` are bytes, and `protocol` is 0 where none was given (before Linux 5.0).

    `state` has the bits of NUD_*, and `flags` those of NTF_* that can be given.
    """

    ifindex: int
    address: bytes
    mac: bytes
    is_permanent: bool
    protocol: int
    state: int = NUD_PERMANENT
    flags: int = 0

    @property
    def is_configured(self) -> bool:
        """Whether another program has added it: it is permanent or never resolved (NOARP), and not a multicast group.

        The kernel itself adds the NOARP entries of groups (arp_mc_map, net/ipv4/arp.c; ndisc_mc_map, net/ipv6/ndisc.c).
        """
        is_group = not self.mac or self.mac[0] & 1
        return self.is_permanent or (bool(self.state & NUD_NOARP) and not is_group)


def dump_neighbours(index: int = 0) -> bytes:
    """RTM_GETNEIGH of all neighbours of a namespace, or of those over link `index`."""
    over = attribute(NDA_IFINDEX, _U32.pack(index)) if index else b""
    return message(RTM_GETNEIGH, NLM_F_REQUEST | NLM_F_DUMP, _NDMSG.pack(0, 0, 0, 0, 0) + over)


def get_neighbour(index: int, address: bytes) -> bytes:
    """RTM_GETNEIGH of the link's entry for this address. ENOENT: there is none. Before Linux 5.0, EOPNOTSUPP."""
    body = _NDMSG.pack(_family(address), index, 0, 0, 0) + attribute(NDA_DST, address)
    return message(RTM_GETNEIGH, NLM_F_REQUEST, body)


def new_neighbour(
    index: int, address: bytes, mac: bytes, protocol: int, state: int = NUD_PERMANENT, flags: int = 0
) -> bytes:
    """RTM_NEWNEIGH of a neighbour, which replaces the link's entry for this address, learned or permanent.

    The kernel does not change the protocol of an entry to 0 (neigh_add, net/core/neighbour.c).
    """
    body = _NDMSG.pack(_family(address), index, state, flags, 0)
    body += attribute(NDA_DST, address) + attribute(NDA_LLADDR, mac)
    if protocol:
        body += attribute(NDA_PROTOCOL, bytes([protocol]))
    return message(RTM_NEWNEIGH, NLM_F_REQUEST | NLM_F_CREATE | NLM_F_REPLACE, body)


def del_neighbour(index: int, address: bytes) -> bytes:
    """RTM_DELNEIGH: remove the link's entry for this address. ENOENT: there is none."""
    body = _NDMSG.pack(_family(address), index, 0, 0, 0) + attribute(NDA_DST, address)
    return message(RTM_DELNEIGH, NLM_F_REQUEST, body)


def _family(address: bytes) -> int:
    return AF_INET if len(address) == 4 else AF_INET6


def parse_neighbour(body: bytes) -> NeighbourMessage:
    """Read the body of an RTM_NEWNEIGH message. Raises Malformed."""
    if len(body) < _NDMSG.size:
        raise Malformed(f"a neighbour message of {len(body)} bytes")
    _, ifindex, state, flags, _kind = _NDMSG.unpack_from(body)
    address = mac = b""
    protocol = 0
    for attr, start, end in attributes_of(body, _NDMSG.size):
        if attr == NDA_DST:
            address = body[start:end]
        elif attr == NDA_LLADDR:
            mac = body[start:end]
        elif attr == NDA_PROTOCOL and end > start:
            protocol = body[start]
    kept = flags & (NTF_ROUTER | NTF_EXT_LEARNED)
    return NeighbourMessage(ifindex, address, mac, bool(state & NUD_PERMANENT), protocol, state, kept)
