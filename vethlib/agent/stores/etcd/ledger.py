"""The statuses to publish, by key, and which of them are still unwritten. No I/O."""

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
    """The statuses of a label. Not thread-safe."""

    def __init__(self, label: str) -> None:
        self.prefix = status_key(label, "").encode()
        self._statuses: dict[bytes, Status] = {}
        self._revisions: dict[bytes, int] = {}
        self._unwritten: dict[bytes, None] = {}  # ordered by change

    def update(self, statuses: Mapping[str, Status | None], revisions: Mapping[str, int]) -> None:
        """Set these statuses (None removes one) and the revisions of these configurations (0 for none)."""
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
        """Whether everything has been written."""
        return not self._unwritten

    def repeat(self) -> None:
        """Note that everything that was written is gone."""
        self._unwritten |= dict.fromkeys(self._statuses)

    def clear(self, keys: Iterable[bytes]) -> None:
        """Delete those of these keys, which exist in etcd, that do not belong to a status."""
        self._unwritten |= dict.fromkeys(set(keys) - self._statuses.keys())

    def take(self, count: int, lease: int) -> dict[bytes, pb.RequestOp]:
        """Return up to `count` outstanding operations by key; they count as done."""
        taken = {}
        for key in list(self._unwritten)[:count]:
            del self._unwritten[key]
            try:
                taken[key] = self._operation(key, lease)
            except Exception as error:  # it must not prevent the other statuses from being written
                _log.warning("the status at %r cannot be written: %s", key, type(error).__name__)
                _log.debug("the status at %r cannot be written", key, exc_info=error)
        return taken

    def give_back(self, keys: Iterable[bytes]) -> None:
        """Note that the operations on these keys have failed after all."""
        self._unwritten |= dict.fromkeys(keys)

    def _operation(self, key: bytes, lease: int) -> pb.RequestOp:
        status = self._statuses.get(key)
        if status is None:
            return pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=key))
        entry = status.as_dict() | {"config_revision": self._revisions.get(key, 0)}
        return pb.RequestOp(request_put=pb.PutRequest(key=key, value=as_json(entry), lease=lease))

    def _key(self, name: str) -> bytes:
        try:
            return self.prefix + name.encode(errors="surrogateescape")
        except UnicodeEncodeError:
            return self.prefix + name.encode(errors="backslashreplace")


def as_json(entry: Mapping[str, object]) -> bytes:
    """Return the JSON of an object, as stored."""
    try:
        return json.dumps(entry, separators=(",", ":"), ensure_ascii=False).encode()
    except UnicodeEncodeError:  # surrogates would make the whole text invalid UTF-8
        return json.dumps(entry, separators=(",", ":")).encode()
