"""Follow a configuration in etcd, and publish statuses there.

A thread connects to one member after another: it reads all keys of the label and watches them from then on. After a
lost connection it reads them again and reports the differences; in between, it only reports an outage. The outage is
over when the keys are watched again; after several failures in a row, only when they have been watched for a second,
because a server that accepts every watch and ends it at once is of no use.

The reader does not wait: events are queued for :meth:`EtcdStore.read`, and a descriptor becomes readable.
"""

from __future__ import annotations

import logging
import math
import os
import random
import threading
from collections import deque
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from typing import NoReturn

from vethlib import _threads as threads
from vethlib._primitives import time
from vethlib.agent.config.mark import check_label
from vethlib.agent.limits import DEFAULT, Limits
from vethlib.agent.status import Status
from vethlib.agent.stores.keys import presence_key
from vethlib.agent.stores.protocol import Back, Change, Outage, StoreError, StoreEvent
from vethlib.agent.stores.statuses import StatusFiles
from vethlib.agent.stores.storecode import StoreCode

from . import etcd_pb2 as pb
from .address import Address, parse_url
from .arrivals import Arrivals
from .connection import CALL, Connection
from .mirror import Mirror
from .paging import Pager
from .publishing import ANSWER, Publisher
from .reading import prefix_of, shortened
from .refusal import Denied, Silent
from .streams import Watch

__all__ = ["EtcdStore"]

_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 3.0  # seconds between rounds of attempts
_LONGEST_IF_DENIED = 30.0  # seconds; each login costs etcd 50 ms
_ESTABLISHED = 1.0  # seconds after which a watch counts as good, so that its end is the first failure
_RESTARTS = 3  # watches on one connection that may end by a compaction before they count as good
_MOST_EVENTS = 10_000  # queued events before those that later ones supersede are dropped
_OFTEN, _LATELY = 5, 60.0  # if this many good watches end within this many seconds, that is an outage, too

_log = logging.getLogger("vethlib.agent")


