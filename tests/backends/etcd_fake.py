"""A server with etcd's protocol that gives any answers a test needs, which no etcd gives on demand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from vethlib.agent.stores.etcd import etcd_pb2 as pb

__all__ = ["FakeEtcd", "header"]

Ranges = Callable[[pb.RangeRequest], pb.RangeResponse]
Watches = Callable[[pb.WatchRequest], Iterable[pb.WatchResponse]]

COMPACTED = "etcdserver: mvcc: required revision has been compacted"


def header(revision: int = 5) -> pb.ResponseHeader:
    return pb.ResponseHeader(cluster_id=7, raft_term=2, revision=revision)


class FakeEtcd:
    """Answers ranges by `ranges`, which may raise :class:`LookupError` for a compacted revision, and watches by
    `watches`. Leases are given to everybody, but with `forgets_leases` nothing can be written under one. `calls` counts
    them by method.
    """

    forgets_leases = False

    def __init__(self, ranges: Ranges, watches: Watches) -> None:
        self._ranges = ranges
        self._watches = watches
        self.calls: Counter[str] = Counter()
        self._threads = ThreadPoolExecutor(8)
        self._server = grpc.server(self._threads)
        self._server.add_generic_rpc_handlers(
            (
                _service("KV", Range=(self._range, pb.RangeRequest), Txn=(self._write, pb.TxnRequest)),
                _service("Watch", Watch=(self._watch, pb.WatchRequest)),
                _service(
                    "Lease",
                    LeaseGrant=(self._grant, pb.LeaseGrantRequest),
                    LeaseKeepAlive=(self._keep_alive, pb.LeaseKeepAliveRequest),
                    LeaseRevoke=(lambda *_: pb.LeaseRevokeResponse(), pb.LeaseRevokeRequest),
                ),
            )
        )
        self.endpoint = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    @property
    def url(self) -> str:
        return f"etcd://{self.endpoint}"

    def close(self) -> None:
        self._server.stop(0).wait()
        self._threads.shutdown()

    def _range(self, request: pb.RangeRequest, context: Any) -> pb.RangeResponse:
        self.calls["range"] += 1
        try:
            return self._ranges(request)
        except LookupError:
            context.abort(grpc.StatusCode.OUT_OF_RANGE, COMPACTED)
            raise

    def _write(self, request: pb.TxnRequest, context: Any) -> pb.TxnResponse:
        self.calls["txn"] += 1
        if self.forgets_leases:
            context.abort(grpc.StatusCode.NOT_FOUND, "etcdserver: requested lease not found")
        return pb.TxnResponse(header=header(), succeeded=True)

    def _watch(self, requests: Iterator[pb.WatchRequest], _context: Any) -> Iterator[pb.WatchResponse]:
        for request in requests:
            if request.create_request.start_revision:
                self.calls["watch"] += 1
                yield from self._watches(request)

    def _grant(self, request: pb.LeaseGrantRequest, _context: Any) -> pb.LeaseGrantResponse:
        self.calls["grant"] += 1
        return pb.LeaseGrantResponse(ID=1, TTL=request.TTL)

    def _keep_alive(self, requests: Iterator[Any], _context: Any) -> Iterator[pb.LeaseKeepAliveResponse]:
        for request in requests:
            yield pb.LeaseKeepAliveResponse(ID=request.ID, TTL=10)


_STREAMS = ("Watch", "LeaseKeepAlive")


def _service(name: str, **methods: tuple[Any, Any]) -> Any:
    handlers: dict[str, Any] = {
        method: (grpc.stream_stream_rpc_method_handler if method in _STREAMS else grpc.unary_unary_rpc_method_handler)(
            behaviour, request.FromString, lambda answer: answer.SerializeToString()
        )
        for method, (behaviour, request) in methods.items()
    }
    return grpc.method_handlers_generic_handler(f"etcdserverpb.{name}", handlers)
