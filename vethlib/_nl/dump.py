"""Dump the links and addresses of the calling thread's namespace through a socket that is used once.

This is for reading thousands of namespaces one after another: a socket kept in a namespace would keep it alive.
:class:`.sock.RtnlSocket` is for everything else; its options, accounting and lock cost 10 µs more, as much as the
kernel needs for the answer.
"""

from __future__ import annotations

import errno
import os
import sys
from struct import Struct
from typing import Final

from vethlib._primitives import socket

from .addr import dump_addrs, is_ip
from .batch import SEQUENCE_AT
from .const import NLM_F_DUMP_INTR, NLMSG_DONE, NLMSG_ERROR
from .counts import counts
from .direct import room_for_next
from .link import dump_links, get_link, index_of
from .opening import cookie_of, first_number, open_socket
from .sock import RtnlSocket
from .torn import ENOUGH, union
from .wire import READ_SIZE, messages

_I32: Final = Struct("=i")
_U32: Final = Struct("=I")
_NUMBER: Final = slice(SEQUENCE_AT, SEQUENCE_AT + 4)
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
        # A new one for each attempt: a dump that was not read to its end, because part of it was cut, ends with its
        # socket.
        sock = open_socket()
        try:
            bodies, is_torn = _dump(sock, _REQUEST, measured=measured)
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
    """Return the cookie of the calling thread's namespace, and the body of every link and every IP address in it.

    None if a table has changed while it was read, or an answer may have been cut: this is for a comparison with what is
    known, and the caller reads everything then. Raises as :func:`link_bodies`.
    """
    sock = open_socket()
    try:
        tables: list[list[bytes]] = []
        for request in (_REQUEST, _OF_ADDRESSES):
            bodies, torn = _dump(sock, request, measured=False)
            if torn:
                return None
            tables.append(bodies)
        return _cookie(sock), tables[0], list(filter(is_ip, tables[1]))
    except _Cut:
        return None
    finally:
        sock.close()


def netns_cookie() -> bytes:
    """Return the cookie of the calling thread's namespace, unique since the boot; zeros before Linux 5.14."""
    sock = open_socket()
    try:
        return _cookie(sock)
    finally:
        sock.close()


def _cookie(sock: socket.SocketType) -> bytes:
    return cookie_of(sock).to_bytes(8, sys.byteorder)


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


def _dump(sock: socket.SocketType, request: bytes, *, measured: bool) -> tuple[list[bytes], bool]:
    """Return a dump, and whether the table changed while it was read. Raises _Cut unless parts are `measured`."""
    data, expected = bytearray(request), _U32.pack(first_number())
    data[_NUMBER] = expected
    sock.send(data)
    counts.requests += 1
    bodies: list[bytes] = []
    torn = False
    while True:
        size = room_for_next(sock) if measured else READ_SIZE
        datagram = sock.recv(size)
        if len(datagram) == READ_SIZE and not measured:
            raise _Cut
        if datagram[_NUMBER] != expected:
            continue  # not an answer to this question; all messages of a datagram have one sender
        for kind, flags, _sequence, start, end in messages(datagram):
            torn = torn or bool(flags & NLM_F_DUMP_INTR)
            if kind in (NLMSG_DONE, NLMSG_ERROR):
                number = -_I32.unpack_from(datagram, start)[0]
                if number:
                    counts.refused(number)
                    raise OSError(number, os.strerror(number))
                return bodies, torn
            bodies.append(datagram[start:end])
