"""IPv6 addresses that the kernel checks for duplicates, and whether they can be used yet."""

from __future__ import annotations

import socket
from contextlib import closing

from vethlib import ns

ONE, TWO = "2001:db8::1/64", "2001:db8::2/64"


def can_bind(address: str, netns: str = "") -> bool:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with ns.entered(netns), closing(socket.socket(family, socket.SOCK_DGRAM)) as sock:
        try:
            sock.bind((address.partition("/")[0], 0))
        except OSError:
            return False
    return True
