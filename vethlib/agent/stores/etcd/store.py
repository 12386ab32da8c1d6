"""Configuration in etcd, followed as it changes; and status, written back.

A thread attends to one member after the other: it reads all keys of the label, and hears of changes from then on. After
a connection was lost it reads them again, and tells what is different. In between nothing is told but that there is an
outage.

Who reads does not wait for it: news are left for :meth:`EtcdStore.read`, and a descriptor says so.
"""

from __future__ import annotations

import logging
import math
import os
import random
import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping
from typing import NoReturn

from vethlib.agent.mark import check_label
from vethlib.agent.status import Status
from vethlib.agent.stores.keys import presence_key
from vethlib.agent.stores.protocol import Back, News, Outage, StoreError
from vethlib.agent.stores.statuses import StatusFiles

from .address import Address, parse_url
from .connection import Connection
from .mirror import Mirror
from .publishing import ANSWER, Publisher
from .reading import prefix_of
from .refusal import Denied, Silent
from .streams import Watch

__all__ = ["EtcdStore"]

_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 3.0  # seconds between rounds of attempts
_LONGEST_IF_DENIED = 30.0  # each login costs etcd 50 ms
_ESTABLISHED = 1.0  # seconds after which a watch was a good one, and its end is the first failure
_OFTEN, _LATELY = 5, 60.0  # so many good ones that ended in so many seconds are an outage, too

_log = logging.getLogger("vethlib.agent")


