"""Namespace ids on the wire: the number by which one network namespace knows another (net/core/net_namespace.c).

An id is private to the namespace that has it, is 0 or more, and ends with the namespace it stands for; nobody can take
it back (of RTM_*NSID the kernel serves NEW and GET only). To find the id of a namespace the kernel looks at all ids
there are, 20 ns each (__peernet2id): giving one out, asking for one, and delivering an event all cost that.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

from .const import NETNSA_FD, NETNSA_NSID, NETNSA_TARGET_NSID, NLM_F_REQUEST, RTM_GETNSID, RTM_NEWNSID
from .wire import Malformed, attribute, attributes, message

__all__ = ["get_nsid", "new_nsid", "parse_nsid", "translate_nsid"]

_RTGENMSG: Final = b"\0\0\0\0"  # struct rtgenmsg: the family, padded
_U32: Final = Struct("=I")
_I32: Final = Struct("=i")


def new_nsid(netns_fd: int, nsid: int) -> bytes:
    """RTM_NEWNSID: give the namespace behind `netns_fd` the id `nsid` in the socket's namespace.

    EEXIST: it has an id there already, or another namespace has this one.
    """
    return message(RTM_NEWNSID, NLM_F_REQUEST, _RTGENMSG + _attribute(NETNSA_FD, netns_fd) + _id(NETNSA_NSID, nsid))


def get_nsid(netns_fd: int) -> bytes:
    """RTM_GETNSID: the id that the socket's namespace has for the one behind `netns_fd`."""
    return message(RTM_GETNSID, NLM_F_REQUEST, _RTGENMSG + _attribute(NETNSA_FD, netns_fd))


def translate_nsid(nsid: int, target: int) -> bytes:
    """RTM_GETNSID: the id that namespace `target` has for namespace `nsid`; both are ids in the socket's namespace.

    Linux 5.0. ENOENT: `nsid` has ended. EINVAL: `target` has.
    """
    return message(RTM_GETNSID, NLM_F_REQUEST, _RTGENMSG + _id(NETNSA_NSID, nsid) + _id(NETNSA_TARGET_NSID, target))


def _attribute(kind: int, value: int) -> bytes:
    return attribute(kind, _U32.pack(value))


def _id(kind: int, value: int) -> bytes:
    return attribute(kind, _I32.pack(value))


def parse_nsid(body: bytes) -> int | None:
    """Read an RTM_NEWNSID or RTM_DELNSID: the id, None where none was assigned (-1 on the wire). Raises Malformed."""
    for attr, start, end in attributes(body, len(_RTGENMSG), len(body)):
        if attr == NETNSA_NSID and end - start >= 4:
            nsid: int = _I32.unpack_from(body, start)[0]
            return nsid if nsid >= 0 else None
    raise Malformed("a namespace id message without an id")
