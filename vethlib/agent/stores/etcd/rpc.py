"""grpc, which the extra [etcd] brings, as the modules beside this one use it."""

from __future__ import annotations

import os

from vethlib.errors import VethError

# C-core writes failed handshakes to stderr by itself. They come as errors here, which are told where they matter.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
try:
    import grpc
except ImportError as error:
    raise VethError(f"etcd needs grpcio ({error}): pip install 'vethlib[etcd]'") from None

__all__ = ["FAILURES", "grpc"]

FAILURES = (grpc.RpcError, ValueError)
"""What a call raises: a ValueError where another thread has closed its channel."""
