"""A program of greenlets: ``greenlets.py gevent|eventlet before|after``, patched before or after vethlib is imported.

One greenlet runs all the time and checks where it is: it is never outside the home namespace.
"""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

RUNTIME, WHEN = sys.argv[1:]

warnings.simplefilter("ignore")  # eventlet warns of its own end
library = importlib.import_module(RUNTIME)


def patch() -> None:
    if RUNTIME == "gevent":
        importlib.import_module("gevent.monkey").patch_all()
    else:
        library.monkey_patch()


if WHEN == "before":
    patch()

import pytest  # noqa: E402

from tests.live.runtimes.cases import case, report  # noqa: E402
from vethlib import End, IfIndexCache, LinkExists, NotSupported, Session, Veth, WaitTimeout, ns  # noqa: E402
from vethlib._threads import ThreadRefused, start  # noqa: E402
from vethlib.agent import Configurator, Interface  # noqa: E402
from vethlib.agent.stores.files.directory import DirectoryStore  # noqa: E402
from vethlib.monitor import Monitor  # noqa: E402
from vethlib.topology import Node, Topology  # noqa: E402
from vethlib.topology.live.capture import Capture  # noqa: E402

if WHEN == "after":
    patch()

import socket  # noqa: E402
import subprocess  # noqa: E402
import tempfile  # noqa: E402
import threading  # noqa: E402
import time  # noqa: E402
from pathlib import Path  # noqa: E402


def here() -> int:
    return os.stat("/proc/thread-self/ns/net").st_ino


HOME = here()
strays: list[int] = []
looks = 0


def look() -> None:
    global looks
    while True:
        looks += 1
        if here() != HOME:
            strays.append(here())
        library.sleep(0.001)


def wait_for(greenlet: Any) -> None:
    (greenlet.join if RUNTIME == "gevent" else greenlet.wait)()


def others_run() -> None:
    """Let the others run several times, and check that they did."""
    before = looks
    while looks < before + 3:
        library.sleep(0.002)


@contextmanager
def two_nodes() -> Iterator[tuple[Node, Node]]:
    with Topology.build("a -- b") as net:
        yield net["a"], net["b"]


@case
def a_pair_is_created_waited_for_changed_and_deleted() -> None:
    with Session() as session:
        a, _ = session.create(Veth(End("p1"), End("p2")), wait=30)
        assert a.up
        assert session.set("p1", mtu=1400).mtu == 1400
        with pytest.raises(LinkExists):
            session.create(Veth(End("p1"), End("p2")))
        session.delete("p1")
        assert [link.name for link in session.links() if link.name.startswith("p")] == []


@case
def waiting_ends_at_its_time_limit() -> None:
    with Session() as session:
        began = time.monotonic()
        with pytest.raises(WaitTimeout):
            session.create(Veth(End("w1"), End("w2", up=False)), wait=0.1)
        assert time.monotonic() - began < 5
        session.delete("w1")


@case
def a_cache_and_a_monitor_hear_of_a_link() -> None:
    with Session() as session, IfIndexCache(session) as cache, Monitor(session) as monitor:
        cache.watch("")
        session.create(Veth(End("c1"), End("c2")))
        assert cache.index("c1") == session.index("c1")
        assert any(event.link.name == "c1" for event in cache.poll(5) if event.link)
        assert monitor.poll(5)
        assert cache.poll(0.01) == []
        session.delete("c1")


@case
def a_configurator_builds_what_a_store_says() -> None:
    with tempfile.TemporaryDirectory() as directory, Session() as session:
        with Configurator(session, label="green", records="") as configurator:
            configurator.put(Interface("k1", "k2", enabled=True))
            configurator.put(Interface("k2", "k1", enabled=True))
            while [status.state for status in configurator.status()] != ["CONFIGURED"] * 2:
                configurator.poll(5)
            session.delete("k1")
            while not any(link.name == "k1" for link in session.links()):
                configurator.poll(5)
        store = DirectoryStore(Path(directory))
        store.read()
        (Path(directory) / "x.json").write_text('{"name": "x", "peer_name": "y"}')
        deadline = time.monotonic() + 5
        while not store.read():
            assert time.monotonic() < deadline
            library.sleep(0.01)
        store.close()
        session.delete("k1")


