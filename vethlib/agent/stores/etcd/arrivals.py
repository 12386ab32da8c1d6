"""Receive the answers of a watch in a thread, so that values that are superseded meanwhile are not parsed.

A writer of a key may rewrite it faster than its values can be parsed. If each of them were parsed in turn, the changes
of other keys would have to wait behind them, longer and longer. So only the last event of each key is kept, until the
reader takes all events together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from threading import Condition, Thread

from vethlib import _threads as threads
from vethlib._closing import Closing
from vethlib.agent.stores.protocol import StoreError
from vethlib.agent.stores.storecode import StoreCode

from . import etcd_pb2 as pb
from .streams import Watch

__all__ = ["Arrivals"]

_MOST = 16 << 20  # bytes of events that are kept; etcd keeps the rest
_EVENT = 700  # bytes that each takes beside its key and value; 16 MiB of short keys alone would be 240 MB


class Arrivals(Closing):
    """The events of a watch with this id.

    `aside` is called, in the thread, with answers of other watches on the same stream. Raises :class:`StoreError` if no
    thread can be started. Closing this ends the watch.
    """

    def __init__(self, watch: Watch, id_: int, aside: Callable[[pb.WatchResponse], object]) -> None:
        self._watch = watch
        self._id = id_
        self._aside = aside
        self._condition = Condition()  # protects the following
        self._events: dict[bytes, pb.Event] = {}
        self._size = 0
        self._has_ended = False
        self._error: BaseException | None = None
        self._thread = Thread(target=self._receive, name="vethlib-etcd-watch", daemon=True)
        try:
            threads.start(self._thread, "following etcd")
        except threads.ThreadRefused as error:
            raise StoreError(str(error), reason=str(error), errno=error.errno, code=StoreCode.OTHER) from None

    def __iter__(self) -> Iterator[pb.WatchResponse]:
        """Yield the last event of each key, in order, until the revision has been compacted. Raises StoreError."""
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._events or self._has_ended)
                events, self._events, self._size = self._events, {}, 0
                self._condition.notify()
            if events:
                yield pb.WatchResponse(events=events.values())
            elif self._error is not None:
                raise self._error
            else:
                return

    def close(self) -> None:
        """End the watch, and the thread."""
        with self._condition:
            self._has_ended = True
            self._condition.notify()
        self._watch.cancel()
        self._thread.join()

    def _receive(self) -> None:
        error: BaseException | None = None
        try:
            for answer in self._watch:
                if answer.watch_id != self._id:
                    self._aside(answer)
                elif answer.compact_revision:
                    break
                elif answer.canceled:
                    raise self._watch.refusal(answer.cancel_reason)
                elif not self._keep(answer):
                    break
        except BaseException as failure:
            error = failure
        with self._condition:
            self._has_ended, self._error = True, error
            self._condition.notify()

    def _keep(self, answer: pb.WatchResponse) -> bool:
        """Keep the events of an answer; return False if this is closed."""
        with self._condition:
            for event in answer.events:
                key = event.kv.key
                if (superseded := self._events.pop(key, None)) is not None:
                    self._size -= _size(superseded)
                self._events[key] = kept = pb.Event()
                kept.CopyFrom(event)  # which would keep the whole answer in memory
                self._size += _size(kept)
            self._condition.notify()
            self._condition.wait_for(lambda: self._size <= _MOST or self._has_ended)
            return not self._has_ended


def _size(event: pb.Event) -> int:
    return _EVENT + len(event.kv.key) + len(event.kv.value)
