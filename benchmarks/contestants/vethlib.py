"""vethlib, through its public API. Creating the values is part of the work, because users do that, too."""

from __future__ import annotations

import gc
import os
import socket
import tracemalloc
from contextlib import nullcontext

import vethlib
from vethlib import Session
from vethlib._nl.const import NETLINK_LISTEN_ALL_NSID, SOL_NETLINK
from vethlib._nl.link import dump_links, parse_alike, parse_link
from vethlib._nl.sock import RtnlSocket

from .flap import BURST, flap
from .importing import import_of
from .protocol import Report, levers, serve
from .scene import MTU, OTHER_MTU, pairs, stand


def lifecycle(report: Report, n: int, queues: int) -> None:
    ends = [place for i in range(n) for place in ((f"h{i}", ""), ("eth0", f"b{i}"))]
    with Session() as session:
        with report.phase("create"):
            ipv6 = False if "no-ipv6" in levers else None
            veths = pairs(n, queues, configured=True, ipv6=ipv6)
            session.create_many(veths, together="together" in levers, read=False)
        with report.phase("lookup"):
            links = session.lookup_many(ends, addresses=False)
        with report.phase("delete"):
            session.delete_many([(f"h{i}", "") for i in range(n)])
    assert all(link.index for link in links)


def create(report: Report, n: int, queues: int) -> None:
    with Session() as session, report.phase("create"):
        session.create_many(pairs(n, queues, configured=False), read=False)


def routes(report: Report, n: int, queues: int) -> None:
    from vethlib.endfields import routes  # noqa: F401 - what the first end with routes imports

    with Session() as session:
        with report.phase("create"):
            session.create_many(pairs(n, queues, configured=True, routes=True), read=False)
        with report.phase("delete"):
            session.delete_many([(f"h{i}", "") for i in range(n)])


def delete(report: Report, n: int, queues: int) -> None:
    stand(n, queues)
    with Session() as session, report.phase("delete"):
        session.delete_many([(f"h{i}", "") for i in range(n)])


def move(report: Report, n: int, queues: int) -> None:
    stand(n, queues)
    with Session() as session, report.phase("move"):
        for i in range(n):
            session.move("eth0", f"b{i}", to=f"c{i}")


def set_(report: Report, n: int, queues: int) -> None:
    stand(n, queues)
    with Session() as session:
        with report.phase("set"):
            session.set_many([(f"h{i}", "") for i in range(n)], mtu=OTHER_MTU)
        with report.phase("one by one"):
            for i in range(n):
                session.set(f"h{i}", mtu=MTU)


def lookup(report: Report, n: int, queues: int) -> None:
    stand(n, queues)
    with Session() as session, report.phase("lookup"):
        for i in range(n):
            session.index(f"h{i}")


def dump(report: Report, n: int, queues: int) -> None:
    """Receive and parse links, by the modules that a session uses; then as a user gets them, with addresses."""
    stand(n, queues, shared=True)
    rtnl = RtnlSocket()
    with report.phase("dump"):
        messages = rtnl.dump(dump_links(), parse_link, parse_alike=parse_alike).bodies
    rtnl.close()
    with Session() as session:
        with report.phase("with addresses"):
            links = session.links()
        assert len(links) == len(messages) == n + 1  # and lo


