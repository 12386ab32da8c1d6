"""What an agent has to say of its interfaces, key by key, and what of that is yet to be written: no I/O."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping

from vethlib.agent.status import Status
from vethlib.agent.stores.keys import status_key

from . import etcd_pb2 as pb

__all__ = ["Ledger", "as_json"]

_log = logging.getLogger("vethlib.agent")


class Ledger:
    """The statuses of a label. Not for several threads at once."""

    def __init__(self, label: str) -> None:
        self.prefix = status_key(label, "").encode()
        self._statuses: dict[bytes, Status] = {}
        self._revisions: dict[bytes, int] = {}
        self._unwritten: dict[bytes, None] = {}  # in the order in which they became so

    def say(self, statuses: Mapping[str, Status | None], revisions: Mapping[str, int]) -> None:
        """From now on this is so; None takes a status away. A revision is that of the configuration, 0 for none."""
        for name, revision in revisions.items():
            key = self._key(name)
            if revision:
                self._revisions[key] = revision
            else:
                self._revisions.pop(key, None)
            if key in self._statuses:
                self._unwritten[key] = None
        for name, status in statuses.items():
            key = self._key(name)
            if status is None:
                self._statuses.pop(key, None)
            elif self._statuses.get(key) == status:
                continue
            else:
                self._statuses[key] = status
            self._unwritten[key] = None

    def __len__(self) -> int:
        return len(self._statuses)

    @property
    def is_written(self) -> bool:
        """Whether there is nothing left to be written."""
        return not self._unwritten

    def repeat(self) -> None:
        """All that was written is gone."""
        self._unwritten |= dict.fromkeys(self._statuses)

    def clear(self, keys: Iterable[bytes]) -> None:
        """Of these keys, others have said something; those that are not ours are to go."""
        self._unwritten |= dict.fromkeys(set(keys) - self._statuses.keys())

    def take(self, count: int, lease: int) -> dict[bytes, pb.RequestOp]:
        """Up to so many operations that are yet to be done, by their keys; they count as done."""
        taken = {}
        for key in list(self._unwritten)[:count]:
            del self._unwritten[key]
            try:
                taken[key] = self._operation(key, lease)
            except (ValueError, TypeError):
                _log.exception("the status at %r cannot be written", key)
        return taken

    def give_back(self, keys: Iterable[bytes]) -> None:
        """These are not done after all."""
        self._unwritten |= dict.fromkeys(keys)

    def _operation(self, key: bytes, lease: int) -> pb.RequestOp:
        status = self._statuses.get(key)
        if status is None:
            return pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=key))
        entry = status.as_dict() | {"config_revision": self._revisions.get(key, 0)}
        return pb.RequestOp(request_put=pb.PutRequest(key=key, value=as_json(entry), lease=lease))

    def _key(self, name: str) -> bytes:
        return self.prefix + name.encode(errors="surrogateescape")


def as_json(entry: Mapping[str, object]) -> bytes:
    """An object as it is stored."""
    return json.dumps(entry, separators=(",", ":"), ensure_ascii=False).encode(errors="surrogateescape")
