"""Ports for servers of tests, in the namespace that the test run has for itself."""

from __future__ import annotations

import itertools
import socket

__all__ = ["free_port"]

# Below those that the kernel gives to clients (net.ipv4.ip_local_port_range, from 32768): a client that tries again and
# again to reach a server that is down would some day get the very port that it calls, and reach itself.
_PORTS = itertools.count(21000)


def free_port() -> int:
    """Return a port that has not been given out in this test run, and that nobody listens on."""
    for port in _PORTS:
        with socket.socket() as one:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                one.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("ports do not end")
