"""Read the published statuses of agents from an etcd, and whether the agents are alive."""

from __future__ import annotations

import re
import threading
from collections.abc import Generator, Iterator, Mapping
from datetime import UTC, datetime
from queue import Empty, Full, Queue
from typing import TypeAlias

from vethlib import _threads as threads
from vethlib._primitives import time
from vethlib.agent.config.mark import check_label
from vethlib.agent.stores.keys import liveness_key, status_key
from vethlib.agent.stores.protocol import StoreError
from vethlib.agent.stores.published import BATCH, Alive, Entry, Published, as_entry
from vethlib.agent.stores.storecode import StoreCode
from vethlib.text import cut

from . import etcd_pb2 as pb
from .address import parse_url
from .connection import CALL, Connection, Found, Raw, raw_of
from .member import answering
from .reading import entry_of, name_at, prefix_of, read_agents, shortened
from .refusal import Denied, TooLarge
from .streams import Watch

__all__ = ["EtcdStatuses", "read_labels"]

_MOST_KEYS = 10_000_000  # keys of all labels together
_LONGEST_HOST = 255  # characters of the name of a host
_WAITING = 100  # answers of a watch that are queued; etcd keeps the rest meanwhile
_PAUSE = 1.0  # seconds between attempts to connect again
_END = datetime(9999, 1, 1, tzinfo=UTC).timestamp()  # later times cannot be shown
_ROOT = b"/vnf-agent/"
_OF_A_LABEL = re.compile(
    rb"/vnf-agent/([^/]+)/(?:linux/(?:config|status)/v1/interface/.*|check/status/v1/agent)", re.DOTALL
)

_Revisions: TypeAlias = Mapping[str, int]
_Answers: TypeAlias = Queue[pb.WatchResponse | StoreError]


class EtcdStatuses:
    """The statuses of a label's agent in an etcd; see :class:`~vethlib.agent.stores.published.Statuses`.

    Raises InvalidValue for a bad URL or label.
    """

    def __init__(self, url: str, label: str) -> None:
        self._address = parse_url(url)
        self.place = self._address.url
        self.life = f"is alive in {self._address.url}"
        self._label = check_label(label)
        self._prefix = status_key(label, "").encode()

    def read(self) -> Published:
        """Return the present statuses, compared with the present configuration."""
        with answering(self._address, lambda connection: _read(connection, self._label)) as (_, published):
            return published

    def watch(self, interval: float | None) -> Generator[Published | StoreError, None, None]:
        """Yield the present statuses, and again after each change, without comparing them with the configuration."""
        was_readable = False
        while True:
            began = time.monotonic()
            try:
                with answering(self._address, self._listed) as (connection, listed):
                    for published in self._follow(connection, listed, interval):
                        yield published
                        was_readable = True
                if time.monotonic() - began < _PAUSE:
                    time.sleep(_PAUSE)  # the watch ended at once, because its revision had just been compacted
            except StoreError as error:
                if not was_readable:
                    raise
                if error.code is StoreCode.LOGIN_EXPIRED and time.monotonic() - began >= _PAUSE:
                    continue  # etcd ends a login that has not been used for minutes; the next connection logs in again
                yield error
                time.sleep(_PAUSE)

    def _listed(self, connection: Connection) -> Found[bytes]:
        return _below(connection, self._prefix)

    def _follow(self, connection: Connection, listed: Found[bytes], interval: float | None) -> Iterator[Published]:
        """Yield the statuses after each change, until the revision to watch has been compacted."""
        raw = _raw(listed)
        answers: _Answers = Queue(_WAITING)
        ended = threading.Event()
        watch = connection.watch(self._prefix, listed.revision + 1)
        # Waiting for a watch with a time limit takes a thread.
        thread = threading.Thread(target=_receive, args=(watch, answers, ended), name="vethlib-etcd-watch", daemon=True)
        try:
            threads.start(thread, "following etcd")
        except BaseException:
            ended.set()  # it may run although its start was interrupted
            watch.cancel()
            raise
        try:
            while True:
                yield _published(connection, self._label, raw)
                for answer in _next(answers, interval):
                    if isinstance(answer, StoreError):
                        raise answer
                    if answer.compact_revision:
                        return
                    if answer.canceled:
                        raise watch.refusal(answer.cancel_reason)
                    _apply(answer, raw)
        finally:
            ended.set()
            watch.cancel()
            thread.join()


def read_labels(url: str) -> dict[str, Published | StoreError]:
    """Read the statuses of every label that has a configuration or a status in an etcd.

    If those of a label cannot be read, its value is the error, unless the others could not be read either.
    """
    with answering(parse_url(url), _labels) as (connection, labels):
        return {label: _read_one(connection, label) for label in labels}


def _labels(connection: Connection) -> set[str]:
    """Return the labels that have a configuration, a status or an agent. Of the keys, nothing else is kept."""
    found: set[bytes] = set()

    def keep(key: bytes, _raw: Raw) -> None:
        if (match := _OF_A_LABEL.fullmatch(key)) is not None:
            found.add(match[1])

    connection.read(_ROOT, keys_only=True, most=_MOST_KEYS, keep=keep, known_as=lambda _: b"")
    return {text for text in (label.decode(errors="replace") for label in found) if _is_label(text)}


