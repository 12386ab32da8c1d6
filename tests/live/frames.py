"""Ethernet frames of these tests, and a packet socket that vethlib has no part in."""

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
    """A packet socket that vethlib has no part in."""
    with ns.entered(netns):
        raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETHER))
    with raw:
        if offload:
            raw.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
        raw.bind((name, 3))
        raw.settimeout(30)
        yield raw


def ours(frames: Callable[[], bytes | None], expected: int = 1) -> list[bytes]:
    """The frames of these tests: as many as are expected, and what else comes in 50 ms. IPv6 has frames of its own.

    A busy machine hands frames on when its ksoftirqd gets to it.
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
    """Receive as `PacketPort.receive` does: None if there is nothing. A socket with a timeout would wait for it."""

    def receive() -> bytes | None:
        return raw.recv(1 << 17) if select.select([raw], [], [], 0)[0] else None

    return receive
