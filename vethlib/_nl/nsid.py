"""Namespace ids on the wire: numbers by which a network namespace identifies others (net/core/net_namespace.c).

An id (0 or more) is private to the namespace that has assigned it, and ends with the namespace that it identifies. It
cannot be removed (of RTM_*NSID, the kernel has only NEW and GET). To find the id of a namespace, the kernel searches
all ids, at 20 ns each (__peernet2id): assigning an id, asking for one, and delivering an event all cost that.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

from vethlib.errors import Malformed

from .const import NETNSA_FD, NETNSA_NSID, NETNSA_TARGET_NSID, NLM_F_REQUEST, RTM_GETNSID, RTM_NEWNSID
from .wire import attribute, attributes, message

_RTGENMSG: Final = b"\0\0\0\0"  # struct rtgenmsg: the family, padded
_U32: Final = Struct("=I")
_I32: Final = Struct("=i")


def new_nsid(netns_fd: int, nsid: int) -> bytes:
    """RTM_NEWNSID: assign the id `nsid` in the socket's namespace to the namespace open as `netns_fd`.

    EEXIST: it already has an id there, or another namespace has this one.
    """
    return message(RTM_NEWNSID, NLM_F_REQUEST, _RTGENMSG + _attribute(NETNSA_FD, netns_fd) + _id(NETNSA_NSID, nsid))


def get_nsid(netns_fd: int) -> bytes:
    """RTM_GETNSID: the id in the socket's namespace of the namespace open as `netns_fd`."""
    return message(RTM_GETNSID, NLM_F_REQUEST, _RTGENMSG + _attribute(NETNSA_FD, netns_fd))


def probe_nsid(nsid: int) -> bytes:
    """RTM_GETNSID: whether the namespace that has this id in the socket's own is alive. ENOENT: it is ending.

    Linux 5.0; EINVAL before.
    """
    return message(RTM_GETNSID, NLM_F_REQUEST, _RTGENMSG + _id(NETNSA_NSID, nsid))


def translate_nsid(nsid: int, target: int) -> bytes:
    """RTM_GETNSID: the id in namespace `target` of namespace `nsid`; both are ids in the socket's namespace.

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
