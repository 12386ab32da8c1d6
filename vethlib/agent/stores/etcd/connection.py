"""One connection to one member of etcd: calls that wait, each for so long at most, and errors in words.

Every call has a deadline, since a peer that says nothing is no error to TCP; and each
connection has a channel that shares nothing with others, so that no back-off of an earlier one delays it.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from vethlib.agent.stores.protocol import StoreError

from . import etcd_pb2 as pb
from .address import Address
from .refusal import AuthOff, Compacted, Denied, refused
from .rpc import FAILURES, grpc
from .streams import Pulse, Watch

__all__ = ["CALL", "OPS", "Connection", "Found", "end_of"]

CALL = 4.0  # seconds that an answer may take
_PAGE = 2000  # keys in one answer: it has to fit into CALL on a slow line
OPS = 100  # in one transaction; etcd takes 128 (--max-txn-ops)
_OPTIONS = (
    ("grpc.enable_retries", 0),
    ("grpc.max_receive_message_length", -1),  # what others wrote may be long
    ("grpc.use_local_subchannel_pool", 1),
    # A second line of defence behind the heartbeats of an agent, which are more frequent than etcd lets pings be.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 3_000),
    ("grpc.http2.ping_timeout_ms", 3_000),
    # Through a proxy of the environment nobody expects a cluster's own traffic to go.
    ("grpc.enable_http_proxy", 0),
)

# Whoever has lost its leader is to say so instead of being silent.
_METADATA = (("hasleader", "true"),)


@dataclass(frozen=True, slots=True)
class Found:
    """What was read of a prefix at one revision: each key's value and mod_revision. `term` is raft's."""

    values: dict[bytes, tuple[bytes, int]] = field(repr=False)
    revision: int
    cluster: int
    term: int


def end_of(prefix: bytes) -> bytes:
    """The range_end with which a key means all that begin with it; of a prefix that ends with '/'."""
    return prefix[:-1] + bytes([prefix[-1] + 1])


class Connection:
    """A connection to `endpoint`, made with the first call. Calls may come from several threads.

    Each raises :class:`StoreError`, or what stands below it, with the endpoint as `path`.
    """

    def __init__(self, address: Address, endpoint: str) -> None:
        self.endpoint = endpoint
        self._address = address
        self._metadata: tuple[tuple[str, str], ...] = _METADATA
        self._ended: StoreError | None = None
        options = list(_OPTIONS)
        if address.tls:
            if address.server_name:
                options.append(("grpc.ssl_target_name_override", address.server_name))  # type: ignore[arg-type]
            credentials = grpc.ssl_channel_credentials(
                self._content("cacert", address.cacert),
                self._content("key", address.key),
                self._content("cert", address.cert),
            )
            self._channel = grpc.secure_channel(endpoint, credentials, options)
        else:
            self._channel = grpc.insecure_channel(endpoint, options)
        self._methods: dict[str, Any] = {}

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self, error: StoreError | None = None) -> None:
        """End it. What waits for an answer is refused; with `error`, by that one."""
        if self._ended is None:
            reason = "the connection was closed"
            self._ended = error or StoreError(f"{self.endpoint}: {reason}", path=self.endpoint, reason=reason)
        self._channel.close()

    def authenticate(self) -> None:
        """Prove who we are, where the address names somebody; otherwise nothing is sent."""
        address = self._address
        if not address.user:
            return
        password = address.password
        if address.password_file:
            content = self._content("password-file", address.password_file) or b""
            password = content.decode(errors="replace").rstrip("\n")
        request = pb.AuthenticateRequest(name=address.user, password=password)
        try:
            answer = self._call("Auth/Authenticate", request, pb.AuthenticateResponse)
        except AuthOff:
            return
        self._metadata = (*_METADATA, ("token", answer.token))

    def read(self, prefix: bytes, *, keys_only: bool = False) -> Found:
        """All keys that begin with `prefix`, as they were at one revision."""
        while True:
            try:
                return self._read(prefix, keys_only=keys_only)
            except Compacted:
                continue  # between two pages; it has to be a new revision then

    def _read(self, prefix: bytes, *, keys_only: bool) -> Found:
        values: dict[bytes, tuple[bytes, int]] = {}
        key, revision, cluster, term = prefix, 0, 0, 0
        while True:
            request = pb.RangeRequest(
                key=key, range_end=end_of(prefix), limit=_PAGE, revision=revision, keys_only=keys_only
            )
            answer = self._call("KV/Range", request, pb.RangeResponse)
            # The pages after the first are of the first one's revision, whatever is written meanwhile.
            revision = revision or answer.header.revision
            cluster, term = answer.header.cluster_id, answer.header.raft_term
            values.update((kv.key, (kv.value, kv.mod_revision)) for kv in answer.kvs)
            if not answer.more or not answer.kvs:
                return Found(values, revision, cluster, term)
            key = answer.kvs[-1].key + b"\0"

    def get(self, key: bytes) -> pb.KeyValue | None:
        """What is at one key."""
        answer = self._call("KV/Range", pb.RangeRequest(key=key), pb.RangeResponse)
        return answer.kvs[0] if answer.kvs else None

    def write(self, operations: Sequence[pb.RequestOp], compare: Sequence[pb.Compare] = ()) -> pb.TxnResponse:
        """Do all of these, or, where a comparison fails, none. At most :data:`OPS` of them."""
        answer: pb.TxnResponse = self._call(
            "KV/Txn", pb.TxnRequest(compare=compare, success=operations), pb.TxnResponse
        )
        return answer

    def grant(self, seconds: int) -> int:
        """A new lease."""
        answer = self._call("Lease/LeaseGrant", pb.LeaseGrantRequest(TTL=seconds), pb.LeaseGrantResponse)
        return int(answer.ID)

    def pulse(self, lease: int) -> Pulse:
        """What keeps a lease alive."""
        return Pulse(self, self._method("Lease/LeaseKeepAlive", pb.LeaseKeepAliveResponse, streams=True), lease)

    def revoke(self, lease: int, timeout: float = CALL) -> None:
        """End a lease, and all that is bound to it."""
        self._call("Lease/LeaseRevoke", pb.LeaseRevokeRequest(ID=lease), pb.LeaseRevokeResponse, timeout)

    def watch(self, prefix: bytes, revision: int, also: bytes = b"") -> Watch:
        """What happens to the keys that begin with `prefix`, from `revision` on; and, from now on, `also` with this."""
        method = self._method("Watch/Watch", pb.WatchResponse, streams=True)
        create = pb.WatchCreateRequest(key=prefix, range_end=end_of(prefix), start_revision=revision, fragment=True)
        requests = [pb.WatchRequest(create_request=create)]
        if also:
            create = pb.WatchCreateRequest(key=also, range_end=end_of(also), fragment=True)
            requests.append(pb.WatchRequest(create_request=create))
        return Watch(self, method, requests)

    def _call(self, path: str, request: Any, answer: type[Any], timeout: float = CALL) -> Any:
        try:
            return self._method(path, answer)(request, timeout=timeout, metadata=self._metadata)
        except FAILURES as error:
            raise self.refusal(error) from None

    def _method(self, path: str, answer: type[Any], *, streams: bool = False) -> Any:
        method = self._methods.get(path)
        if method is None:
            make = self._channel.stream_stream if streams else self._channel.unary_unary
            method = make(f"/etcdserverpb.{path}", _serialized, answer.FromString)
            self._methods[path] = method
        return method

    def open(self, method: Any, requests: SimpleQueue[Any]) -> Any:
        """Begin a stream with the requests of a queue, None being the end of them; what it says is iterated over."""
        try:
            return method(iter(requests.get, None), metadata=self._metadata)
        except FAILURES as error:
            raise self.refusal(error) from None

    def refusal(self, error: BaseException) -> StoreError:
        """The error for what gRPC has raised."""
        if self._ended is not None:
            return self._ended
        if not isinstance(error, grpc.RpcError):  # what a channel raises that was closed meanwhile
            return StoreError(f"{self.endpoint}: {error}", path=self.endpoint, reason=str(error))
        return self.refused(error.code().name, error.details() or "")

    def refused(self, code: str, details: str) -> StoreError:
        """The error for what the other side has said."""
        address = self._address
        return refused(self.endpoint, code, details, tls=address.tls, user=bool(address.user))

    def _content(self, option: str, path: str) -> bytes | None:
        if not path:
            return None
        try:
            if not stat.S_ISREG(os.stat(path).st_mode):  # others may never end
                raise OSError(errno.EINVAL, "not a regular file")
            content = Path(path).read_bytes()
        except OSError as error:
            reason = f"{option} {path} cannot be read: {error.strerror or error}"
            raise Denied(reason, path=path, reason=reason, errno=error.errno) from None
        if not content.strip():  # gRPC takes that for none, and goes on with those of the system
            reason = f"{option} {path} is empty"
            raise Denied(reason, path=path, reason=reason)
        return content


def _serialized(request: Any) -> bytes:
    return bytes(request.SerializeToString())
