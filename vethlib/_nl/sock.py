"""The socket of every exchange: it sends chunks, receives answers, and leaves the account to :mod:`.batch`."""

from __future__ import annotations

import errno
import os
import socket
import threading
from collections.abc import Callable, Collection, Sequence
from itertools import chain, repeat
from struct import Struct
from typing import Any, Final

from .batch import DUMP_ATTEMPTS, SEQUENCE_AT, Exchange, Limits, Outcome
from .const import (
    NETLINK_ADD_MEMBERSHIP,
    NETLINK_CAP_ACK,
    NETLINK_EXT_ACK,
    NETLINK_GET_STRICT_CHK,
    NETLINK_ROUTE,
    NLMSG_ERROR,
    NLMSG_MIN_TYPE,
    SOL_NETLINK,
)
from .counts import counts
from .wire import HEADER, messages

__all__ = ["RtnlSocket"]

# Linux only; named here so that the module imports anywhere.
_AF_NETLINK: Final = 16
_SO_RCVBUFFORCE: Final = 33
_MSG_DONTWAIT: Final = 0x40

_READ_SIZE: Final = 65536
"""A dump's parts grow up to 32 KiB for a reader that asks for as much (netlink_dump, af_netlink.c)."""

_WAIT: Final = (0,)  # recv without a flag
_MORE: Final = (_MSG_DONTWAIT,) * 256

_RECEIVE_BUFFER: Final = 4 << 20
_SEQUENCE: Final = Struct("=I")

_FEW: Final = 8
_TIGHT: Final = Limits(send=4096, receive=16 << 10)  # what any host's default buffers hold
_ANSWER_TIMEOUT: Final = Struct("=qq").pack(10, 0)  # struct timeval; answers are queued before send() returns

_TRACE: Final = "nl" in os.environ.get("VETHLIB_DEBUG", "").split(",")