def _read_one(connection: Connection, label: str) -> Published | StoreError:
    try:
        return _read(connection, label)
    except StoreError as error:
        if isinstance(error, Denied) or error.code is StoreCode.CHANGED_TOO_FAST:
            return error
        raise


def _is_label(text: str) -> bool:
    try:
        check_label(text)
    except ValueError:
        return False
    return True


def _read(connection: Connection, label: str) -> Published:
    """Read the statuses of a label, compared with its configuration."""
    # In this order, no status is older than the configuration that it is compared with.
    revisions = _configured(connection, label)
    return _published(connection, label, _raw(_below(connection, status_key(label, "").encode())), revisions)


def _below(connection: Connection, prefix: bytes) -> Found[bytes]:
    """Read all values below a prefix, by their :func:`shortened` keys."""
    return connection.read(prefix, keep=lambda _, raw: raw_of(raw), known_as=shortened)


def _configured(connection: Connection, label: str) -> _Revisions | None:
    """Read the revisions of the configured interfaces; None for a user who may only read statuses."""
    prefix = prefix_of(label)
    try:
        listed = connection.read(prefix, keys_only=True, keep=lambda key, _: name_at(key, prefix), known_as=shortened)
    except Denied:
        return None
    return dict(listed.values.values())


def _published(
    connection: Connection, label: str, raw: Mapping[bytes, bytes], revisions: _Revisions | None = None
) -> Published:
    entries = {entry["name"]: entry for key, value in raw.items() if (entry := _entry(key, value, label)) is not None}
    if revisions is not None:
        for name, entry in entries.items():
            entry["stored_revision"] = revisions.get(name, 0)
    agent = _agent(connection, label)
    untold = tuple(name for name in revisions or () if name not in entries)
    return Published(entries, agent, untold, _others(connection, label, agent))


def _agent(connection: Connection, label: str) -> Alive | None:
    """Read which agent has written the liveness key of a label last."""
    try:
        liveness = connection.get(liveness_key(label).encode())
    except TooLarge:
        return Alive(0)  # anybody may have written it
    return None if liveness is None else _alive(liveness.value)


def _others(connection: Connection, label: str, agent: Alive | None) -> tuple[Alive, ...]:
    """Return the running agents of a label other than `agent`, which has written the liveness key last."""
    present, refusal = read_agents(connection, label, _alive)
    if agent is None or (refusal is not None and refusal.code is not StoreCode.TOO_LARGE):
        return ()
    others = list(present.values())
    # Of agents in containers or on clones, several may have this name of the host and this process number. If none has
    # started when `agent` has, it has been started again since its key was read.
    own = [other for other in others if (other.host, other.pid) == (agent.host, agent.pid)]
    if own:
        others.remove(agent if agent in own else own[0])
    return tuple(others)


def _entry(key: bytes, raw: bytes, label: str) -> Entry | None:
    """Parse the status at a key; None if it is not one of an agent, or its name is not that of the key."""
    entry = as_entry(raw)
    return entry if entry is not None and status_key(label, entry["name"]).encode() == key else None


def _raw(listed: Found[bytes]) -> dict[bytes, bytes]:
    return {key: raw for key, (raw, _) in listed.values.items()}


def _alive(raw: bytes) -> Alive:
    """Parse the value of a liveness key; other kinds of agents write less."""
    entry = entry_of(raw)
    pid, host, since = entry.get("pid"), entry.get("host"), entry.get("start_time")
    # type(), not isinstance(), because bool is an int.
    return Alive(
        pid if type(pid) is int else 0,
        cut(host, _LONGEST_HOST) if isinstance(host, str) else "",
        since if (type(since) is int or type(since) is float) and 0 <= since < _END else None,
    )


def _receive(watch: Watch, answers: _Answers, ended: threading.Event) -> None:
    try:
        _put(watch.first(CALL), answers, ended)
        for answer in watch:
            _put(answer, answers, ended)
    except StoreError as error:
        _put(error, answers, ended)


def _put(answer: pb.WatchResponse | StoreError, answers: _Answers, ended: threading.Event) -> None:
    while not ended.is_set():
        try:
            answers.put(answer, timeout=0.2)
            return
        except Full:
            continue


def _next(answers: _Answers, interval: float | None) -> Iterator[pb.WatchResponse | StoreError]:
    """Yield the next answer and those that follow within BATCH; nothing after `interval` seconds without one."""
    try:
        yield answers.get(timeout=interval)
        deadline = time.monotonic() + BATCH
        while (left := deadline - time.monotonic()) > 0:
            yield answers.get(timeout=left)
    except Empty:
        return


def _apply(answer: pb.WatchResponse, raw: dict[bytes, bytes]) -> None:
    for event in answer.events:
        if event.type == pb.Event.DELETE:
            raw.pop(shortened(event.kv.key), None)
        else:
            raw[shortened(event.kv.key)] = event.kv.value
