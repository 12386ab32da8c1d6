"""What agents have said in an etcd: of their interfaces, and that they are alive."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Generator, Iterator, Mapping
from datetime import UTC, datetime
from queue import Empty, SimpleQueue
from typing import TypeAlias

from vethlib.agent.mark import check_label
from vethlib.agent.stores.keys import liveness_key, presence_key, status_key
from vethlib.agent.stores.protocol import StoreError
from vethlib.agent.stores.published import BATCH, Alive, Entry, Published, as_entry

from . import etcd_pb2 as pb
from .address import parse_url
from .connection import Connection, Found
from .member import answering
from .reading import name_at, prefix_of
from .refusal import Denied
from .streams import Watch

__all__ = ["EtcdStatuses", "read_labels"]

_PAUSE = 1.0  # seconds between attempts to connect again
_END = datetime(9999, 1, 1, tzinfo=UTC).timestamp()  # no time after it can be shown
_ROOT = b"/vnf-agent/"
_OF_A_LABEL = re.compile(
    rb"/vnf-agent/([^/]+)/(?:linux/(?:config|status)/v1/interface/.*|check/status/v1/agent)", re.DOTALL
)

_Revisions: TypeAlias = Mapping[str, int]
_News: TypeAlias = SimpleQueue[pb.WatchResponse | StoreError]


class EtcdStatuses:
    """What the agent of a label says in the etcd of a URL; see :class:`~vethlib.agent.stores.published.Statuses`.

    Raises InvalidValue for a bad URL or label.
    """

    def __init__(self, url: str, label: str) -> None:
        self._address = parse_url(url)
        self.place = self._address.url
        self.life = f"is alive in {self._address.url}"
        self._label = check_label(label)
        self._prefix = status_key(label, "").encode()

    def read(self) -> Published:
        """What is said now, and what is configured."""
        with answering(self._address, lambda connection: _read(connection, self._label)) as (_, published):
            return published

    def watch(self, interval: float | None) -> Generator[Published | StoreError, None, None]:
        """What is said now, and again whenever something of it changes; of the configuration nothing is said."""
        was_there = False
        while True:
            try:
                with answering(self._address, lambda one: one.read(self._prefix)) as (connection, found):
                    for published in self._follow(connection, found, interval):
                        yield published
                        was_there = True
            except StoreError as error:
                if not was_there:
                    raise
                yield error
                time.sleep(_PAUSE)

    def _follow(self, connection: Connection, found: Found, interval: float | None) -> Iterator[Published]:
        """What is said, again and again, until what should be heard is history that was given up."""
        raw = _raw(found)
        news: _News = SimpleQueue()
        watch = connection.watch(self._prefix, found.revision + 1)
        # Nothing but a thread can wait for a watch no longer than so long.
        thread = threading.Thread(target=_hear, args=(watch, news), name="vethlib-etcd-watch", daemon=True)
        thread.start()
        try:
            while True:
                yield _published(connection, self._label, raw)
                for answer in _next(news, interval):
                    if isinstance(answer, StoreError):
                        raise answer
                    if answer.compact_revision:
                        return
                    if answer.canceled:
                        raise watch.refusal(answer.cancel_reason)
                    _apply(answer, raw)
        finally:
            watch.cancel()
            thread.join()


def read_labels(url: str) -> dict[str, Published]:
    """What is said of every label that is in the etcd of a URL, the configured ones too."""
    address = parse_url(url)
    with answering(address, lambda connection: connection.read(_ROOT, keys_only=True)) as (connection, found):
        matches = map(_OF_A_LABEL.fullmatch, found.values)
        labels = {match[1].decode(errors="replace") for match in matches if match is not None}
        return {label: _read(connection, label) for label in labels if _is_label(label)}


def _is_label(text: str) -> bool:
    try:
        check_label(text)
    except ValueError:
        return False
    return True


def _read(connection: Connection, label: str) -> Published:
    """What is said of a label now, and what is configured."""
    # In this order, what is said is no older than what it may speak of.
    revisions = _configured(connection, label)
    return _published(connection, label, _raw(connection.read(status_key(label, "").encode())), revisions)


def _configured(connection: Connection, label: str) -> _Revisions | None:
    """The revisions of what is configured; None for one who may look at statuses, and not there."""
    prefix = prefix_of(label)
    try:
        found = connection.read(prefix, keys_only=True)
    except Denied:
        return None
    return {name_at(key, prefix): revision for key, (_, revision) in found.values.items()}


def _published(
    connection: Connection, label: str, raw: Mapping[bytes, bytes], revisions: _Revisions | None = None
) -> Published:
    entries = {entry["name"]: entry for key, value in raw.items() if (entry := _entry(key, value, label)) is not None}
    if revisions is not None:
        for name, entry in entries.items():
            entry["stored_revision"] = revisions.get(name, 0)
    found = connection.get(liveness_key(label).encode())
    agent = None if found is None else _alive(found.value)
    untold = tuple(name for name in revisions or () if name not in entries)
    return Published(entries, agent, untold, _others(connection, label, agent))


def _others(connection: Connection, label: str, agent: Alive | None) -> tuple[Alive, ...]:
    """The agents of a label that are alive, but for the one that says so last."""
    try:
        found = connection.read(presence_key(label, "").encode())
    except Denied:
        return ()
    present = [_alive(raw) for raw in _raw(found).values()]
    return tuple(one for one in present if agent is not None and (one.host, one.pid) != (agent.host, agent.pid))


def _entry(key: bytes, raw: bytes, label: str) -> Entry | None:
    """The status at a key, which has to be that of its name."""
    entry = as_entry(raw)
    return entry if entry is not None and status_key(label, entry["name"]).encode() == key else None


def _raw(found: Found) -> dict[bytes, bytes]:
    return {key: raw for key, (raw, _) in found.values.items()}


def _alive(raw: bytes) -> Alive:
    """Who it is that is alive, as far as that can be read: agents of other kinds say less."""
    try:
        said = json.loads(raw)
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict):
        return Alive(0)
    pid, host, since = said.get("pid"), said.get("host"), said.get("start_time")
    # By type(): True is an int, too.
    return Alive(
        pid if type(pid) is int else 0,
        host if isinstance(host, str) else "",
        since if (type(since) is int or type(since) is float) and 0 <= since < _END else None,
    )


def _hear(watch: Watch, news: _News) -> None:
    try:
        for answer in watch:
            news.put(answer)
    except StoreError as error:
        news.put(error)


def _next(news: _News, interval: float | None) -> Iterator[pb.WatchResponse | StoreError]:
    """What comes, and all that comes soon after; nothing, after so many seconds."""
    try:
        yield news.get(timeout=interval)
        deadline = time.monotonic() + BATCH
        while (left := deadline - time.monotonic()) > 0:
            yield news.get(timeout=left)
    except Empty:
        return


def _apply(answer: pb.WatchResponse, raw: dict[bytes, bytes]) -> None:
    for event in answer.events:
        if event.type == pb.Event.DELETE:
            raw.pop(event.kv.key, None)
        else:
            raw[event.kv.key] = event.kv.value
