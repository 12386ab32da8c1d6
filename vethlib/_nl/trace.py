"""The wire trace of VETHLIB_DEBUG=nl: every message, decoded in full by pyroute2, on stderr.

A cold path of its own, because importing pyroute2 costs 120 ms.
"""

from __future__ import annotations

import sys

from pyroute2.netlink.rtnl.marshal import MarshalRtnl

__all__ = ["decode", "write"]


def decode(datagram: bytes) -> list[dict[str, object]]:
    """Every message of a datagram as pyroute2 reads it: {"header": …, "attrs": [(name, value), …], …}."""
    return [message.dump() for message in MarshalRtnl().parse(datagram)]


def write(direction: str, datagram: bytes) -> None:
    """Print a datagram; `direction` is "→" for what was sent and "←" for what came."""
    for message in decode(datagram):
        header = message.pop("header")
        assert isinstance(header, dict)
        line = f"nl {direction} type {header['type']} flags {header['flags']:#x} seq {header['sequence_number']}"
        print(line, message, file=sys.stderr)
