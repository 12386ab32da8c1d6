"""What goes on for as long as a connection does: a lease that is kept alive, and a watch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from queue import SimpleQueue
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

from vethlib.agent.stores.protocol import StoreError

from . import etcd_pb2 as pb
from .refusal import LeaseGone, Silent
from .rpc import FAILURES

if TYPE_CHECKING:
    from .connection import Connection

__all__ = ["Pulse", "Watch"]


class Pulse:
    """A lease that is kept alive, and with it the certainty that somebody is at the other end of a connection.

    All heartbeats go over one stream: one that is opened for each costs etcd three times as much, and us five times.
    """

    def __init__(self, connection: Connection, method: Any, lease: int) -> None:
        self.connection = connection
        self.lease = lease
        self._requests: SimpleQueue[pb.LeaseKeepAliveRequest | None] = SimpleQueue()
        self._answered = Event()
        self._seconds = 0
        self._error: StoreError | None = None
        self._answers = connection.open(method, self._requests)
        Thread(target=self._hear, name="vethlib-etcd-pulse", daemon=True).start()

    def beat(self, timeout: float) -> None:
        """Give the lease its whole time again. Raises :class:`Silent` and :class:`LeaseGone`, too."""
        endpoint = self.connection.endpoint
        self._answered.clear()
        if self._error is not None:
            raise self._error
        self._requests.put(pb.LeaseKeepAliveRequest(ID=self.lease))
        if not self._answered.wait(timeout) and self._error is None:
            raise Silent(f"{endpoint}: no answer", path=endpoint, reason="no answer")
        if self._error is not None:
            raise self._error
        if self._seconds <= 0:
            raise LeaseGone(f"{endpoint}: the lease has ended", path=endpoint, reason="the lease has ended")

    @property
    def has_ended(self) -> bool:
        """Whether no heartbeat can come through any more."""
        return self._error is not None

    def close(self) -> None:
        """End it; the lease stays as long as it has time."""
        self._requests.put(None)
        self._answers.cancel()

    def _hear(self) -> None:
        """A thread: a stream has no deadline, so who waits for an answer must not wait on it."""
        reason = "the stream has ended"
        error = StoreError(f"{self.connection.endpoint}: {reason}", path=self.connection.endpoint, reason=reason)
        try:
            for answer in self._answers:
                self._seconds = answer.TTL
                self._answered.set()
        except FAILURES as failure:
            error = self.connection.refusal(failure)
        self._requests.put(None)  # a thread of gRPC's waits for requests, whatever has become of the stream
        self._error = error
        self._answered.set()


class Watch:
    """The answers of one watch, which waits for them, and of those that go over the same stream: they are told apart by
    their ids. It ends with its connection, or by :meth:`cancel`.
    """

    def __init__(self, connection: Connection, method: Any, requests: Iterable[pb.WatchRequest]) -> None:
        self._connection = connection
        # The stream of requests stays open: a proxy may take its end for the end of the watch.
        self._requests: SimpleQueue[pb.WatchRequest | None] = SimpleQueue()
        for request in requests:
            self._requests.put(request)
        self._answers = connection.open(method, self._requests)

    def first(self) -> pb.WatchResponse:
        """The answer that says whether the watch was made."""
        return next(self)

    def __iter__(self) -> Iterator[pb.WatchResponse]:
        return self

    def __next__(self) -> pb.WatchResponse:
        try:
            answer: pb.WatchResponse = next(self._answers)
        except StopIteration:
            reason = "the watch has ended"
            raise StoreError(f"{self._connection.endpoint}: {reason}", reason=reason) from None
        except FAILURES as error:
            raise self._connection.refusal(error) from None
        return answer

    def refusal(self, reason: str) -> StoreError:
        """The error for which the other side has ended it."""
        return self._connection.refused("", reason)

    def cancel(self) -> None:
        """End it."""
        self._requests.put(None)
        self._answers.cancel()
