"""Configuration in etcd as an operator edits it, while others may do so and agents follow.

An edit reads all keys of the label, and then writes what is to be different in transactions. Each has as many
operations as etcd takes, with both ends of a pair in one, so that no agent sees one end of it alone; and it holds only
if none of its keys was written since they were read. If one was, they are read again, and what is left to do is
done over: what is said to have been added, changed or deleted is what was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import TypeAlias

from vethlib.agent.jsontext import Undecodable, decode
from vethlib.agent.mark import check_label
from vethlib.agent.model import Interface
from vethlib.agent.northbound import Parsed, to_json
from vethlib.agent.stores.keys import key_of
from vethlib.agent.stores.protocol import Edit, Stored, StoreError
from vethlib.agent.stores.texts import check_names, means, name_in
from vethlib.errors import InvalidValue

from . import etcd_pb2 as pb
from .address import parse_url
from .connection import OPS, Connection, Found
from .member import answering
from .reading import name_at, prefix_of, read_key
from .refusal import Denied

__all__ = ["EtcdEditor"]

Progress: TypeAlias = Callable[[str, int, int], object]
_Wanted: TypeAlias = Mapping[bytes, str | None]
_Known: TypeAlias = Mapping[bytes, tuple[bytes, int]]

_BYTES = 1 << 20  # in one transaction; etcd takes 1.5 MiB (--max-request-bytes)


class EtcdEditor:
    """The interfaces of a `label` in the etcd of a `url`; see :class:`~vethlib.agent.stores.protocol.Editor`.

    `progress(what, done, total)` is called now and then in a long edit. Raises InvalidValue for a bad URL or label.
    """

    def __init__(self, url: str, label: str, *, progress: Progress | None = None) -> None:
        self._address = parse_url(url)
        self._label = check_label(label)
        self._prefix = prefix_of(label)
        self._progress = progress

    def __repr__(self) -> str:
        return f"<EtcdEditor {self._address.url}>"

    def values(self) -> dict[str, Parsed]:
        """What an agent that starts now would be told."""
        with self._read() as (_, found):
            known = found.values
        return dict(read_key(key, raw, self._prefix) for key, (raw, _) in known.items())

    def stored(self) -> list[Stored]:
        """What is written, good or bad, in the order of the keys."""
        with self._read() as (_, found):
            known = found.values
        return [self._stored(key, raw) for key, (raw, _) in known.items()]

    def put(self, *interfaces: Interface) -> list[Edit]:
        """Store these interfaces, each at its key."""
        wanted = {self._key(one.name): to_json(one) for one in interfaces}
        with self._read() as (connection, found):
            return self._carry_out(connection, found, wanted)

    def put_text(self, texts: Mapping[str, str]) -> list[Edit]:
        """Store these JSON objects by the names that are in them, unchecked otherwise."""
        check_names(texts)
        wanted = {self._key(name): text.strip() for name, text in texts.items()}
        with self._read() as (connection, found):
            return self._carry_out(connection, found, wanted)

    def delete(self, *names: str) -> list[Edit]:
        """Delete what has exactly these names, as :meth:`values` tells them."""
        with self._read() as (connection, found):
            keys = {name_at(key, self._prefix): key for key in found.values}
            return self._carry_out(connection, found, dict.fromkeys(keys[name] for name in names if name in keys))

    def _read(self) -> AbstractContextManager[tuple[Connection, Found]]:
        return answering(self._address, lambda connection: connection.read(self._prefix))

    def _carry_out(self, connection: Connection, found: Found, wanted: _Wanted) -> list[Edit]:
        """Have these texts at these keys, None for nothing."""
        edits: dict[bytes, Edit] = {}
        what = "delete" if None in wanted.values() else "store"
        left = dict(wanted)
        batch: list[bytes] = []
        try:
            while left := {key: text for key, text in left.items() if not _is_so(found.values.get(key), text)}:
                for batch in list(self._batches(left, found.values)):
                    if not _write(connection, batch, left, found.values):
                        batch = []
                        found = connection.read(self._prefix)
                        break
                    for key in batch:
                        edits[key] = self._edit(key, left.pop(key), found.values)
                    if self._progress is not None:
                        self._progress(what, len(edits), len(edits) + len(left))
        except StoreError as error:
            raise self._cut_short(error, edits, left, batch) from None
        return [edits[key] for key in wanted if key in edits]

    def _cut_short(
        self, error: StoreError, edits: Mapping[bytes, Edit], left: _Wanted, batch: list[bytes]
    ) -> StoreError:
        """The error with what it was about, and what was done before it."""
        message = str(error)
        if 0 < len(batch) <= 2:
            message = " and ".join(name_at(key, self._prefix) for key in batch) + f": {message}"
        if len(edits) + len(left) > len(batch):
            done = "deleted" if None in left.values() else "stored"
            message += f"; {done} {len(edits)} of {len(edits) + len(left)} before"
        if batch and not isinstance(error, Denied):
            message += "; what was under way may be done, too: do it again"
        return StoreError(message, path=error.path, reason=error.reason, errno=error.errno)

    def _batches(self, wanted: _Wanted, known: _Known) -> Iterator[list[bytes]]:
        """The keys in portions, each for a transaction."""
        batch: list[bytes] = []
        size = 0
        for group in self._groups(wanted, known):
            length = sum(_size(key, wanted[key]) for key in group)
            if batch and (len(batch) + len(group) > OPS or size + length > _BYTES):
                yield batch
                batch, size = [], 0
            batch = batch + group
            size += length
        yield batch

    def _groups(self, wanted: _Wanted, known: _Known) -> Iterator[list[bytes]]:
        """Each key with that of the other end, where both are wanted and fit into a transaction; otherwise alone."""
        peers = {key: self._key(_peer(known[key][0] if text is None else text)) for key, text in wanted.items()}
        for key, peer in peers.items():
            if peers.get(peer) != key or _size(key, wanted[key]) + _size(peer, wanted[peer]) > _BYTES:
                yield [key]
            elif key <= peer:
                yield [key, peer] if key < peer else [key]

    def _stored(self, key: bytes, raw: bytes) -> Stored:
        name = name_at(key, self._prefix)
        return Stored(name, raw.decode(errors="replace"), _text(key), self._problem(key, raw, name))

    def _problem(self, key: bytes, raw: bytes, name: str) -> InvalidValue | None:
        """Why a value cannot be put at its key."""
        if name.startswith("key:"):
            return read_key(key, raw, self._prefix)[1].problems[0]
        try:
            found = name_in(decode(raw))
        except Undecodable as error:
            return error
        if found == name:
            return None
        return InvalidValue("name", found, f"the key is for {name!r}: name and key have to agree")

    def _edit(self, key: bytes, text: str | None, before: _Known) -> Edit:
        op = "delete" if text is None else "change" if key in before else "add"
        return Edit(op, name_at(key, self._prefix), _text(key))

    def _key(self, name: str) -> bytes:
        # A value of others may have anything for the name of a peer.
        return key_of(self._label, name).encode(errors="replace")


def _write(connection: Connection, batch: list[bytes], wanted: _Wanted, known: _Known) -> bool:
    """Write these in one transaction; False where another was faster with one of them, and nothing was done."""
    operations = []
    for key in batch:
        text = wanted[key]
        if text is None:
            operations.append(pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=key)))
        else:
            operations.append(pb.RequestOp(request_put=pb.PutRequest(key=key, value=text.encode())))
    # Of a key that is not there the revision is 0.
    revisions = {key: known[key][1] if key in known else 0 for key in batch}
    compare = [
        pb.Compare(result=pb.Compare.EQUAL, target=pb.Compare.MOD, key=key, mod_revision=revision)
        for key, revision in revisions.items()
    ]
    return bool(connection.write(operations, compare).succeeded)


def _is_so(found: tuple[bytes, int] | None, text: str | None) -> bool:
    """Whether what was found means what is wanted, so that nothing has to be written."""
    if found is None or text is None:
        return found is None and text is None
    raw, _ = found
    try:
        return raw == text.encode() or means(decode(raw), text)
    except Undecodable:
        return False


def _peer(text: str | bytes) -> str:
    """The peer's name in a value, whatever else is in it; "" if there is none."""
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
