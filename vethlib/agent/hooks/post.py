"""Deliver an event to a URL: one HTTP/1.1 POST over asyncio's streams.

http.client is not used: its time limits are per read, so a server that sends a byte now and then could occupy a thread
for ever, even after the agent has ended. Only a request and a status line of HTTP are needed here. Certificates are
checked as by ssl.create_default_context(), against the CAs that the host trusts ($SSL_CERT_FILE).
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Final, TypeAlias

from vethlib import _threads as threads

from .target import UrlTarget, without_zone

__all__ = ["Answer", "post"]

_LATER: Final = (408, 425, 429)  # RFC 9110, 8470, 6585: temporary, like all of 5xx
_MOST_LINES: Final = 200  # lines of 1xx responses and their headers before the final status
_HEAD_START: Final = 0.25  # seconds, as RFC 8305 recommends

_Address: TypeAlias = tuple[socket.AddressFamily, Any]  # with the address for connect(), including an IPv6 scope
_Lookup: TypeAlias = tuple[asyncio.AbstractEventLoop, str, int]

_lookups: dict[_Lookup, asyncio.Future[list[Any]]] = {}  # lookups in progress


@dataclass(frozen=True, slots=True)
class Answer:
    """The result of a POST: the problem and its cure, or "", and whether to try `again`."""

    problem: str = ""
    again: bool = False


async def post(target: UrlTarget, body: bytes, timeout: float) -> Answer:
    """Send a POST with this JSON; everything together takes up to `timeout` seconds. Raises nothing."""
    try:
        async with asyncio.timeout(timeout):
            return _judge(await _exchange(target, body))
    except TimeoutError:
        return Answer(f"no answer within {timeout:g} s; check the server, or raise --hook-timeout", again=True)
    except ssl.SSLCertVerificationError as error:
        _trust.cache_clear()  # the host may trust the CA by the next attempt
        why = error.verify_message or error.reason
        return Answer(f"its certificate is not trusted: {why}; make the host trust its CA, or set SSL_CERT_FILE")
    except ssl.SSLError as error:
        # The errno of an SSLError is a number of OpenSSL.
        why = (error.reason or "").replace("_", " ").lower() or "no TLS"
        return Answer(f"the TLS handshake failed: {why}; should the URL be http://?", again=True)
    except socket.gaierror as error:
        return Answer(f"its host cannot be found: {error.strerror}; check its name and the DNS", again=True)
    except Exception as error:
        return Answer(f"it cannot be reached: {_words(error)}; check whether it listens there", again=True)


def _words(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno is not None and error.errno > 0:
        if isinstance(error, threads.ThreadRefused):
            return str(error)
        return os.strerror(error.errno)  # the messages of asyncio contain the call and the address
    return str(error) or type(error).__name__


async def _exchange(target: UrlTarget, body: bytes) -> int:
    """Send the request and return the status of the response."""
    reader, writer = await _connect(target)
    try:
        writer.write(_request(target, body))
        await writer.drain()
        for _ in range(_MOST_LINES):
            line = await reader.readline()
            if not line:
                raise ConnectionResetError("the connection was closed without an answer")
            if line.startswith(b"HTTP/1.") and line[9:12].isdigit() and not line.startswith(b"1", 9):
                return int(line[9:12])
            # Skip 1xx responses and their headers, which precede the final one.
        raise ValueError("the response is not HTTP/1.1")
    finally:
        writer.transport.abort()  # close() would wait for the TLS shutdown


def _request(target: UrlTarget, body: bytes) -> bytes:
    lines = [
        f"POST {target.path} HTTP/1.1",
        f"Host: {target.authority}",
        "User-Agent: vethlib",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        "Connection: close",
    ]
    lines += [f"Authorization: {target.authorization}"] if target.authorization else []
    return "\r\n".join([*lines, "", ""]).encode("ascii") + body


async def _connect(target: UrlTarget) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to the first of the target's addresses that accepts a connection."""
    connected = await _race(await _addresses(target.host, target.port))
    try:
        if not target.tls:
            return await asyncio.open_connection(sock=connected)
        return await asyncio.open_connection(sock=connected, ssl=_trust(), server_hostname=without_zone(target.host))
    except BaseException:
        connected.close()
        raise


async def _race(addresses: list[_Address]) -> socket.socket:
    """Return a connection to one of these addresses, each of which has a head start over the next (RFC 8305).

    An address whose packets are dropped on the way would otherwise take all the time.
    """
    coming = iter(addresses)
    attempts: set[asyncio.Task[socket.socket]] = set()
    refused = OSError("it has no address")
    winner: socket.socket | None = None
    try:
        while True:
            if (address := next(coming, None)) is not None:
                attempts.add(asyncio.create_task(_dial(address)))
            elif not attempts:
                raise refused
            done, _ = await asyncio.wait(
                attempts,
                timeout=None if address is None else _HEAD_START,
                return_when=asyncio.FIRST_COMPLETED,
            )
            for attempt in done:
                error = attempt.exception()
                if error is None:
                    winner = attempt.result()
                    return winner
                attempts.discard(attempt)
                if not isinstance(error, OSError):
                    raise error
                refused = error
    finally:
        for attempt in attempts:
            attempt.cancel()
        for result in await asyncio.gather(*attempts, return_exceptions=True):
            if isinstance(result, socket.socket) and result is not winner:
                result.close()


async def _dial(address: _Address) -> socket.socket:
    family, place = address
    dialled = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        await asyncio.get_running_loop().sock_connect(dialled, place)
    except BaseException:
        dialled.close()
        raise
    return dialled


@lru_cache(maxsize=1)
def _trust() -> ssl.SSLContext:
    return ssl.create_default_context()  # reads all CAs, which takes 35 ms


async def _addresses(host: str, port: int) -> list[_Address]:
    """Resolve a host name. Raises gaierror.

    This uses a daemon thread: a thread of an executor would keep the program from ending while the DNS does not answer.
    There is one for each host, since a name service may never answer, and each attempt would add another.
    """
    loop = asyncio.get_running_loop()
    wanted = (loop, host, port)
    if wanted not in _lookups:
        answer = loop.create_future()
        answer.add_done_callback(lambda done: done.exception())  # it may be too late for everybody
        ask = partial(_ask, wanted, answer)
        threads.start(threading.Thread(target=ask, name="vethlib-hooks-dns", daemon=True), "the DNS")
        _lookups[wanted] = answer
    entries = await asyncio.shield(_lookups[wanted])
    # Without the zone in the text, which asyncio would resolve again in an executor; its number is the last element.
    return list(dict.fromkeys((family, (place[0].partition("%")[0], *place[1:])) for family, *_, place in entries))


def _ask(wanted: _Lookup, answer: asyncio.Future[list[Any]]) -> None:
    loop, host, port = wanted
    settle: Callable[[], None]
    try:
        settle = partial(answer.set_result, socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
    except Exception as error:  # whatever it is, the next attempt has to look again
        settle = partial(answer.set_exception, error)

    def done() -> None:
        del _lookups[wanted]
        settle()

    try:
        loop.call_soon_threadsafe(done)
    except RuntimeError:
        _lookups.pop(wanted, None)  # the loop was closed meanwhile, so nobody waits


def _judge(status: int) -> Answer:
    if 200 <= status < 300:
        return Answer()
    if status in (401, 403):
        return Answer(f"it answered {status}; check the user, password or token in its URL")
    if 300 <= status < 400:
        return Answer(f"it answered {status}, a redirect, which is not followed; give the URL that it leads to")
    return Answer(f"it answered {status}; see its log", again=status in _LATER or status >= 500)
