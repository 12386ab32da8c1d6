"""A connection to one member of etcd: blocking calls with deadlines, and errors for operators.

Every call has a deadline, because TCP does not report a silent peer as an error. Each connection has a channel that
shares nothing with others, so that the backoff of an earlier connection does not delay it.

Data of other users arrives in the answers to Range and Watch. An answer to Range is not received if it is longer than a
value may be: see :mod:`.paging`. A watch cannot choose, so its answers may be as long as etcd sends them.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final, Generic, NamedTuple, TypeAlias, TypeVar, overload

from vethlib._closing import Closing
from vethlib._primitives import time
from vethlib.agent.limits import DEFAULT, Limits
from vethlib.agent.stores.protocol import StoreError
from vethlib.agent.stores.storecode import StoreCode

from . import etcd_pb2 as pb
from .address import Address
from .paging import CALL, Pager, Scan, sizes_in
from .refusal import FAILURES, AuthOff, Compacted, Denied, Silent, TooLarge, grpc, refused
from .streams import Pulse, Watch

__all__ = ["CALL", "OPS", "Connection", "Found", "Raw", "TooLong", "end_of", "raw_of"]

OPS = 100  # operations in one transaction; etcd accepts 128 (--max-txn-ops)
_LONGEST_ANSWER: Final = 64 << 20  # bytes; gRPC accepts no limit of 4 GiB or more
_OPTIONS = (
    ("grpc.enable_retries", 0),
    ("grpc.max_receive_message_length", _LONGEST_ANSWER),
    # No more than this is in flight, because the answer to a heartbeat has to wait behind it.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", 1 << 16),
    ("grpc.use_local_subchannel_pool", 1),
    # A second line of defence after the heartbeats of an agent, which are more frequent than etcd allows for pings.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 3_000),
    ("grpc.http2.ping_timeout_ms", 3_000),
    # Nobody expects a cluster's own traffic to go through a proxy from the environment.
    ("grpc.enable_http_proxy", 0),
)

# A member that has lost its leader then returns an error instead of being silent.
_METADATA = (("hasleader", "true"),)


_BESIDE_A_VALUE: Final = 8192  # bytes of an answer with one key apart from its value: the key and its metadata
_COMPACTIONS: Final = 5  # tolerated between the pages of one reading; etcd compacts every few minutes
_PAUSE: Final = 0.05  # seconds before reading again after a compaction, doubled each time

T = TypeVar("T")


class TooLong(NamedTuple):
    """A value that is too long to be received; `size` is its size in bytes."""

    size: int


Raw: TypeAlias = bytes | TooLong
"""A value as stored."""


def raw_of(raw: Raw) -> bytes:
    """Return the value if it was received, and b"" otherwise."""
    return raw if isinstance(raw, bytes) else b""


@dataclass(frozen=True, slots=True)
class Found(Generic[T]):
    """The keys below a prefix at one revision: each with what was kept of its value, and its mod_revision.

    `cluster` is the cluster id, `term` the raft term.
    """

    values: dict[bytes, tuple[T, int]] = field(repr=False)
    revision: int
    cluster: int
    term: int


def end_of(prefix: bytes) -> bytes:
    """Return the range_end for all keys below a prefix that ends with '/'."""
    return prefix[:-1] + bytes([prefix[-1] + 1])


class Connection(Closing):
    """A connection to `endpoint`, made with the first call. Calls may come from several threads.

    Each raises :class:`StoreError` or a subclass, with the endpoint as `path`. The `limits` are those of the length of
    a value and of the number of keys. The `pager` is shared by successive connections to the same etcd.
    """

    def __init__(
        self, address: Address, endpoint: str, *, limits: Limits = DEFAULT, pager: Pager | None = None
    ) -> None:
        self._limits = limits
        self._pager = pager or Pager()
        self.endpoint = endpoint
        self._address = address
        self._metadata: tuple[tuple[str, str], ...] = _METADATA
        self._ended: StoreError | None = None
        options: list[tuple[str, Any]] = [*_OPTIONS, ("grpc.service_config", _service_config(limits))]
        if address.tls:
            if address.server_name:
                options.append(("grpc.ssl_target_name_override", address.server_name))
            credentials = grpc.ssl_channel_credentials(
                self._content("cacert", address.cacert),
                self._content("key", address.key),
                self._content("cert", address.cert),
            )
            self._channel = grpc.secure_channel(endpoint, credentials, options)
        else:
            self._channel = grpc.insecure_channel(endpoint, options)
        self._methods: dict[str, Any] = {}

    def close(self, error: StoreError | None = None) -> None:
        """Close the connection. Calls that wait for an answer raise `error`, or a StoreError."""
        if self._ended is None:
            reason = "the connection was closed"
            self._ended = error or self._error(reason, StoreCode.CONNECTION_LOST)
        self._channel.close()

    def authenticate(self) -> None:
        """Log in if the address has a user; otherwise send nothing."""
        address = self._address
        if not address.user:
            return
        password = address.password
        if address.password_file:
            content = self._content("password-file", address.password_file) or b""
            password = content.decode(errors="replace").rstrip("\r\n")
        request = pb.AuthenticateRequest(name=address.user, password=password)
        try:
            answer = self._call("Auth/Authenticate", request, pb.AuthenticateResponse)
        except AuthOff:
            return
        self._metadata = (*_METADATA, ("token", answer.token))

    @overload
    def read(
        self, prefix: bytes, *, keys_only: bool = False, most: int = 0, after_page: Callable[[], object] | None = None
    ) -> Found[Raw]: ...

    @overload
    def read(
        self,
        prefix: bytes,
        *,
        keys_only: bool = False,
        most: int = 0,
        keep: Callable[[bytes, Raw], T],
        known_as: Callable[[bytes], bytes],
        after_page: Callable[[], object] | None = None,
    ) -> Found[T]: ...

    def read(
        self,
        prefix: bytes,
        *,
        keys_only: bool = False,
        most: int = 0,
        keep: Callable[[bytes, Raw], Any] | None = None,
        known_as: Callable[[bytes], bytes] = bytes,
        after_page: Callable[[], object] | None = None,
    ) -> Found[Any]:
        """Read all keys below `prefix` at one revision; more than `most`, or the limit, is an error.

        `keep(key, raw)` returns what to keep of each value, and `known_as(key)` what to keep of each key; both are
        called while the keys are read. `after_page()` is called after each page, because there may be many.
        """
        pause = _PAUSE
        for _ in range(_COMPACTIONS):
            try:
                scan = Scan(prefix, end_of(prefix), most or self._limits.store_keys)
                return self._read(scan, keep or _as_it_is, known_as, after_page, keys_only=keys_only)
            except Compacted:
                time.sleep(pause)  # it was compacted between two pages, so all pages are read at a new revision
                pause *= 2
        reason = f"its history was compacted {_COMPACTIONS} times while it was read"
        raise self._error(reason, StoreCode.CHANGED_TOO_FAST)

    def _read(
        self,
        scan: Scan,
        keep: Callable[[bytes, Raw], Any],
        known_as: Callable[[bytes], bytes],
        after_page: Callable[[], object] | None,
        *,
        keys_only: bool,
    ) -> Found[Any]:
        values: dict[bytes, tuple[Any, int]] = {}
        revision = 0
        while True:
            request = pb.RangeRequest(key=scan.start, range_end=scan.end, revision=revision, keys_only=keys_only)
            answer, too_long = self._page(request)
            # All pages are read at the revision of the first, whatever is written meanwhile.
            revision = revision or answer.header.revision
            for kv in answer.kvs:
                if reason := scan.take(kv.key):
                    raise Denied(
                        f"{self.endpoint}: {reason}", path=self.endpoint, reason=reason, code=StoreCode.TOO_LARGE
                    )
                values[known_as(kv.key)] = keep(kv.key, too_long or kv.value), kv.mod_revision
            if after_page is not None:
                after_page()
            if not answer.more or not answer.kvs:
                self._pager.done()
                return Found(values, revision, answer.header.cluster_id, answer.header.raft_term)

    def _page(self, request: pb.RangeRequest) -> tuple[pb.RangeResponse, TooLong | None]:
        """Return the next page of a range; a value that is too long is a page of its own, without the value."""
        pager = self._pager
        while True:
            request.limit = pager.count
            began = time.monotonic()
            try:
                answer = self._call("KV/Range", request, pb.RangeResponse, pager.seconds)
            except TooLarge as error:
                if not pager.was_too_long(error.details):
                    return self._without_value(request, error.details)
            except Silent:
                pager.was_too_slow()
                raise
            else:
                pager.answered(answer.ByteSize(), time.monotonic() - began)
                return answer, None

    def _without_value(self, request: pb.RangeRequest, details: str) -> tuple[pb.RangeResponse, TooLong]:
        """Read the first key of a range without its value, in a transaction, whose answer may be longer."""
        look = pb.RangeRequest()
        look.CopyFrom(request)
        look.limit, look.keys_only = 1, True
        answer = self.write([pb.RequestOp(request_range=look)])
        page = answer.responses[0].response_range
        if not page.header.revision:
            page.header.CopyFrom(answer.header)
        size, _ = sizes_in(details) or (self._limits.value_bytes + 1, 0)
        return page, TooLong(size)

    def get(self, key: bytes) -> pb.KeyValue | None:
        """Read one key; None if it does not exist."""
        answer = self._call("KV/Range", pb.RangeRequest(key=key), pb.RangeResponse)
        return answer.kvs[0] if answer.kvs else None

    def write(
        self,
        operations: Sequence[pb.RequestOp],
        compare: Sequence[pb.Compare] = (),
        otherwise: Sequence[pb.RequestOp] = (),
    ) -> pb.TxnResponse:
        """Execute up to :data:`OPS` operations in one transaction, or those of `otherwise` if a comparison fails."""
        request = pb.TxnRequest(compare=compare, success=operations, failure=otherwise)
        answer: pb.TxnResponse = self._call("KV/Txn", request, pb.TxnResponse)
        return answer

    def grant(self, seconds: int) -> int:
        """Create a lease that lasts `seconds`, and return its id."""
        answer = self._call("Lease/LeaseGrant", pb.LeaseGrantRequest(TTL=seconds), pb.LeaseGrantResponse)
        return int(answer.ID)

    def pulse(self, lease: int) -> Pulse:
        """Return the stream that keeps a lease alive."""
        return Pulse(self, self._method("Lease/LeaseKeepAlive", pb.LeaseKeepAliveResponse, streams=True), lease)

    def revoke(self, lease: int, timeout: float = CALL) -> None:
        """End a lease, which deletes all keys bound to it."""
        self._call("Lease/LeaseRevoke", pb.LeaseRevokeRequest(ID=lease), pb.LeaseRevokeResponse, timeout)

    def watch(self, prefix: bytes, revision: int, also: bytes = b"") -> Watch:
        """Watch the keys below `prefix` from `revision` on, and those below `also` from now on."""
        method = self._method("Watch/Watch", pb.WatchResponse, streams=True)
        create = pb.WatchCreateRequest(key=prefix, range_end=end_of(prefix), start_revision=revision, fragment=True)
        request = pb.WatchRequest(create_request=create)
        if not also:
            return Watch(self, method, request)
        create = pb.WatchCreateRequest(key=also, range_end=end_of(also), fragment=True)
        return Watch(self, method, request, [pb.WatchRequest(create_request=create)])

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
        """Open a stream that sends the requests of a queue until None, and return an iterator over its answers."""
        try:
            return method(iter(requests.get, None), metadata=self._metadata)
        except FAILURES as error:
            raise self.refusal(error) from None

    def refusal(self, error: BaseException) -> StoreError:
        """Return the error for an exception of gRPC."""
        if self._ended is not None:
            return self._ended
        if not isinstance(error, grpc.RpcError):  # the channel was closed meanwhile
            return self._error(str(error), StoreCode.CONNECTION_LOST)
        return self.refused(error.code().name, error.details() or "")

    def _error(self, reason: str, code: StoreCode) -> StoreError:
        return StoreError(f"{self.endpoint}: {reason}", path=self.endpoint, reason=reason, code=code)

    def refused(self, code: str, details: str) -> StoreError:
        """Return the error for a refusal by the server."""
        address = self._address
        return refused(self.endpoint, code, details, tls=address.tls, user=bool(address.user))

    def _content(self, option: str, path: str) -> bytes | None:
        if not path:
            return None
        try:
            if not stat.S_ISREG(os.stat(path).st_mode):  # reading anything else may never end
                raise OSError(errno.EINVAL, "not a regular file")
            content = Path(path).read_bytes()
        except OSError as error:
            reason = f"{option} {path} cannot be read: {error.strerror or error}"
            raise Denied(reason, path=path, reason=reason, errno=error.errno, code=StoreCode.FILE_UNREADABLE) from None
        if not content.strip():  # gRPC would ignore an empty file and use the system's certificates
            reason = f"{option} {path} is empty"
            raise Denied(reason, path=path, reason=reason, code=StoreCode.FILE_UNREADABLE)
        return content


def _as_it_is(_key: bytes, raw: Raw) -> Raw:
    return raw


def _service_config(limits: Limits) -> str:
    """Return the configuration that limits the answers of Range, which contain data of other users."""
    ranges = {
        "name": [{"service": "etcdserverpb.KV", "method": "Range"}],
        "maxResponseMessageBytes": min(limits.value_bytes + _BESIDE_A_VALUE, _LONGEST_ANSWER),
    }
    return json.dumps({"methodConfig": [ranges]})


def _serialized(request: Any) -> bytes:
    return bytes(request.SerializeToString())
