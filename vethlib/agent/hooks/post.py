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
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from vethlib import _threads as threads

from .target import UrlTarget

__all__ = ["Answer", "post"]

_LATER: Final = (408, 425, 429)  # RFC 9110, 8470, 6585: temporary, like all of 5xx
_MOST_LINES: Final = 200  # of 1xx responses and their headers before the final status


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
        why = error.verify_message or error.reason
        return Answer(f"its certificate is not trusted: {why}; make the host trust its CA, or set SSL_CERT_FILE")
    except ssl.SSLError as error:
        # The errno of an SSLError is a number of OpenSSL.
        why = (error.reason or "").replace("_", " ").lower() or "no TLS"
        return Answer(f"the TLS handshake failed: {why}; should the URL be http://?", again=True)
    except socket.gaierror as error:
        return Answer(f"its host cannot be found: {error.strerror}; check its name and the DNS", again=True)
    except (OSError, asyncio.IncompleteReadError, ValueError) as error:
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
    host = f"[{target.host}]" if ":" in target.host else target.host
    lines = [
        f"POST {target.path} HTTP/1.1",
        f"Host: {host}" + ("" if target.port in (80, 443) else f":{target.port}"),
        "User-Agent: vethlib",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        "Connection: close",
    ]
    lines += [f"Authorization: {target.authorization}"] if target.authorization else []
    return "\r\n".join([*lines, "", ""]).encode("ascii") + body


async def _connect(target: UrlTarget) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to the first of the target's addresses that accepts a connection."""
    context = _trust() if target.tls else None
    refused: OSError | None = None
    for address in await _addresses(target.host, target.port):
        try:
            return await asyncio.open_connection(
                address, target.port, ssl=context, server_hostname=target.host if context else None
            )
        except ssl.SSLCertVerificationError:
            raise
        except OSError as error:
            refused = error
    raise refused or OSError("it has no address")


@lru_cache(maxsize=1)
def _trust() -> ssl.SSLContext:
    return ssl.create_default_context()  # reads all CAs, which takes 35 ms


async def _addresses(host: str, port: int) -> list[str]:
    """Resolve a host name. Raises gaierror.

    This uses a daemon thread: a thread of an executor would keep the program from ending while the DNS does not answer.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[list[Any]] = loop.create_future()

    def settle(entries: list[Any] | None, error: OSError | None) -> None:
        if answer.done():
            return
        if error is not None:
            answer.set_exception(error)
        else:
            answer.set_result(entries or [])

    def ask() -> None:
        entries, refused = None, None
        try:
            entries = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            refused = error
        try:
            loop.call_soon_threadsafe(settle, entries, refused)
        except RuntimeError:
            pass  # the loop was closed meanwhile, so nobody waits

    threads.start(threading.Thread(target=ask, name="vethlib-hooks-dns", daemon=True), "the DNS")
    return list(dict.fromkeys(str(entry[4][0]) for entry in await answer))


def _judge(status: int) -> Answer:
    if 200 <= status < 300:
        return Answer()
    if status in (401, 403):
        return Answer(f"it answered {status}; check the user, password or token in its URL")
    if 300 <= status < 400:
        return Answer(f"it answered {status}, a redirect, which is not followed; give the URL that it leads to")
    return Answer(f"it answered {status}; see its log", again=status in _LATER or status >= 500)
