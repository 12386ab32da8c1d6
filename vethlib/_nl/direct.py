"""Four exchanges without an account, for the answers that usually arrive; others are left to :mod:`.batch`.

Each takes the socket and the sequence number of its first message. What is sent here is a question, which can be sent
again, or changes together with the number under which :class:`.batch.Exchange` can account for them.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from struct import Struct
from struct import error as struct_error
from typing import Any, Final, TypeAlias

from vethlib._primitives import socket

from .batch import SEQUENCE_AT, UNREADABLE, Outcome, extack, outcome_of
from .const import NETLINK_ROUTE, NLM_F_ACK, NLM_F_DUMP_INTR, NLMSG_DONE, NLMSG_ERROR, NLMSG_MIN_TYPE
from .counts import counts
from .wire import HEADER, READ_SIZE

__all__ = ["ParseAlike", "ask", "ask_once", "change", "change_and_ask", "dump"]

_AF_NETLINK: Final = 16  # Linux only; named here so that the module imports anywhere
_pack_number: Final = Struct("=I").pack_into
_I32: Final = Struct("=i")
_FLAGS_AT: Final = 6
_unpack_flags: Final = Struct("=H").unpack_from
_pack_flags: Final = Struct("=H").pack_into
_read_ack: Final = Struct("=IH2xI4xi").unpack_from
_read_header: Final = HEADER.unpack_from


def ask(sock: socket.SocketType, number: int, question: bytes) -> bytes | None:
    """Send a question; return the body of its answer, None unless that is the next message."""
    data = bytearray(question)
    _pack_number(data, SEQUENCE_AT, number)
    sock.send(data)
    try:
        datagram = sock.recv(READ_SIZE)
        length, kind, _flags, sequence, _port = _read_header(datagram)
    except (OSError, struct_error):
        return None
    if kind >= NLMSG_MIN_TYPE and sequence == number and length == len(datagram):
        counts.requests += 1
        return datagram[16:]
    return None


def ask_once(question: bytes) -> bytes | None:
    """Do as :func:`ask` in the namespace of the calling thread, with a socket for this question alone.

    That takes 8 µs less than opening, using and closing an RtnlSocket.
    """
    sock = socket.SocketType(_AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_ROUTE)
    try:
        return ask(sock, 1, question)
    finally:
        sock.close()


def change(sock: socket.SocketType, number: int, requests: Sequence[bytes]) -> bytes | None:
    """Send changes in one datagram, and receive one; return None if it is the ack of the last: then all were made.

    Otherwise, return the datagram, b"" if none was received. All answers must fit the receive buffer.
    """
    data = bytearray().join(requests)
    start = end = 0
    for request in requests:
        start, end = end, end + len(request)
        _pack_number(data, start + SEQUENCE_AT, number)
        number = (number + 1) & 0xFFFF_FFFF
    (flags,) = _unpack_flags(data, start + _FLAGS_AT)
    _pack_flags(data, start + _FLAGS_AT, flags | NLM_F_ACK)
    sock.send(data)
    counts.requests += len(requests)
    datagram = _receive(sock)
    try:
        length, kind, sequence, error = _read_ack(datagram)
    except struct_error:
        return datagram
    # Any change that was not made is answered before.
    is_ack = kind == NLMSG_ERROR and sequence == (number - 1) & 0xFFFF_FFFF and length == len(datagram)
    return None if is_ack and not error else datagram


def change_and_ask(sock: socket.SocketType, number: int, change: bytes, question: bytes) -> tuple[bytes | None, bytes]:
    """Send a change and a question in one datagram, and receive one.

    Return the body of the answer if the change was made, otherwise None, and the datagram, b"" if none was received.
    """
    second = (number + 1) & 0xFFFF_FFFF
    data = bytearray(change + question)
    _pack_number(data, SEQUENCE_AT, number)
    _pack_number(data, len(change) + SEQUENCE_AT, second)
    sock.send(data)
    counts.requests += 2
    datagram = _receive(sock)
    try:
        length, kind, _flags, sequence, _port = _read_header(datagram)
    except struct_error:
        return None, datagram
    # A change that was made is not answered.
    if kind >= NLMSG_MIN_TYPE and sequence == second and length == len(datagram):
        return datagram[16:], datagram
    return None, datagram


def _receive(sock: socket.SocketType) -> bytes:
    """Receive a datagram; b"" if answers were lost."""
    try:
        return sock.recv(READ_SIZE)
    except OSError as error:
        if error.errno != errno.ENOBUFS:
            raise
        return b""


ParseAlike: TypeAlias = Callable[[bytes, int, int, Any], list[Any]]
"""Given a datagram, the start and the end of a message in it, and that message as parsed: parse those that follow.

All have the same header. It may stop at any of them.
"""

_WORTH_ANOTHER: Final = 8  # messages parsed so; an attempt unpacks the whole datagram, which may be in vain


def dump(
    sock: socket.SocketType,
    number: int,
    request: bytes,
    parse: Callable[[bytes], Any],
    parse_alike: ParseAlike | None = None,
) -> Outcome | None:
    """Dump a table, and parse each message as it arrives; EAGAIN if the table changed meanwhile.

    None if an answer is not as usual; then the rest of the dump may still be queued.
    """
    data = bytearray(request)
    _pack_number(data, SEQUENCE_AT, number)
    sock.send(data)
    counts.requests += 1
    bodies: list[Any] = []
    add, receive, read_header = bodies.append, sock.recv, _read_header
    torn = 0
    try:
        while True:
            datagram = receive(READ_SIZE)
            size, start, parse_more = len(datagram), 0, parse_alike
            if size == READ_SIZE:
                return None  # it may have been cut
            while start < size:
                length, kind, flags, sequence, _port = read_header(datagram, start)
                end = start + length
                if sequence != number or length < 16 or end > size:
                    return None
                torn |= flags & NLM_F_DUMP_INTR
                if kind >= NLMSG_MIN_TYPE:
                    add(parse(datagram[start + 16 : end]))
                    if parse_more is not None and datagram[end : end + 16] == datagram[start : start + 16]:
                        more = parse_more(datagram, start, end, bodies[-1])
                        bodies += more
                        end += length * len(more)
                        if len(more) < _WORTH_ANOTHER:
                            parse_more = None
                elif kind in (NLMSG_DONE, NLMSG_ERROR):
                    return _end_of_dump(datagram[start:end], kind, flags, bodies, is_torn=bool(torn))
                start = (end + 3) & ~3
    except (OSError, *UNREADABLE):
        return None


def _end_of_dump(message: bytes, kind: int, flags: int, bodies: list[Any], *, is_torn: bool) -> Outcome:
    """Return the outcome of a dump, given the message that ends it."""
    if error := -_I32.unpack_from(message, 16)[0]:
        counts.refused(error)
        return Outcome(error, extack(kind, flags, message, 16, len(message)), ())
    return Outcome(errno.EAGAIN, "the table changed during a dump", bodies) if is_torn else outcome_of((0, "", bodies))
