"""Hosts for agents: network and mount namespaces, and a link to the namespace of etcd."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from vethlib import End, Session, Veth, VethError

__all__ = ["Host", "Usage", "open_hosts"]

UPLINK = "up"  # the link that leads out of a host
_TICK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Usage:
    """The resources of a process: seconds of CPU so far, and MiB of memory now."""

    cpu: float
    rss: float

    @classmethod
    def of(cls, pid: int) -> Usage:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
        return cls((int(fields[11]) + int(fields[12])) / _TICK, pages * _PAGE / (1 << 20))


class Host:
    """A process in its own namespaces, which becomes an agent on request."""

    def __init__(self, number: int, directory: Path) -> None:
        self.number = number
        self.label = f"host{number}"
        self.gateway = f"10.{number >> 8}.{number & 255}.1"
        self.log = directory / f"{self.label}.log"
        command = [sys.executable, "-m", "benchmarks.fleet.become"]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log)
        self.pid = self._process.pid
        self._netns = -1

    def wait(self) -> None:
        """Wait until it has its namespaces."""
        assert self._process.stdout is not None
        if self._process.stdout.readline() != b"isolated\n":
            raise VethError(f"{self.label} got no namespaces of its own: {self.log.read_text()[-500:]}")
        # The main thread of an agent is in other namespaces at times, which /proc/PID/ns/net shows.
        self._netns = os.open(f"/proc/{self.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    @property
    def netns(self) -> str:
        """The file of its network namespace, for other processes."""
        return f"/proc/{os.getpid()}/fd/{self._netns}"

    @property
    def link(self) -> str:
        """The link that leads to it, on this side."""
        return f"to{self.number}"

    @property
    def uplink(self) -> Veth:
        address = self.gateway.removesuffix(".1")
        return Veth(
            End(self.link, addresses=[f"{self.gateway}/24"]),
            End(UPLINK, f"pid:{self.pid}", addresses=[f"{address}.2/24"]),
        )

    def start(self, port: int, *options: str) -> None:
        """Become an agent of the etcd that the uplink leads to."""
        command = [sys.executable, "-m", "vethlib", "agent", "--store", f"etcd://{self.gateway}:{port}"]
        command += ["--label", self.label, "--log", "json", *options]
        assert self._process.stdin is not None
        self._process.stdin.write(f"{json.dumps(command)}\n".encode())
        self._process.stdin.flush()

    def usage(self) -> Usage:
        """Return its resources so far."""
        return Usage.of(self.pid)

    def close(self) -> None:
        """End it, and with it its namespaces."""
        with self._process:
            self._process.terminate()
        if self._netns >= 0:
            os.close(self._netns)
            self._netns = -1


def open_hosts(count: int, directory: Path, session: Session, stack: ExitStack) -> Sequence[Host]:
    """Create hosts, each with a link to this namespace. They end with `stack`."""
    hosts = []
    for number in range(count):
        hosts.append(Host(number, directory))
        stack.callback(hosts[-1].close)
    for host in hosts:
        host.wait()
    session.create_many([host.uplink for host in hosts])
    return hosts
