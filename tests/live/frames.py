"""Ethernet frames of these tests, and a packet socket that is independent of vethlib."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from struct import pack

from vethlib import ns

SOL_PACKET, PACKET_VNET_HDR = 263, 15
ETHER = 0x88B5  # for experiments (IEEE 802)
MACS = bytes.fromhex("020000000002") + bytes.fromhex("020000000001")


def frame(payload: bytes = b"hello", ether: int = ETHER) -> bytes:
    return MACS + pack(">H", ether) + payload


@contextmanager
def witness(name: str, netns: str, *, offload: bool = False) -> Iterator[socket.socket]:
    """Return a packet socket that is independent of vethlib."""
    with ns.entered(netns):
        raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETHER))
    with raw:
        if offload:
            raw.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
        raw.bind((name, 3))
        raw.settimeout(30)
        yield raw


def ours(frames: Callable[[], bytes | None], expected: int = 1) -> list[bytes]:
    """Return the frames of these tests: as many as are expected, and any that arrive within another 50 ms.

    IPv6 sends frames, too. A busy machine delivers frames only when its ksoftirqd runs.
    """
    found: list[bytes] = []
    within, deadline = time.monotonic() + 30.0, time.monotonic() + 0.05
    while time.monotonic() < (deadline if len(found) >= expected else within):
        one = frames()
        if one is None:
            time.sleep(0.002)
        elif MACS in one[:22]:
            found.append(one)
            deadline = time.monotonic() + 0.05
    return found


def of(raw: socket.socket) -> Callable[[], bytes | None]:
    """Receive as `PacketPort.receive` does: None if there is no frame, for which a socket with a timeout would wait."""

    def receive() -> bytes | None:
        return raw.recv(1 << 17) if select.select([raw], [], [], 0)[0] else None

    return receive