class EtcdStore:
    """The interfaces of a `label` in the etcd of a `url`, and their status.

    With `status_dir`, the statuses are files there as well, for those who look when etcd cannot be reached.
    Raises :class:`InvalidValue` for a bad URL or label. That no etcd is there is news: an :class:`Outage`.
    """

    def __init__(self, url: str, label: str, *, status_dir: str | os.PathLike[str] | None = None) -> None:
        self._address: Address = parse_url(url)
        self._prefix = prefix_of(check_label(label))
        self._presence = presence_key(label, "").encode()
        self._mirror = Mirror(self._prefix)
        self._lock = threading.Lock()
        self._news: list[News] = []
        self._revisions: dict[str, int] = {}  # of what is in the news
        self._read: dict[str, int] = {}  # and of what was read, and is yet to be published
        self._refusals: dict[str, str] = {}  # why each member could not be followed last
        self._outage = ""  # that was told
        self._closing = threading.Event()
        self._connection: Connection | None = None
        self._failures = 0  # in a row
        self._lost: deque[float] = deque(maxlen=_OFTEN)  # when good connections ended
        self._followed = math.inf  # since when the keys are followed, by time.monotonic()
        self._files = None if status_dir is None else StatusFiles(status_dir)
        self._event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._publisher = Publisher(self._address, label)
        self._thread = threading.Thread(target=self._run, name="vethlib-etcd", daemon=True)
        self._thread.start()

    def __repr__(self) -> str:
        return f"<EtcdStore {self._address.url}>"

    # --- as in stores.protocol.Store

    def read(self) -> list[News]:
        """What is new since the last call; does not wait, and raises nothing."""
        with self._lock:
            if self._event < 0:
                return []
            try:
                os.eventfd_read(self._event)
            except BlockingIOError:
                pass
            news, self._news = self._news, []
            revisions, self._revisions = self._revisions, {}
        if news:
            self._read |= revisions
        elif revisions:
            # Values were written again as they were. Nothing is to be done for them, and so nobody will publish.
            self._publisher.publish({}, revisions)
        return news

    def fileno(self) -> int:
        """Readable when :meth:`read` has something."""
        return self._event

    def due(self) -> float | None:
        """Never: all that is new makes the descriptor readable."""
        return None

    def publish(self, statuses: Mapping[str, Status | None]) -> None:
        """Have these written, with the revision of the configuration that was read last. Does not wait for etcd."""
        revisions, self._read = self._read, {}
        self._publisher.publish(statuses, revisions)
        if self._files is not None:
            self._files.publish(statuses)

    def close(self) -> None:
        """Take the status and the sign of life away, and end the connection; a second time, nothing."""
        if self._event < 0:
            return
        self._closing.set()
        self._publisher.close()
        connection = self._connection
        if connection is not None:
            connection.close()
        self._thread.join(ANSWER)
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
                self._tell_outage("; ".join(self._refusals[one] for one in endpoints if one in self._refusals))
            longest = _LONGEST_IF_DENIED if isinstance(error, Denied) else _LONGEST_PAUSE
            self._closing.wait(_pause(self._failures // len(endpoints), longest))

    def _is_outage(self, error: StoreError) -> bool:
        """Count a connection that failed; and whether that has to be told."""
        now = time.monotonic()
        if now - self._followed > _ESTABLISHED:
            self._failures = 0
            self._lost.append(now)
        self._followed = math.inf
        self._failures += 1
        # One that was lost may be there again at once; but silence has lasted for a while already.
        patience = len(self._address.endpoints) - (0 if self._mirror.start else 1)
        is_often = len(self._lost) == _OFTEN and now - self._lost[0] < _LATELY
        return self._failures > patience or isinstance(error, Silent) or is_often

    def _attend(self, endpoint: str) -> StoreError:
        """Follow the keys over one connection, until it fails; and why it did."""
        try:
            with Connection(self._address, endpoint) as connection:
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
            self._mirror = Mirror(self._prefix)  # what is known is not to be relied on: it begins with a snapshot
            return StoreError(f"{endpoint}: {error!r}", path=endpoint, reason=repr(error))

    def _follow(self, connection: Connection) -> NoReturn:
        """Hear of changes. Ends only by an error, as everything does that has to do with a connection."""
        connection.authenticate()
        self._read_all(connection)
        self._publisher.use(connection)
        while True:
            watch = connection.watch(self._prefix, self._mirror.start, also=self._presence)
            try:
                first = watch.first()
                if first.canceled:
                    raise watch.refusal(first.cancel_reason)
                if not self._mirror.fits(first.header):
                    raise watch.refusal("it has another history than what was read over the same connection")
                self._hear(watch, first.watch_id)
            finally:
                watch.cancel()
            self._read_all(connection)

    def _hear(self, watch: Watch, id_: int) -> None:
        """Tell what a watch says, until what it should say is history that was given up.

        The other watch on the stream is of those who say that they are alive. Who may not look at them gets none.
        """
        self._followed = time.monotonic()
        self._tell(())
        for answer in watch:
            if answer.created or answer.watch_id != id_:
                if answer.events:
                    self._publisher.look_around()
                continue
            if answer.compact_revision:
                return
            if answer.canceled:
                raise watch.refusal(answer.cancel_reason)
            self._tell(self._mirror.apply(answer))

    def _read_all(self, connection: Connection) -> None:
        self._tell(self._mirror.replace(connection.read(self._prefix)))

    def _tell_outage(self, reason: str) -> None:
        if reason != self._outage:
            self._outage = reason
            self._leave([Outage(reason)])

    def _tell(self, news: Iterable[News]) -> None:
        """Tell these news, and so that an outage before is over."""
        back: list[News] = [Back()] if self._outage else []
        self._outage = ""
        self._refusals.clear()
        self._leave([*back, *news])

    def _leave(self, news: list[News]) -> None:
        """Leave news to be read."""
        moved, self._mirror.moved = self._mirror.moved, {}
        with self._lock:
            self._revisions |= moved
            if (news or moved) and self._event >= 0:
                self._news += news
                os.eventfd_write(self._event, 1)


def _any_of(count: int) -> int:
    """The number of the member to begin with, so that a fleet is shared out among them."""
    return random.randrange(count)


def _pause(rounds: int, longest: float) -> float:
    """Seconds before the next attempt: none in the first round, then longer and longer, and not for all the same."""
    if not rounds:
        return 0.0
    doubled: float = min(longest, _FIRST_PAUSE * 2 ** min(rounds - 1, 10))
    return doubled * random.uniform(0.5, 1.0)
