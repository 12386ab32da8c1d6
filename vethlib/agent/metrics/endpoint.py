"""An HTTP endpoint on an asyncio loop, with /metrics and /healthz only.

A scrape is one small request and one response, so the implementation of HTTP is small, too (`client.py`). Every
connection is accepted, so that health checks work whatever other clients do:

1. Beyond `metrics_clients` connections, the longest idle connection is closed for a new one.
2. A descriptor is reserved for one connection. If there is no other descriptor, connections take turns; if even that
   fails, accepting pauses.
3. If an ordinary user has taken the address, the agent starts anyway and serves metrics once the address is free.
4. Metrics are collected on the thread of the loop, because the configurator belongs to it. They are reused for a
   multiple of the time that collecting took, so that frequent requests take only a part of that thread's time. There
   are three formats, whatever clients ask for, and all are reused until the same time.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import re
import select
import socket
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from vethlib._primitives import time
from vethlib.agent.limits import DEFAULT, Limits
from vethlib.agent.process.descriptors import EXHAUSTED, Reserve
from vethlib.agent.process.squatter import find_listener
from vethlib.errors import InvalidValue, VethError, errno_text

from .client import Client, Request

__all__ = ["Address", "Endpoint", "parse_address"]

_log = logging.getLogger("vethlib.agent")

_AGAIN: Final = 1.0  # seconds between attempts to get an address that another user has
_BACKLOG: Final = 128  # connections that wait to be accepted
_PAUSE: Final = 0.5  # seconds without accepting if there is no descriptor
_SHARE: Final = 4  # metrics are reused for up to this many times the time that collecting them took
_ADDRESS: Final = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.%\w-]+)\]|(?P<host>[^\[\]:/]*)):(?P<port>[0-9]{1,5})", re.ASCII)
_FORMATS: Final = {  # the header that stands for each; a third is for clients that accept none of these
    "application/openmetrics-text": "application/openmetrics-text; version=1.0.0",
    "text/plain": "text/plain; version=1.0.0",
}
_UNVERSIONED: Final = {"application/openmetrics-text": "1.0.0"}
_VERSION: Final = re.compile(r"[1-9][0-9]*(\.[0-9]+)*", re.ASCII)  # 1.0.0 or later


class Address(NamedTuple):
    """The address to listen at; the host "" means all addresses of this host."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str, field: str = "--metrics") -> Address:
    """Parse HOST:PORT, [IPV6]:PORT or :PORT. Raises InvalidValue."""
    match = _ADDRESS.fullmatch(text)
    if match is None or int(match["port"]) > 65535:
        raise InvalidValue(field, text, "must be HOST:PORT, such as 127.0.0.1:9750, [::1]:9750 or :9750")
    return Address(match["v6"] or match["host"] or "", int(match["port"]))


