"""All links of the namespace the calling thread is in, through a socket that lives for this one question.

For looking into thousands of namespaces, one after the other: a socket kept in any of them would keep it alive.
:class:`.sock.RtnlSocket` answers everything else; with its options, its account and its lock it costs 10 µs more, as
much as the kernel needs to answer.
"""

from __future__ import annotations

import errno
import os
import socket
from struct import Struct
from typing import Final

from .batch import DUMP_ATTEMPTS
from .const import NETLINK_ROUTE, NLM_F_DUMP_INTR, NLMSG_DONE, NLMSG_ERROR
from .counts import counts
from .link import dump_links
from .wire import messages

__all__ = ["link_bodies"]

_AF_NETLINK: Final = 16  # Linux only; named here so that the module imports anywhere
_READ_SIZE: Final = 65536  # see sock.py
_I32: Final = Struct("=i")
_REQUEST: Final = dump_links()


def link_bodies() -> list[bytes]:
    """The body of an RTM_NEWLINK for every link here. Raises OSError: what the kernel refused, EAGAIN if torn again."""
    # The bare type: what socket.socket adds in Python costs 1 µs.
    sock = socket.SocketType(_AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_ROUTE)
    try:
        for _ in range(DUMP_ATTEMPTS):
            sock.send(_REQUEST)
            counts.requests += 1
            if (bodies := _read(sock)) is not None:
                return bodies
    finally:
        sock.close()
    raise OSError(errno.EAGAIN, f"the table changed during each of {DUMP_ATTEMPTS} dumps")


def _read(sock: socket.SocketType) -> list[bytes] | None:
    """The answer to a dump; None if the table changed while it was read."""
    bodies: list[bytes] = []
    torn = False
    while True:
        datagram = sock.recv(_READ_SIZE)
        for kind, flags, _sequence, start, end in messages(datagram):
            torn = torn or bool(flags & NLM_F_DUMP_INTR)
            if kind in (NLMSG_DONE, NLMSG_ERROR):
                number = -_I32.unpack_from(datagram, start)[0]
                if number:
                    counts.refused(number)
                    raise OSError(number, os.strerror(number))
                return None if torn else bodies
            bodies.append(datagram[start:end])
