"""Streams that last as long as a connection: the heartbeats of a lease, and a watch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from queue import SimpleQueue
from threading import Event, Thread, Timer
from typing import Any, Protocol

from vethlib import _threads as threads
from vethlib.agent.stores.protocol import StoreError
from vethlib.agent.stores.storecode import StoreCode

from . import etcd_pb2 as pb
from .paging import CALL
from .refusal import FAILURES, LeaseGone, Silent

__all__ = ["Channel", "Pulse", "Watch"]


class Channel(Protocol):
    """The part of :class:`~.connection.Connection` that streams use."""

    endpoint: str

    def open(self, method: Any, requests: SimpleQueue[Any]) -> Any:
        """Open a stream."""

    def refusal(self, error: BaseException) -> StoreError:
        """Return the error for an exception of gRPC."""

    def refused(self, code: str, details: str) -> StoreError:
        """Return the error for a refusal by the server."""


class Pulse:
    """The heartbeats of a lease, which also prove that the other end of the connection is alive.

    All heartbeats use one stream: a stream for each would cost etcd three times as much, and this process five times.
    """

    def __init__(self, connection: Channel, method: Any, lease: int) -> None:
        self.connection = connection
        self.lease = lease
        self._requests: SimpleQueue[pb.LeaseKeepAliveRequest | None] = SimpleQueue()
        self._answered = Event()
        self._seconds = 0
        self._error: StoreError | None = None
        self._answers = connection.open(method, self._requests)
        threads.start(Thread(target=self._receive, name="vethlib-etcd-pulse", daemon=True), "the heartbeat of etcd")

    def beat(self, timeout: float) -> None:
        """Renew the lease. Raises :class:`Silent` after `timeout` seconds, :class:`LeaseGone`, and StoreError."""
        endpoint = self.connection.endpoint
        self._answered.clear()
        if self._error is not None:
            raise self._error
        self._requests.put(pb.LeaseKeepAliveRequest(ID=self.lease))
        if not self._answered.wait(timeout) and self._error is None:
            raise Silent(f"{endpoint}: no answer", path=endpoint, reason="no answer", code=StoreCode.NO_ANSWER)
        if self._error is not None:
            raise self._error
        if self._seconds <= 0:
            reason = "the lease has ended"
            raise LeaseGone(f"{endpoint}: {reason}", path=endpoint, reason=reason, code=StoreCode.LEASE_GONE)

    @property
    def has_ended(self) -> bool:
        """Whether the stream has ended."""
        return self._error is not None

    def close(self) -> None:
        """End the stream; the lease remains until it expires."""
        self._requests.put(None)
        self._answers.cancel()

    def _receive(self) -> None:
        """Read the stream in a thread of its own, because streams have no deadline."""
        reason = "the stream has ended"
        endpoint = self.connection.endpoint
        error = StoreError(f"{endpoint}: {reason}", path=endpoint, reason=reason, code=StoreCode.CONNECTION_LOST)
        try:
            for answer in self._answers:
                self._seconds = answer.TTL
                self._answered.set()
        except FAILURES as failure:
            error = self.connection.refusal(failure)
        self._requests.put(None)  # ends the thread of gRPC that waits for requests, even after the stream has ended
        self._error = error
        self._answered.set()


class Watch:
    """An iterator that waits for the answers of a watch, and of any other on the same stream, which has its own id.

    It ends with its connection, or by :meth:`cancel`. The `others` are requested when the watch has been created, so
    that the first answer is certainly its own.
    """

    def __init__(
        self, connection: Channel, method: Any, request: pb.WatchRequest, others: Sequence[pb.WatchRequest] = ()
    ) -> None:
        self._connection = connection
        self._others = others
        # The stream of requests stays open, because a proxy may take its end for the end of the watch.
        self._requests: SimpleQueue[pb.WatchRequest | None] = SimpleQueue()
        self._requests.put(request)
        self._answers = connection.open(method, self._requests)

    def first(self, timeout: float = CALL) -> pb.WatchResponse:
        """Return the first answer, which reports whether the watch was created.

        Raises :class:`Silent` after `timeout` seconds, and StoreError.
        """
        is_late = Event()
        timer = Timer(timeout, self._give_up, [is_late])
        timer.daemon = True
        try:
            threads.start(timer, "the time limit of etcd")
        except threads.ThreadRefused:
            pass  # it is better to wait without a limit than not to watch
        try:
            answer = next(self)
        except StoreError:
            if not is_late.is_set():
                raise
            endpoint = self._connection.endpoint
            raise Silent(
                f"{endpoint}: no answer", path=endpoint, reason="no answer", code=StoreCode.NO_ANSWER
            ) from None
        finally:
            timer.cancel()
        for request in self._others:
            self._requests.put(request)
        return answer

    def _give_up(self, is_late: Event) -> None:
        is_late.set()
        self._answers.cancel()

    def __iter__(self) -> Iterator[pb.WatchResponse]:
        return self

    def __next__(self) -> pb.WatchResponse:
        try:
            answer: pb.WatchResponse = next(self._answers)
        except StopIteration:
            reason = "the watch has ended"
            message = f"{self._connection.endpoint}: {reason}"
            raise StoreError(message, reason=reason, code=StoreCode.CONNECTION_LOST) from None
        except FAILURES as error:
            raise self._connection.refusal(error) from None
        return answer

    def refusal(self, reason: str) -> StoreError:
        """Return the error for the reason with which the server has ended the watch."""
        return self._connection.refused("", reason)

    def cancel(self) -> None:
        """End the watch."""
        self._requests.put(None)
        self._answers.cancel()
