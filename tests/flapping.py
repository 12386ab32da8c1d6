"""A hostile tenant, which changes its own end of a pair, or its own namespace, as fast as the kernel permits.

    with flapping("tenant", "pb", "addresses", seconds=20):
        …

It is a process of its own, so that it has a CPU of its own, and its requests are made beforehand: what is left is one
system call for hundreds of changes. It ends by itself after `seconds`, whatever becomes of whoever has started it.

    python -m tests.flapping /run/netns/tenant pb addresses 20

Nothing of vethlib is in the process, so that it is no faster and no slower for what is changed there.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from struct import pack
from typing import Final

__all__ = ["KINDS", "addresses", "flapping", "give_addresses", "socket_in"]

# include/uapi/linux/rtnetlink.h, if_link.h, if_addr.h
_NEWLINK, _DELLINK, _SETLINK, _NEWADDR, _DELADDR = 16, 17, 19, 20, 21
_NEWNSID, _NEWLINKPROP, _DELLINKPROP = 88, 108, 109
_REQUEST, _CREATE, _EXCL = 0x1, 0x400, 0x200
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINKINFO, _IFLA_IFALIAS, _IFLA_GROUP = 1, 3, 4, 18, 20, 27
_IFLA_PROP_LIST, _IFLA_ALT_IFNAME = 52 | 0x8000, 53
_IFA_ADDRESS, _IFA_LOCAL, _IFA_FLAGS = 1, 2, 8
_NODAD: Final = 0x02
_UP: Final = 1

_AT_ONCE: Final = 100  # changes, and as many that undo them, in one system call


def _message(kind: int, flags: int, body: bytes) -> bytes:
    return pack("=IHHII", 16 + len(body), kind, _REQUEST | flags, 0, 0) + body


def _attribute(kind: int, value: bytes) -> bytes:
    return pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def _link(kind: int, index: int, *attributes: bytes, flags: int = 0, change: int = 0, how: int = 0) -> bytes:
    return _message(kind, how, pack("=BxHiII", 0, 0, index, flags, change) + b"".join(attributes))


def _address(kind: int, index: int, address: bytes) -> bytes:
    family, length = (socket.AF_INET, 32) if len(address) == 4 else (socket.AF_INET6, 128)
    body = pack("=BBBBI", family, length, 0, 0, index)
    body += _attribute(_IFA_LOCAL, address) + _attribute(_IFA_ADDRESS, address)
    return _message(kind, _CREATE | _EXCL if kind == _NEWADDR else 0, body + _attribute(_IFA_FLAGS, pack("=I", _NODAD)))


def addresses(first: int, count: int) -> list[bytes]:
    """Addresses that are all different, alternately IPv4 and IPv6."""
    return [
        pack(">I", 0x0A80_0000 + number) if number % 2 else b"\x20\x01\x0d\xb8" + pack(">QI", 7, number)
        for number in range(first, first + count)
    ]


# --- what it repeats: each function returns the requests of one round


def _flap_addresses(index: int) -> list[bytes]:
    ours = addresses(100_000, _AT_ONCE)
    return [b"".join(_address(kind, index, one) for one in ours) for kind in (_NEWADDR, _DELADDR)]


def _flap_state(index: int) -> list[bytes]:
    return [b"".join(_link(_NEWLINK, index, flags=flags, change=_UP) for flags in (0, _UP))]


def _flap_values(index: int) -> list[bytes]:
    """MTU, MAC, alias and group: changes without a wait in the kernel."""
    changes = []
    for number in range(_AT_ONCE // 4):
        changes += [
            _link(_SETLINK, index, _attribute(_IFLA_MTU, pack("=I", 1400 + number))),
            _link(_SETLINK, index, _attribute(_IFLA_ADDRESS, b"\x02\0\0\0\1" + bytes([number]))),
            _link(_SETLINK, index, _attribute(_IFLA_IFALIAS, f"flap {number}".encode())),
            _link(_SETLINK, index, _attribute(_IFLA_GROUP, pack("=I", number + 1))),
        ]
    return [b"".join(changes)]


def _flap_names(index: int) -> list[bytes]:
    """Add and remove alternative names."""
    names = [f"flapping-altname-{number}" for number in range(_AT_ONCE)]
    props = [_attribute(_IFLA_PROP_LIST, _attribute(_IFLA_ALT_IFNAME, name.encode() + b"\0")) for name in names]
    return [
        b"".join(_link(kind, index, prop, how=how) for prop in props)
        for kind, how in ((_NEWLINKPROP, _CREATE | _EXCL), (_DELLINKPROP, 0))
    ]


def _flap_name(index: int) -> list[bytes]:
    """The name of the end itself, which may be changed while the link is up since Linux 6.2."""
    names = (b"flapping%d" % number for number in range(_AT_ONCE))
    return [b"".join(_link(_SETLINK, index, _attribute(_IFLA_IFNAME, name + b"\0")) for name in names)]


def _flap_links(_index: int) -> list[bytes]:
    """Create its own pairs one by one, and delete all at once, because the kernel waits for every single deletion."""
    group, kind = _attribute(_IFLA_GROUP, pack("=I", 77)), _attribute(_IFLA_LINKINFO, _attribute(1, b"veth"))
    made = [
        _link(_NEWLINK, 0, _attribute(_IFLA_IFNAME, b"flap%d\0" % n), group, kind, how=_CREATE | _EXCL)
        for n in range(_AT_ONCE)
    ]
    return [b"".join(made), _link(_DELLINK, 0, group)]


KINDS: Final[dict[str, Callable[[int], list[bytes]]]] = {
    "addresses": _flap_addresses,
    "state": _flap_state,
    "values": _flap_values,
    "altnames": _flap_names,
    "name": _flap_name,
    "links": _flap_links,
}


def socket_in(path: str) -> socket.socket:
    """Return an rtnetlink socket in another namespace, in which this thread stays."""
    import ctypes

    with open(path) as there:
        if ctypes.CDLL(None, use_errno=True).setns(there.fileno(), 0):
            raise OSError(ctypes.get_errno(), f"setns {path}")
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)


def _send_all(sock: socket.socket, requests: list[bytes]) -> None:
    for request in requests:
        try:
            sock.send(request)
        except OSError:
            pass  # refusals that nobody reads


def _flap(path: str, link: str, kind: str, seconds: float) -> int:
    sock = socket_in(path)
    requests = KINDS[kind](socket.if_nametoindex(link))
    until, rounds = time.monotonic() + seconds, 0
    while time.monotonic() < until and os.getppid() != 1:
        _send_all(sock, requests)
        rounds += 1
    return rounds


# --- for a test


def give_addresses(path: str | Path, link: str, count: int) -> None:
    """Give the link this many addresses that stay."""
    code = f"from tests.flapping import _give; _give({str(path)!r}, {link!r}, {count})"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1])


def _give(path: str, link: str, count: int) -> None:
    sock = socket_in(path)
    index, ours = socket.if_nametoindex(link), addresses(1, count)
    for start in range(0, count, _AT_ONCE):
        _send_all(sock, [b"".join(_address(_NEWADDR, index, one) for one in ours[start : start + _AT_ONCE])])


@contextmanager
def flapping(netns: str, link: str, kind: str, *, seconds: float) -> Iterator[int]:
    """Run a tenant that flaps for up to `seconds`; yields its pid. It is already at work when the block begins."""
    path = netns if "/" in netns else f"/run/netns/{netns}"
    command = [sys.executable, "-m", "tests.flapping", path, link, kind, str(seconds)]
    tenant = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[1])
    assert tenant.stdout is not None
    try:
        assert tenant.stdout.readline() == b"ready\n"
        yield tenant.pid
        assert tenant.poll() is None, "the tenant has ended too early to tell anything"
    finally:
        tenant.kill()
        tenant.wait()
        tenant.stdout.close()


if __name__ == "__main__":
    _path, _link_name, _kind, _seconds = sys.argv[1:]
    print("ready", flush=True)
    print(_flap(_path, _link_name, _kind, float(_seconds)), "rounds")
