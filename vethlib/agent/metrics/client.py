"""One connection of a client to the endpoint: read a request, write a response, close. Each step has a deadline.

1. Reading: in pieces of any size, until the head is complete. Anything that is not HTTP, or too long, gets no response.
2. Writing: as fast as the client reads.
3. Closing: the sending side is shut down, and further data of the client (a pipelined request, a body) is read and
   dropped: closing a socket with unread data resets the connection (RFC 1122, 4.2.2.13), and could lose the response.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Final

__all__ = ["Client", "Request"]

_CHUNK: Final = 65536
_DROPPED: Final = 1 << 20  # bytes that are read and dropped after the response
_END: Final = re.compile(rb"\r?\n\r?\n")
_LONGEST_END: Final = 4
_REQUEST: Final = re.compile(rb"([A-Z]{1,20}) ([\x21-\x7e]{1,8000}) HTTP/1\.[0-9]\r?")


class Request:
    """The head of a request: `method` ("" if it is not HTTP/1), `path` without the query, and `accept`."""

    def __init__(self, head: bytes) -> None:
        first, *lines = head.split(b"\n")
        match = _REQUEST.fullmatch(first)
        self.method, self.path, self.accept = "", "", ""
        if match is None:
            return
        self.method = match[1].decode()
        target = re.sub(r"^https?://[^/?]*", "", match[2].decode(), flags=re.IGNORECASE)
        self.path = target.partition("?")[0]
        for line in lines:
            key, _, value = line.partition(b":")
            if key.strip().lower() == b"accept":
                self.accept = value.strip().decode("latin-1")


class Client:
    """An accepted connection; `answer` returns all bytes of the response to a request.

    The client has `seconds` to send its request, and again to receive the response. After that, or when it is done, the
    connection closes itself and calls `closed`. `is_waited_for` is False once the response is sent.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        connection: socket.socket,
        *,
        longest: int,
        seconds: float,
        answer: Callable[[Request], bytes],
        closed: Callable[[Client], object],
    ) -> None:
        self._loop, self._connection = loop, connection
        self._longest, self._seconds = longest, seconds
        self._answer, self._closed = answer, closed
        self._head = bytearray()
        self._rest = memoryview(b"")
        self._dropped = 0
        self.is_waited_for = True
        connection.setblocking(False)
        self._timer = loop.call_later(seconds, self.close)
        loop.add_reader(connection, self._read)
        self._read()  # the request has usually arrived before the connection was accepted

    @property
    def is_closed(self) -> bool:
        """Whether the connection is closed."""
        return self._connection.fileno() < 0

    def close(self) -> None:
        """Close the connection now. A second call does nothing."""
        if self.is_closed:
            return
        self._timer.cancel()
        self._loop.remove_reader(self._connection)
        self._loop.remove_writer(self._connection)
        self._connection.close()
        self._closed(self)

    def _read(self) -> None:
        try:
            data = self._connection.recv(min(_CHUNK, self._longest + 1 - len(self._head)))
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        searched = max(0, len(self._head) - _LONGEST_END)
        self._head += data
        end = _END.search(self._head, searched)
        if end is not None:
            self._begin_to_write(self._answer(Request(bytes(self._head[: end.start()]))))
        elif len(self._head) > self._longest or not b"A" <= self._head[:1] <= b"Z":
            self._begin_to_write(b"")  # for example a TLS handshake

    def _begin_to_write(self, answer: bytes) -> None:
        self._loop.remove_reader(self._connection)
        self._rest = memoryview(answer)
        self._timer.cancel()
        self._timer = self._loop.call_later(self._seconds, self.close)
        self._write()

    def _write(self) -> None:
        try:
            while self._rest:
                self._rest = self._rest[self._connection.send(self._rest) :]
        except (BlockingIOError, InterruptedError):
            self._loop.add_writer(self._connection, self._write)
            return
        except OSError:
            self.close()
            return
        self.is_waited_for = False
        self._loop.remove_writer(self._connection)
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_WR)
        self._loop.add_reader(self._connection, self._drop)
        self._drop()

    def _drop(self) -> None:
        try:
            data = self._connection.recv(_CHUNK)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        self._dropped += len(data)
        if not data or self._dropped > _DROPPED:
            self.close()
