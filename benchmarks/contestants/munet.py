"""munet's BaseMunet, as a test would use it: a host for each node, without process namespaces.

It has no call for several nodes at once, and adds addresses by running `ip`, which is called once per node here.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

from .protocol import Report, serve
from .ring import address, prove, until_gone

INSTALLED = Path(__file__).parents[2] / ".build" / "benchmarks" / "munet"
"""The directory where built.py installs it, separately because of its dependencies."""

sys.path.append(str(INSTALLED))


def ring(report: Report, n: int, _queues: int) -> None:
    logging.disable(logging.CRITICAL)
    report.notes = "munet has no option for queues: one for each CPU"
    with tempfile.TemporaryDirectory() as directory, until_gone(report):
        asyncio.run(_ring(report, n, directory))


async def _ring(report: Report, n: int, directory: str) -> None:
    from munet.base import BaseMunet

    with report.phase("build"):
        net = BaseMunet(isolated=False, pid=False, rundir=directory)
        hosts = [net.add_host(f"n{i}") for i in range(n)]
        for i, host in enumerate(hosts):
            net.add_link(host, hosts[(i + 1) % n], "eth0", "eth1")
        for i, host in enumerate(hosts):
            host.cmd_raises(_addresses(i, n))
    descriptors = [_namespace(host) for host in hosts]
    try:
        prove(descriptors)
    finally:
        for fd in descriptors:
            os.close(fd)
    with report.phase("teardown"):
        await net.async_delete()


def _addresses(i: int, n: int) -> str:
    lines = []
    for link, wire, far in (("eth0", i, 0), ("eth1", (i - 1) % n, 1)):
        lines.append(f"address add {address(wire, far, socket.AF_INET)}/24 dev {link}")
        lines.append(f"address add {address(wire, far, socket.AF_INET6)}/64 dev {link} nodad")
    return "ip -batch - <<END\n" + "\n".join(lines) + "\nEND"


def _namespace(host: Any) -> int:
    return os.open(f"/proc/{host.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)


if __name__ == "__main__":
    serve(version("munet"), {"ring": ring})
