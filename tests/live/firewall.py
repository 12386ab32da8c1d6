"""A firewall that drops the packets that a network namespace sends, over nfnetlink, without any program.

Run as a script, it drops the packets that the namespace of the process sends (see needs.py).
"""

from __future__ import annotations

import os
import socket
import struct

__all__ = ["drop_output"]

_NETLINK_NETFILTER = 12
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11  # include/uapi/linux/netfilter/nfnetlink.h
_NFTABLES = 10
_NEWTABLE, _NEWCHAIN = _NFTABLES << 8, _NFTABLES << 8 | 3  # include/uapi/linux/netfilter/nf_tables.h
_REQUEST, _ACK, _CREATE = 1, 4, 0x400
_LOCAL_OUT, _DROP = 3, 0
_FAMILIES = {4: 2, 6: 10}  # NFPROTO_IPV4, NFPROTO_IPV6


def drop_output(version: int) -> None:
    """Drop all packets of an IP version that the namespace of the calling thread sends. Raises OSError."""
    family = _FAMILIES[version]
    hook = _attribute(1, struct.pack(">I", _LOCAL_OUT)) + _attribute(2, struct.pack(">i", 0))
    chain = _attribute(1, b"t\0") + _attribute(3, b"output\0") + _attribute(4 | 0x8000, hook)
    chain += _attribute(5, struct.pack(">I", _DROP)) + _attribute(7, b"filter\0")
    batch = _message(_BATCH_BEGIN, _REQUEST, 0, _NFTABLES)
    batch += _message(_NEWTABLE, _REQUEST | _ACK | _CREATE, family, 0, _attribute(1, b"t\0"))
    batch += _message(_NEWCHAIN, _REQUEST | _ACK | _CREATE, family, 0, chain)
    batch += _message(_BATCH_END, _REQUEST, 0, _NFTABLES)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as sock:
        sock.sendto(batch, (0, 0))
        answers = b""
        while len(answers) < 2 * 36:  # an acknowledgement of each
            answers += (answer := sock.recv(4096))
            (error,) = struct.unpack_from("=i", answer, 16)
            if error:
                raise OSError(-error, os.strerror(-error))


def _message(kind: int, flags: int, family: int, resource: int, attributes: bytes = b"") -> bytes:
    return (
        struct.pack("=IHHIIBBH", 20 + len(attributes), kind, flags, 0, 0, family, 0, socket.htons(resource))
        + attributes
    )


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


if __name__ == "__main__":
    drop_output(4)
    drop_output(6)
