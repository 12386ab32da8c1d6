"""A hostile tenant that sends netlink messages which look like the kernel's.

A process with CAP_NET_ADMIN in a network namespace may send messages to every netlink socket there, by its port, and to
every multicast group (netlink_allowed, net/netlink/af_netlink.c).

    with forging("tenant", [new_link(4242, "lo", sequence=1)], seconds=20, port=os.getpid()):
        …

It is a process of its own, and sends as fast as the kernel lets it. It ends by itself
after `seconds`, whatever becomes of whoever has started it.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from struct import pack, unpack_from
from typing import ClassVar, Final

from tests.flapping import socket_in
from vethlib import ns

__all__ = ["INDEX", "Forgeries", "forging", "gone_link", "new_link", "send_event"]

# include/uapi/linux/rtnetlink.h, if_link.h, netlink.h
_RTMGRP_LINK: Final = 1
_NEWLINK, _DELLINK = 16, 17
_NEWADDR, _GETADDR = 20, 22
_GET: Final = 2  # RTM_GET* are 2 modulo 4
_ERROR: Final = 2
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINK, _IFLA_LINKINFO = 1, 3, 4, 5, 18
_IFA_ADDRESS, _IFA_LOCAL = 1, 2

INDEX: Final = 4242
"""The ifindex of a link that does not exist."""


def _message(kind: int, body: bytes, sequence: int = 0) -> bytes:
    return pack("=IHHII", 16 + len(body), kind, 0, sequence, 0) + body + bytes(-len(body) % 4)


def _attribute(kind: int, value: bytes) -> bytes:
    return pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def new_link(index: int, name: str, sequence: int = 0, *, peer: int = 7) -> bytes:
    """RTM_NEWLINK of a veth."""
    body = pack("=BxHiII", 0, 1, index, 0x43, 0)
    body += _attribute(_IFLA_IFNAME, name.encode() + b"\0") + _attribute(_IFLA_LINK, pack("=I", peer))
    body += _attribute(_IFLA_ADDRESS, b"\x02\0\0\0\0\1") + _attribute(_IFLA_MTU, pack("=I", 1500))
    return _message(_NEWLINK, body + _attribute(_IFLA_LINKINFO, _attribute(1, b"veth\0")), sequence)


def gone_link(index: int) -> bytes:
    """RTM_DELLINK."""
    return _message(_DELLINK, pack("=BxHiII", 0, 1, index, 0, 0xFFFF_FFFF))


def _answers(requests: bytes) -> list[bytes]:
    """Links that do not exist, for each question; success, for each change."""
    made, start = [], 0
    while start < len(requests):
        length, kind, _flags, sequence, _port = unpack_from("=IHHII", requests, start)
        if kind == _GETADDR:
            body = pack("=BBBBI", socket.AF_INET, 32, 0, 0, INDEX)
            local = bytes((10, 6, 6, 6))
            body += _attribute(_IFA_LOCAL, local) + _attribute(_IFA_ADDRESS, local)
            made.append(_message(_NEWADDR, body, sequence))
        elif kind & 3 == _GET:
            made.append(new_link(INDEX, "forged", sequence))
        else:
            made.append(_message(_ERROR, bytes(20), sequence))
        start += (length + 3) & ~3
    return made


class Forgeries(socket.SocketType):
    """A netlink socket for which a tenant forges answers faster than the kernel answers, with all numbers correct.

    It is called like the original; each is noted in `opened`. Its port is the one that sending would have given it.
    """

    opened: ClassVar[list[Forgeries]] = []

    def __init__(self, *arguments: int) -> None:
        super().__init__(*arguments)
        self._tenant = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)
        self.attempts = self.arrived = 0
        self.opened.append(self)

    def send(self, data: bytes, *flags: int) -> int:  # type: ignore[override]
        if not self.getsockname()[0]:
            self.bind((0, 0))
        for answer in _answers(bytes(data)):
            self.attempts += 1
            try:
                self._tenant.sendto(answer, (self.getsockname()[0], 0))
                self.arrived += 1
            except ConnectionRefusedError:
                pass
        return super().send(data, *flags)

    def close(self) -> None:
        self._tenant.close()
        super().close()


def _forge(path: str, seconds: float, port: int, messages: Sequence[bytes]) -> None:
    sock = socket_in(path)
    until = time.monotonic() + seconds
    while time.monotonic() < until and os.getppid() != 1:
        for one in messages:
            try:
                sock.sendto(one, socket.MSG_DONTWAIT, (port, 0))
            except OSError:
                pass  # the socket no longer exists, or its buffer is full, or the kernel refuses


@contextmanager
def forging(netns: str, messages: Sequence[bytes], *, seconds: float, port: int) -> Iterator[None]:
    """Run a tenant that sends all of these again and again, for up to `seconds`."""
    command = [sys.executable, "-m", "tests.forging", f"/run/netns/{netns}", str(seconds), str(port)]
    command += [one.hex() for one in messages]
    tenant = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[1])
    assert tenant.stdout is not None
    try:
        assert tenant.stdout.readline() == b"ready\n"
        yield
        assert tenant.poll() is None, "the tenant has ended too early to tell anything"
    finally:
        tenant.kill()
        tenant.wait()
        tenant.stdout.close()


def send_event(netns: str, *messages: bytes) -> None:
    """Send these messages in one datagram to all sockets that listen to the links of a namespace."""
    with ns.entered(netns), socket.socket(socket.AF_NETLINK, socket.SOCK_RAW) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        sock.sendto(b"".join(messages), (0, _RTMGRP_LINK))


if __name__ == "__main__":
    _path, _seconds, _port, *_messages = sys.argv[1:]
    print("ready", flush=True)
    _forge(_path, float(_seconds), int(_port), [bytes.fromhex(one) for one in _messages])