class EtcdStore:
    """The interfaces of a `label` in the etcd of a `url`, and their statuses.

    With `status_dir`, statuses are also written to files there, for readers on this host when etcd cannot be reached.
    Values that exceed the `limits` are refused one by one.
    Raises :class:`InvalidValue` for a bad URL or label. An etcd that cannot be reached is an :class:`Outage`.
    """

    def __init__(
        self,
        url: str,
        label: str,
        *,
        status_dir: str | os.PathLike[str] | None = None,
        limits: Limits = DEFAULT,
    ) -> None:
        self._limits = limits
        self._address: Address = parse_url(url)
        self._prefix = prefix_of(check_label(label))
        self._presence = presence_key(label, "").encode()
        self._mirror = Mirror(self._prefix, self._limits)
        self._pager = Pager()
        self._lock = threading.Lock()
        self._events: list[StoreEvent] = []
        self._most_events = _MOST_EVENTS
        self._revisions: dict[str, int] = {}  # revisions of the queued events
        self._read: dict[str, int] = {}  # revisions of events that were read, until their statuses are published
        self._refusals: dict[str, str] = {}  # the last error of each member
        self._outage = ""  # the last reported one
        self._closing = threading.Event()
        self._connection: Connection | None = None
        self._failures = 0  # failures in a row
        self._lost: deque[float] = deque(maxlen=_OFTEN)  # when good connections ended
        self._followed = math.inf  # monotonic time since which the keys are watched
        self._files = None if status_dir is None else StatusFiles(status_dir)
        self._event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        with ExitStack() as undoing:
            undoing.callback(self._close_event)
            self._publisher = Publisher(self._address, label)
            undoing.callback(self._publisher.close)
            undoing.callback(self._closing.set)  # the thread may run although its start was interrupted
            self._thread = threading.Thread(target=self._run, name="vethlib-etcd", daemon=True)
            threads.start(self._thread, "following etcd")
            undoing.pop_all()

    def __repr__(self) -> str:
        return f"<EtcdStore {self._address.url}>"

    # --- as in stores.protocol.Store

    def read(self) -> list[StoreEvent]:
        """Return the results since the last call. Never blocks or raises."""
        with self._lock:
            if self._event < 0:
                return []
            try:
                os.eventfd_read(self._event)
            except BlockingIOError:
                pass
            events, self._events = self._events, []
            revisions, self._revisions = self._revisions, {}
        if self._files is not None:
            self._files.try_again()
        if events:
            self._read |= revisions
        elif revisions:
            # Values were written again unchanged. This causes no work, so publish() will not be called for it.
            self._publisher.publish({}, revisions)
        return events

    def fileno(self) -> int:
        """Return a descriptor that is readable when :meth:`read` has results."""
        return self._event

    def due(self) -> float | None:
        """Return the seconds until status files are tried again, or None: all results make the descriptor readable."""
        return None if self._files is None else self._files.due()

    def publish(self, statuses: Mapping[str, Status | None]) -> None:
        """Have these written, with the revisions of the configuration that was read last. Does not wait for etcd."""
        revisions, self._read = self._read, {}
        self._publisher.publish(statuses, revisions)
        if self._files is not None:
            self._files.publish(statuses)

    def close(self) -> None:
        """Delete the statuses and the liveness key, and close the connection. A second call does nothing."""
        if self._event < 0:
            return
        self._closing.set()
        self._publisher.close()
        connection = self._connection
        if connection is not None:
            connection.close()
        self._thread.join(ANSWER)
        self._close_event()

    def _close_event(self) -> None:
        with self._lock:
            os.close(self._event)
            self._event = -1

    # --- in the thread

    def _run(self) -> None:
        endpoints = self._address.endpoints
        turn = _any_of(len(endpoints))
        while not self._closing.is_set():
            endpoint = endpoints[turn % len(endpoints)]
            error = self._attend(endpoint)
            if self._closing.is_set():
                return
            turn += 1
            self._refusals[endpoint] = str(error)
            if self._is_outage(error):
                reasons = (self._refusals[member] for member in endpoints if member in self._refusals)
                self._report_outage("; ".join(reasons), error.code)
            longest = _LONGEST_IF_DENIED if isinstance(error, Denied) else _LONGEST_PAUSE
            self._closing.wait(_pause(self._failures // len(endpoints), longest))

    @property
    def _fails_again(self) -> bool:
        """Whether there have been more failures in a row than members."""
        return self._failures > len(self._address.endpoints)

    def _is_outage(self, error: StoreError) -> bool:
        """Count a failed connection; return whether it is an outage."""
        now = time.monotonic()
        if now - self._followed > _ESTABLISHED:
            self._failures = 0
            self._lost.append(now)
        self._followed = math.inf
        self._failures += 1
        # A lost member may be back at once, so others are tried first; but a silent one has been waited for already.
        patience = len(self._address.endpoints) - (0 if self._mirror.start else 1)
        is_often = len(self._lost) == _OFTEN and now - self._lost[0] < _LATELY
        return self._failures > patience or isinstance(error, Silent) or is_often

    def _attend(self, endpoint: str) -> StoreError:
        """Follow the keys over one connection until it fails; return the error."""
        try:
            with Connection(self._address, endpoint, limits=self._limits, pager=self._pager) as connection:
                self._connection = connection
                if self._closing.is_set():
                    connection.close()
                try:
                    self._follow(connection)
                finally:
                    self._publisher.use(None)
        except StoreError as error:
            return error
        except Exception as error:
            _log.exception("following %s failed", self._address.url)
            # The mirror may be wrong, so start over with a snapshot.
            self._mirror = Mirror(self._prefix, self._limits)
            return StoreError(f"{endpoint}: {error!r}", path=endpoint, reason=repr(error), code=StoreCode.UNFORESEEN)

    def _follow(self, connection: Connection) -> NoReturn:
        """Read and watch the keys. Ends only with an error."""
        connection.authenticate()
        self._read_all(connection)
        self._publisher.use(connection)
        restarts = 0
        while True:
            watch = connection.watch(self._prefix, self._mirror.start, also=self._presence)
            try:
                first = watch.first(CALL)
                if first.canceled:
                    raise watch.refusal(first.cancel_reason)
                if not self._mirror.fits(first.header):
                    raise watch.refusal("its history differs from what was read over the same connection")
                self._receive(watch, first.watch_id)
            finally:
                watch.cancel()
            restarts = restarts + 1 if time.monotonic() - self._followed < _ESTABLISHED else 0
            if restarts >= _RESTARTS:
                raise watch.refusal(f"it has compacted its latest history {restarts} times in a row")
            self._read_all(connection)

    def _receive(self, watch: Watch, id_: int) -> None:
        """Report the changes of a watch until everything must be read again.

        That is when its revision has been compacted, and when the keys have become too many, which a reading refuses.
        The other watch on the stream is for the liveness of other agents; it is refused to users who may not read that.
        """
        self._followed = time.monotonic()
        self._report(())
        settled = threading.Timer(_ESTABLISHED, self._report_back)
        settled.daemon = True
        if self._outage:
            settled.start()
        try:
            self._receive_all(watch, id_)
        finally:
            settled.cancel()

    def _receive_all(self, watch: Watch, id_: int) -> None:
        with Arrivals(watch, id_, self._note_others) as arrivals:
            for answer in arrivals:
                self._report(self._mirror.apply(answer))
                if self._mirror.has_too_many:
                    return

    def _note_others(self, answer: pb.WatchResponse) -> None:
        """Take an answer of the watch for other agents; it may have just been created, after others have begun."""
        if answer.events or not answer.canceled:
            self._publisher.look_around()

    def _read_all(self, connection: Connection) -> None:
        listed = connection.read(self._prefix, keep=self._mirror.keep, known_as=shortened)
        self._report(self._mirror.replace(listed))

    def _report_outage(self, reason: str, code: StoreCode) -> None:
        if reason != self._outage:
            self._outage = reason
            self._queue([Outage(reason, code)])

    def _report(self, changes: Iterable[StoreEvent]) -> None:
        """Report changes, and the end of an outage unless the next one is likely."""
        events = list(changes)
        if events or not self._fails_again:
            self._report_back()
            self._refusals.clear()
        self._queue(events)

    def _report_back(self) -> None:
        """Report the end of an outage. Called from another thread, too."""
        with self._lock:
            if self._outage and self._event >= 0:
                self._outage = ""
                self._events.append(Back())
                os.eventfd_write(self._event, 1)

    def _queue(self, events: list[StoreEvent]) -> None:
        """Queue events for the reader."""
        moved, self._mirror.moved = self._mirror.moved, {}
        with self._lock:
            self._revisions |= moved
            if (events or moved) and self._event >= 0:
                self._events += events
                if len(self._events) > self._most_events:
                    self._events = _latest(self._events)
                    self._most_events = max(_MOST_EVENTS, 2 * len(self._events))
                os.eventfd_write(self._event, 1)


def _latest(events: list[StoreEvent]) -> list[StoreEvent]:
    """Return the events without changes that later ones supersede, since others may write faster than they are read."""
    last = {event.name: number for number, event in enumerate(events) if isinstance(event, Change)}
    return [event for number, event in enumerate(events) if not isinstance(event, Change) or last[event.name] == number]


def _any_of(count: int) -> int:
    """Return the number of the member to begin with: random, so that a fleet is distributed among the members."""
    return random.randrange(count)


def _pause(rounds: int, longest: float) -> float:
    """Return the seconds before the next attempt: 0 in the first round, then doubled each time, with jitter."""
    if not rounds:
        return 0.0
    doubled: float = min(longest, _FIRST_PAUSE * 2 ** min(rounds - 1, 10))
    return doubled * random.uniform(0.5, 1.0)
