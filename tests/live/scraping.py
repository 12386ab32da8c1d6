"""Bare HTTP to the endpoint of an agent's metrics."""

from __future__ import annotations

import socket


def ask(port: int, request: str) -> tuple[str, dict[str, str], str]:
    """Return the status, headers and body of the answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as to:
        to.sendall(request.encode())
        answer = b""
        while more := to.recv(65536):
            answer += more
    head, _, body = answer.decode().partition("\r\n\r\n")
    status, *lines = head.split("\r\n")
    return status.partition(" ")[2], {k.lower(): v.strip() for k, _, v in (x.partition(":") for x in lines)}, body


def get(port: int, path: str, accept: str = "*/*") -> tuple[str, dict[str, str], str]:
    return ask(port, f"GET {path} HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\n\r\n")


def has_ended(one: socket.socket) -> bool:
    one.setblocking(False)
    try:
        return one.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True
