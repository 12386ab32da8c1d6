"""Dumps the links and addresses of the calling thread's namespace through a socket that is used once.

This is for reading thousands of namespaces one after the other: a socket kept in a namespace would keep it alive.
:class:`.sock.RtnlSocket` is for everything else; its options, accounting and lock cost 10 µs more, as much as the
kernel needs for the answer.
"""

from __future__ import annotations

import errno
import os
from struct import Struct
from typing import Final

from vethlib._primitives import socket

from .addr import dump_addrs
from .const import NETLINK_ROUTE, NLM_F_DUMP_INTR, NLMSG_DONE, NLMSG_ERROR, SO_NETNS_COOKIE
from .counts import counts
from .link import dump_links, get_link, index_of
from .sock import RtnlSocket
from .torn import ENOUGH, union
from .wire import READ_SIZE, messages

_AF_NETLINK: Final = 16  # Linux only; named here so that the module imports anywhere
_PEEK: Final = socket.MSG_PEEK | socket.MSG_TRUNC
_I32: Final = Struct("=i")
_REQUEST: Final = dump_links()
_OF_ADDRESSES: Final = dump_addrs()


def link_bodies() -> list[bytes]:
    """Return the body of an RTM_NEWLINK for every link in the calling thread's namespace.

    If the table changes during each of a few dumps, they are merged (see :mod:`.torn`), without pauses, because the
    thread is in a foreign namespace. Raises OSError with the kernel's errno; Malformed.
    """
    measured = False
    torn: list[list[bytes]] = []
    while len(torn) < ENOUGH:
        # The bare type: the Python part of socket.socket costs 1 µs. A new one for each attempt: a dump that was not
        # read to its end, because part of it was cut, ends with its socket.
        sock = socket.SocketType(_AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_ROUTE)
        try:
            sock.send(_REQUEST)
            counts.requests += 1
            bodies, is_torn = _read(sock, measured)
        except _Cut:
            measured = True
            continue
        finally:
            sock.close()
        if not is_torn:
            return bodies
        torn.append(bodies)
    return _put_together(torn)


def all_bodies() -> tuple[bytes, list[bytes], list[bytes]] | None:
    """Return the cookie of the calling thread's namespace, and the body of every link and of every address in it.

    None if a table has changed while it was read, or an answer may have been cut: this is for a comparison with what is
    known, and the caller reads everything then. Raises as :func:`link_bodies`.
    """
    sock = socket.SocketType(_AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_ROUTE)
    try:
        tables: list[list[bytes]] = []
        for request in (_REQUEST, _OF_ADDRESSES):
            sock.send(request)
            counts.requests += 1
            bodies, torn = _read(sock, measured=False)
            if torn:
                return None
            tables.append(bodies)
        return _cookie(sock), tables[0], tables[1]
    except _Cut:
        return None
    finally:
        sock.close()


def _cookie(sock: socket.SocketType) -> bytes:
    try:
        return sock.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8)
    except OSError:
        return bytes(8)  # before Linux 5.14


def _put_together(torn: list[list[bytes]]) -> list[bytes]:
    """Merge torn dumps; each doubtful link is requested on its own."""
    found, doubtful = union(torn, index_of)
    sock = RtnlSocket()
    try:
        for index, outcome in zip(doubtful, sock.exchange([get_link(index) for index in doubtful]), strict=True):
            if outcome.errno == errno.ENODEV:
                del found[index]
            elif outcome.bodies:
                found[index] = outcome.bodies[0]
    finally:
        sock.close()
    return list(found.values())


class _Cut(Exception):
    """A part of the answer filled the buffer, so it may have been cut."""


def _read(sock: socket.SocketType, measured: bool) -> tuple[list[bytes], bool]:
    """Return a dump, and whether the table changed while it was read. Raises _Cut unless parts are `measured`."""
    bodies: list[bytes] = []
    torn = False
    while True:
        size = max(READ_SIZE, sock.recv_into(bytearray(1), 1, _PEEK)) if measured else READ_SIZE
        datagram = sock.recv(size)
        if len(datagram) == READ_SIZE and not measured:
            raise _Cut
        for kind, flags, _sequence, start, end in messages(datagram):
            torn = torn or bool(flags & NLM_F_DUMP_INTR)
            if kind in (NLMSG_DONE, NLMSG_ERROR):
                number = -_I32.unpack_from(datagram, start)[0]
                if number:
                    counts.refused(number)
                    raise OSError(number, os.strerror(number))
                return bodies, torn
            bodies.append(datagram[start:end])
