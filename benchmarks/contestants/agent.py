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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vethlib import End, Netns, Session, Veth, ns
from vethlib._nl.const import IFF_UP, RTNLGRP_LINK
from vethlib._nl.dump import all_bodies
from vethlib._nl.events import EventSocket
from vethlib._nl.link import LinkMessage, parse_link
from vethlib._nl.wire import messages

from .protocol import Report
from .scene import MTU, far_address, far_mac, near_address, near_mac, pairs

__all__ = ["Agent", "agent", "listening", "put", "until_up", "wait_for"]

PUTS = 25
RESYNCS = 5
PATIENCE = 300.0

_IN_MEMORY = "/dev/shm"
"""For statuses, which are in /run by default: on ext4, new files after many deletions are dear (recently_deleted)."""


def agent(report: Report, n: int, queues: int) -> None:
    """Create n pairs by a session and delete them; then have an agent create, resync and extend the same pairs."""
    with Session() as session:
        with report.phase("create_many"):
            session.create_many(pairs(n, queues, configured=True))
        session.delete_many([(f"h{i}", "") for i in range(n)])
    with Agent(n, queues) as running:
        with report.phase("start"):
            running.start()
        report.figures["start_cpu"] = running.cpu()
        running.settle()  # until then there is something to do: addresses become usable, links get their carrier
        resyncs, spent = zip(*(_resync(running) for _ in range(RESYNCS)), strict=True)
        report.figures["resync"] = statistics.median(resyncs)
        report.figures["resync_cpu"] = statistics.median(spent)
        with report.phase("bare dumps"):
            _dump(n)
        puts = [put(running, n + i, i) for i in range(min(PUTS, n))]
        running.stop()
        with Session() as session:
            creates = [_create(session, n + PUTS + i, i, queues) for i in range(min(PUTS, n))]
        report.figures["put_ms"] = (statistics.median(puts) - statistics.median(creates)) * 1e3
        report.figures["rss_mib"] = running.manager.memory


class Agent:
    """An agent with n pairs: its process, the directory with its configuration, and its service manager.

    It has no pairs and does not run until :meth:`start`; leaving the ``with`` block ends it.
    """

    def __init__(self, n: int, queues: int) -> None:
        self.queues = queues
        self._directory = tempfile.TemporaryDirectory(dir=_IN_MEMORY if os.path.isdir(_IN_MEMORY) else None)
        self.store = Path(self._directory.name, "store")
        self.store.mkdir()
        for i in range(n):
            for value in pair(i, queues):
                write(self.store, value)
        self.manager = Manager()
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Agent:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self.manager.close()
        self._directory.cleanup()

    def start(self) -> None:
        """Start it, and wait until the whole configuration is in force."""
        command = [sys.executable, "-m", "vethlib", "agent", "--store", f"dir:{self.store}", "--label", "bench"]
        command += ["--status-dir", f"{self._directory.name}/status"]
        with open(f"{self._directory.name}/log", "wb") as log:
            self._process = subprocess.Popen(
                command, env=os.environ | {"NOTIFY_SOCKET": self.manager.address}, stderr=log
            )
        self.manager.wait_until_ready(self._process.pid)

    def resync(self) -> None:
        """Have it look at everything, and wait until it has."""
        assert self._process is not None
        self._process.send_signal(signal.SIGHUP)
        self.manager.wait_until_ready(self._process.pid)

    def cpu(self) -> float:
        """Return the seconds of CPU that it has used so far; nanoseconds count, but only of its one thread."""
        assert self._process is not None
        schedstat = Path(f"/proc/{self._process.pid}/schedstat").read_text(encoding="ascii")
        return int(schedstat.split()[0]) / 1e9

    def user(self) -> float:
        """Return the seconds of CPU that it has used so far outside the kernel, in ticks of a hundredth."""
        assert self._process is not None
        stat = Path(f"/proc/{self._process.pid}/stat").read_text(encoding="ascii")
        return int(stat.rpartition(")")[2].split()[11]) / os.sysconf("SC_CLK_TCK")

    def settle(self) -> None:
        """Wait until it rests: after a start, it hears of the end of duplicate address detection on every link."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            before = self.cpu()
            time.sleep(1.0)
            if self.cpu() - before < 0.01:
                return

    def stop(self) -> None:
        """End it; the pairs stay."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
            self._process = None


def pair(number: int, queues: int, netns: int | None = None) -> Iterator[dict[str, Any]]:
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


def write(store: Path, value: dict[str, Any]) -> None:
    """Write a file like `vethctl put`: in one step, under its name."""
    path = store / f".{value['name']}"
    path.write_text(json.dumps(value), encoding="utf-8")
    path.rename(store / f"{value['name']}.json")


def _resync(running: Agent) -> tuple[float, float]:
    """Return the seconds that a resync takes, and those of CPU."""
    begin, before = time.monotonic(), running.cpu()
    running.resync()
    return time.monotonic() - begin, running.cpu() - before


def _dump(n: int) -> None:
    """Receive the links and the addresses of every namespace that an agent has to look at, and do nothing with them."""
    all_bodies()
    for start in range(0, n, 64):
        opened = [Netns.open(f"b{i}") for i in range(start, min(n, start + 64))]
        ns.map_in([netns.fd for netns in opened], all_bodies)
        for netns in opened:
            netns.close()


def put(running: Agent, number: int, netns: int) -> float:
    """Return the seconds from the second file of a pair until its near end is up."""
    far, near = pair(number, running.queues, netns)
    write(running.store, far)
    time.sleep(0.05)
    with listening() as events:
        begin = time.monotonic()
        write(running.store, near)
        return until_up(events, f"h{number}") - begin


def _create(session: Session, number: int, netns: int, queues: int) -> float:
    """Return the seconds that a session takes for the same, without an agent."""
    count = queues or None
    near = End(f"h{number}", mac=near_mac(number), mtu=MTU, addresses=[near_address(number)], num_queues=count)
    far = End(
        f"x{number}", f"b{netns}", mac=far_mac(number), mtu=MTU, addresses=[far_address(number)], num_queues=count
    )
    with listening() as events:
        begin = time.monotonic()
        session.create(Veth(near, far))
        return until_up(events, f"h{number}") - begin


@contextmanager
def listening() -> Iterator[EventSocket]:
    events = EventSocket([RTNLGRP_LINK], 4 << 20)
    try:
        yield events
    finally:
        events.close()


def wait_for(events: EventSocket, is_it: Callable[[int, LinkMessage], bool]) -> float:
    """Return the time of the first event, given its type and its link, for which `is_it` is true."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        event = events.receive()
        if event is None:
            time.sleep(0.0001)
            continue
        datagram = event[1] or b""
        for kind, _flags, _sequence, start, end in messages(datagram):
            if is_it(kind, parse_link(datagram[start:end])):
                return time.monotonic()
    raise TimeoutError("the expected change did not come")


def until_up(events: EventSocket, name: str) -> float:
    """Return the time when the link of that name was reported up, as it is configured."""
    return wait_for(events, lambda _, link: link.name == name and bool(link.flags & IFF_UP) and link.mtu == MTU)


class Manager:
    """A service manager that receives the notifications of the agent (sd_notify(3))."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.address = f"@vethlib-benchmark-{os.getpid()}"
        self._socket.bind("\0" + self.address[1:])
        self._socket.settimeout(PATIENCE)
        self.memory = 0.0

    def close(self) -> None:
        self._socket.close()

    def wait_until_ready(self, pid: int) -> None:
        """Wait until it is, and read its memory."""
        while b"READY=1" not in self._socket.recv(4096).split(b"\n"):
            pass
        pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
        self.memory = pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)