@case
def what_needs_threads_of_a_library_is_refused() -> None:
    with pytest.raises(ThreadRefused):
        start(threading.Thread(target=lambda: None), "following etcd")


@case
def a_block_in_a_namespace_is_left_at_each_switch_and_entered_again() -> None:
    with two_nodes() as (a, b), a:
        inside = here()
        others_run()
        assert here() == inside != HOME
        with b:
            deeper = here()
            others_run()
            assert here() == deeper != inside
        others_run()
        assert here() == inside
    assert here() == HOME


@case
def many_greenlets_are_each_in_a_namespace_of_its_own() -> None:
    places = []

    def visit(node: Node, pause: float) -> None:
        for _ in range(5):
            with node:
                inside = here()
                library.sleep(pause)
                assert here() == inside != HOME
            assert here() == HOME
            places.append(inside)

    with two_nodes() as nodes:
        for greenlet in [library.spawn(visit, node, 0.001 * n) for node in nodes for n in range(3)]:
            wait_for(greenlet)
        assert len(places) == 30
        assert len(set(places)) == 2


@case
def a_greenlet_that_is_killed_in_a_namespace_leaves_it() -> None:
    left = []

    def stay(node: Node) -> None:
        try:
            with node:
                library.sleep(60)
        finally:
            left.append(here())

    with two_nodes() as (a, _):
        greenlet = library.spawn(stay, a)
        others_run()
        greenlet.kill()
        others_run()
    assert left == [HOME]
    assert here() == HOME


@case
def functions_that_are_called_in_a_namespace_may_switch() -> None:
    def switch() -> int:
        others_run()
        return here()

    with two_nodes() as (a, b):
        assert ns.call_in(a.netns.fd, switch) == a.netns.identity[1]
        assert ns.map_in([a.netns.fd, b.netns.fd], switch) == [a.netns.identity[1], b.netns.identity[1]]
        assert ns.call_in_new(switch) != HOME


@case
def a_function_that_a_node_calls_runs_in_a_thread_of_its_own() -> None:
    native = threading.get_native_id()
    with two_nodes() as (a, _):
        inside, thread = a.call(lambda: (here(), threading.get_native_id()))
        assert (inside, thread != native) == (a.netns.identity[1], True)
        try:
            assert a.submit(here).result(5) == inside
        except NotSupported:
            assert RUNTIME == "eventlet"


@case
def a_node_runs_and_starts_programs() -> None:
    with two_nodes() as (a, b):
        assert "eth0" in a.run(["ip", "-br", "link"]).stdout
        program = b.start(["sleep", "60"])
        assert program.poll() is None
        with pytest.raises(subprocess.TimeoutExpired):
            a.run(["sleep", "60"], timeout=0.1)
    assert program.poll() is not None


@case
def sockets_of_nodes_are_those_of_the_runtime() -> None:
    with two_nodes() as (a, b):
        server = a.socket()
        server.bind((a.ipv4, 7))
        server.listen()
        client = b.socket()
        assert type(client) is socket.socket

        def serve() -> None:
            connection, _ = server.accept()
            connection.sendall(b"hello")
            connection.close()

        greenlet = library.spawn(serve)
        client.connect((a.ipv4, 7))
        assert client.recv(9) == b"hello"
        wait_for(greenlet)
        client.close()
        server.close()


@case
def wires_are_captured() -> None:
    with tempfile.TemporaryDirectory() as directory, Topology.build("a -- b") as net:
        with Capture(net, Path(directory)) as capture:
            net["a"].run(["ping", "-c", "1", net["b"].ipv4])
        assert capture.files[0].stat().st_size > 24 + 2 * 98


@case
def nothing_has_ever_run_where_it_should_not() -> None:
    assert looks > 20
    assert strays == []
    import vethlib.ns.greenlets as following

    others_run()
    assert following._threads.followed is None


def main(run: Callable[[], None]) -> None:
    library.spawn(look)
    run()


main(report)
