"""Telling a URL: one HTTP/1.1 POST over asyncio's streams.

Not by http.client: its time limits are for one read each, so that a server which sends a byte now and then keeps a
thread for ever, and nothing ends it when the agent does. What is needed of HTTP here is a request and a status line.
TLS is checked as ssl.create_default_context() does it, against the CAs that the host trusts ($SSL_CERT_FILE).
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

from .target import UrlTarget

__all__ = ["Answer", "post"]

_LATER: Final = (408, 425, 429)  # RFC 9110, 8470, 6585: not now; as all of 5xx
_MOST_LINES: Final = 200  # of headers before a status


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of it: what went wrong and its cure, "" if nothing did, and whether it is worth another try."""

    problem: str = ""
    again: bool = False


async def post(target: UrlTarget, body: bytes, timeout: float) -> Answer:
    """Send a POST with this JSON; the whole of it takes at most `timeout` seconds."""
    try:
        async with asyncio.timeout(timeout):
            return _judge(await _exchange(target, body))
    except TimeoutError:
        return Answer(f"no answer within {timeout:g} s; see how it does, or raise --hook-timeout", again=True)
    except ssl.SSLCertVerificationError as error:
        why = error.verify_message or error.reason
        return Answer(f"its certificate is not trusted: {why}; have the host trust its CA, or set SSL_CERT_FILE")
    except ssl.SSLError as error:
        # Its errno is a number of OpenSSL's.
        why = (error.reason or "").replace("_", " ").lower() or "no TLS"
        return Answer(f"it does not speak TLS as we do: {why}; is it http://?", again=True)
    except socket.gaierror as error:
        return Answer(f"its host cannot be found: {error.strerror}; check its name and the DNS", again=True)
    except (OSError, asyncio.IncompleteReadError, ValueError) as error:
        return Answer(f"it cannot be reached: {_words(error)}; see whether it listens there", again=True)


def _words(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)  # asyncio's own are about a call, and an address
    return str(error) or type(error).__name__


async def _exchange(target: UrlTarget, body: bytes) -> int:
    """The status of the answer."""
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
            # A 1xx and its headers come before the answer proper.
        raise ValueError("it does not speak HTTP/1.1")
    finally:
        writer.transport.abort()  # to wait for a farewell of TLS would be to wait


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
    """A connection to the first of its addresses that takes one."""
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
    return ssl.create_default_context()  # reads all CAs, some 35 ms


async def _addresses(host: str, port: int) -> list[str]:
    """What the host's name stands for. Raises gaierror.

    In a thread of its own: that of an executor would keep the whole program from ending as long as the DNS is silent.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[list[Any]] = loop.create_future()

    def settle(found: list[Any] | None, error: OSError | None) -> None:
        if answer.done():
            return
        if error is not None:
            answer.set_exception(error)
        else:
            answer.set_result(found or [])

    def ask() -> None:
        found, refused = None, None
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            refused = error
        try:
            loop.call_soon_threadsafe(settle, found, refused)
        except RuntimeError:
            pass  # the loop was closed meanwhile, and nobody waits

    threading.Thread(target=ask, name="vethlib-hooks-dns", daemon=True).start()
    return list(dict.fromkeys(str(entry[4][0]) for entry in await answer))


def _judge(status: int) -> Answer:
    if 200 <= status < 300:
        return Answer()
    if status in (401, 403):
        return Answer(f"it answered {status}; check the user, password or token in its URL")
    if 300 <= status < 400:
        return Answer(f"it answered {status}, a redirection, which is not followed; give the URL it leads to")
    return Answer(f"it answered {status}; its own log says why", again=status in _LATER or status >= 500)
