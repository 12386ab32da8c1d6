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
from .const import NLM_F_ACK, NLM_F_DUMP_INTR, NLMSG_DONE, NLMSG_ERROR, NLMSG_MIN_TYPE
from .counts import counts
from .opening import cookie_of, first_number, open_socket
from .wire import HEADER, READ_SIZE

__all__ = ["ParseAlike", "ask", "ask_once", "change", "change_and_ask", "dump", "room_for_next"]

_pack_number: Final = Struct("=I").pack_into
_I32: Final = Struct("=i")
_FLAGS_AT: Final = 6
_TYPE_TO_PORT: Final = slice(4, 16)  # of a header: all but the length of the message
_NUMBER_AND_PORT: Final = slice(SEQUENCE_AT, 16)
_unpack_flags: Final = Struct("=H").unpack_from
_pack_flags: Final = Struct("=H").pack_into
_read_ack: Final = Struct("=IH2xI4xi").unpack_from
_read_header: Final = HEADER.unpack_from


def ask(sock: socket.SocketType, number: int, question: bytes) -> bytes | Outcome | None:
    """Send a question; return the body of its answer, or its outcome if there is no such link; otherwise None.

    That outcome (ENODEV) is not counted as a refusal.
    """
    data = bytearray(question)
    _pack_number(data, SEQUENCE_AT, number)
    sock.send(data)
    try:
        datagram = sock.recv(READ_SIZE)
        length, kind, flags, sequence, _port = _read_header(datagram)
        if sequence != number or length != len(datagram):
            return None
        if kind == NLMSG_ERROR:
            missing = _I32.unpack_from(datagram, 16)[0] == -errno.ENODEV
            return Outcome(errno.ENODEV, extack(kind, flags, datagram, 16, length)) if missing else None
    except (OSError, *UNREADABLE):
        return None
    if kind < NLMSG_MIN_TYPE:
        return None
    counts.requests += 1
    return datagram[16:]


def ask_once(question: bytes) -> tuple[bytes | None, int]:
    """Ask in the namespace of the calling thread, with a socket for this question alone.

    Returns the answer, or None, and the cookie of the namespace. This takes 8 µs less than opening, using and closing
    an RtnlSocket.
    """
    sock = open_socket()
    try:
        answer, cookie = ask(sock, first_number(), question), cookie_of(sock)
    finally:
        sock.close()
    return answer if isinstance(answer, bytes) else None, cookie


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
    # The answer to any change that was not made would have come first.
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


_PEEK: Final = socket.MSG_PEEK | socket.MSG_TRUNC


def room_for_next(sock: socket.SocketType, flags: int = 0) -> int:
    """Return how many bytes to receive so that the next datagram, of any size, is not cut. This takes 1 µs."""
    return max(READ_SIZE, sock.recv_into(bytearray(1), 1, flags | _PEEK))


def _receive(sock: socket.SocketType) -> bytes:
    """Receive a datagram; b"" if answers were lost."""
    try:
        return sock.recv(READ_SIZE)
    except OSError as error:
        if error.errno != errno.ENOBUFS:
            raise
        return b""


ParseAlike: TypeAlias = Callable[[bytes, int, int, Any], list[Any]]
"""Given a datagram, the start and the end of a message in it, and that message as parsed: parse those that follow it.

All have the same header. It may stop at any of them.
"""

_PASSED_OVER: Final = 8  # messages for which the kernel takes as long as reading one message takes in total
_WORTH_ANOTHER: Final = 8  # messages parsed at once; an attempt unpacks the whole datagram, which may be in vain


def dump(
    sock: socket.SocketType,
    number: int,
    request: bytes,
    parse: Callable[[bytes], Any],
    parse_alike: ParseAlike | None = None,
    most: int | None = None,
    marks: Sequence[bytes] = (),
) -> Outcome | None:
    """Dump a table, and parse each message as it arrives; EAGAIN if the table changed meanwhile.

    None if an answer is unusual; then the rest of the dump may still be queued. With more than `most` messages, stop,
    with EFBIG and those that were read; then only closing the socket ends the dump.

    If there are `marks`, datagrams that contain none of them are not divided into messages; an eighth of their messages
    counts towards `most`.
    """
    data = bytearray(request)
    _pack_number(data, SEQUENCE_AT, number)
    sock.send(data)
    counts.requests += 1
    bodies: list[Any] = []
    add, receive, read_header = bodies.append, sock.recv, _read_header
    torn = passed_over = 0
    try:
        while True:
            room = READ_SIZE if most is None else room_for_next(sock)
            datagram = receive(room)
            size, start, parse_more = len(datagram), 0, parse_alike
            if size == READ_SIZE and most is None:
                return None  # it may have been cut
            if marks and (count := _not_meant(datagram, number, marks)):
                passed_over += count
                start = size
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
            if most is not None and len(bodies) + passed_over // _PASSED_OVER > most:
                return Outcome(errno.EFBIG, f"there are more than {most}", bodies)
    except (OSError, *UNREADABLE):
        return None


def _not_meant(datagram: bytes, number: int, marks: Sequence[bytes]) -> int:
    """Return how many messages a part of a dump has if they need not be read; 0 means that they must be read.

    They must have the same type and flags: the end of the dump, and the note that it is torn, are always read.
    """
    if any(mark in datagram for mark in marks):
        return 0
    _length, kind, flags, sequence, _port = _read_header(datagram)
    if kind < NLMSG_MIN_TYPE or flags & NLM_F_DUMP_INTR or sequence != number:
        return 0
    alike = datagram.count(datagram[_TYPE_TO_PORT])
    return alike if alike == datagram.count(datagram[_NUMBER_AND_PORT]) else 0


def _end_of_dump(message: bytes, kind: int, flags: int, bodies: list[Any], *, is_torn: bool) -> Outcome:
    """Return the outcome of a dump, given the message that ends it."""
    if error := -_I32.unpack_from(message, 16)[0]:
        counts.refused(error)
        return Outcome(error, extack(kind, flags, message, 16, len(message)))
    return Outcome(errno.EAGAIN, "the table changed during a dump", bodies) if is_torn else outcome_of((0, "", bodies))
