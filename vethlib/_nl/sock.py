"""The socket of every exchange: it sends chunks and receives answers; :mod:`.batch` does the accounting."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Collection, Sequence
from itertools import chain, repeat
from struct import Struct
from typing import Any, Final, TypeVar

from vethlib._primitives import RLock, socket
from vethlib.errors import Malformed

from .batch import DONE, DUMP_ATTEMPTS, Exchange, Limits, Outcome, outcome_of
from .const import (
    NETLINK_ADD_MEMBERSHIP,
    NETLINK_CAP_ACK,
    NETLINK_EXT_ACK,
    NETLINK_GET_STRICT_CHK,
    NLMSG_ERROR,
    NLMSG_MIN_TYPE,
    SO_RCVBUFFORCE,
    SOL_NETLINK,
)
from .counts import counts
from .direct import ParseAlike, ask, change, change_and_ask, dump, room_for_next
from .opening import cookie_of, first_number, open_socket
from .wire import READ_SIZE, messages

_MSG_DONTWAIT: Final = 0x40  # Linux only; named here so that the module imports anywhere

_WAIT: Final = (0,)  # recv without a flag
_MORE: Final = (_MSG_DONTWAIT,) * 256

_RECEIVE_BUFFER: Final = 4 << 20

_FEW: Final = 8
_TIGHT: Final = Limits(send=4096, receive=16 << 10)  # fits the default buffers of any host
_ANSWER_TIMEOUT: Final = Struct("=qq").pack(10, 0)  # struct timeval; answers are queued before send() returns

T = TypeVar("T")

_TRACE: Final = "nl" in os.environ.get("VETHLIB_DEBUG", "").split(",")


class RtnlSocket:
    """An rtnetlink socket of the namespace in which it was opened, whichever thread uses it.

    `groups` are the multicast groups (RTNLGRP_*) to listen to. Threads can share it, with one exchange at a time. An
    answer of any size is received whole: once an answer has filled the buffer, and so may have been cut, each one is
    measured before it is received (1 µs more), and the question is sent again. Raises OSError if no socket can be
    opened (EMFILE, EPROTONOSUPPORT …).
    """

    __slots__ = ("_limits", "_lock", "_measures", "_sequence", "_socket", "is_in_use_here")

    is_in_use_here: Callable[[], bool]
    """Whether the calling thread is in an exchange already, which a signal handler has interrupted.

    Another one would receive the answers of the first.
    """

    def __init__(self, groups: Collection[int] = ()) -> None:
        self._socket = open_socket()
        try:
            self._configure(groups)
        except BaseException:
            self._socket.close()
            raise
        self._limits = _TIGHT
        self._lock = RLock()  # knows its owner, see _let_go()
        self.is_in_use_here = self._lock._is_owned  # type: ignore[attr-defined]  # as threading.Condition asks, too
        self._sequence = first_number()
        self._measures = False

    def _configure(self, groups: Collection[int]) -> None:
        option = self._socket.setsockopt
        try:
            option(SOL_NETLINK, NETLINK_EXT_ACK, 1)
            option(SOL_NETLINK, NETLINK_GET_STRICT_CHK, 1)
        except OSError:
            self._enable(NETLINK_EXT_ACK)
            self._enable(NETLINK_GET_STRICT_CHK)
        option(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _ANSWER_TIMEOUT)
        if groups:
            self._widen()
        for group in groups:
            self._socket.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, group)

    def _enable(self, name: int) -> None:
        try:
            self._socket.setsockopt(SOL_NETLINK, name, 1)
        except OSError as error:
            # Strict checking came with Linux 4.20, the others with 4.12 and 4.3; each only saves work.
            if error.errno != errno.ENOPROTOOPT:
                raise

    def _widen(self) -> None:
        """Make room for many answers, which sockets for a message or two in a foreign namespace do not need."""
        self._enable(NETLINK_CAP_ACK)
        option = self._socket.setsockopt
        try:
            option(socket.SOL_SOCKET, SO_RCVBUFFORCE, _RECEIVE_BUFFER)
        except PermissionError:
            option(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)  # capped at net.core.rmem_max
        self._limits = self._read_limits()

    def _read_limits(self) -> Limits:
        # netlink_sendmsg refuses more than the send buffer minus 32 bytes (EMSGSIZE).
        send = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) - 32
        receive = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        return Limits(send, receive)

    def fileno(self) -> int:
        """Return the file descriptor, for a poller."""
        return self._socket.fileno()

    def netns_cookie(self) -> int:
        """Return the cookie of the socket's namespace, unique since the boot; 0 before Linux 5.14."""
        return cookie_of(self._socket)

    def close(self) -> None:
        """Close the socket; twice is harmless."""
        self._socket.close()

    def exchange(self, requests: Sequence[bytes]) -> list[Outcome]:
        """Send the requests, and return the outcome of each. Raises OSError if the socket itself fails."""
        exchange = self.begin(requests)
        self.run(exchange)
        return exchange.outcomes

    def ask(self, request: bytes) -> Outcome:
        """Return the outcome of one request that is answered with an object; like :meth:`exchange`, but 3 µs faster."""
        answer = None if _TRACE else self._alone(ask, request)
        if isinstance(answer, bytes):
            return outcome_of((0, "", (answer,)))
        if answer is None:
            return self.exchange([request])[0]  # which accounts for any other answer
        counts.requests += 1
        counts.refused(answer.errno)
        return answer

    def change_and_ask(self, change: bytes, question: bytes) -> Sequence[Outcome]:
        """Return the outcomes of a change and of a question that is answered with an object.

        This is 5 µs faster than :meth:`exchange`, but if it is interrupted, it is not known whether the change was
        made.
        """
        if _TRACE:
            return self.exchange([change, question])
        return self._alone(self._change_and_ask, change, question)

    def change(self, requests: Sequence[bytes]) -> Sequence[Outcome]:
        """Return the outcomes of changes that are not echoed.

        For a few changes, this is 5 µs faster than :meth:`exchange`, but if it is interrupted, it is not known whether
        they were made.
        """
        if _TRACE or not 0 < len(requests) <= _FEW or sum(map(len, requests)) > _TIGHT.send:
            return self.exchange(requests)
        return self._alone(self._change, requests)

    def dump(
        self,
        request: bytes,
        parse: Callable[[bytes], Any],
        attempts: int = DUMP_ATTEMPTS,
        parse_alike: ParseAlike | None = None,
        most: int | None = None,
        marks: Sequence[bytes] = (),
    ) -> Outcome:
        """Return the outcome of a dump; its bodies are the results of `parse` for each message. Raises OSError.

        EAGAIN: the table changed during each of `attempts` dumps; the bodies are those of the last one. EBADMSG:
        `parse` failed on one of the messages.

        With `most`, there is one attempt, and a table with more messages is not read to its end: EFBIG, with those that
        were read. The owner of the table could make reading the rest take any time. The caller closes the socket after
        any refusal.

        With `marks`, messages without any of these bytes may be left out: parts of a long table that have none are not
        divided into messages, which takes ten times as long as the kernel needs for them. `parse` must check the rest.
        """
        if most is not None and not _TRACE:
            limited = self._alone(dump, request, parse, parse_alike, most, marks)
            return limited or Outcome(errno.EBADMSG, "the dump cannot be read")
        if not _TRACE and not self._measures:
            outcome = self._alone(dump, request, parse, parse_alike, None, marks)
            if outcome is not None and (attempts == 1 or outcome.errno != errno.EAGAIN):
                return outcome
            self._empty()
        exchange = Exchange([request], self._limits, parse, attempts)
        self._run(exchange, more=())
        if exchange.outcomes[0].errno == errno.EBUSY:
            # An earlier dump was not read to its end: its clean-up was interrupted, too.
            self._empty()
            exchange = Exchange([request], self._limits, parse, attempts)
            self._run(exchange, more=())
        return exchange.outcomes[0]

    def _alone(self, way: Callable[..., T], *arguments: Any) -> T:
        """Call a function of :mod:`.direct` while no other thread uses the socket."""
        try:
            with self._lock:
                number = self._sequence
                self._sequence = number + _FEW
                return way(self._socket, number & 0xFFFF_FFFF, *arguments)
        except BaseException:
            self._let_go()
            self._empty()
            raise

    def _change(self, sock: socket.SocketType, number: int, requests: Sequence[bytes]) -> Sequence[Outcome]:
        answer = change(sock, number, requests)
        return [DONE] * len(requests) if answer is None else self._account_for(requests, number, answer)

    def _change_and_ask(
        self, sock: socket.SocketType, number: int, change: bytes, question: bytes
    ) -> Sequence[Outcome]:
        body, answer = change_and_ask(sock, number, change, question)
        if body is not None:
            return DONE, outcome_of((0, "", (body,)))
        return self._account_for((change, question), number, answer)

    def _account_for(self, requests: Sequence[bytes], number: int, answer: bytes) -> Sequence[Outcome]:
        """Return the outcomes of requests that were sent together, given the first answer."""
        exchange = Exchange(requests, self._limits)
        exchange.next_chunk(number)
        if answer:
            exchange.inbox.append(answer)
        else:
            exchange.overran()
        malformed = self._account(exchange, 0)
        if exchange.spoilt:
            self._recover(exchange, malformed)
        while exchange.awaiting:
            self._receive(exchange, ())
        self._converse(exchange, ())  # if a question has to be sent again
        for outcome in exchange.outcomes:
            if outcome.errno:
                counts.refused(outcome.errno)
        return exchange.outcomes

    def begin(self, requests: Sequence[bytes]) -> Exchange:
        """Begin an exchange to be passed to :meth:`run`; it keeps its outcomes if running is interrupted."""
        if len(requests) > _FEW and self._limits is _TIGHT:
            self._widen()
        return Exchange(requests, self._limits)

    def run(self, exchange: Exchange) -> None:
        """Run an exchange to its end.

        If it is interrupted (by a KeyboardInterrupt, for example), at any bytecode, the answers to all sent requests
        are read before the interruption is passed on, so that ``exchange.outcomes`` is correct and no stale answer
        stays in the socket. For this, datagrams are moved from the kernel into the inbox of the exchange within one C
        call, during which no signal handler runs. The first datagram is usually the only one, an ack; if more are
        expected, one call receives all queued ones.
        """
        self._run(exchange, more=_MORE)

    def _run(self, exchange: Exchange, more: Sequence[int]) -> None:
        # Neither of the two functions with handlers has a loop, whose backward jump no handler covers on Python 3.13.
        try:
            self._run_alone(exchange, more)
        except BaseException:
            self._let_go()
            self._settle(exchange)
            raise
        counts.requests += len(exchange.outcomes)
        if exchange.refused:
            for outcome in exchange.outcomes:
                if outcome.errno:
                    counts.refused(outcome.errno)

    def _run_alone(self, exchange: Exchange, more: Sequence[int]) -> None:
        with self._lock:
            try:
                self._converse(exchange, more)
            except BaseException:
                self._drain(exchange)  # while no other thread can receive our answers
                raise

    def _converse(self, exchange: Exchange, more: Sequence[int]) -> None:
        while (chunk := exchange.next_chunk(self._sequence)) is not None:
            self._sequence += len(exchange.outcomes) + 1
            self._send(chunk)
            self._receive(exchange, ())
            while exchange.awaiting:
                self._receive(exchange, more)

    def _settle(self, exchange: Exchange) -> None:
        """Drain once more in case that draining was interrupted as well; otherwise, this has no effect."""
        if exchange.awaiting:
            with self._lock:
                self._drain(exchange)

    def _let_go(self) -> None:
        """Release the lock if an interruption came between the end of a block and its release."""
        try:
            self._lock.release()
        except RuntimeError:
            pass  # it is not held by this thread

    def _send(self, data: bytes | bytearray) -> None:
        if _TRACE:
            _trace("→", bytes(data))
        self._socket.send(data)

    def _receive(self, exchange: Exchange, more: Sequence[int]) -> None:
        """Wait for one datagram and account for it, and for others if queued, one per flags in `more`."""
        before, measured = len(exchange.inbox), self._measures
        try:
            if measured:
                self._receive_measured(exchange, more)
            else:
                exchange.inbox.extend(map(self._socket.recv, repeat(READ_SIZE), chain(_WAIT, more)))
        except BlockingIOError:
            if len(exchange.inbox) == before:
                raise TimeoutError(errno.ETIMEDOUT, "the kernel did not answer a netlink request") from None
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            exchange.overran()
            self._recover(exchange, self._account(exchange, before, measured=measured))
            return
        if _TRACE:
            for datagram in exchange.inbox[before:]:
                _trace("←", datagram)
        malformed = self._account(exchange, before, measured=measured)
        if exchange.spoilt:
            self._recover(exchange, malformed)

    def _receive_measured(self, exchange: Exchange, more: Sequence[int]) -> None:
        for flags in chain(_WAIT, more):
            room = room_for_next(self._socket, flags)
            exchange.inbox.extend(map(self._socket.recv, (room,), (flags,)))

    def _account(self, exchange: Exchange, before: int, *, measured: bool = False) -> Malformed | None:
        """Account for the inbox, new from `before` on; return the error of the first malformed datagram.

        Datagrams that were not `measured` may have been cut.
        """
        cut = not measured and READ_SIZE in map(len, exchange.inbox[before:])
        if cut:
            self._measures = exchange.spoilt = True
        malformed: Malformed | None = None
        while True:
            try:
                exchange.read()
                return None if cut else malformed
            except Malformed as error:
                malformed = malformed or error

    def _recover(self, exchange: Exchange, malformed: Malformed | None) -> None:
        """Read the answers that survived after some were lost, up to the ack of a no-op.

        The no-op is sent after the buffer has been emptied, because its ack would not fit into a full one either.
        """
        drained = self._drain_queue(exchange)
        malformed = malformed or drained
        if not exchange.awaiting:
            return
        number = self._sequence & 0xFFFF_FFFF
        self._sequence += 1
        self._send(exchange.barrier(number))
        while True:
            before = len(exchange.inbox)
            try:
                exchange.inbox.extend(map(self._socket.recv, (READ_SIZE,)))
            except OSError as error:
                if error.errno == errno.ENOBUFS:
                    exchange.overran()
                    continue
                raise (malformed or error) from None
            acked = _acks(exchange.inbox[-1], number)
            malformed = self._account(exchange, before) or malformed
            if acked:
                _settle(exchange, malformed)
                return

    def _drain(self, exchange: Exchange) -> None:
        """Account for all answers to an exchange in progress."""
        malformed: Malformed | None = None
        try:
            exchange.reread()
        except Malformed as error:
            malformed = None if READ_SIZE in map(len, exchange.inbox) else error
        malformed = self._account(exchange, 0) or malformed
        malformed = self._drain_queue(exchange) or malformed
        if exchange.spoilt:
            # Rule 1: no more will arrive.
            _settle(exchange, malformed)

    def _drain_queue(self, exchange: Exchange) -> Malformed | None:
        """Account for the queued datagrams, as long as answers are awaited; return the error of a malformed one."""
        malformed: Malformed | None = None
        while exchange.awaiting:
            before = len(exchange.inbox)
            try:
                exchange.inbox.extend(map(self._socket.recv, (READ_SIZE,), (socket.MSG_DONTWAIT,)))
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    break
                exchange.overran()
            malformed = self._account(exchange, before) or malformed
        return malformed

    def _empty(self) -> None:
        """Read and drop everything that is queued, which ends an abandoned dump."""
        with self._lock:
            while True:
                try:
                    self._socket.recv(1, socket.MSG_DONTWAIT)
                except BlockingIOError:
                    return
                except OSError as error:
                    if error.errno != errno.ENOBUFS:
                        raise

    def events(self, timeout: float | None) -> list[tuple[int, bytes]]:
        """Wait up to `timeout` seconds for events of the groups; return (type, body) of each message of one datagram.

        None waits without limit. Empty on timeout, and if the datagram is not the kernel's (see `events.py`). Raises
        OSError(ENOBUFS) if events were lost or are malformed.
        """
        self._socket.settimeout(timeout)
        try:
            datagram = self._receive_event(forever=timeout is None)
        finally:
            self._socket.settimeout(None)
        try:
            return [(k, datagram[s:e]) for k, _f, _q, s, e in messages(datagram) if k >= NLMSG_MIN_TYPE]
        except Malformed as error:
            # The beginning of an event is of no use to a caller that needs every event.
            raise OSError(errno.ENOBUFS, str(error)) from error

    def _receive_event(self, *, forever: bool) -> bytes:
        while True:
            try:
                datagram, (port, _) = self._socket.recvfrom(READ_SIZE)
                return b"" if port else datagram
            except (TimeoutError, BlockingIOError):  # the latter for a timeout of 0, and after SO_RCVTIMEO
                if not forever:
                    return b""


def _settle(exchange: Exchange, malformed: Malformed | None) -> None:
    """Settle a chunk to which no more answers will arrive."""
    if exchange.overrun:
        exchange.lost()
    elif malformed:
        exchange.garbled()
    else:
        exchange.received()


def _acks(datagram: bytes, number: int) -> bool:
    """Return whether a datagram has the ack of message `number`."""
    try:
        return any(kind == NLMSG_ERROR and sequence == number for kind, _f, sequence, _s, _e in messages(datagram))
    except Malformed:
        return False


def is_traced() -> bool:
    """Return whether every message is printed (VETHLIB_DEBUG=nl), so that all have to be sent by an RtnlSocket."""
    return _TRACE


def _trace(direction: str, datagram: bytes) -> None:
    from .trace import write  # imports pyroute2, which costs 120 ms

    write(direction, datagram)
