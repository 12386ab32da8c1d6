"""Find the process that holds an abstract socket or a TCP port, to name it in messages.

It is searched for in /proc, because not every holder answers.

Decisions must not depend on the process that is found: anybody who passes a descriptor to a process of root makes that
process a holder, too. They may depend on the user of a TCP socket, which the kernel keeps from its creation.
"""

from __future__ import annotations

import os
import socket
import struct
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final, NamedTuple

from vethlib._locks import user_of
from vethlib._primitives import time

__all__ = ["Listener", "find_listener", "find_process"]

_LONGEST: Final = 1.0  # seconds; a host may have many processes


def find_process(address: str, kind: int) -> tuple[int, int] | None:
    """Return the process and the user that have a socket with that abstract `address` and `kind` (SOCK_STREAM, …).

    The process is 0, and the user -1, if unknown. Returns None if there is no such socket here.
    """
    links = {f"socket:[{inode}]" for inode in _inodes(address.replace("\0", "@"), kind)}
    return _process_with(links) if links else None


class Listener(NamedTuple):
    """The holder of a TCP port: its process, 0 if unknown, and its user, -1 if it does not listen there."""

    pid: int
    uid: int


def find_listener(host: str, port: int) -> Listener:
    """Return the listener that keeps others from a TCP port; of several, that of root or this user.

    Listeners on other addresses than `host` do not; "" means all addresses.
    """
    try:
        wanted = ip_address(host.partition("%")[0])
    except ValueError:
        wanted = None  # all addresses, or a name, which may have several
    sockets: dict[int, str] = {}  # inode by user
    for table in ("tcp", "tcp6"):
        with suppress(OSError), open(f"/proc/thread-self/net/{table}", encoding="utf-8") as lines:
            for line in lines:
                # net/ipv4/tcp_ipv4.c, get_tcp4_sock: number, local and remote address, state (0A: listening), …
                fields = line.split()
                if len(fields) > 9 and fields[3] == "0A":
                    address, _, number = fields[1].partition(":")
                    if int(number, 16) == port and _is_in_the_way(_address(address), wanted):
                        sockets[int(fields[7])] = fields[9]
    if not sockets:
        return Listener(0, -1)
    uid = next((uid for uid in (0, os.geteuid()) if uid in sockets), next(iter(sockets)))
    return Listener(_process_with({f"socket:[{sockets[uid]}]"})[0], uid)


def _address(text: str) -> IPv4Address | IPv6Address:
    """Parse an address of /proc/net/tcp: each four bytes in hexadecimal, as a number of this machine."""
    words = [int(text[at : at + 8], 16) for at in range(0, len(text), 8)]
    address = ip_address(struct.pack(f"={len(words)}I", *words))
    return (isinstance(address, IPv6Address) and address.ipv4_mapped) or address


def _is_in_the_way(there: IPv4Address | IPv6Address, wanted: IPv4Address | IPv6Address | None) -> bool:
    if wanted is None or (there.version == 6 and there.is_unspecified):  # perhaps of IPv4, too
        return True
    return there == wanted or (there.version == wanted.version and (there.is_unspecified or wanted.is_unspecified))


def _process_with(links: set[str]) -> tuple[int, int]:
    deadline = time.monotonic() + _LONGEST
    for process in sorted(filter(str.isdigit, os.listdir("/proc")), key=int, reverse=True):
        if time.monotonic() > deadline:
            break
        if _has(process, links):
            return int(process), user_of(process)
    return 0, -1


def _inodes(path: str, kind: int) -> set[str]:
    """Return the inodes of the socket and of its accepted connections, which have its address, too."""
    # net/unix/af_unix.c, unix_seq_show: address, references, protocol, flags, type, state, inode, path
    type_ = f"{kind & ~(socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK):04X}"
    inodes: set[str] = set()
    with suppress(OSError), open("/proc/thread-self/net/unix", encoding="utf-8", errors="replace") as table:
        for line in table:
            fields = line.rstrip("\n").split(None, 7)
            if len(fields) == 8 and fields[4] == type_ and fields[7] == path:
                inodes.add(fields[6])
    return inodes


def _has(process: str, links: set[str]) -> bool:
    try:
        with os.scandir(f"/proc/{process}/fd") as entries:
            for entry in entries:
                with suppress(OSError):
                    if os.readlink(entry.path) in links:
                        return True
    except OSError:
        pass  # it has ended, or this user may not inspect it
    return False
