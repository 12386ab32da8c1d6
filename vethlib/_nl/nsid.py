"""Namespace ids on the wire: the number by which one network namespace knows another (net/core/net_namespace.c)."""

from __future__ import annotations

from struct import Struct
from typing import Final

from .const import NETNSA_FD, NETNSA_NSID, NLM_F_REQUEST, RTM_GETNSID
from .wire import Malformed, attribute, attributes, message

__all__ = ["get_nsid", "parse_nsid"]

_RTGENMSG: Final = b"\0\0\0\0"  # struct rtgenmsg: the family, padded
_U32: Final = Struct("=I")
_I32: Final = Struct("=i")


def get_nsid(netns_fd: int) -> bytes:
    """RTM_GETNSID: the id that the socket's namespace has for the one behind `netns_fd`."""
    return message(RTM_GETNSID, NLM_F_REQUEST, _RTGENMSG + attribute(NETNSA_FD, _U32.pack(netns_fd)))


def parse_nsid(body: bytes) -> int | None:
    """Read an RTM_NEWNSID: the id, or None where none was assigned (-1 on the wire). Raises Malformed."""
    for attr, start, end in attributes(body, len(_RTGENMSG), len(body)):
        if attr == NETNSA_NSID and end - start >= 4:
            nsid: int = _I32.unpack_from(body, start)[0]
            return nsid if nsid >= 0 else None
    raise Malformed("a namespace id message without an id")
