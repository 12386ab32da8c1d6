"""The wire trace of VETHLIB_DEBUG=nl: every message, decoded in full by pyroute2, on stderr.

A separate module, which is rarely imported, because importing pyroute2 costs 120 ms.
"""

from __future__ import annotations

import sys
from contextlib import suppress

from pyroute2.netlink.rtnl.marshal import MarshalRtnl


def decode(datagram: bytes) -> list[dict[str, object]]:
    """Return every message of a datagram as pyroute2 decodes it: {"header": …, "attrs": [(name, value), …], …}."""
    return [message.dump() for message in MarshalRtnl().parse(datagram)]


def write(direction: str, datagram: bytes) -> None:
    """Print a datagram; `direction` is "→" for sent and "←" for received ones."""
    try:
        decoded = decode(datagram)
    except Exception as error:  # a trace has to show every message, and pyroute2 may fail at any
        print(f"nl {direction} {len(datagram)} bytes, not decoded ({error!r}): {datagram[:64].hex()}", file=sys.stderr)
        return
    for message in decoded:
        header = message.pop("header")
        assert isinstance(header, dict)
        line = f"nl {direction} type {header['type']} flags {header['flags']:#x} seq {header['sequence_number']}"
        with suppress(OSError, ValueError):  # a closed stderr is no reason to leave an exchange half done
            print(line, message, file=sys.stderr)
