"""netem, the queueing discipline that makes a link slow and lossy, on the wire (net/sched/sch_netem.c).

struct tcmsg and TCA_* are from include/uapi/linux/rtnetlink.h, struct tc_netem_qopt and TCA_NETEM_* from pkt_sched.h.

1. The options are a struct, followed by attributes. A change replaces what is in the struct, but an attribute that is
   missing keeps its value, so all are sent every time.
2. Probabilities are fractions of 2^32 - 1. Times are sent in nanoseconds as attributes (Linux 4.15); the unit of those
   in the struct depends on the kernel.
3. The kernel has two ways of reordering. With a gap of 1, each packet is sent at once with the given probability, and
   the others are delayed.
4. RTM_NEWQDISC for the root creates the discipline, changes it if it is of the same kind, and replaces it otherwise.
"""

from __future__ import annotations

from struct import Struct
from typing import Final, NamedTuple

from vethlib._nl.const import (
    NLM_F_CREATE,
    NLM_F_REPLACE,
    NLM_F_REQUEST,
    RTM_DELQDISC,
    RTM_NEWQDISC,
    TC_H_ROOT,
    TCA_KIND,
    TCA_OPTIONS,
)
from vethlib._nl.wire import attribute, attributes, attributes_of, message
from vethlib.errors import Malformed

__all__ = ["KIND", "LIMIT", "Netem", "delete_root", "parse_netem", "set_netem"]

KIND: Final = "netem"
LIMIT: Final = 1000
"""The number of packets that may wait, by default."""

_TCMSG: Final = Struct("=BxxxiIII")  # family, ifindex, handle, parent, info
_QOPT: Final = Struct("=IIIIII")  # latency, limit, loss, gap, duplicate, jitter
_U32: Final = Struct("=I")
_I64: Final = Struct("=q")
_U64: Final = Struct("=Q")
_REORDER: Final = Struct("=II")  # probability, correlation
_RATE: Final = Struct("=IiIi")  # bytes per second, packet overhead, cell size, cell overhead

_TCA_NETEM_REORDER = 3
_TCA_NETEM_RATE = 6
_TCA_NETEM_RATE64 = 8
_TCA_NETEM_LATENCY64 = 10
_TCA_NETEM_JITTER64 = 11

_CERTAIN: Final = 0xFFFF_FFFF
_U32_MAX: Final = 0xFFFF_FFFF


class Netem(NamedTuple):
    """The settings: times in nanoseconds, probabilities from 0 to 1, the rate in bytes per second (0: unlimited)."""

    latency: int = 0
    jitter: int = 0
    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    rate: int = 0
    limit: int = LIMIT


def set_netem(index: int, netem: Netem) -> bytes:
    """RTM_NEWQDISC: make netem the root discipline of a link, or change it. ENOENT: this kernel has no netem."""
    gap = 1 if netem.reorder else 0
    options = _QOPT.pack(0, netem.limit, _fraction(netem.loss), gap, _fraction(netem.duplicate), 0)
    options += attribute(_TCA_NETEM_LATENCY64, _I64.pack(netem.latency))
    options += attribute(_TCA_NETEM_JITTER64, _I64.pack(netem.jitter))
    options += attribute(_TCA_NETEM_REORDER, _REORDER.pack(_fraction(netem.reorder), 0))
    if netem.rate > _U32_MAX:
        options += attribute(_TCA_NETEM_RATE64, _U64.pack(netem.rate))
    options += attribute(_TCA_NETEM_RATE, _RATE.pack(min(netem.rate, _U32_MAX), 0, 0, 0))
    body = _TCMSG.pack(0, index, 0, TC_H_ROOT, 0)
    body += attribute(TCA_KIND, KIND.encode() + b"\0") + attribute(TCA_OPTIONS, options)
    return message(RTM_NEWQDISC, NLM_F_REQUEST | NLM_F_CREATE | NLM_F_REPLACE, body)


def delete_root(index: int) -> bytes:
    """RTM_DELQDISC: give a link its default root discipline again. ENOENT: it already has that."""
    return message(RTM_DELQDISC, NLM_F_REQUEST, _TCMSG.pack(0, index, 0, TC_H_ROOT, 0))


def parse_netem(body: bytes, index: int) -> Netem | None:
    """Read the body of an RTM_NEWQDISC; None unless it is netem and the root of link `index`. Raises Malformed."""
    if len(body) < _TCMSG.size:
        raise Malformed(f"a qdisc message of {len(body)} bytes")
    _family, ifindex, _handle, parent, _info = _TCMSG.unpack_from(body)
    if ifindex != index or parent != TC_H_ROOT:
        return None
    kind, options = b"", None
    for attr, start, end in attributes_of(body, _TCMSG.size):
        if attr == TCA_KIND:
            kind = body[start:end].rstrip(b"\0")
        elif attr == TCA_OPTIONS:
            options = start, end
    if kind != KIND.encode() or options is None:
        return None
    return _parse_options(body, *options)


def _parse_options(body: bytes, start: int, end: int) -> Netem:
    if end - start < _QOPT.size:
        raise Malformed(f"options of netem of {end - start} bytes")
    _latency, limit, loss, gap, duplicate, _jitter = _QOPT.unpack_from(body, start)
    latency = jitter = rate = 0
    reorder = 0.0
    for attr, first, last in attributes(body, start + _QOPT.size, end):
        size = last - first
        if attr == _TCA_NETEM_LATENCY64 and size >= _I64.size:
            latency = _I64.unpack_from(body, first)[0]
        elif attr == _TCA_NETEM_JITTER64 and size >= _I64.size:
            jitter = _I64.unpack_from(body, first)[0]
        elif attr == _TCA_NETEM_REORDER and size >= _REORDER.size and gap:
            reorder = _REORDER.unpack_from(body, first)[0] / _CERTAIN
        elif attr == _TCA_NETEM_RATE and size >= _RATE.size:
            rate = rate or _RATE.unpack_from(body, first)[0]
        elif attr == _TCA_NETEM_RATE64 and size >= _U64.size:
            rate = _U64.unpack_from(body, first)[0]
    return Netem(latency, jitter, loss / _CERTAIN, duplicate / _CERTAIN, reorder, rate, limit)


def _fraction(probability: float) -> int:
    return round(probability * _CERTAIN)
