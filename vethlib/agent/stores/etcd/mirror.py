"""What is known of the keys of a label, and how etcd's answers change that: pure.

Events are heard over one connection only, from the revision on that was read over it. What happened between two
connections is found by reading everything again: that tells what is different, where events would tell all that was
done and undone meanwhile; and it is right whatever became of the history, be it compacted, wiped or restored from a
backup.
"""

from __future__ import annotations

from collections.abc import Iterable

from vethlib.agent.northbound import Parsed, same
from vethlib.agent.stores.protocol import Change, News, Snapshot

from . import etcd_pb2 as pb
from .connection import Found
from .reading import name_at, read_key

__all__ = ["Mirror"]


class Mirror:
    """The keys that begin with `prefix`, as far as is known.

    `start` is the revision from which on events are to be heard after what was read, 0 before anything was.
    """

    def __init__(self, prefix: bytes) -> None:
        self._prefix = prefix
        self._keys: dict[bytes, tuple[bytes, int]] = {}  # value and mod_revision
        self._values: dict[str, Parsed] = {}
        self._cluster = 0
        self._term = 0
        self.start = 0
        self.moved: dict[str, int] = {}
        """Names of which the revision has changed, and that revision, 0 where the key is gone; to be taken away."""

    def replace(self, found: Found) -> list[News]:
        """These are all that there is. The first time, a snapshot says so; later, what has changed is told."""
        is_first = not self.start
        before, self._keys = self._keys, found.values
        changes: list[News] = [self._gone(key) for key in before if key not in found.values]
        for key, (raw, revision) in found.values.items():
            self.moved[self._name(key)] = revision
            if key not in before or before[key][0] != raw:
                changes += self._came(key, raw)
        self.start = found.revision + 1
        self._cluster, self._term = found.cluster, found.term
        return [Snapshot(dict(self._values))] if is_first else changes

    def fits(self, header: pb.ResponseHeader) -> bool:
        """Whether who answers has the history that was read: the other end may have changed since, unseen."""
        return (
            header.cluster_id == self._cluster and header.raft_term >= self._term and header.revision + 1 >= self.start
        )

    def apply(self, answer: pb.WatchResponse) -> list[News]:
        """What an answer's events change; those that were heard before change nothing."""
        news: list[News] = []
        for event in answer.events:
            key, revision = event.kv.key, event.kv.mod_revision
            known = self._keys.get(key)
            if event.type == pb.Event.DELETE:
                if known is not None and known[1] <= revision:
                    del self._keys[key]
                    news.append(self._gone(key))
            elif known is None or known[1] < revision:
                self._keys[key] = event.kv.value, revision
                self.moved[self._name(key)] = revision
                if known is None or known[0] != event.kv.value:
                    news += self._came(key, event.kv.value)
        return news

    def _came(self, key: bytes, raw: bytes) -> Iterable[News]:
        name, value = read_key(key, raw, self._prefix)
        if same(self._values.get(name), value):
            return ()
        self._values[name] = value
        return (Change(name, value),)

    def _gone(self, key: bytes) -> Change:
        name = self._name(key)
        self.moved[name] = 0
        self._values.pop(name, None)
        return Change(name, None)

    def _name(self, key: bytes) -> str:
        return name_at(key, self._prefix)
