"""Opening sockets that only the kernel can answer.

A process with CAP_NET_ADMIN in a namespace, such as a tenant's, may send messages to every netlink socket there by its
port, which is usually the process id (netlink_autobind, net/netlink/af_netlink.c). So:

1. A socket is connected to the kernel, port 0, before it is used. From then on, messages to its port that another
   socket sends are refused (netlink_getsockbyportid). Multicasts are not: see `events.py`. (Connecting also gives the
   socket a port, without which it would receive no multicast: do_one_broadcast skips the sender's port, which is 0.)
2. A message could still arrive in the nanoseconds after the socket has got its port and before it counts as connected.
   So the first sequence number is not predictable, and answers with other numbers are ignored.
"""

from __future__ import annotations

import os
import sys
from struct import Struct
from typing import Final

from vethlib._primitives import socket

from .const import NETLINK_ROUTE, SO_NETNS_COOKIE

__all__ = ["cookie_of", "first_number", "open_socket"]

_AF_NETLINK: Final = 16  # Linux only; named here so that the module imports anywhere

_TO_THE_KERNEL: Final = (0, 0)
"""The address of the kernel: no port, no group."""

_NUMBERS: Final = Struct("=256I")
_unused: list[int] = []


def open_socket() -> socket.SocketType:
    """Return an rtnetlink socket of the calling thread's namespace, connected to the kernel."""
    # The bare type: the Python part of socket.socket costs 1 µs.
    sock = socket.SocketType(_AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_ROUTE)
    try:
        sock.connect(_TO_THE_KERNEL)
    except BaseException:
        sock.close()
        raise
    return sock


def cookie_of(sock: socket.SocketType) -> int:
    """Return the cookie of a socket's namespace, unique since the boot; 0 before Linux 5.14."""
    try:
        return int.from_bytes(sock.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8), sys.byteorder)
    except OSError:
        return 0


def first_number() -> int:
    """Return an unpredictable sequence number of 32 bits. There is one system call for 256 of them."""
    while True:
        try:
            return _unused.pop()
        except IndexError:
            _unused.extend(_NUMBERS.unpack(os.urandom(_NUMBERS.size)))
