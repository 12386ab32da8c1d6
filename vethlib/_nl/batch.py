"""The exchange of many requests for their outcomes, without I/O.

Theory of operation:

1. The kernel handles the messages of one datagram in their order, inside the system call that sends it; when
   ``send()`` returns, every answer but those of a dump is queued (netlink_rcv_skb in net/netlink/af_netlink.c).
2. Success is silent unless NLM_F_ACK asks for an ack; failure is always answered. So only the last message of a chunk
   asks for an ack, and not even that if it is one that is answered with an object: when its answer arrives, the
   requests before it that were not answered with an error are done.
3. A chunk is what is sent at once. It is cut so that it fits a datagram and so that all its answers fit the receive
   buffer even if every request is answered (an answer that does not fit is lost, and recv() says ENOBUFS).
4. A dump is answered while it is read, ends with NLMSG_DONE, and a second one beside it is refused (EBUSY): a
   dump ends its chunk.
5. NLM_F_DUMP_INTR on any part says that the table changed while it was read: the dump is torn and sent again, at
   most `DUMP_ATTEMPTS` times, or as often as is asked for.
6. Each request has a sequence number of its own. An answer that bears another one belongs to an exchange that
   was interrupted; it is dropped.
7. If answers were lost all the same, a no-op that the kernel acks (`barrier`) shows when the last surviving answer
   has come; requests of that chunk that are still open are then `LOST`: done or not, nobody knows.
8. What was received of a chunk stays in the `inbox` until the next one, and all that is known of the chunk follows
   from it: accounting that a KeyboardInterrupt cut short is done over (:meth:`Exchange.reread`).

:class:`Exchange` keeps this account; whoever owns a socket sends :meth:`~Exchange.next_chunk` and feeds what is
received until nothing is awaited.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from struct import Struct
from typing import Any, Final, NamedTuple

from .const import (
    NLM_F_ACK,
    NLM_F_ACK_TLVS,
    NLM_F_CAPPED,
    NLM_F_DUMP,
    NLM_F_DUMP_INTR,
    NLM_F_ECHO,
    NLM_F_REQUEST,
    NLMSG_DONE,
    NLMSG_ERROR,
    NLMSG_NOOP,
    NLMSGERR_ATTR_MSG,
)
from .wire import HEADER, Malformed, attributes, messages

__all__ = ["DONE", "DUMP_ATTEMPTS", "LOST", "SEQUENCE_AT", "UNSENT", "Exchange", "Limits", "Outcome"]

DUMP_ATTEMPTS: Final = 8

# What an answer may take of a receive buffer, with the kernel's own overhead (skb->truesize), rounded up: 250 acks
# were seen to fit the default of 212 992 bytes.
_ACK_COST: Final = 1024
_OBJECT_COST: Final = 4864

_GET: Final = 2  # RTM_GET* are 2 modulo 4 (rtnetlink.h: NEW, DEL, GET, SET)
_TYPE_AT: Final = 4
SEQUENCE_AT: Final = 8
_TYPE_FLAGS: Final = Struct("=HH")
_U32: Final = Struct("=I")
_I32: Final = Struct("=i")


class Outcome(NamedTuple):
    """What became of one request: errno 0 is success; `bodies` are the messages it was answered with.

    Or what was made of each, where the exchange was given something that parses them.
    """

    errno: int
    extack: str
    bodies: Sequence[Any]


DONE: Final = Outcome(0, "", ())
LOST: Final = Outcome(errno.ENOBUFS, "the kernel's answer was lost", ())
UNSENT: Final = Outcome(errno.ECANCELED, "not sent", ())


class Limits(NamedTuple):
    """What fits: `send` bytes in a datagram, `receive` bytes (as the kernel counts them) of answers queued."""

    send: int
    receive: int


class Exchange:
    """The account of one batch; `outcomes` has one entry per request, `UNSENT` until it is known.

    With `parse` it is for a lone dump, of any length: each message body is parsed as it comes, while it is in the CPU's
    cache, and what was received is not kept.
    """

    __slots__ = (
        "_attempts",
        "_bodies",
        "_chunk",
        "_closing",
        "_first",
        "_limits",
        "_most_attempts",
        "_next",
        "_parse",
        "_requests",
        "_torn",
        "_unread",
        "inbox",
        "outcomes",
        "refused",
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
        self.refused = False  # whether one of them has an errno
        self.inbox: list[bytes] = []  # the datagrams received of the chunk under way
        self._unread = 0  # the first of them not accounted for
        self._requests = requests
        self._limits = limits
        self._next = 0  # the first request not sent yet
        self._chunk = range(0)  # the requests under way
        self._first = 0  # the sequence number of the first of them
        self._closing = -1  # the last of them, where an object is its answer
        self._bodies: dict[int, list[Any]] = {}
        self._torn = False
        self._attempts = 0  # at the dump under way

    @property
    def awaiting(self) -> bool:
        """Whether answers to what was sent are still to come."""
        return bool(self._chunk)

    def next_chunk(self, sequence: int) -> bytearray | None:
        """The next bytes to send, numbered from `sequence`, or None when every request has its outcome.

        Uses at most as many numbers as there are requests.
        """
        start = self._next
        if start >= len(self._requests):
            return None
        end = self._cut(start)
        requests = self._requests[start:end]
        data = bytearray().join(requests)
        offset = last = 0
        number = sequence
        for request in requests:
            _U32.pack_into(data, offset + SEQUENCE_AT, number & 0xFFFF_FFFF)
            number += 1
            last = offset
            offset += len(request)
        kind, flags = _TYPE_FLAGS.unpack_from(data, last + _TYPE_AT)
        self._closing = -1
        if kind & 3 != _GET:
            _TYPE_FLAGS.pack_into(data, last + _TYPE_AT, kind, flags | NLM_F_ACK)
        elif flags & NLM_F_DUMP != NLM_F_DUMP:
            self._closing = end - 1
        self.inbox.clear()
        self._unread = 0
        self._first = sequence & 0xFFFF_FFFF
        self._chunk = range(start, end)
        self._next = end
        return data

    def _cut(self, start: int) -> int:
        """Where the chunk that begins at `start` ends (rules 3 and 4); it has at least one request."""
        send, receive = self._limits
        # One ack more than there are requests: the last of them may be answered with an object and an ack.
        receive -= _ACK_COST
        for position, request in enumerate(self._requests[start:], start):
            kind, flags = _TYPE_FLAGS.unpack_from(request, _TYPE_AT)
            get = kind & 3 == _GET
            send -= len(request)
            receive -= _OBJECT_COST if get or flags & NLM_F_ECHO else _ACK_COST
            if (send < 0 or receive < 0) and position > start:
                return position
            # The flag bits of a dump mean REPLACE and EXCL in a request that makes something (netlink.h).
            if get and flags & NLM_F_DUMP == NLM_F_DUMP:
                return position + 1
        return len(self._requests)

    def feed(self, datagram: bytes) -> None:
        """Take in what was received. Raises Malformed for bytes the kernel would never send."""
        self.inbox.append(datagram)
        self.read()

    def read(self) -> None:
        """Account for what is new in the inbox. Raises Malformed."""
        while self._unread < len(self.inbox):
            self._account_for(self.inbox[self._unread])
            self._unread += 1
        if self._parse is not None:
            self.inbox.clear()
            self._unread = 0

    def reread(self) -> None:
        """Account for the whole inbox again, where reading it was interrupted (rule 8). Raises Malformed."""
        for position in self._chunk:
            self.outcomes[position] = UNSENT
        self._bodies.clear()
        self._torn = self._parse is not None  # then the inbox is empty, and a dump has to be sent again
        self._unread = 0
        self.read()

    def _account_for(self, datagram: bytes) -> None:
        start_of_chunk, end_of_chunk, first = self._chunk.start, self._chunk.stop, self._first
        bodies, parse = self._bodies, self._parse
        for kind, flags, sequence, start, end in messages(datagram):
            position = start_of_chunk + ((sequence - first) & 0xFFFF_FFFF)
            if position >= end_of_chunk:
                continue
            if flags & NLM_F_DUMP_INTR:
                self._torn = True
            if kind in (NLMSG_ERROR, NLMSG_DONE):
                self._conclude(position, kind, flags, datagram, start, end)
            else:
                body = datagram[start:end] if parse is None else parse(datagram[start:end])
                if position in bodies:
                    bodies[position].append(body)
                else:
                    bodies[position] = [body]
                    if position == self._closing:
                        self._settle(DONE)
                        return

    def _conclude(self, position: int, kind: int, flags: int, datagram: bytes, start: int, end: int) -> None:
        if end - start < 4:
            raise Malformed(f"an acknowledgement of {end - start} bytes")
        error = -_I32.unpack_from(datagram, start)[0]
        if error:
            self.outcomes[position] = Outcome(error, _extack(kind, flags, datagram, start, end), ())
            self.refused = True
        if position == self._chunk.stop - 1:
            if self._torn and not error:
                self._send_again(position)
            else:
                self._settle(DONE)

    def _send_again(self, position: int) -> None:
        """Rule 5; the requests before the dump in its chunk are done, only the dump is repeated."""
        self._bodies.pop(position, None)
        self._attempts += 1
        if self._attempts >= self._most_attempts:
            text = f"the table changed during each of {self._most_attempts} dumps"
            self.outcomes[position] = Outcome(errno.EAGAIN, text, ())
            self.refused = True
            self._settle(DONE)
            return
        attempts, self._chunk = self._attempts, range(self._chunk.start, position)
        self._settle(DONE)
        self._attempts, self._next = attempts, position

    def _settle(self, unanswered: Outcome) -> None:
        """Every request of the chunk that was not refused has `unanswered`, or the bodies it was answered with."""
        outcomes = self.outcomes
        for position in self._chunk:
            if outcomes[position] is UNSENT:
                bodies = self._bodies.get(position)
                outcomes[position] = unanswered if bodies is None else Outcome(0, "", bodies)
        self._bodies.clear()
        self._chunk = range(0)
        self._torn = False
        self._attempts = 0

    def barrier(self, sequence: int) -> bytes:
        """A no-op to send after an overrun (rule 7); its ack is the end of what survived."""
        return HEADER.pack(HEADER.size, NLMSG_NOOP, NLM_F_REQUEST | NLM_F_ACK, sequence & 0xFFFF_FFFF, 0)

    def lost(self) -> None:
        """The barrier's ack came: what is open in the chunk stays unknown."""
        self._settle(LOST)
        self.refused = True


def _extack(kind: int, flags: int, datagram: bytes, start: int, end: int) -> str:
    """The kernel's text in an error (or at the end of a dump), where it sent one."""
    if not flags & NLM_F_ACK_TLVS:
        return ""
    start += 4
    if kind == NLMSG_ERROR:
        # The request comes back in the error: its header alone when acks are capped.
        size = HEADER.size if flags & NLM_F_CAPPED else _U32.unpack_from(datagram, start)[0]
        start += (size + 3) & ~3
    for attr, first, last in attributes(datagram, start, end):
        if attr == NLMSGERR_ATTR_MSG:
            return datagram[first:last].split(b"\0", 1)[0].decode("utf-8", "replace")
    return ""
