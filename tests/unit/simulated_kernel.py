"""A simulated kernel: it replaces a netlink socket, and answers as the test defines."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from struct import pack
from typing import Any

import pytest

from vethlib._nl.const import (
    NLM_F_ACK,
    NLM_F_CAPPED,
    NLM_F_DUMP,
    NLM_F_REQUEST,
    NLMSG_ERROR,
    RTM_GETLINK,
    RTM_NEWLINK,
    RTM_SETLINK,
)
from vethlib._nl.sock import RtnlSocket
from vethlib._nl.wire import message, messages
from vethlib._primitives import socket

__all__ = [
    "OVERRUN",
    "Answer",
    "Kernel",
    "Play",
    "ack",
    "acking",
    "dump",
    "look",
    "object_of",
    "play",
    "reply",
    "setting",
]

Answer = bytes | BaseException
Play = Callable[..., RtnlSocket]
"""What the fixture `play` is: it makes a socket, at whose other end a kernel is."""

OVERRUN = OSError(errno.ENOBUFS, "No buffer space available")


# --- what is asked


def setting() -> bytes:
    return message(RTM_SETLINK, NLM_F_REQUEST, bytes(16))


def look() -> bytes:
    return message(RTM_GETLINK, NLM_F_REQUEST, bytes(16))


def dump() -> bytes:
    return message(RTM_GETLINK, NLM_F_REQUEST | NLM_F_DUMP, bytes(16))


# --- what is answered


def reply(kind: int, sequence: int, body: bytes, flags: int = 0) -> bytes:
    return pack("=IHHII", 16 + len(body), kind, flags, sequence, 7) + body


def ack(sequence: int, error: int = 0) -> bytes:
    return reply(NLMSG_ERROR, sequence, pack("=i", -error) + bytes(16), NLM_F_CAPPED)


def acking(kind: int, flags: int, sequence: int) -> list[Answer]:
    return [ack(sequence)] if flags & NLM_F_ACK else []


def object_of(sequence: int, size: int) -> bytes:
    return reply(RTM_NEWLINK, sequence, bytes(range(256)) * (size // 256) + bytes(size % 256))


# --- the socket


class Kernel:
    """Takes the place of the socket. `answers` says what (type, flags, sequence) is answered with."""

    def __init__(
        self, answers: Callable[[int, int, int], list[Answer]], *, refused: dict[int, int] | None = None
    ) -> None:
        self.answers = answers
        self.refused = refused or {}
        self.queue: list[Answer] = []
        self.sent: list[bytes] = []
        self.options: list[tuple[int, int]] = []
        self.timeouts: list[float | None] = []
        self.closed = False
        self.port = 0  # of the sender of events
        self.connected: list[tuple[int, int]] = []

    def setsockopt(self, level: int, name: int, value: Any) -> None:
        self.options.append((level, name))
        if name in self.refused:
            raise OSError(self.refused[name], os.strerror(self.refused[name]))

    def getsockopt(self, level: int, name: int, size: int = 0) -> Any:
        return bytes(size) if size else 200_000

    def connect(self, address: tuple[int, int]) -> None:
        self.connected.append(address)

    def settimeout(self, timeout: float | None) -> None:
        self.timeouts.append(timeout)

    def close(self) -> None:
        self.closed = True

    def send(self, data: bytes) -> None:
        self.sent.append(bytes(data))
        for kind, flags, sequence, _, _ in messages(bytes(data)):
            self.queue += self.answers(kind, flags, sequence)

    def recv(self, size: int, flags: int = 0) -> bytes:
        if not self.queue:
            raise BlockingIOError(errno.EAGAIN, "nothing there")
        answer = self.queue.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer[:size]

    def recvfrom(self, size: int) -> tuple[bytes, tuple[int, int]]:
        return self.recv(size), (self.port, 1)

    def recv_into(self, buffer: bytearray, size: int, flags: int) -> int:
        """Only ever to measure: MSG_PEEK and MSG_TRUNC."""
        assert flags & socket.MSG_PEEK
        assert flags & socket.MSG_TRUNC
        if not self.queue:
            raise BlockingIOError(errno.EAGAIN, "nothing there")
        if isinstance(self.queue[0], BaseException):
            raise self.queue.pop(0)  # type: ignore[misc]
        return len(self.queue[0])


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Play:
    def play(kernel: Kernel, groups: tuple[int, ...] = ()) -> RtnlSocket:
        monkeypatch.setattr(socket, "SocketType", lambda *_: kernel)
        return RtnlSocket(groups)

    return play
