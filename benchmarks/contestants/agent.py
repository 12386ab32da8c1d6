"""`vethctl agent` as operators run it: a process, a directory of files, and notifications to a service manager."""

from __future__ import annotations

import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vethlib import End, Session, Veth
from vethlib._nl.const import IFF_UP, RTNLGRP_LINK
from vethlib._nl.events import EventSocket
from vethlib._nl.link import parse_link
from vethlib._nl.wire import messages

from .protocol import Report
from .scene import MTU, far_address, far_mac, near_address, near_mac, pairs

__all__ = ["agent"]

PUTS = 25
RESYNCS = 5
PATIENCE = 300.0


def agent(report: Report, n: int, queues: int) -> None:
    """Create n pairs by a session and delete them; then have an agent create, resync and extend the same pairs."""
    with Session() as session:
        with report.phase("create_many"):
            session.create_many(pairs(n, queues, configured=True))
        session.delete_many([(f"h{i}", "") for i in range(n)])
    with tempfile.TemporaryDirectory() as directory, _Manager() as manager:
        store = Path(directory, "store")
        store.mkdir()
        for i in range(n):
            for value in _pair(i, queues):
                _write(store, value)
        command = [sys.executable, "-m", "vethlib", "agent", "--store", f"dir:{store}", "--label", "bench"]
        command += ["--status-dir", f"{directory}/status"]
        environment = os.environ | {"NOTIFY_SOCKET": manager.address}
        with report.phase("start"), open(f"{directory}/log", "wb") as log:
            process = subprocess.Popen(command, env=environment, stderr=log)
            manager.wait_until_ready(process)
        try:
            report.figures["resync"] = statistics.median(_resync(process, manager) for _ in range(RESYNCS))
            puts = [_put(store, n + i, i, queues) for i in range(min(PUTS, n))]
        finally:
            process.terminate()
            process.wait()
        with Session() as session:
            creates = [_create(session, n + PUTS + i, i, queues) for i in range(min(PUTS, n))]
        report.figures["put_ms"] = (statistics.median(puts) - statistics.median(creates)) * 1e3
        report.figures["rss_mib"] = manager.memory


def _pair(number: int, queues: int, netns: int | None = None) -> Iterator[dict[str, Any]]:
    """Return both interfaces of a pair as in their files, the far one first."""
    place = number if netns is None else netns
    near, far = f"h{number}", f"b{number}-0"
    common = {"enabled": True, "mtu": MTU, "num_queues": queues}
    yield common | {
        "name": far,
        "host_if_name": "eth0" if netns is None else f"x{number}",
        "namespace": {"type": 2, "name": f"b{place}"},
        "phys_address": far_mac(number),
        "ip_addresses": [far_address(number)],
        "veth": {"peer_if_name": near},
    }
    yield common | {
        "name": near,
        "phys_address": near_mac(number),
        "ip_addresses": [near_address(number)],
        "veth": {"peer_if_name": far},
    }


def _write(store: Path, value: dict[str, Any]) -> None:
    """Write a file like `vethctl put`: in one step, under its name."""
    path = store / f".{value['name']}"
    path.write_text(json.dumps(value), encoding="utf-8")
    path.rename(store / f"{value['name']}.json")


def _resync(process: subprocess.Popen[bytes], manager: _Manager) -> float:
    begin = time.monotonic()
    process.send_signal(signal.SIGHUP)
    manager.wait_until_ready(process)
    return time.monotonic() - begin


def _put(store: Path, number: int, netns: int, queues: int) -> float:
    """Return the seconds from the second file of a pair until its near end is up."""
    far, near = _pair(number, queues, netns)
    _write(store, far)
    time.sleep(0.05)
    with _listening() as events:
        begin = time.monotonic()
        _write(store, near)
        return _up(events, f"h{number}") - begin


def _create(session: Session, number: int, netns: int, queues: int) -> float:
    """Return the seconds that a session takes for the same, without an agent."""
    count = queues or None
    near = End(f"h{number}", mac=near_mac(number), mtu=MTU, addresses=[near_address(number)], num_queues=count)
    far = End(
        f"x{number}", f"b{netns}", mac=far_mac(number), mtu=MTU, addresses=[far_address(number)], num_queues=count
    )
    with _listening() as events:
        begin = time.monotonic()
        session.create(Veth(near, far))
        return _up(events, f"h{number}") - begin


@contextmanager
def _listening() -> Iterator[EventSocket]:
    events = EventSocket([RTNLGRP_LINK], 4 << 20)
    try:
        yield events
    finally:
        events.close()


def _up(events: EventSocket, name: str) -> float:
    """Return the time when the link of that name was reported up."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        event = events.receive()
        if event is None:
            time.sleep(0.0001)
            continue
        _, datagram = event
        for _kind, _flags, _sequence, start, end in messages(datagram):
            link = parse_link(datagram[start:end])
            if link.name == name and link.flags & IFF_UP:
                return time.monotonic()
    raise TimeoutError(f"{name} did not come up")


class _Manager:
    """A service manager that receives the notifications of the agent (sd_notify(3))."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.address = f"@vethlib-benchmark-{os.getpid()}"
        self._socket.bind("\0" + self.address[1:])
        self._socket.settimeout(PATIENCE)
        self.memory = 0.0

    def __enter__(self) -> _Manager:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        while b"READY=1" not in self._socket.recv(4096).split(b"\n"):
            pass
        pages = int(Path(f"/proc/{process.pid}/statm").read_text(encoding="ascii").split()[1])
        self.memory = pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)