class Endpoint:
    """Serve a `registry` at `address` within an ``async with`` statement.

    `health` returns the reason why the agent is unhealthy, or "". Raises VethError if the address cannot be used.
    """

    def __init__(
        self, address: Address, registry: CollectorRegistry, health: Callable[[], str], *, limits: Limits = DEFAULT
    ) -> None:
        self._registry = registry
        self._health = health
        self._limits = limits
        self._clients: dict[Client, None] = {}  # the oldest first
        self._made: dict[str, bytes] = {}  # metrics by format (of _FORMATS)
        self._reused_until = 0.0
        self._failing = False  # whether a failure was logged
        self._socket = _listening(address)
        self._reserve = Reserve()
        self.address = address if self._socket is None else Address(address.host, self._socket.getsockname()[1])

    async def __aenter__(self) -> Endpoint:
        self._loop = asyncio.get_running_loop()
        self._pause: asyncio.TimerHandle | None = None
        self._begin()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._pause is not None:
            self._pause.cancel()
        if self._socket is not None:
            self._loop.remove_reader(self._socket)
        for client in list(self._clients):
            client.close()
        self.close()

    def close(self) -> None:
        """Release the address, if it was not served in an ``async with`` statement."""
        if self._socket is not None:
            self._socket.close()
        self._reserve.close()

    def _begin(self) -> None:
        """Serve, or wait until a squatter has released the address."""
        self._pause = None
        if self._socket is None:
            self._socket = _listening(self.address, again=True)
        if self._socket is None:
            self._pause = self._loop.call_later(_AGAIN, self._begin)
            return
        self._listen()
        _log.info("metrics: http://%s/metrics", self.address)

    def _listen(self) -> None:
        self._pause = None
        assert self._socket is not None
        self._loop.add_reader(self._socket, self._accept)

    def _accept(self) -> None:
        assert self._socket is not None
        for _ in range(_BACKLOG):
            try:
                connection = self._socket.accept()[0]
            except BlockingIOError:
                return
            except OSError as error:
                if not _has_callers(self._socket):
                    return  # accept() needs a descriptor even if nobody waits (__sys_accept4_file, net/socket.c)
                if error.errno in EXHAUSTED and not self._make_room():
                    self._loop.remove_reader(self._socket)
                    self._pause = self._loop.call_later(_PAUSE, self._listen)
                    return
                continue  # the client has disconnected (accept(2)), or a descriptor was freed
            if len(self._clients) >= self._limits.metrics_clients:
                self._least_waited_for().close()
            self._welcome(connection)

    def _make_room(self) -> bool:
        """Free a descriptor for a new client: that of another client, or the reserve; return whether there was one."""
        if self._clients:
            self._least_waited_for().close()
            return True
        return self._reserve.spend()

    def _closed(self, client: Client) -> None:
        self._clients.pop(client, None)
        self._reserve.keep()

    def _least_waited_for(self) -> Client:
        """Return a client that has its response, or else the oldest."""
        return next((client for client in self._clients if not client.is_waited_for), next(iter(self._clients)))

    def _welcome(self, connection: socket.socket) -> None:
        try:
            client = Client(
                self._loop,
                connection,
                longest=self._limits.metrics_head_bytes,
                seconds=self._limits.metrics_seconds,
                answer=self._answer,
                closed=self._closed,
            )
        except OSError:  # the client has disconnected
            connection.close()
            return
        if not client.is_closed:
            self._clients[client] = None

    def _answer(self, request: Request) -> bytes:
        if not request.method:
            return _reply("400 Bad Request", "not an HTTP/1.1 request\n")
        bare = request.method == "HEAD"
        if request.method not in ("GET", "HEAD"):
            return _reply("405 Method Not Allowed", "use GET\n", "Allow: GET, HEAD\r\n")
        if request.path == "/metrics":
            return self._metrics(request.accept, bare=bare)
        if request.path == "/healthz":
            ill = self._health()
            return _reply("503 Service Unavailable" if ill else "200 OK", f"{ill or 'ok'}\n", bare=bare)
        return _reply("404 Not Found", "the paths are /metrics and /healthz\n", bare=bare)

    def _metrics(self, accept: str, *, bare: bool) -> bytes:
        encode, kind = choose_encoder(_format(accept))
        began = time.monotonic()
        if began >= self._reused_until:
            self._made.clear()
        made = self._made.get(kind)
        if made is None:
            try:
                made = encode(self._registry)
            except Exception:
                if not self._failing:
                    _log.exception("the metrics cannot be collected")
                self._failing = True
                return _reply("500 Internal Server Error", "the metrics cannot be collected: see the log\n", bare=bare)
            self._failing = False
            now = time.monotonic()
            self._made[kind] = made
            self._reused_until = max(self._reused_until, now) + _SHARE * (now - began)
        return _reply("200 OK", made, kind=kind, bare=bare)


def _format(accept: str) -> str:
    """Return the value of _FORMATS for the first format in an Accept header that is served; "" if none is.

    prometheus_client would repeat any version and escaping that a client asks for. All names of metrics are ASCII
    letters and underscores, so escaping them changes nothing.
    """
    for accepted in accept.split(","):
        kind, *parameters = (part.strip() for part in accepted.split(";"))
        versions = [parameter[len("version=") :] for parameter in parameters if parameter.startswith("version=")]
        version = versions[0] if versions else _UNVERSIONED.get(kind, "")
        if kind in _FORMATS and _VERSION.fullmatch(version):
            return _FORMATS[kind]
    return ""


def _has_callers(listening: socket.socket) -> bool:
    poll = select.poll()
    poll.register(listening, select.POLLIN)
    return bool(poll.poll(0))


def _reply(status: str, body: str | bytes, more: str = "", *, kind: str = "text/plain", bare: bool = False) -> bytes:
    content = body if isinstance(body, bytes) else body.encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(content)}\r\n{more}"
    head += "Connection: close\r\n\r\n"
    return head.encode("latin-1") + (b"" if bare else content)


def _listening(address: Address, *, again: bool = False) -> socket.socket | None:
    """Listen at an address; return None if a user other than root and this one has it. Otherwise raises VethError.

    With `again`, any failure returns None and is not logged.
    """
    try:
        both = not address.host and socket.has_dualstack_ipv6()  # a host may have IPv6 switched off
        family = socket.AF_INET6 if ":" in address.host or both else socket.AF_INET
        place = _resolved(address, family) if address.host else tuple(address)
        made = socket.create_server(place, family=family, dualstack_ipv6=both, backlog=_BACKLOG)
    except OSError as error:
        if again:
            return None
        if error.errno == errno.EADDRINUSE and (squatter := find_listener(*address)).uid not in (0, os.geteuid()):
            who = f"process {squatter.pid} of user {squatter.uid}" if squatter.uid >= 0 else "another user"
            _log.warning("metrics are not served while %s is in use by %s", address, who)
            return None
        reason = str(error.strerror) if isinstance(error, socket.gaierror) else errno_text(error.errno or 0)
        raise VethError(f"cannot serve metrics at {address}: {reason}: choose another --metrics HOST:PORT") from None
    made.setblocking(False)
    return made


def _resolved(address: Address, family: socket.AddressFamily) -> tuple[Any, ...]:
    """Return the address for bind(), which does not read the zone of a link-local address. Raises gaierror.

    If bind() itself resolved the name, create_server() would turn the gaierror into an OSError without its reason.
    """
    return socket.getaddrinfo(address.host, address.port, family, socket.SOCK_STREAM)[0][4]
