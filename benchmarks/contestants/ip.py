"""iproute2's ip: one ``ip -batch`` for the home namespace, and another in each namespace."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable

from . import scene
from .protocol import Report, serve


def ip(*args: str, lines: Iterable[str] = ()) -> str:
    """Run ip, with `lines` as its batch, and return its output."""
    batch = "".join(f"{line}\n" for line in lines)
    command = ["ip", *args, "-batch", "-"] if batch else ["ip", *args]
    done = subprocess.run(command, input=batch, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


def lifecycle(report: Report, n: int, queues: int) -> None:
    with report.phase("create"):
        ip(
            lines=[
                *creates(n, queues),
                *(line for i in range(n) for line in configure(f"h{i}", scene.near_address(i))),
            ]
        )
        for i in range(n):
            ip("-n", f"b{i}", lines=configure("eth0", scene.far_address(i)))
    with report.phase("lookup"):
        look_up(n)
        for i in range(n):
            index_in(ip("-o", "-n", f"b{i}", "link", "show", "dev", "eth0"))
    with report.phase("delete"):
        ip(lines=[f"link del h{i}" for i in range(n)])


def create(report: Report, n: int, queues: int) -> None:
    with report.phase("create"):
        ip(lines=creates(n, queues))


def delete(report: Report, n: int, queues: int) -> None:
    ip(lines=creates(n, queues))
    with report.phase("delete"):
        ip(lines=[f"link del h{i}" for i in range(n)])


def move(report: Report, n: int, queues: int) -> None:
    ip(lines=creates(n, queues))
    with report.phase("move"):
        for i in range(n):
            ip("-n", f"b{i}", "link", "set", "eth0", "netns", f"c{i}")


def set_(report: Report, n: int, queues: int) -> None:
    ip(lines=creates(n, queues))
    with report.phase("set"):
        ip(lines=[f"link set h{i} mtu {scene.OTHER_MTU}" for i in range(n)])


def lookup(report: Report, n: int, queues: int) -> None:
    ip(lines=creates(n, queues))
    with report.phase("lookup"):
        look_up(n)


def dump(report: Report, n: int, queues: int) -> None:
    ip(lines=creates(n, queues, shared=True))
    with report.phase("dump"):
        links = json.loads(ip("-d", "-j", "address"))
    assert len(links) == n + 1  # and lo


def creates(n: int, queues: int, *, shared: bool = False) -> list[str]:
    """The lines that make the pairs."""
    counts = f" numtxqueues {queues} numrxqueues {queues}" if queues else ""
    peers = [f"p{i} netns b0" if shared else f"eth0 netns b{i}" for i in range(n)]
    return [
        f"link add h{i} address {scene.near_mac(i)} mtu {scene.MTU}{counts} "
        f"type veth peer name {peer} address {scene.far_mac(i)} mtu {scene.MTU}{counts}"
        for i, peer in enumerate(peers)
    ]


def configure(name: str, address: str) -> list[str]:
    """The lines that give a link its address and take it up."""
    return [f"address add {address} dev {name}", f"link set {name} up"]


def look_up(n: int) -> list[int]:
    """The ifindexes of h0 …"""
    shown = ip("-o", lines=[f"link show dev h{i}" for i in range(n)])
    return [index_in(line) for line in shown.splitlines()]


def index_in(line: str) -> int:
    """Return the ifindex in a line of ``ip -o link``."""
    return int(line.partition(":")[0])


if __name__ == "__main__":
    serve(
        ip("-V").strip().removeprefix("ip utility, "),
        {
            "lifecycle": lifecycle,
            "create": create,
            "delete": delete,
            "move": move,
            "set": set_,
            "lookup": lookup,
            "dump": dump,
        },
    )
