"""Cause events as fast as possible: links in the home namespace whose MTU changes."""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence

from .scene import MTU, OTHER_MTU

__all__ = ["BURST", "flap"]

BURST = 32  # the number of events that fit the default receive buffer of a listener
_MESSAGE = struct.Struct("=IHHIIBxHiIIHHI")  # nlmsghdr, ifinfomsg, IFLA_MTU
_RTM_SETLINK, _REQUEST, _REQUEST_AND_ACK, _IFLA_MTU = 19, 1, 5, 4


def flap(indexes: Sequence[int], start: int, stop: int) -> None:
    """Cause events `start` to `stop`, up to BURST, by changing the MTU of one link after another.

    The kernel sends one RTM_NEWLINK for each change, and has sent all of them when this returns.
    """
    messages = []
    for i in range(start, stop):
        turn, which = divmod(i, len(indexes))
        mtu = MTU if turn % 2 else OTHER_MTU
        flags = _REQUEST_AND_ACK if i == stop - 1 else _REQUEST
        header = (_MESSAGE.size, _RTM_SETLINK, flags, 0, 0)
        messages.append(_MESSAGE.pack(*header, 0, 0, indexes[which], 0, 0, 8, _IFLA_MTU, mtu))
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as rtnetlink:
        rtnetlink.send(b"".join(messages))
        (error,) = struct.unpack_from("=i", rtnetlink.recv(4096), 16)
    if error:
        raise OSError(-error, "no MTU could be set")
