"""Questions to the agent of a label, and its answers: one line each, over the socket that is its claim."""

from __future__ import annotations

import json
import os
import socket
import struct
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from .claim import NoUnixSockets, call
from .instance import ROLE, Instance

if TYPE_CHECKING:
    import asyncio

__all__ = ["Answering", "Reply", "ask"]

_CALLERS = 16  # open connections
_LISTEN = 2.0  # seconds for a caller to send its line
_LONGEST_LINE = 8192  # bytes; a longer line is not answered
_LONGEST_ANSWER = 16 << 20  # a value may have a megabyte by default, and up to six times that in ASCII
_PATIENCE = 5.0  # seconds for an answer, as it may be long and the agent busy; and for a caller to read it
_AGAIN = 0.01  # seconds between attempts to connect to an agent whose queue is full
_PAUSE = 0.5  # seconds without accepting; the kernel completes connections even so


class Reply(Protocol):
    """Answer the line of a caller."""

    def __call__(self, line: bytes, *, trusted: bool) -> bytes:
        """Return the answer."""


class _Caller(NamedTuple):
    """The user of a connection, and the timer that ends it."""

    user: int
    timer: asyncio.TimerHandle


class Answering:
    """Answer connections to an `instance` on a `loop`, until :meth:`close`. It pauses while no descriptor is left.

    An accepted connection proves that the agent runs. A caller that sends a line gets the result of `reply`, whose
    argument `trusted` is whether the caller is root or this process's user.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, instance: Instance, reply: Reply | None = None) -> None:
        self._loop, self._instance, self._reply = loop, instance, reply
        self._pause: asyncio.TimerHandle | None = None
        self._open: dict[socket.socket, _Caller] = {}  # the oldest first
        self._listen()

    def close(self) -> None:
        """Stop answering."""
        self._loop.remove_reader(self._instance.fileno())
        if self._pause is not None:
            self._pause.cancel()
        for calling in list(self._open):
            self._hang_up(calling)

    def _listen(self) -> None:
        self._pause = None
        try:
            self._loop.add_reader(self._instance.fileno(), self._answer)
        except OSError:  # the kernel has no memory for it, or the user watches too many descriptors
            self._wait()

    def _wait(self) -> None:
        self._pause = self._loop.call_later(_PAUSE, self._listen)

    def _answer(self) -> None:
        try:
            for calling in self._instance.accept():
                if self._reply is None:
                    calling.close()
                else:
                    self._hold(calling)
        except OSError:
            self._loop.remove_reader(self._instance.fileno())
            self._wait()

    def _hold(self, calling: socket.socket) -> None:
        """Wait a moment for the line of a caller. If there are too many callers, hang up on one."""
        calling.setblocking(False)
        self._open[calling] = _Caller(_user_of(calling), self._loop.call_later(_LISTEN, self._hang_up, calling))
        self._loop.add_reader(calling, self._talk, calling)
        if len(self._open) > _CALLERS:
            self._hang_up(self._one_too_many())

    def _one_too_many(self) -> socket.socket:
        """Return the oldest connection of the user with the most of them; none of a trusted user if there are others.

        So nobody can take the place of another user's connection by opening many.
        """
        users = {calling: caller.user for calling, caller in self._open.items()}
        others = {calling: user for calling, user in users.items() if not _is_trusted(user)} or users
        ((busiest, _),) = Counter(others.values()).most_common(1)
        return next(calling for calling, user in others.items() if user == busiest)

    def _talk(self, calling: socket.socket) -> None:
        """Answer a line that arrived in one piece; otherwise hang up."""
        answer = b""
        try:
            line = calling.recv(_LONGEST_LINE)
            if line.endswith(b"\n") and self._reply is not None:
                answer = self._reply(line, trusted=_is_trusted(self._open[calling].user))
        except OSError:
            pass  # the caller has hung up
        finally:
            self._loop.remove_reader(calling)
            self._open[calling].timer.cancel()
            timer = self._loop.call_later(_PATIENCE, self._hang_up, calling)
            self._open[calling] = self._open[calling]._replace(timer=timer)
            self._send(calling, memoryview(answer))

    def _send(self, calling: socket.socket, rest: memoryview) -> None:
        """Send what fits into the socket, the rest as the caller reads, and hang up at the end."""
        try:
            rest = rest[calling.send(rest, socket.MSG_NOSIGNAL) :]
        except BlockingIOError:
            pass
        except OSError:
            rest = rest[:0]  # the caller has hung up
        if rest:
            self._loop.add_writer(calling, self._send, calling, rest)
        else:
            self._hang_up(calling)

    def _hang_up(self, calling: socket.socket) -> None:
        self._open.pop(calling).timer.cancel()
        self._loop.remove_reader(calling)
        self._loop.remove_writer(calling)
        calling.close()


def _user_of(calling: socket.socket) -> int:
    _, uid, _ = struct.unpack("3i", calling.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return int(uid)


def _is_trusted(user: int) -> bool:
    return user in (0, os.geteuid())


def ask(label: str, request: object) -> dict[str, Any] | None:
    """Send a request to the agent of a label on this host and return its answer.

    Returns None if there is no agent, it cannot be asked or does not answer in time, and {} for an answer that is not
    an object, such as that of another version.
    """
    until = time.monotonic() + _PATIENCE
    try:
        calling, holder = call(ROLE, label, socket.SOCK_STREAM)
    except NoUnixSockets:
        return None
    while calling is None and holder is not None and holder.is_ours and time.monotonic() < until:
        time.sleep(_AGAIN)  # others fill the queue of its socket
        calling, holder = call(ROLE, label, socket.SOCK_STREAM)
    if calling is None or holder is None:
        return None
    with calling:
        calling.settimeout(_PATIENCE)
        received = bytearray()
        try:
            calling.sendall(json.dumps(request).encode() + b"\n")
            while len(received) < _LONGEST_ANSWER and time.monotonic() < until and (part := calling.recv(1 << 20)):
                received += part
            answer = json.loads(received)
        except (OSError, ValueError, RecursionError):
            return None
    return answer if isinstance(answer, dict) else {}