class RtnlSocket:
    """An rtnetlink socket of the namespace it was made in; it stays there whoever uses it.

    `groups` are the multicast groups (RTNLGRP_*) to hear. Threads may share it: one exchange at a time.
    Raises OSError when the socket cannot be had (EMFILE, EPROTONOSUPPORT …).
    """

    __slots__ = ("_limits", "_lock", "_sequence", "_socket")

    def __init__(self, groups: Collection[int] = ()) -> None:
        # The bare type: what socket.socket adds to it in Python costs 1 µs.
        self._socket = socket.SocketType(_AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_ROUTE)
        try:
            self._configure(groups)
        except BaseException:
            self._socket.close()
            raise
        self._limits = _TIGHT
        self._lock = threading.Lock()
        self._sequence = 1

    def _configure(self, groups: Collection[int]) -> None:
        self._enable(NETLINK_EXT_ACK)
        self._enable(NETLINK_GET_STRICT_CHK)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _ANSWER_TIMEOUT)
        if groups:
            self._widen()
            # Events are not delivered to a socket without a port (do_one_broadcast skips the sender's, which is 0).
            self._socket.bind((0, 0))
        for group in groups:
            self._socket.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, group)

    def _enable(self, name: int) -> None:
        try:
            self._socket.setsockopt(SOL_NETLINK, name, 1)
        except OSError as error:
            # Strict checking came with Linux 4.20, the others with 4.12 and 4.3; each is only an economy.
            if error.errno != errno.ENOPROTOOPT:
                raise

    def _widen(self) -> None:
        """Make room for many answers. Sockets that carry a message or two in a foreign namespace do without."""
        self._enable(NETLINK_CAP_ACK)
        option = self._socket.setsockopt
        try:
            option(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BUFFER)
        except PermissionError:
            option(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)  # capped at net.core.rmem_max
        self._limits = self._read_limits()

    def _read_limits(self) -> Limits:
        # netlink_sendmsg refuses more than the send buffer less 32 bytes (EMSGSIZE).
        send = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) - 32
        receive = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        return Limits(send, receive)

    def fileno(self) -> int:
        """The file descriptor, for a poller."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close the socket; twice is harmless."""
        self._socket.close()

    def exchange(self, requests: Sequence[bytes]) -> list[Outcome]:
        """Send the requests, return one outcome for each. Raises OSError when the socket itself fails."""
        exchange = self.begin(requests)
        self.run(exchange)
        return exchange.outcomes

    def ask(self, request: bytes) -> Outcome:
        """The outcome of one request that is answered with an object: :meth:`exchange`, 3 µs sooner if all is well."""
        if not _TRACE:
            with self._lock:
                number = self._sequence & 0xFFFF_FFFF
                self._sequence += 1
                data = bytearray(request)
                _SEQUENCE.pack_into(data, SEQUENCE_AT, number)
                self._socket.send(data)
                try:
                    datagram = self._socket.recv(_READ_SIZE)
                    length, kind, _flags, sequence, _port = HEADER.unpack_from(datagram)
                except OSError:
                    kind = NLMSG_ERROR
            if kind >= NLMSG_MIN_TYPE and sequence == number and length == len(datagram):
                counts.requests += 1
                return Outcome(0, "", (datagram[HEADER.size :],))
        # Whatever else came has its account there.
        return self.exchange([request])[0]

    def dump(self, request: bytes, parse: Callable[[bytes], Any], attempts: int = DUMP_ATTEMPTS) -> Outcome:
        """The outcome of a dump; its bodies are what `parse` made of each message. Raises OSError, and as `parse`.

        EAGAIN: the table changed during each of so many `attempts`.
        """
        exchange = Exchange([request], self._limits, parse, attempts)
        self._run(exchange, more=())
        return exchange.outcomes[0]

    def begin(self, requests: Sequence[bytes]) -> Exchange:
        """The account of an exchange to be :meth:`run`: it keeps its outcomes when running is interrupted."""
        if len(requests) > _FEW and self._limits is _TIGHT:
            self._widen()
        return Exchange(requests, self._limits)

    def run(self, exchange: Exchange) -> None:
        """Run an exchange to its end.

        Whatever interrupts it (a KeyboardInterrupt, say), the answers to what was sent are read before that goes
        on, so that ``exchange.outcomes`` is right and no stale answer stays in the socket. For this a datagram goes
        from the kernel into the exchange's inbox within one C call, during which no signal handler runs. The first
        datagram is mostly the only one, an ack; where more are to come, one call takes all that are there.
        """
        self._run(exchange, more=_MORE)

    def _run(self, exchange: Exchange, more: Sequence[int]) -> None:
        with self._lock:
            try:
                while (chunk := exchange.next_chunk(self._sequence)) is not None:
                    self._sequence += len(exchange.outcomes) + 1
                    self._send(chunk)
                    self._receive(exchange, ())
                    while exchange.awaiting:
                        self._receive(exchange, more)
            except BaseException:
                self._drain(exchange)
                raise
        counts.requests += len(exchange.outcomes)
        if exchange.refused:
            for outcome in exchange.outcomes:
                if outcome.errno:
                    counts.refused(outcome.errno)

    def _send(self, data: bytes | bytearray) -> None:
        if _TRACE:
            _trace("→", bytes(data))
        self._socket.send(data)

    def _receive(self, exchange: Exchange, more: Sequence[int]) -> None:
        """Wait for one datagram and account for it, and for as many `more` (flags of recv) as are there."""
        before = len(exchange.inbox)
        try:
            exchange.inbox.extend(map(self._socket.recv, repeat(_READ_SIZE), chain(_WAIT, more)))
        except BlockingIOError:
            if len(exchange.inbox) == before:
                raise TimeoutError(errno.ETIMEDOUT, "the kernel did not answer a netlink request") from None
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            self._recover(exchange)
            return
        if _TRACE:
            for datagram in exchange.inbox[before:]:
                _trace("←", datagram)
        exchange.read()

    def _recover(self, exchange: Exchange) -> None:
        """Answers were lost: read what survived, up to the ack of a no-op.

        It is sent when the buffer has been emptied: into a full one its ack would not fit either.
        """
        self._drain(exchange)
        if not exchange.awaiting:
            return
        number = self._sequence & 0xFFFF_FFFF
        self._sequence += 1
        self._send(exchange.barrier(number))
        while True:
            try:
                datagram = self._socket.recv(_READ_SIZE)
            except OSError as error:
                if error.errno == errno.ENOBUFS:
                    continue
                raise
            exchange.feed(datagram)
            if any(kind == NLMSG_ERROR and seq == number for kind, _f, seq, _s, _e in messages(datagram)):
                exchange.lost()
                return

    def _drain(self, exchange: Exchange) -> None:
        exchange.reread()
        while exchange.awaiting:
            try:
                exchange.inbox.extend(map(self._socket.recv, (_READ_SIZE,), (socket.MSG_DONTWAIT,)))
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    return
            exchange.read()

    def events(self, timeout: float | None) -> list[tuple[int, bytes]]:
        """Wait up to `timeout` seconds for what the groups bring: (type, body) of each message of one datagram.

        None waits for as long as it takes. Empty on timeout. Raises OSError(ENOBUFS) when events were lost.
        """
        self._socket.settimeout(timeout)
        try:
            datagram = self._receive_event(forever=timeout is None)
        finally:
            self._socket.settimeout(None)
        return [(k, datagram[s:e]) for k, _f, _q, s, e in messages(datagram) if k >= NLMSG_MIN_TYPE]

    def _receive_event(self, *, forever: bool) -> bytes:
        while True:
            try:
                return self._socket.recv(_READ_SIZE)
            except (TimeoutError, BlockingIOError):  # the latter for a timeout of 0, and after SO_RCVTIMEO
                if not forever:
                    return b""


def _trace(direction: str, datagram: bytes) -> None:
    from .trace import write  # imports pyroute2, which costs 120 ms

    write(direction, datagram)
