"""The exchange of many requests for their outcomes, without I/O.

Theory of operation:

1. The kernel handles the messages of one datagram in order, inside the system call that sends it; when ``send()``
   returns, every answer except those of a dump is queued (netlink_rcv_skb in net/netlink/af_netlink.c).
2. Success is silent unless NLM_F_ACK requests an ack; failure is always answered. So only the last message of a chunk
   requests an ack, unless it is answered with an object anyway: when its answer arrives, all earlier requests that
   were not answered with an error have succeeded.
3. A chunk is sent at once. It is cut so that it fits into a datagram, and all its answers into the receive buffer even
   if every request is answered (an answer that does not fit is lost, and recv() fails with ENOBUFS).
4. A dump is answered while it is read and ends with NLMSG_DONE. A second dump at the same time is refused (EBUSY), so a
   dump ends its chunk.
5. NLM_F_DUMP_INTR on any part means that the table changed while it was read: the dump is torn and sent again, up to
   `DUMP_ATTEMPTS` times, or the number requested. Then it fails with EAGAIN and the content of the last attempt, which
   `torn.py` makes use of.
6. Each request has its own sequence number. An answer with an unknown one belongs to an exchange that was interrupted;
   it is dropped.
7. If answers are lost all the same (:meth:`Exchange.overran`), the ack of a no-op (`barrier`) follows the last answer
   that survived. Silence is no success then: an error may be lost although the answer to the last request arrived
   (parts of a dump need no room in a full buffer, and the kernel may have had no memory for a single error). Changes
   that are still open are `LOST`: it is unknown whether they were made.
8. A datagram that was cut or is malformed spoils its chunk: it is unknown which of its answers are missing. Everything
   up to the ack of a barrier is still accounted for, as in 7; then each question (RTM_GET*) without an answer is sent
   again on its own, a few times, because questions change nothing. Only an object can be so long that it is cut, so a
   change without an answer has succeeded (rule 2), unless a datagram was malformed.
   Questions whose answers were lost are treated alike: on its own, an answer of any size fits the receive buffer.
9. The datagrams of a chunk stay in the `inbox` until the next chunk, and its outcomes follow from them alone:
   accounting that a KeyboardInterrupt has cut short is repeated (:meth:`Exchange.reread`).

:class:`Exchange` keeps this account; the owner of a socket sends :meth:`~Exchange.next_chunk` and feeds the datagrams
it receives until no more are awaited.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from functools import partial
from struct import Struct
from struct import error as struct_error
from typing import Any, Final, NamedTuple

from vethlib.errors import Malformed

from .const import (
    IFLA_ALT_IFNAME,
    NLM_F_ACK,
    NLM_F_ACK_TLVS,
    NLM_F_CAPPED,
    NLM_F_DUMP,
    NLM_F_DUMP_INTR,
    NLM_F_ECHO,
    NLM_F_REQUEST,
    NLMSG_DONE,
    NLMSG_ERROR,
    NLMSG_MIN_TYPE,
    NLMSG_NOOP,
    NLMSGERR_ATTR_MSG,
    RTM_GETLINK,
)
from .wire import HEADER, attributes, messages

DUMP_ATTEMPTS: Final = 8
_REPEATS: Final = 3

# The share of an answer in a receive buffer, with the kernel's own overhead (skb->truesize), rounded up: 250 acks were
# measured to fit the default of 212 992 bytes.
_ACK_COST: Final = 1024
_OBJECT_COST: Final = 4864

# Errors of a reader in unforeseen bytes; Malformed is a ValueError.
UNREADABLE: Final = (ValueError, LookupError, TypeError, ArithmeticError, AssertionError, struct_error)

_GET: Final = 2  # RTM_GET* are 2 modulo 4 (rtnetlink.h: NEW, DEL, GET, SET)
_TYPE_AT: Final = 4
SEQUENCE_AT: Final = 8
_TYPE_FLAGS: Final = Struct("=HH")
_FIRST_ATTRIBUTE: Final = slice(34, 36)  # its type: behind both headers and its length
_ALTERNATIVE_NAME: Final = Struct("=H").pack(IFLA_ALT_IFNAME)
_read_header: Final = HEADER.unpack_from
_U32: Final = Struct("=I")
_I32: Final = Struct("=i")


class Outcome(NamedTuple):
    """The result of one request. errno 0 is success; `bodies` are the bodies of its answers, parsed if the exchange
    was given a parser.
    """

    errno: int
    extack: str = ""
    bodies: Sequence[Any] = ()


DONE: Final = Outcome(0)
LOST: Final = Outcome(errno.ENOBUFS, "the kernel's answer was lost")
_CUT: Final = Outcome(errno.EBADMSG, "the kernel's answer was cut each time")
UNSENT: Final = Outcome(errno.ECANCELED, "not sent")


class Limits(NamedTuple):
    """Sizes that fit: `send` bytes in a datagram, and `receive` bytes of queued answers, as the kernel counts them."""

    send: int
    receive: int


class _Answers(dict[bytes, tuple[int, bool]]):
    """The cost of an answer and whether it is a dump, by the type and the flags of a request; there are a few dozen."""

    def __missing__(self, type_flags: bytes) -> tuple[int, bool]:
        kind, flags = _TYPE_FLAGS.unpack(type_flags)
        get = kind & 3 == _GET
        cost = _OBJECT_COST if get or flags & NLM_F_ECHO else _ACK_COST
        # The flag bits of a dump mean REPLACE and EXCL in a request that creates an object (netlink.h).
        answer = self[type_flags] = cost, get and flags & NLM_F_DUMP == NLM_F_DUMP
        return answer


_ANSWERS: Final = _Answers()

outcome_of: Final = partial(tuple.__new__, Outcome)  # given its fields as a tuple; as in link.py


class Exchange:
    """The account of one batch; `outcomes` has one entry per request, `UNSENT` until it is known.

    With `parse`, it is for a single dump of any length: each message body is parsed on arrival, while it is in the
    CPU's cache, and no datagrams are kept.
    """

    __slots__ = (
        "_again",
        "_attempts",
        "_bodies",
        "_chunk",
        "_closing",
        "_first",
        "_limits",
        "_most_attempts",
        "_next",
        "_parse",
        "_repeats",
        "_requests",
        "_torn",
        "_unread",
        "_unreadable",
        "inbox",
        "outcomes",
        "overrun",
        "refused",
        "spoilt",
    )

    def __init__(
        self,
        requests: Sequence[bytes],
        limits: Limits,
        parse: Callable[[bytes], Any] | None = None,
        attempts: int = DUMP_ATTEMPTS,
    ) -> None:
        self._parse = parse
        self._most_attempts = attempts
        self.outcomes: list[Outcome] = [UNSENT] * len(requests)
        self.refused = False  # whether a request failed
        self.inbox: list[bytes] = []  # the datagrams received for the current chunk
        self._unread = 0  # the first datagram that is not accounted for
        self._requests = requests
        self._limits = limits
        self._next = 0  # the first request that has not been sent
        self._chunk = range(0)  # the current requests
        self._first = 0  # the sequence number of the first current request
        self._closing = -1  # the last current request, if its answer is an object
        self._bodies: dict[int, list[Any]] = {}
        self._torn = False
        self._attempts = 0  # at the current dump
        self._unreadable: Malformed | None = None  # the error of its first part that could not be parsed
        self.spoilt = False  # an answer of the chunk is missing (rules 7 and 8)
        self.overrun = False  # any answer may be missing (rule 7)
        self._again: list[int] = []  # requests to be sent again, each on its own
        self._repeats: dict[int, int] = {}

    @property
    def awaiting(self) -> bool:
        """Whether answers are still expected."""
        return bool(self._chunk)

    def next_chunk(self, sequence: int) -> bytearray | None:
        """Return the next bytes to send, numbered from `sequence`, or None when every request has its outcome.

        It uses at most as many numbers as there are requests.
        """
        if self._again:
            start = self._again.pop()
            end = start + 1
        else:
            start = self._next
            if start >= len(self._requests):
                return None
            self._next = end = self._cut(start)
        requests = self._requests[start:end]
        data = bytearray().join(requests)
        offset, last, pack_number = SEQUENCE_AT, 0, _U32.pack_into
        for number, request in enumerate(requests, sequence):
            pack_number(data, offset, number & 0xFFFF_FFFF)
            last = offset
            offset += len(request)
        last -= SEQUENCE_AT
        kind, flags = _TYPE_FLAGS.unpack_from(data, last + _TYPE_AT)
        self._closing = -1
        if kind & 3 != _GET:
            _TYPE_FLAGS.pack_into(data, last + _TYPE_AT, kind, flags | NLM_F_ACK)
        elif flags & NLM_F_DUMP != NLM_F_DUMP:
            self._closing = end - 1
        self.inbox.clear()
        self._unread = 0
        self.overrun = False
        self._first = sequence & 0xFFFF_FFFF
        self._chunk = range(start, end)
        return data

    def _cut(self, start: int) -> int:
        """Return the end of the chunk that begins at `start` (rules 3 and 4); it has at least one request."""
        send, receive = self._limits
        # One more ack than there are requests, because the last request may be answered with an object and an ack.
        receive -= _ACK_COST
        answers = _ANSWERS
        for position, request in enumerate(self._requests[start:], start):
            cost, is_dump = answers[request[_TYPE_AT:SEQUENCE_AT]]
            send -= len(request)
            receive -= cost
            if (send < 0 or receive < 0) and position > start:
                return position
            if is_dump:
                return position + 1
        return len(self._requests)

    def feed(self, datagram: bytes) -> None:
        """Account for a received datagram. Raises Malformed for bytes that the kernel never sends."""
        self.inbox.append(datagram)
        self.read()

    def read(self) -> None:
        """Account for the new datagrams in the inbox.

        Raises Malformed for one that is malformed; the chunk is `spoilt` then, and reading can continue after it.
        """
        while self._unread < len(self.inbox):
            try:
                self._account_for(self.inbox[self._unread])
            except Malformed:
                self.spoilt = True
                self._unread += 1
                raise
            self._unread += 1
        if self._parse is not None:
            self.inbox.clear()
            self._unread = 0

    def reread(self) -> None:
        """Account for the whole inbox again after reading it was interrupted (rule 9). Raises Malformed."""
        for position in self._chunk:
            self.outcomes[position] = UNSENT
        self._bodies.clear()
        self.spoilt = self.overrun
        self._torn = self._parse is not None  # then the inbox is empty, and a dump has to be sent again
        self._unread = 0
        self.read()

    def _account_for(self, datagram: bytes) -> None:
        start_of_chunk, end_of_chunk, first = self._chunk.start, self._chunk.stop, self._first
        bodies, parse = self._bodies, self._parse
        if parse is None and len(datagram) >= 16:
            # Usually there is one message, an object that answers one question.
            length, kind, flags, sequence, _port = _read_header(datagram)
            position = start_of_chunk + ((sequence - first) & 0xFFFF_FFFF)
            is_object = length == len(datagram) and kind >= NLMSG_MIN_TYPE and not flags & NLM_F_DUMP_INTR
            if is_object and position < end_of_chunk and position not in bodies:
                bodies[position] = [datagram[16:]]
                if position == self._closing:
                    self._settle(DONE)
                return
        for kind, flags, sequence, start, end in messages(datagram):
            position = start_of_chunk + ((sequence - first) & 0xFFFF_FFFF)
            if position >= end_of_chunk:
                continue
            if flags & NLM_F_DUMP_INTR:
                self._torn = True
            if kind in (NLMSG_ERROR, NLMSG_DONE):
                self._conclude(position, kind, flags, datagram, start, end)
            else:
                body = datagram[start:end] if parse is None else self._parsed(parse, datagram[start:end])
                if position in bodies:
                    bodies[position].append(body)
                else:
                    bodies[position] = [body]
                    if position == self._closing:
                        self._settle(DONE)
                        return

    def _parsed(self, parse: Callable[[bytes], Any], body: bytes) -> Any:
        """Parse a part of a dump; note an error, because the rest still has to be received."""
        try:
            return parse(body)
        except UNREADABLE as error:
            if self._unreadable is None:
                self._unreadable = (
                    error if isinstance(error, Malformed) else Malformed(f"{error!r} in {len(body)} bytes")
                )
            return None

    def _conclude(self, position: int, kind: int, flags: int, datagram: bytes, start: int, end: int) -> None:
        if end - start < 4:
            raise Malformed(f"an acknowledgement of {end - start} bytes")
        error = -_I32.unpack_from(datagram, start)[0]
        if error:
            if error == errno.EINVAL and _asks_by_alternative_name(self._requests[position]):
                error = errno.ENODEV
            self.outcomes[position] = Outcome(error, extack(kind, flags, datagram, start, end))
            self.refused = True
        elif self.overrun and kind == NLMSG_ERROR:
            # Without an overrun, this is done in _settle(). Other changes get no ack, so only this one is known to be
            # done.
            self.outcomes[position] = outcome_of((0, "", self._bodies.pop(position, ())))
        if position == self._chunk.stop - 1:
            if self._torn and not error and not self.spoilt:
                self._send_again(position)
            else:
                self._settle(DONE)

    def _send_again(self, position: int) -> None:
        """Repeat a torn dump (rule 5). The requests before it in its chunk are done."""
        bodies = self._bodies.pop(position, ())
        if self._unreadable is not None and self._attempts + 1 >= self._most_attempts:
            self._settle(DONE)  # it could not be parsed even if it were whole
            return
        self._unreadable = None
        self._attempts += 1
        if self._attempts >= self._most_attempts:
            text = f"the table changed during each of {self._most_attempts} dumps"
            self.outcomes[position] = Outcome(errno.EAGAIN, text, bodies)
            self.refused = True
            self._settle(DONE)
            return
        attempts, self._chunk = self._attempts, range(self._chunk.start, position)
        self._settle(DONE)
        self._attempts, self._next = attempts, position

    def _settle(self, unanswered: Outcome) -> None:
        """Settle the requests of the chunk that were not refused: with the bodies of their answers, or `unanswered`."""
        if self.spoilt:
            return  # until the ack of the barrier arrives
        outcomes = self.outcomes
        if self._unreadable is not None:
            self._refuse_unreadable(self._unreadable)
        for position in self._chunk:
            if outcomes[position] is UNSENT:
                bodies = self._bodies.get(position)
                outcomes[position] = unanswered if bodies is None else outcome_of((0, "", bodies))
        self._bodies.clear()
        self._chunk = range(0)
        self._torn = False
        self._attempts = 0

    def _refuse_unreadable(self, error: Malformed) -> None:
        """Refuse a complete dump of which a part could not be parsed."""
        position = self._chunk.stop - 1
        if self.outcomes[position] is UNSENT:
            self.outcomes[position] = Outcome(errno.EBADMSG, str(error))
            self.refused = True
        self._unreadable = None

    def overran(self) -> None:
        """Note that the receive buffer overran (ENOBUFS), so that any answer of the chunk may be lost."""
        self.overrun = self.spoilt = True

    def barrier(self, sequence: int) -> bytes:
        """Return a no-op to send after an overrun (rule 7); its ack follows the last answer that survived."""
        return HEADER.pack(HEADER.size, NLMSG_NOOP, NLM_F_REQUEST | NLM_F_ACK, sequence & 0xFFFF_FFFF, 0)

    def lost(self) -> None:
        """Note the barrier's ack after an overrun: the outcomes of the chunk's open changes stay unknown."""
        self._settle_without(LOST, LOST)

    def garbled(self) -> None:
        """Note the barrier's ack after an unreadable answer: the outcomes of the chunk's open changes stay unknown."""
        self._settle_without(LOST, _CUT)

    def received(self) -> None:
        """Note the barrier's ack if only objects that were cut are missing: the changes were made."""
        self._settle_without(DONE, _CUT)

    def _settle_without(self, unanswered: Outcome, given_up: Outcome) -> None:
        """Settle a chunk that gets no more answers: questions without an answer are sent again (rule 8)."""
        self.spoilt = False
        again: list[int] = []
        for position in self._chunk:
            if self.outcomes[position] is UNSENT:
                kind, flags = _TYPE_FLAGS.unpack_from(self._requests[position], _TYPE_AT)
                if kind & 3 != _GET:
                    self.refused = self.refused or unanswered is LOST
                elif flags & NLM_F_DUMP == NLM_F_DUMP or position not in self._bodies:
                    self._bodies.pop(position, None)
                    self._unreadable = None
                    self._repeat(position, again, given_up)
        self._settle(unanswered)
        for position in again:
            self.outcomes[position] = UNSENT
        self._again += reversed(again)

    def _repeat(self, position: int, again: list[int], given_up: Outcome) -> None:
        repeats = self._repeats.get(position, 0) + 1
        self._repeats[position] = repeats
        if repeats <= _REPEATS:
            again.append(position)
        else:
            self.outcomes[position] = given_up
            self.refused = True


def _asks_by_alternative_name(request: bytes) -> bool:
    """Return whether a question about a link has a name that can only be an alternative name.

    Kernels before Linux 5.5, which have no alternative names, answer it with EINVAL: there is no such link.
    """
    kind, _flags = _TYPE_FLAGS.unpack_from(request, _TYPE_AT)
    return kind == RTM_GETLINK and request[_FIRST_ATTRIBUTE] == _ALTERNATIVE_NAME


def extack(kind: int, flags: int, datagram: bytes, start: int, end: int) -> str:
    """Return the kernel's text in an error, or at the end of a dump; "" if there is none."""
    if not flags & NLM_F_ACK_TLVS:
        return ""
    start += 4
    if kind == NLMSG_ERROR:
        if end - start < HEADER.size:
            raise Malformed(f"an error with {end - start} bytes of its request")
        # The error contains the request, or only its header if acks are capped.
        size = HEADER.size if flags & NLM_F_CAPPED else _U32.unpack_from(datagram, start)[0]
        start += (size + 3) & ~3
    for attr, first, last in attributes(datagram, start, end):
        if attr == NLMSGERR_ATTR_MSG:
            return datagram[first:last].split(b"\0", 1)[0].decode("utf-8", "replace")
    return ""
