"""Look at the host independently of vethlib: with the ``ip`` program, and a netlink socket."""

from __future__ import annotations

import gc
import json
import os
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tests.patience import Patience
from tests.programs import stat_fields
from vethlib import ns

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK, RTM_GETADDR, RTM_GETSTATS = 16, 17, 18, 22, 94


def ip(*args: str | bytes, netns: ns.Netns | str = "") -> Any:
    """Run ``ip -d -j -s …`` in a namespace, and return its parsed output; None for commands that change something."""
    program = ["ip", "-d", "-j", "-s"]
    if isinstance(netns, str) and netns and ":" not in netns:
        return _run([*program, "-n", netns, *args])
    with ns.entered(netns):
        return _run([*program, *args])


def _run(command: list[str | bytes]) -> Any:
    done = subprocess.run(command, capture_output=True, text=True, errors="surrogateescape", check=False)
    if done.returncode:
        raise RuntimeError(f"{command}: {done.stderr}")
    return json.loads(done.stdout) if done.stdout.strip() else None


def seen(name: str, netns: ns.Netns | str = "") -> dict[str, Any]:
    """Return a link with its addresses. Raises KeyError if there is no such link."""
    for link in ip("address", netns=netns):
        if link["ifname"] == name:
            assert isinstance(link, dict)
            return link
    raise KeyError(name)


def names(netns: ns.Netns | str = "") -> set[str]:
    return {link["ifname"] for link in ip("link", netns=netns)} - {"lo"}


def addresses(name: str, netns: ns.Netns | str = "") -> list[str]:
    """ "10.0.0.1/24" …, in the kernel's order, without the link-local ones of IPv6."""
    found = [f"{one['local']}/{one['prefixlen']}" for one in seen(name, netns)["addr_info"]]
    return [one for one in found if not one.startswith("fe80:")]


def peer_of(link: dict[str, Any], netns: ns.Netns | str = "") -> tuple[int, int | None]:
    """Return (ifindex of the other end, the id of its namespace here)."""
    if "link" in link:
        return seen(link["link"], netns)["ifindex"], None
    return link["link_index"], link.get("link_netnsid")


def rename(name: str, to: str, netns: ns.Netns | str = "") -> None:
    """Rename a link as `ip` can on every kernel: before Linux 6.2, a link that is up goes down meanwhile."""
    try:
        ip("link", "set", "dev", name, "name", to, netns=netns)
    except RuntimeError:
        if "UP" not in seen(name, netns)["flags"]:
            raise
        ip("link", "set", "dev", name, "down", netns=netns)
        ip("link", "set", "dev", name, "name", to, netns=netns)
        ip("link", "set", "dev", to, "up", netns=netns)


FOREVER = 0xFFFF_FFFF


def settled(link: dict[str, Any]) -> dict[str, Any]:
    """Return a link without what changes on its own: counters, operational state, progress of IPv6, lifetimes."""
    kept = {key: value for key, value in link.items() if key not in ("operstate", "stats", "stats64")}
    kept["flags"] = [flag for flag in link["flags"] if flag != "NO-CARRIER"]
    kept["addr_info"] = [
        {
            key: value
            for key, value in one.items()
            if key != "tentative" and (not key.endswith("_life_time") or value == FOREVER)
        }
        for one in link["addr_info"]
        if not one.get("local", "").startswith("fe80:")
    ]
    return kept


def settled_routes(*asked: str, netns: ns.Netns | str = "") -> list[dict[str, Any]]:
    """Return routes without what changes on its own: the carrier flag, and the routes that the kernel adds for IPv6."""
    found: list[dict[str, Any]] = ip(*asked, netns=netns)
    for each in (hop for route in found for hop in (route, *route.get("nexthops", []))):
        each["flags"] = [flag for flag in each.get("flags", []) if flag != "linkdown"]
    return [route for route in found if "-6" not in asked or route.get("protocol") != "kernel"]


def host_state() -> dict[str, list[dict[str, Any]]]:
    """Return every link and address of the home namespace and of each named namespace."""
    return {netns: [settled(link) for link in ip("address", netns=netns)] for netns in ["", *ns.names()]}


def open_fds() -> int:
    """Return the number of open file descriptors, without those of garbage objects."""
    gc.collect()
    return counted_fds()


def counted_fds() -> int:
    """Return the number of open file descriptors as it is; collecting garbage would take longer than many tests."""
    return len(os.listdir("/proc/self/fd"))


def poll(condition: Callable[[], bool], timeout: float = 60.0) -> bool:
    """Return whether `condition` holds within `timeout` seconds; tests of how soon it does give their own timeout."""
    patience, pause = Patience(timeout), 0.005
    while not condition():
        if patience.is_over():
            return condition()
        time.sleep(pause)
        # Checking takes processor time from what is awaited. So checks become rarer, but are no more than a tenth too
        # late.
        pause = min(1.1 * pause, 0.03)
    return True


def wait_for_carrier(*links: tuple[str, str]) -> None:
    """Wait until the operational state of these links, each (name, namespace), is up.

    A work queue of the kernel (linkwatch) finds that out, and reports it, some time after both ends were set up.
    """
    assert poll(lambda: all(seen(*link)["operstate"] == "UP" for link in links)), links


class Listener:
    """Receives the kernel's link events in the namespace in which it was created."""

    def __init__(self) -> None:
        self._socket = socket.socket(16, socket.SOCK_RAW, 0)
        self._socket.bind((0, 1))  # RTMGRP_LINK

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def heard(self) -> list[tuple[int, str]]:
        """Return (RTM_NEWLINK or RTM_DELLINK, name) for each message so far."""
        found: list[tuple[int, str]] = []
        while True:
            try:
                datagram = self._socket.recv(65536, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return found
            for message in decoded(datagram):
                found.append((message["header"]["type"], message.get_attr("IFLA_IFNAME")))


def decoded(datagram: bytes) -> list[Any]:
    from pyroute2.netlink.rtnl.marshal import MarshalRtnl

    return list(MarshalRtnl().parse(datagram))


def raw_dump(kind: int) -> list[bytes]:
    """Return the messages, including headers, of a dump of links or addresses in the calling thread's namespace."""
    with socket.socket(16, socket.SOCK_RAW, 0) as sock:
        sock.send(struct.pack("=IHHII", 32, kind, 0x301, 1, 0) + bytes(16))
        found: list[bytes] = []
        while True:
            datagram = sock.recv(1 << 20)
            offset = 0
            while offset < len(datagram):
                length, this = struct.unpack_from("=IH", datagram, offset)
                if this == 3:
                    return found
                found.append(datagram[offset : offset + length])
                offset += (length + 3) & ~3


@contextmanager
def nothing_changes() -> Iterator[None]:
    before = host_state()
    yield
    assert host_state() == before


def cpu_of(pid: int) -> float:
    """Return the seconds of CPU time that a process has used."""
    fields = stat_fields(pid)
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
