"""pyroute2's IPRoute, with the other namespace in the request that creates a pair.

Inside a namespace it uses a socket opened between pushns() and popns(), because IPRoute(netns=…) forks, which takes 6
ms per namespace. IPBatch is not used: it only encodes requests, and leaves reading the acknowledgements to the user.
"""

from __future__ import annotations

from collections.abc import Callable

from pyroute2 import IPRoute, netns
from pyroute2.config.version import __version__

from . import scene
from .flap import BURST, flap
from .importing import import_of
from .protocol import Report, serve


def lifecycle(report: Report, n: int, queues: int) -> None:
    with IPRoute() as home:
        with report.phase("create"):
            make(home, n, queues)
            for i in range(n):
                configure(home, f"h{i}", scene.near_address(i))
                inside(i, lambda inner, i=i: configure(inner, "eth0", scene.far_address(i)))  # type: ignore[misc]
        with report.phase("lookup"):
            indexes = [index_of(home, f"h{i}") for i in range(n)]
            for i in range(n):
                inside(i, lambda inner: index_of(inner, "eth0"))
        with report.phase("delete"):
            for index in indexes:
                home.link("del", index=index)


def create(report: Report, n: int, queues: int) -> None:
    with IPRoute() as home, report.phase("create"):
        make(home, n, queues)


def delete(report: Report, n: int, queues: int) -> None:
    scene.stand(n, queues)
    with IPRoute() as home:
        indexes = [index_of(home, f"h{i}") for i in range(n)]
        with report.phase("delete"):
            for index in indexes:
                home.link("del", index=index)


def move(report: Report, n: int, queues: int) -> None:
    scene.stand(n, queues)
    with report.phase("move"):
        for i in range(n):
            inside(i, lambda inner, i=i: inner.link("set", index=index_of(inner, "eth0"), net_ns_fd=f"c{i}"))  # type: ignore[misc]


def set_(report: Report, n: int, queues: int) -> None:
    scene.stand(n, queues)
    with IPRoute() as home:
        indexes = [index_of(home, f"h{i}") for i in range(n)]
        with report.phase("set"):
            for index in indexes:
                home.link("set", index=index, mtu=scene.OTHER_MTU)


def lookup(report: Report, n: int, queues: int) -> None:
    scene.stand(n, queues)
    with IPRoute() as home, report.phase("lookup"):
        for i in range(n):
            index_of(home, f"h{i}")


def dump(report: Report, n: int, queues: int) -> None:
    scene.stand(n, queues, shared=True)
    with IPRoute() as home:
        with report.phase("dump"):
            links = list(home.get_links())
        assert len(links) == n + 1  # and lo


def events(report: Report, n: int, queues: int) -> None:
    scene.stand(BURST, queues)
    with IPRoute() as home, IPRoute() as listener:
        indexes = [index_of(home, f"h{i}") for i in range(BURST)]
        listener.bind()
        for start in range(0, n, BURST):
            stop = min(start + BURST, n)
            flap(indexes, start, stop)
            left = stop - start
            with report.phase("events"):
                while left > 0:
                    left -= sum(message["event"] == "RTM_NEWLINK" for message in listener.get())


def make(home: IPRoute, n: int, queues: int) -> None:
    """Create the pairs."""
    counts = {"num_tx_queues": queues, "num_rx_queues": queues} if queues else {}
    for i in range(n):
        peer = {"ifname": "eth0", "net_ns_fd": f"b{i}", "address": scene.far_mac(i), "mtu": scene.MTU, **counts}
        home.link("add", kind="veth", ifname=f"h{i}", address=scene.near_mac(i), mtu=scene.MTU, peer=peer, **counts)


def configure(ipr: IPRoute, name: str, address: str) -> None:
    """Add the address of a link and set it up."""
    index = index_of(ipr, name)
    ip, _, length = address.partition("/")
    ipr.addr("add", index=index, address=ip, prefixlen=int(length))
    ipr.link("set", index=index, state="up")


def index_of(ipr: IPRoute, name: str) -> int:
    """Return the ifindex of a link."""
    (index,) = ipr.link_lookup(ifname=name)
    return int(index)


def inside(i: int, work: Callable[[IPRoute], object]) -> None:
    """Call `work` with a socket in b{i}."""
    netns.pushns(f"b{i}")
    try:
        inner = IPRoute()
    finally:
        netns.popns()
    with inner:
        work(inner)


if __name__ == "__main__":
    serve(
        __version__,
        {
            "lifecycle": lifecycle,
            "create": create,
            "delete": delete,
            "move": move,
            "set": set_,
            "lookup": lookup,
            "dump": dump,
            "events": events,
            "import": import_of("pyroute2"),
        },
    )