def cache(report: Report, n: int, _queues: int) -> None:
    """Watch links that the caller has created."""
    from vethlib import IfIndexCache

    namespaces = [f"b{i}" for i in range(n)]
    with Session() as session:
        before = sockets()
        with IfIndexCache(session) as known:
            with report.phase("sync"):
                known.watch_all(namespaces)
            with report.phase("lookup"):
                for netns in namespaces:
                    known.index("eth0", netns)
            report.figures["sockets"] = sockets() - before
            report.figures["event_sockets_per_512"] = listeners_everywhere() / -(-n // 512)
        # Once more, because counting bytes takes time.
        tracemalloc.start()
        with IfIndexCache(session) as known:
            known.watch_all(namespaces)
            links = sum(len(known.links(netns)) for netns in namespaces)
            gc.collect()
            report.figures["bytes_per_link"] = tracemalloc.get_traced_memory()[0] / links


def sockets() -> int:
    """Return the number of open descriptors of this process."""
    return sum(os.readlink(entry.path).startswith("socket:") for entry in os.scandir("/proc/self/fd"))


def listeners_everywhere() -> int:
    """Return the number of sockets of this process that listen to other namespaces, which is what others pay for."""
    count = 0
    for entry in os.scandir("/proc/self/fd"):
        if os.readlink(entry.path).startswith("socket:"):
            with socket.socket(fileno=os.dup(int(entry.name))) as sock:
                is_netlink = sock.family == socket.AF_NETLINK
                count += is_netlink and sock.getsockopt(SOL_NETLINK, NETLINK_LISTEN_ALL_NSID)
    return count


def events(report: Report, n: int, queues: int) -> None:
    from vethlib import IfIndexCache

    stand(BURST, queues)
    with Session() as session, IfIndexCache(session) as known:
        known.watch("")
        indexes = [known.index(f"h{i}", "") for i in range(BURST)]
        received = []
        for start in range(0, n, BURST):
            flap(indexes, start, min(start + BURST, n))
            with report.phase("events"):
                while changes := known.poll(0):
                    received += changes
    assert [event.kind for event in received] == ["changed"] * n


def ring(report: Report, n: int, queues: int) -> None:
    """Build the ring; its links have one queue, whatever is requested."""
    from vethlib import topology
    from vethlib.topology.live import build  # noqa: F401 - what Topology.build imports when it is called first

    from .ring import prove, until_gone

    if queues != 1:
        report.notes = "a topology has one queue an end"
    with Session() as session, until_gone(report):
        with report.phase("build"):
            net = topology.Topology.build(topology.ring(n), session=session)
        prove([node.netns.fd for node in net.values()])
        with report.phase("teardown"):
            net.close()


def routed_ring(report: Report, n: int, _queues: int) -> None:
    from vethlib.topology import Topology, ring

    with Session() as session:
        for measured in (False, True):  # first a small one, for what is imported and cached
            for phase, routed in (("plain", False), ("routed", True)):
                with report.phase(phase) if measured else nullcontext():
                    net = Topology.build(ring(n if measured else 3), session=session, routes=routed, hosts=routed)
                net.close()


def agent(report: Report, n: int, queues: int) -> None:
    from .agent import agent

    agent(report, n, queues)


def listeners(report: Report, n: int, _queues: int) -> None:
    """Measure an event of a link in a namespace that nobody watches, before and while n others are watched."""
    from vethlib import IfIndexCache, ns
    from vethlib.cli.host.event_cost import event_cost

    with Session() as session, IfIndexCache(session) as known:
        before = ns.call_in_new(event_cost)
        known.watch_all([f"b{i}" for i in range(n)])
        watched = ns.call_in_new(event_cost)
    report.figures["event_us"] = before * 1e6
    report.figures["event_while_watched_us"] = watched * 1e6
    report.figures["ns_per_watched_namespace"] = (watched - before) / n * 1e9


def upkeep(report: Report, n: int, queues: int) -> None:
    from .upkeep import upkeep

    upkeep(report, n, queues)


if __name__ == "__main__":
    serve(
        vethlib.__version__,
        {
            "agent": agent,
            "upkeep": upkeep,
            "listeners": listeners,
            "lifecycle": lifecycle,
            "create": create,
            "routes": routes,
            "delete": delete,
            "move": move,
            "set": set_,
            "lookup": lookup,
            "dump": dump,
            "cache": cache,
            "events": events,
            "import": import_of("vethlib"),
            "ring": ring,
            "routed-ring": routed_ring,
        },
    )
