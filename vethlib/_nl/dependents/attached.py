"""Dependents of a link, on the wire: its master, queueing disciplines, programs, and settings.

struct tcmsg is from include/uapi/linux/rtnetlink.h.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from socket import AF_INET6, inet_ntop
from struct import Struct
from typing import Final, NamedTuple

from vethlib._nl.const import (
    IFF_ALLMULTI,
    IFF_DEBUG,
    IFF_DYNAMIC,
    IFF_MULTICAST,
    IFF_NOARP,
    IFF_NOTRAILERS,
    IFF_PROMISC,
    IFLA_AF_SPEC,
    IFLA_BROADCAST,
    IFLA_GRO_IPV4_MAX_SIZE,
    IFLA_GRO_MAX_SIZE,
    IFLA_GSO_MAX_SEGS,
    IFLA_INET6_TOKEN,
    IFLA_LINKMODE,
    IFLA_MASTER,
    IFLA_XDP,
    IFLA_XDP_ATTACHED,
    NLM_F_DUMP,
    NLM_F_REQUEST,
    RTM_GETQDISC,
    TCA_KIND,
)
from vethlib._nl.wire import attributes, attributes_of, message
from vethlib.errors import Malformed

_U32: Final = Struct("=I")
_TCMSG: Final = Struct("=BxxxiIII")  # family, ifindex, handle, parent, info


# The flags that programs set (__dev_change_flags, net/core/dev.c), as `ip link set` names them. IFF_PROMISC and
# IFF_ALLMULTI do not show what a bridge or a socket needs (dev_get_flags).
_FLAGS: Final = {
    IFF_DEBUG: "debug",
    IFF_NOTRAILERS: "trailers",
    IFF_NOARP: "arp",
    IFF_PROMISC: "promisc",
    IFF_ALLMULTI: "allmulticast",
    IFF_MULTICAST: "multicast",
    IFF_DYNAMIC: "dynamic",
}
_NEGATIVE: Final = IFF_NOTRAILERS | IFF_NOARP
_FLAGS_OF_A_NEW: Final = IFF_MULTICAST  # those of the above that a new veth has

_LINK_MODES: Final = ("default", "dormant", "testing")


def _number(payload: bytes) -> str:
    return str(int.from_bytes(payload, sys.byteorder))


def _link_mode(payload: bytes) -> str:
    return dict(enumerate(_LINK_MODES)).get(payload[0], _number(payload))


# As `ip link set` names them, with the value of a new veth. vethlib itself sets none of them.
_SETTINGS: Final[Mapping[int, tuple[str, Callable[[bytes], str], bytes]]] = {
    IFLA_BROADCAST: ("broadcast", lambda payload: payload.hex(":"), b"\xff" * 6),
    IFLA_LINKMODE: ("mode", _link_mode, b"\0"),
    IFLA_GSO_MAX_SEGS: ("gso_max_segs", _number, _U32.pack(65535)),
    IFLA_GRO_MAX_SIZE: ("gro_max_size", _number, _U32.pack(65536)),
    IFLA_GRO_IPV4_MAX_SIZE: ("gro_ipv4_max_size", _number, _U32.pack(65536)),
}


class Mounted(NamedTuple):
    """Dependents in an RTM_NEWLINK: the ifindex of the master (0: none), and whether an XDP program is attached.

    `settings` are those that differ from a new veth's and that vethlib does not set, as `ip link set` words them;
    `token` is the IPv6 token of the link, or "".
    """

    master: int
    xdp: bool
    settings: tuple[str, ...] = ()
    token: str = ""


def parse_mounted(body: bytes) -> Mounted:
    """Read the body of an RTM_NEWLINK message. Raises Malformed."""
    if len(body) < 16:
        raise Malformed(f"a link message of {len(body)} bytes")
    master, xdp, token = 0, False, ""
    settings = list(_changed_flags(_U32.unpack_from(body, 8)[0]))
    for attr, start, end in attributes_of(body, 16):
        if attr == IFLA_MASTER and end - start >= 4:
            master = _U32.unpack_from(body, start)[0]
        elif attr == IFLA_XDP:
            inner = attributes(body, start, end)
            xdp = any(kind == IFLA_XDP_ATTACHED and any(body[at:to]) for kind, at, to in inner)
        elif attr == IFLA_AF_SPEC:
            token = _token(body, start, end)
        elif attr in _SETTINGS:
            name, words, of_a_new = _SETTINGS[attr]
            # In a very large message, any bytes may pass for this attribute, of any size (see wire.py, rule 6).
            if end - start == len(of_a_new) and body[start:end] != of_a_new:
                settings.append(f"{name} {words(body[start:end])}")
    return Mounted(master, xdp, tuple(settings), token)


def _changed_flags(flags: int) -> Iterator[str]:
    for flag, name in _FLAGS.items():
        if (flags ^ _FLAGS_OF_A_NEW) & flag:
            yield f"{name} {'on' if bool(flags & flag) != bool(_NEGATIVE & flag) else 'off'}"


def _token(body: bytes, start: int, end: int) -> str:
    """Return the token in IFLA_AF_SPEC. The kernel leaves it out with the statistics (inet6_fill_ifla6_attrs)."""
    try:
        for family, first, last in attributes(body, start, end):
            if family == AF_INET6:
                for attr, at, to in attributes(body, first, last):
                    if attr == IFLA_INET6_TOKEN and to - at == 16 and any(body[at:to]):
                        return inet_ntop(AF_INET6, body[at:to])
    except Malformed:
        pass  # in a very large message, IFLA_AF_SPEC itself may be cut (see wire.py, rule 6)
    return ""


class Qdisc(NamedTuple):
    """A queueing discipline: its link, its parent, and its kind."""

    ifindex: int
    parent: int
    kind: str


def dump_qdiscs() -> bytes:
    """RTM_GETQDISC of every link of a namespace: the kernel does not filter (tc_dump_qdisc, net/sched/sch_api.c)."""
    return message(RTM_GETQDISC, NLM_F_REQUEST | NLM_F_DUMP, _TCMSG.pack(0, 0, 0, 0, 0))


def parse_qdisc(body: bytes) -> Qdisc:
    """Read the body of an RTM_NEWQDISC message. Raises Malformed."""
    if len(body) < _TCMSG.size:
        raise Malformed(f"a qdisc message of {len(body)} bytes")
    _family, index, _handle, parent, _info = _TCMSG.unpack_from(body)
    found = attributes_of(body, _TCMSG.size)
    kinds = [body[start:end].rstrip(b"\0").decode("ascii", "replace") for attr, start, end in found if attr == TCA_KIND]
    return Qdisc(index, parent, kinds[0] if kinds else "")
