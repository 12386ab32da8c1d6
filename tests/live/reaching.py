"""Whether nodes of a topology reach each other, and what ``ip`` shows of them."""

from __future__ import annotations

import json
import socket
from itertools import permutations
from typing import Any

from vethlib.topology import Node, Topology


def of(node: Node, *arguments: str) -> Any:
    return json.loads(node.run(["ip", "-j", *arguments]).stdout)


def reaches(a: Node, b: Node, address: str) -> bool:
    """Return whether a datagram from `a` to `address` arrives in `b`, and its answer in `a`."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with b.socket(family, socket.SOCK_DGRAM) as server, a.socket(family, socket.SOCK_DGRAM) as client:
        server.settimeout(2)
        client.settimeout(2)
        server.bind((address, 7))
        try:
            client.connect((address, 7))
            client.send(b"there")
            message, sender = server.recvfrom(16)
            server.sendto(message, sender)
            return client.recv(16) == b"there"
        except (TimeoutError, OSError):
            return False


def all_reach_all(net: Topology) -> bool:
    pairs = permutations((node for node in net.values() if node.addresses), 2)
    return all(reaches(a, b, address) for a, b in pairs for address in (b.ipv4, b.ipv6))
