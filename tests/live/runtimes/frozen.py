"""A program whose clocks freezegun has stopped: ``frozen.py before|after`` vethlib is imported."""

from __future__ import annotations

import sys
from collections.abc import Callable

import freezegun

WHEN = sys.argv[1]

frozen = freezegun.freeze_time("2020-01-01")
if WHEN == "before":
    frozen.start()

import subprocess  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402
from pathlib import Path  # noqa: E402

from tests.live.runtimes.cases import case, report  # noqa: E402
from vethlib import End, IfIndexCache, Session, Veth, WaitTimeout, ns  # noqa: E402
from vethlib.agent import Configurator, Interface, Namespace, NamespaceType  # noqa: E402
from vethlib.agent.stores.files.directory import DirectoryStore  # noqa: E402
from vethlib.monitor import Monitor  # noqa: E402
from vethlib.topology import Topology  # noqa: E402

if WHEN == "after":
    frozen.start()


def times_out(function: Callable[[], object], *errors: type[BaseException]) -> None:
    try:
        function()
    except errors:
        return
    raise AssertionError("it did not end by its time limit")


@case
def the_clock_stands_still() -> None:
    assert time.monotonic() == time.monotonic()


@case
def waiting_for_a_link_ends() -> None:
    with Session() as session:
        times_out(lambda: session.create(Veth(End("w1"), End("w2", up=False)), wait=0.1), WaitTimeout)
        session.delete("w1")
        session.create(Veth(End("w1"), End("w2", addresses=["2001:db8::1/64"])), wait=30)
        session.delete("w1")


@case
def polling_ends() -> None:
    with Session() as session, IfIndexCache(session) as cache, Monitor(session) as monitor:
        cache.watch("")
        assert cache.poll(0.05) == []
        monitor.poll(0.05)
        assert monitor.poll(0.05) == []


@case
def a_configurator_tries_again_and_waits_no_longer_than_it_is_told() -> None:
    blue = Namespace(NamespaceType.NAMED_NS, name="blue")
    with Session() as session, Configurator(session, label="ice", records="", missing_netns="wait") as configurator:
        configurator.put(Interface("k1", "k2", enabled=True))
        configurator.put(Interface("k2", "k1", enabled=True, namespace=blue))
        for _ in range(5):
            configurator.poll(0.05)
        session.create(Veth(End("k1"), End("stranger")))
        ns.Netns.create("blue").close()
        configurator.poll(0.2)
        session.delete("k1")
        while [status.state for status in configurator.status()] != ["CONFIGURED"] * 2:
            configurator.poll(1)
        configurator.resync([])
        while session.links("blue")[1:]:
            configurator.poll(1)
    ns.remove("blue")


@case
def a_store_is_looked_at_again() -> None:
    with tempfile.TemporaryDirectory() as directory:
        store = DirectoryStore(Path(directory))
        store.read()
        (Path(directory) / "x.json").write_text("{")
        while not store.read():
            time.sleep(min(0.1, store.due() or 0.1))
        store.close()


@case
def programs_of_nodes_end() -> None:
    with Topology.build("a -- b") as net:
        times_out(lambda: net["a"].run(["sleep", "60"], timeout=0.1), subprocess.TimeoutExpired)
        times_out(lambda: net["a"].wait_listening(7, timeout=0.1), WaitTimeout)
        assert net["a"].call(lambda: 5) == 5
        if WHEN == "after":
            return  # what is left takes two seconds
        stubborn = net["b"].start(["sh", "-c", "trap '' TERM; echo ready; sleep 60"], stdout=subprocess.PIPE)
        assert stubborn.stdout is not None
        assert stubborn.stdout.readline() == "ready\n"
    assert stubborn.poll() is not None


report()
