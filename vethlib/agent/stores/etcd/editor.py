"""Edit a configuration in etcd, which others may edit and agents follow at the same time.

An edit reads all keys of the label, and then writes the differences in transactions. Each has as many operations as
etcd accepts, with both ends of a pair in one transaction, so that no agent sees one end alone, and succeeds only if
none of its keys has been written since the reading. Otherwise the keys are read again, and the remaining differences
are written: the returned edits are what was really added, changed or deleted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import TypeAlias

from vethlib.agent.config.jsontext import Undecodable, decode
from vethlib.agent.config.mark import check_label
from vethlib.agent.config.model import Interface
from vethlib.agent.config.northbound import Parsed
from vethlib.agent.config.writing import to_json
from vethlib.agent.limits import DEFAULT, Limits
from vethlib.agent.progress import ProgressCallback
from vethlib.agent.stores.keys import key_of
from vethlib.agent.stores.protocol import Edit, Snapshot, Stored, StoreError
from vethlib.agent.stores.storecode import StoreCode
from vethlib.agent.stores.texts import check_names, means, name_in
from vethlib.errors import InvalidValue

from . import etcd_pb2 as pb
from .address import parse_url
from .connection import OPS, Connection, Found, Raw, TooLong, raw_of
from .member import answering
from .reading import name_at, prefix_of, read_key
from .refusal import Denied

__all__ = ["EtcdEditor"]

_Texts: TypeAlias = Mapping[bytes, str | None]
_Known: TypeAlias = Mapping[bytes, tuple[Raw, int]]

_MOST_LOST = 100  # transactions in a row that may fail because others have written one of their keys
_BYTES = 1 << 20  # bytes in one transaction; etcd accepts 1.5 MiB (--max-request-bytes)

_BUSY = f"other programs changed these keys {_MOST_LOST} times before the change could be made: run the command again"


class EtcdEditor:
    """The interfaces of a `label` in the etcd of a `url`; see :class:`~vethlib.agent.stores.protocol.Editor`.

    `progress(what, done, total)` is called from time to time during a long edit. Values that exceed the `limits` are
    invalid. Raises InvalidValue for a bad URL or label.
    """

    def __init__(
        self, url: str, label: str, *, progress: ProgressCallback | None = None, limits: Limits = DEFAULT
    ) -> None:
        self._address = parse_url(url)
        self._label = check_label(label)
        self._prefix = prefix_of(label)
        self._progress = progress
        self._limits = limits

    def __repr__(self) -> str:
        return f"<EtcdEditor {self._address.url}>"

    def values(self) -> dict[str, Parsed]:
        """Return the values of :meth:`snapshot`."""
        return dict(self.snapshot().values)

    def snapshot(self) -> Snapshot:
        """Return the values that an agent starting now would read."""
        with self._read() as (_, listed):
            known = listed.values
        return Snapshot(dict(read_key(key, raw, self._prefix, self._limits) for key, (raw, _) in known.items()))

    def stored(self) -> list[Stored]:
        """Return all stored values, valid or not, ordered by key."""
        with self._read() as (_, listed):
            known = listed.values
        return [self._stored(key, raw) for key, (raw, _) in known.items()]

    def put(self, *interfaces: Interface) -> list[Edit]:
        """Store these interfaces, each at its key."""
        texts = {self._key(interface.name): to_json(interface) for interface in interfaces}
        with self._read() as (connection, listed):
            return self._carry_out(connection, listed, texts)

    def put_text(self, texts: Mapping[str, str]) -> list[Edit]:
        """Store these JSON objects, by the names that they contain, without checking them."""
        check_names(texts)
        by_key = {self._key(name): text.strip() for name, text in texts.items()}
        with self._read() as (connection, listed):
            return self._carry_out(connection, listed, by_key)

    def delete(self, *names: str) -> list[Edit]:
        """Delete the values with exactly these names, as returned by :meth:`values`."""
        with self._read() as (connection, listed):
            keys = {name_at(key, self._prefix): key for key in listed.values}
            return self._carry_out(connection, listed, dict.fromkeys(keys[name] for name in names if name in keys))

    def _read(self) -> AbstractContextManager[tuple[Connection, Found[Raw]]]:
        return answering(self._address, lambda connection: connection.read(self._prefix), limits=self._limits)

    def _carry_out(self, connection: Connection, listed: Found[Raw], texts: _Texts) -> list[Edit]:
        """Store these texts at these keys; None deletes a key."""
        edits: dict[bytes, Edit] = {}
        what = "delete" if None in texts.values() else "store"
        left = dict(texts)
        batch: list[bytes] = []
        lost = 0
        try:
            while left := {key: text for key, text in left.items() if not _is_so(listed.values.get(key), text)}:
                for batch in list(self._batches(left, listed.values)):
                    if not _write(connection, batch, left, listed.values):
                        lost += 1
                        if lost > _MOST_LOST:
                            raise StoreError(
                                _BUSY, path=self._address.url, reason=_BUSY, code=StoreCode.CHANGED_TOO_FAST
                            )
                        batch = []
                        listed = connection.read(self._prefix)
                        break
                    lost = 0
                    for key in batch:
                        edits[key] = self._edit(key, left.pop(key), listed.values)
                    if self._progress is not None:
                        self._progress(what, len(edits), len(edits) + len(left))
        except StoreError as error:
            raise self._cut_short(error, edits, left, batch) from None
        return [edits[key] for key in texts if key in edits]

    def _cut_short(
        self, error: StoreError, edits: Mapping[bytes, Edit], left: _Texts, batch: list[bytes]
    ) -> StoreError:
        """Return the error with the interfaces that it concerns, and with what was done before it."""
        message = str(error)
        if 0 < len(batch) <= 2:
            message = " and ".join(name_at(key, self._prefix) for key in batch) + f": {message}"
        if len(edits) + len(left) > len(batch):
            done = "deleted" if None in left.values() else "stored"
            message += f"; {len(edits)} of {len(edits) + len(left)} were {done} before the error"
        if batch and not isinstance(error, Denied):
            message += "; changes in progress may have been made, too: run the command again"
        cut = StoreError(message, path=error.path, reason=error.reason, errno=error.errno, code=error.code)
        cut.names = tuple(name_at(key, self._prefix) for key in batch)
        cut.done, cut.left = len(edits), len(left)
        return cut

    def _batches(self, texts: _Texts, known: _Known) -> Iterator[list[bytes]]:
        """Yield the keys in batches, one for each transaction."""
        batch: list[bytes] = []
        size = 0
        for group in self._groups(texts, known):
            length = sum(_size(key, texts[key]) for key in group)
            if batch and (len(batch) + len(group) > OPS or size + length > _BYTES):
                yield batch
                batch, size = [], 0
            batch = batch + group
            size += length
        yield batch

    def _groups(self, texts: _Texts, known: _Known) -> Iterator[list[bytes]]:
        """Yield each key with that of the other end if both are written and fit into a transaction, else alone."""
        peers = {key: self._key(_peer(raw_of(known[key][0]) if text is None else text)) for key, text in texts.items()}
        for key, peer in peers.items():
            if peers.get(peer) != key or _size(key, texts[key]) + _size(peer, texts[peer]) > _BYTES:
                yield [key]
            elif key <= peer:
                yield [key, peer] if key < peer else [key]

    def _stored(self, key: bytes, raw: Raw) -> Stored:
        name = name_at(key, self._prefix)
        return Stored(name, raw_of(raw).decode(errors="replace"), _text(key), self._problem(key, raw, name))

    def _problem(self, key: bytes, raw: Raw, name: str) -> InvalidValue | None:
        """Return the reason why a value cannot be stored at its key, or None."""
        if name.startswith("key:") or isinstance(raw, TooLong):
            return read_key(key, raw, self._prefix, self._limits)[1].problems[0]
        try:
            inner = name_in(decode(raw, self._limits))
        except Undecodable as error:
            return error
        if inner == name:
            return None
        return InvalidValue("name", inner, f"must be {name!r}, the name in the key")

    def _edit(self, key: bytes, text: str | None, before: _Known) -> Edit:
        op = "delete" if text is None else "change" if key in before else "add"
        return Edit(op, name_at(key, self._prefix), _text(key))

    def _key(self, name: str) -> bytes:
        # Other users may have written anything as the name of a peer.
        return key_of(self._label, name).encode(errors="replace")


def _write(connection: Connection, batch: list[bytes], texts: _Texts, known: _Known) -> bool:
    """Write these keys in one transaction; return False, and write nothing, if one has been written by others."""
    operations = []
    for key in batch:
        text = texts[key]
        if text is None:
            operations.append(pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=key)))
        else:
            operations.append(pb.RequestOp(request_put=pb.PutRequest(key=key, value=text.encode())))
    # The revision of a missing key is 0.
    revisions = {key: known[key][1] if key in known else 0 for key in batch}
    compare = [
        pb.Compare(result=pb.Compare.EQUAL, target=pb.Compare.MOD, key=key, mod_revision=revision)
        for key, revision in revisions.items()
    ]
    return bool(connection.write(operations, compare).succeeded)


def _is_so(known: tuple[Raw, int] | None, text: str | None) -> bool:
    """Return whether a key has the meaning of `text` already, so that nothing has to be written."""
    if known is None or text is None:
        return known is None and text is None
    raw = raw_of(known[0])
    try:
        return raw == text.encode() or means(decode(raw), text)
    except Undecodable:
        return False


def _peer(text: str | bytes) -> str:
    """Return the name of the peer in a value, which need not be valid otherwise; "" if there is none."""
    try:
        value = decode(text)
        veth = value["veth"]
        return str(veth["peer_if_name"] if "peer_if_name" in veth else veth["peerIfName"])
    except (Undecodable, LookupError, TypeError):
        return ""


def _size(key: bytes, text: str | None) -> int:
    return len(key) + len((text or "").encode())


def _text(key: bytes) -> str:
    return key.decode(errors="backslashreplace")
