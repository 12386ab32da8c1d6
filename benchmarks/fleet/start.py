"""Measure the start of one agent with many interfaces, by phases, until etcd has all statuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from vethlib import VethError
from vethlib.agent import Interface, Namespace, NamespaceType
from vethlib.agent.stores.etcd.address import parse_url
from vethlib.agent.stores.etcd.connection import Connection
from vethlib.agent.stores.keys import status_key
from vethlib.agent.stores.opening import open_editor

from .hosts import Usage
from .server import Server

__all__ = ["start"]

LABEL = "big"
PATIENCE = 600.0  # seconds


def start(interfaces: int, say: Callable[[str], object]) -> dict[str, Any]:
    """Return the phases in seconds; for an isolated process. One end of each pair has its own namespace."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(Server(directory))
        url = f"etcd://127.0.0.1:{server.port}"
        begin = time.monotonic()
        open_editor(url, label=LABEL).put(*_ends(interfaces // 2))
        stored = time.monotonic() - begin
        say(f"{interfaces} interfaces stored in {stored:.1f} s")
        phases = directory / "phases"
        command = [sys.executable, "-m", "benchmarks.fleet.timed", str(phases), "agent", "--store", url]
        command += ["--label", LABEL]
        begin = time.monotonic()
        with open(directory / "agent", "wb") as log:
            process = subprocess.Popen(command, stderr=log, env=os.environ | {"VETHLIB_BEGIN": str(begin)})
        try:
            configured = _wait(url, interfaces, process) - begin
            usage = Usage.of(process.pid)
        finally:
            process.terminate()
            process.wait()
        seconds_of = json.loads(phases.read_text())
        return {
            "interfaces": interfaces,
            "put_seconds": round(stored, 2),
            "start_seconds": round(configured, 2),
            "cpu_seconds": round(usage.cpu, 2),
            "rss_mib": round(usage.rss, 1),
            "etcd_rss_mib": round(Usage.of(server.pid).rss, 1),
            "phases": {
                name: {"seconds": round(seconds, 2), "share": f"{seconds / configured:.0%}"}
                for name, seconds in seconds_of.items()
            },
        }


def _ends(pairs: int) -> Iterator[Interface]:
    for number in range(pairs):
        near, far = f"h{number}", f"b{number}"
        network = f"10.{number >> 8}.{number & 255}"
        inside = Namespace(NamespaceType.NAMED_NS, name=f"b{number}")
        yield Interface(near, far, enabled=True, mtu=1400, ip_addresses=(f"{network}.1/24",))
        yield Interface(
            far, near, enabled=True, mtu=1400, host_if_name="eth0", namespace=inside, ip_addresses=(f"{network}.2/24",)
        )


def _wait(url: str, interfaces: int, process: subprocess.Popen[bytes]) -> float:
    """Return the time when the last status was CONFIGURED."""
    address = parse_url(url)
    prefix = status_key(LABEL, "").encode()
    deadline = time.monotonic() + PATIENCE
    with Connection(address, address.endpoints[0]) as connection:
        watch = connection.watch(prefix, 1)
        watch.first()
        configured: set[bytes] = set()
        for answer in watch:
            for event in answer.events:
                if b'"state":"CONFIGURED"' in event.kv.value:
                    configured.add(event.kv.key)
            if len(configured) == interfaces:
                return time.monotonic()
            if process.poll() is not None or time.monotonic() > deadline:
                break
    raise VethError(f"only {len(configured)} of {interfaces} interfaces were configured")
