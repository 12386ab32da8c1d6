"""Dependents of a link, on the wire: its master, queueing disciplines, and programs.

struct tcmsg is from include/uapi/linux/rtnetlink.h.
"""

from __future__ import annotations

from struct import Struct
from typing import Final, NamedTuple

from vethlib._nl.const import (
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


class Mounted(NamedTuple):
    """Dependents in an RTM_NEWLINK: the ifindex of the master (0: none), and whether an XDP program is attached."""

    master: int
    xdp: bool


def parse_mounted(body: bytes) -> Mounted:
    """Read the body of an RTM_NEWLINK message. Raises Malformed."""
    if len(body) < 16:
        raise Malformed(f"a link message of {len(body)} bytes")
    master, xdp = 0, False
    for attr, start, end in attributes_of(body, 16):
        if attr == IFLA_MASTER and end - start >= 4:
            master = _U32.unpack_from(body, start)[0]
        elif attr == IFLA_XDP:
            inner = attributes(body, start, end)
            xdp = any(kind == IFLA_XDP_ATTACHED and any(body[at:to]) for kind, at, to in inner)
    return Mounted(master, xdp)


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
