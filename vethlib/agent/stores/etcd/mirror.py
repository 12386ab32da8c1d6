"""A copy of the keys of a label, updated by the answers of etcd. Pure.

Events are received over one connection only, from the revision that was read over it. Changes between two connections
are found by reading everything again: this yields the net difference instead of everything that was done and undone
meanwhile, and is right even if the history was compacted, wiped or restored from a backup.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from typing import NamedTuple

from vethlib.agent.config.northbound import Parsed, same
from vethlib.agent.limits import DEFAULT, Limits
from vethlib.agent.stores.protocol import Change, Snapshot, StoreEvent

from . import etcd_pb2 as pb
from .connection import Found, Raw, TooLong
from .reading import read_key, shortened

__all__ = ["Kept", "Mirror"]


class Kept(NamedTuple):
    """The kept parts of a value: its name, its digest, and the parsed value, or None if the digest is unchanged."""

    name: str
    digest: bytes
    parsed: Parsed | None


class _Known(NamedTuple):
    name: str
    digest: bytes
    revision: int


class Mirror:
    """The known keys below `prefix`.

    `start` is the first revision to watch after the reading, 0 before the first reading.
    """

    def __init__(self, prefix: bytes, limits: Limits = DEFAULT) -> None:
        self._prefix = prefix
        self._limits = limits
        self._keys: dict[bytes, _Known] = {}
        self._values: dict[str, Parsed] = {}
        self._cluster = 0
        self._term = 0
        self.start = 0
        self.moved: dict[str, int] = {}
        """The new revision of each name whose key has changed, 0 if it was deleted; the caller takes and clears it."""

    @property
    def has_too_many(self) -> bool:
        """Whether events have added more keys than a reading accepts."""
        return len(self._keys) > self._limits.store_keys

    def keep(self, key: bytes, raw: Raw) -> Kept:
        """Return what to keep of a value, for :meth:`replace`."""
        digest = _digest(raw)
        known = self._keys.get(shortened(key))
        if known is not None and known.digest == digest:
            return Kept(known.name, digest, None)
        name, parsed = read_key(key, raw, self._prefix, self._limits)
        return Kept(name, digest, parsed)

    def replace(self, found: Found[Kept]) -> list[StoreEvent]:
        """Replace everything with these values, under their :func:`shortened` keys.

        Returns a snapshot the first time, and changes afterwards.
        """
        is_first = not self.start
        changes: list[StoreEvent] = [self._gone(key) for key in list(self._keys) if key not in found.values]
        for key, (kept, revision) in found.values.items():
            changes += self._take(key, kept, revision)
        self.start = found.revision + 1
        self._cluster, self._term = found.cluster, found.term
        return [Snapshot(dict(self._values))] if is_first else changes

    def fits(self, header: pb.ResponseHeader) -> bool:
        """Return whether an answer belongs to the history that was read: the member may have been replaced since."""
        return (
            header.cluster_id == self._cluster and header.raft_term >= self._term and header.revision + 1 >= self.start
        )

    def apply(self, answer: pb.WatchResponse) -> list[StoreEvent]:
        """Apply the events of an answer and return the changes; events that are already known change nothing."""
        changes: list[StoreEvent] = []
        for event in answer.events:
            key, revision = shortened(event.kv.key), event.kv.mod_revision
            known = self._keys.get(key)
            if event.type == pb.Event.DELETE:
                if known is not None and known.revision <= revision:
                    changes.append(self._gone(key))
            elif known is None or known.revision < revision:
                changes += self._take(key, self.keep(event.kv.key, event.kv.value), revision)
        return changes

    def _take(self, key: bytes, kept: Kept, revision: int) -> Iterable[StoreEvent]:
        name, digest, value = kept
        self._keys[key] = _Known(name, digest, revision)
        self.moved[name] = revision
        if value is None or same(self._values.get(name), value):
            return ()
        self._values[name] = value
        return (Change(name, value),)

    def _gone(self, key: bytes) -> Change:
        name = self._keys.pop(key).name
        self.moved[name] = 0
        self._values.pop(name, None)
        return Change(name, None)


def _digest(raw: Raw) -> bytes:
    """Return a digest that identifies a value, which may be long and is not needed again."""
    if isinstance(raw, TooLong):
        return b"too long"
    return blake2b(raw, digest_size=16).digest()
