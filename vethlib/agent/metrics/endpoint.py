"""An HTTP endpoint on an asyncio loop: /metrics and /healthz, and nothing else.

A scrape is a small request and one answer, so what speaks HTTP here is as small: a head of at most 8 KiB within 5
seconds, then the answer, then the end of the connection. More than a few at once are turned away, so that nobody can
keep the agent busy. The numbers are collected on the loop's own thread, for they are the configurator's.
"""

from __future__ import annotations

import asyncio
import logging
import re
import socket
from collections.abc import Callable
from typing import Final, NamedTuple

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from vethlib.errors import InvalidValue, VethError, errno_text

__all__ = ["Address", "Endpoint", "parse_address"]

_log = logging.getLogger("vethlib.agent")

_PATIENCE: Final = 5.0  # seconds for a request, and for its answer to be taken
_HEAD: Final = 8192  # bytes
_MOST: Final = 16  # connections at a time
_ADDRESS: Final = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.%\w]+)\]|(?P<host>[^\[\]:/]*)):(?P<port>[0-9]{1,5})", re.ASCII)


class Address(NamedTuple):
    """Where to listen; "" is every address of this host."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str, field: str = "--metrics") -> Address:
    """HOST:PORT, [IPV6]:PORT or :PORT. Raises InvalidValue."""
    found = _ADDRESS.fullmatch(text)
    if found is None or int(found["port"]) > 65535:
        raise InvalidValue(field, text, "write HOST:PORT, as in 127.0.0.1:9750, [::1]:9750 or :9750")
    return Address(found["v6"] or found["host"] or "", int(found["port"]))


class Endpoint:
    """Serves a `registry` at `address` while it is open; `health` says why this agent is not well, "" if it is.

    Raises VethError where the address cannot be had.
    """

    def __init__(self, address: Address, registry: CollectorRegistry, health: Callable[[], str]) -> None:
        self._registry = registry
        self._health = health
        self._open: dict[asyncio.StreamWriter, asyncio.Task[object] | None] = {}
        self._server: asyncio.Server | None = None
        self._socket = _listening(address)
        self.address = Address(address.host, self._socket.getsockname()[1])

    async def __aenter__(self) -> Endpoint:
        self._server = await asyncio.start_server(self._serve, sock=self._socket, limit=_HEAD)
        _log.info("metrics: http://%s/metrics", self.address)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        tasks = [task for task in self._open.values() if task is not None]
        for writer in self._open:
            writer.transport.abort()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._open) >= _MOST:
            writer.transport.abort()
            return
        self._open[writer] = asyncio.current_task()
        try:
            async with asyncio.timeout(_PATIENCE):
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            async with asyncio.timeout(_PATIENCE):
                writer.write(self._answer(head))
                await writer.drain()
                writer.write_eof()
                await reader.read(1)  # until the client has it all, and closes
        except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError, OSError):
            pass  # who does not speak HTTP, or is gone, needs no answer
        finally:
            self._open.pop(writer, None)
            writer.transport.abort()

    def _answer(self, head: str) -> bytes:
        request, *lines = head.split("\r\n")
        method, _, rest = request.partition(" ")
        path = rest.partition(" ")[0].partition("?")[0]
        headers = {key.strip().lower(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
        if method not in ("GET", "HEAD"):
            return _reply("405 Method Not Allowed", "this is for GET\n", "Allow: GET, HEAD\r\n")
        if path == "/metrics":
            encode, kind = choose_encoder(headers.get("accept", ""))
            return _reply("200 OK", encode(self._registry), kind=kind, bare=method == "HEAD")
        if path == "/healthz":
            ill = self._health()
            return _reply("503 Service Unavailable" if ill else "200 OK", f"{ill or 'ok'}\n", bare=method == "HEAD")
        return _reply("404 Not Found", "there are /metrics and /healthz\n", bare=method == "HEAD")


def _reply(status: str, body: str | bytes, more: str = "", *, kind: str = "text/plain", bare: bool = False) -> bytes:
    content = body if isinstance(body, bytes) else body.encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(content)}\r\n{more}"
    head += "Connection: close\r\n\r\n"
    return head.encode("latin-1") + (b"" if bare else content)


def _listening(address: Address) -> socket.socket:
    try:
        both = not address.host and socket.has_dualstack_ipv6()  # a host may have IPv6 switched off
        family = socket.AF_INET6 if ":" in address.host or both else socket.AF_INET
        made = socket.create_server(address, family=family, dualstack_ipv6=both, backlog=_MOST)
    except OSError as error:
        reason = str(error.strerror) if isinstance(error, socket.gaierror) else errno_text(error.errno or 0)
        raise VethError(f"cannot serve metrics at {address}: {reason}: give another --metrics HOST:PORT") from None
    made.setblocking(False)
    return made
