"""Import grpc, which the extra [etcd] installs."""

from __future__ import annotations

import os

from vethlib.errors import VethError

# Otherwise the C core writes failed handshakes to stderr. They are raised as errors, too, which is enough.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
try:
    import grpc
except ImportError as error:
    raise VethError(f"etcd needs grpcio ({error}): pip install 'vethlib[etcd]'") from None

__all__ = ["FAILURES", "grpc"]

FAILURES = (grpc.RpcError, ValueError)
"""The exceptions of a call: ValueError if another thread has closed its channel."""
