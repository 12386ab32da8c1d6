"""Datagrams between two nodes of a topology."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from vethlib.topology import Node

__all__ = ["datagrams"]


@contextmanager
def datagrams(sender: Node, receiver: Node) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two UDP sockets, connected; the neighbour is known, so that nothing waits for it."""
    with sender.socket(type=socket.SOCK_DGRAM) as out, receiver.socket(type=socket.SOCK_DGRAM) as into:
        into.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        into.bind((receiver.ipv4, 7))
        into.settimeout(30)
        out.connect((receiver.ipv4, 7))
        out.send(b"first")
        assert into.recv(100) == b"first"
        yield out, into
