"""A socket that hears events: of its own namespace, or of every one that has an id there as well.

With NETLINK_LISTEN_ALL_NSID (Linux 4.2) a socket in one namespace gets what is multicast in every other one that has an
id there, and each datagram bears that id as a control message (do_one_broadcast and netlink_cmsg_listen_all_nsid in
net/netlink/af_netlink.c). An event is queued within the system call that causes it, so who reads until nothing is left
knows all that has happened so far.

That option has a price which those pay who cause events of that group, anywhere: for each such socket the kernel looks
for the id of their namespace among all that the socket's has (see nsid.py), twice if it finds one.

What does not fit the receive buffer is lost; recv() then says ENOBUFS, once, before it gives what was queued earlier.
From there on the kernel queues nothing until the queue has been read empty (NETLINK_S_CONGESTED), and says nothing of
it: so after ENOBUFS read on until nothing is left, and only then look at the state anew.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterable
from struct import Struct
from typing import Final

from .const import NETLINK_ADD_MEMBERSHIP, NETLINK_LISTEN_ALL_NSID, NETLINK_ROUTE, SOL_NETLINK

__all__ = ["OWN", "EventSocket"]

# Linux only; named here so that the module imports anywhere.
_AF_NETLINK: Final = 16
_SO_RCVBUFFORCE: Final = 33
_MSG_DONTWAIT: Final = 0x40
_MSG_TRUNC: Final = 0x20

_EVENT_SIZE: Final = 16384
"""An event of one link has some 900 bytes, and up to 132 more for each alternative name."""

_LEAST_COST: Final = 512  # of a receive buffer, for the shortest event (skb->truesize)

_I32: Final = Struct("=i")
_CONTROL_SIZE: Final = 24  # CMSG_SPACE(sizeof(int)), rounded up

OWN: Final = -1
"""The namespace that the socket itself is in, which has no id there."""


class EventSocket:
    """Hears groups (RTNLGRP_*) in its own namespace, with `everywhere` in all that have an id there, too. Never waits.

    `receive_buffer` is in bytes as the kernel counts them, some 2 300 for an event. Raises OSError when the socket
    cannot be had: PermissionError, for `everywhere`, without CAP_NET_BROADCAST.
    """

    __slots__ = ("_socket", "capacity")

    def __init__(self, groups: Iterable[int], receive_buffer: int, *, everywhere: bool = False) -> None:
        self._socket = socket.socket(_AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_ROUTE)
        try:
            self._configure(groups, receive_buffer, everywhere)
        except BaseException:
            self._socket.close()
            raise
        self.capacity = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // _LEAST_COST
        """More events than can be queued at one time."""

    def _configure(self, groups: Iterable[int], receive_buffer: int, everywhere: bool) -> None:
        option = self._socket.setsockopt
        if everywhere:
            option(SOL_NETLINK, NETLINK_LISTEN_ALL_NSID, 1)
        # The kernel doubles what it is given (sk_setsockopt).
        try:
            option(socket.SOL_SOCKET, _SO_RCVBUFFORCE, receive_buffer // 2)
        except PermissionError:
            option(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer // 2)  # capped at net.core.rmem_max
        # Events are not delivered to a socket without a port (do_one_broadcast skips the sender's, which is 0).
        self._socket.bind((0, 0))
        for group in groups:
            option(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, group)

    def fileno(self) -> int:
        """The file descriptor, for a poller."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close the socket; twice is harmless."""
        self._socket.close()

    def receive(self) -> tuple[int, bytes] | None:
        """(id of the namespace, datagram) of the next event, None when there is none now.

        The id is :data:`OWN` for the socket's own namespace. Raises OSError(ENOBUFS) when events were lost.
        """
        try:
            datagram, control, flags, _ = self._socket.recvmsg(_EVENT_SIZE, _CONTROL_SIZE, _MSG_DONTWAIT)
        except BlockingIOError:
            return None
        if flags & _MSG_TRUNC:
            raise OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS))
        # This socket option is the only one that adds a control message.
        return (_I32.unpack(control[0][2])[0] if control else OWN), datagram
