"""Wires that delay, drop, duplicate, reorder and limit packets, with netem and with the relay."""

from __future__ import annotations

import json
import os
import socket
import time
from functools import partial
from typing import Literal

import pytest

from tests.live.plugin import Project
from tests.live.traffic import datagrams
from tests.refusing import raises
from vethlib import InvalidValue, LinkNotFound
from vethlib.topology import Impairment, ImpairmentNotSupported, Node, Topology

Impair = Literal["kernel", "userspace"]

# Of a busy machine: how much later than asked a packet of the best of several may be.
SLACK = 0.03


@pytest.fixture(params=[pytest.param("kernel", marks=pytest.mark.needs_module("sch_netem")), "userspace"])
def impair(request: pytest.FixtureRequest) -> Impair:
    which: Impair = request.param
    return which


def one_way(sender: Node, receiver: Node, count: int = 15) -> list[float]:
    """Return how long datagrams take, one after another."""
    times = []
    with datagrams(sender, receiver) as (out, into):
        for _ in range(count):
            begun = time.monotonic()
            out.send(b"x")
            into.recv(100)
            times.append(time.monotonic() - begun)
    return times


def arrivals(out: socket.socket, into: socket.socket, count: int, expected: int = 1 << 30) -> list[int]:
    """Send numbered datagrams at once; the numbers of those that arrive: as many as expected, or until silence."""
    for number in range(count):
        out.send(str(number).encode())
    into.settimeout(20 if expected < 1 << 30 else 0.4)
    found: list[int] = []
    while len(found) < expected:
        try:
            found.append(int(into.recv(100)))
        except TimeoutError:
            break
    return found


def test_each_direction_has_its_own_delay(impair: Impair) -> None:
    with Topology.build("a -- b delay=20ms/60ms", impair=impair) as net:
        for sender, receiver, delay in (("a", "b", 0.02), ("b", "a", 0.06)):
            times = one_way(net[sender], net[receiver])
            print(f"{impair}: {sender} to {receiver}: {min(times) * 1000:.2f} to {max(times) * 1000:.2f} ms")
            assert delay - 0.0005 <= min(times) <= delay + SLACK


def test_as_many_packets_are_lost_as_the_wire_says(impair: Impair) -> None:
    with Topology.build("a -- b limit=100000", impair=impair) as net:
        wire = net.wire("a", "b")
        with datagrams(net["a"], net["b"]) as (out, into):
            wire.set(loss="20%", towards="b")
            arrived, sent = 0, 3000
            for _ in range(sent // 250):  # so many at once fit into the buffer of the socket
                arrived += len(arrivals(out, into, 250))
            print(f"{impair}: {sent - arrived} of {sent} lost")
            assert 0.16 * sent < sent - arrived < 0.24 * sent  # more than five standard deviations
            wire.set(loss="100%", towards="b")
            assert arrivals(out, into, 20) == []
            wire.clear()
            assert arrivals(out, into, 20, 20) == list(range(20))


def test_jitter_varies_the_delay_in_its_bounds(impair: Impair) -> None:
    with Topology.build("a -- b delay=30ms jitter=20ms", impair=impair) as net:
        times = one_way(net["a"], net["b"], 30)
        assert min(times) >= 0.0095
        assert min(times) < 0.03  # of 30, each with a chance of a half
        assert max(times) - min(times) > 0.005


def test_a_rate_limits_what_passes_in_a_second(impair: Impair) -> None:
    with Topology.build("a -- b rate=1mbit/0", impair=impair) as net:
        with datagrams(net["a"], net["b"]) as (out, into):
            begun = time.monotonic()
            for _ in range(25):
                out.send(bytes(958))  # 1000 bytes with the headers of Ethernet, IPv4 and UDP: 8 ms
            for _ in range(25):
                into.recv(2000)
            took = time.monotonic() - begun
        print(f"{impair}: 200 ms of packets took {took * 1000:.1f} ms")
        assert 0.19 <= took <= 20.0


def test_packets_are_duplicated_overtake_and_are_dropped_from_a_full_queue(impair: Impair) -> None:
    # IPv6 has packets of its own, each of which would take a place in the queue.
    description = "a -- b delay=0ms ipv6=off"
    with Topology.build(description, impair=impair) as net, datagrams(net["a"], net["b"]) as (out, into):
        wire = net.wire("a", "b")
        wire.set(duplicate="100%", towards="b")
        assert arrivals(out, into, 10, 20) == [number for number in range(10) for _ in range(2)]
        wire.clear()
        wire.set(delay="200ms", reorder="50%", towards="b")
        found = arrivals(out, into, 40, 40)
        assert (found != sorted(found), sorted(found)) == (True, list(range(40)))
        wire.clear()
        wire.set(delay="2s", limit=5, towards="b")
        assert arrivals(out, into, 20, 5) == list(range(5))
        assert arrivals(out, into, 0) == []


def test_only_what_is_given_changes_and_it_can_be_read(impair: Impair) -> None:
    with Topology.build("a -- b delay=20ms/5ms loss=1%", impair=impair) as net:
        wire = net.wire("b", "a")
        assert (str(wire.impairment("b")), str(wire.impairment(net["a"]))) == (
            "delay=20ms loss=1%",
            "delay=5ms loss=1%",
        )
        wire.set(rate="10mbit", loss=0, towards=net["a"])
        assert (str(wire.impairment("b")), str(wire.impairment("a"))) == (
            "delay=20ms loss=1%",
            "delay=5ms rate=10mbit",
        )
        with pytest.raises(InvalidValue) as wrong:
            wire.set(delay="soon")
        assert wrong.value.field == "delay"
        with pytest.raises(InvalidValue) as wrong:
            wire.clear(towards="c")
        assert wrong.value.field == "towards"
        wire.clear(towards="b")
        assert (wire.impairment("b"), str(wire.impairment("a"))) == (Impairment(), "delay=5ms rate=10mbit")
        wire.clear()
        wire.clear()
        assert wire.impairment("a") == Impairment()
        assert net.wire("a", "b").a_to_b == Impairment.of(delay="20ms", loss="1%")  # as described


def test_a_wire_does_not_lead_towards_a_node_of_another_topology(impair: Impair) -> None:
    with Topology.build("a -- b delay=2ms", impair=impair) as net, Topology.build("a -- b") as other:
        wire = net.wire("a", "b")
        for use in (wire.impairment, partial(wire.set, loss=1), wire.clear):
            with raises(InvalidValue, field="towards"):
                use(towards=other["b"])
        assert str(wire.impairment(net["b"])) == "delay=2ms"


def test_tcp_gets_through_a_bad_wire_whole(impair: Impair) -> None:
    sent = os.urandom(200_000)
    with Topology.build("a -- b delay=2ms jitter=1ms loss=2% duplicate=2%", impair=impair) as net:
        a, b = net["a"], net["b"]
        with (
            b.call(socket.create_server, ("", 7)) as listening,
            a.call(socket.create_connection, (b.ipv4, 7), timeout=60) as client,
            listening.accept()[0] as server,
        ):

            def send() -> None:
                client.sendall(sent)
                client.shutdown(socket.SHUT_WR)

            a.submit(send)
            server.settimeout(60)
            received = b"".join(iter(lambda: server.recv(1 << 16), b""))
    assert received == sent


def test_wires_of_switches_and_ipv6_are_impaired_like_others(impair: Impair) -> None:
    with Topology.build("switch s; a -- s delay=20ms; b -- s", impair=impair) as net:
        assert min(one_way(net["a"], net["b"], 5)) >= 0.0195
        ping = net["b"].run(["ping", "-c3", "-i0.1", net["a"].ipv6]).stdout
        assert float(ping.rpartition("= ")[2].split("/")[0]) >= 39


@pytest.mark.needs_module("sch_netem")
def test_netem_is_what_tc_shows_and_other_disciplines_are_left_alone() -> None:
    with Topology.build("a -- b delay=20ms/0", impair="kernel") as net:
        a, b = net["a"], net["b"]
        (shown,) = json.loads(a.run(["tc", "-j", "qdisc", "show", "dev", "eth0", "root"]).stdout)
        assert (shown["kind"], shown["options"]["delay"]["delay"]) == ("netem", 0.02)
        assert net.wire("a", "b").impairment("a") == Impairment()
        b.run(["tc", "qdisc", "add", "dev", "eth0", "root", "pfifo", "limit", "7"])
        net.wire("a", "b").clear()
        assert [
            json.loads(node.run(["tc", "-j", "qdisc", "show", "dev", "eth0", "root"]).stdout)[0]["kind"]
            for node in (a, b)
        ] == ["noqueue", "pfifo"]
        a.run(["ip", "link", "set", "eth0", "down"])
        a.run(["ip", "link", "set", "eth0", "name", "other"])
        with pytest.raises(LinkNotFound):
            net.wire("a", "b").set(delay="1ms")


@pytest.mark.needs_module("sch_netem")
@pytest.mark.parametrize("renamed", ["a", "b"])
def test_a_wire_of_which_a_link_is_missing_stays_as_it_was(renamed: str) -> None:
    with Topology.build("a -- b delay=20ms") as net:
        wire = net.wire("a", "b")
        net[renamed].set("eth0", up=False)
        net[renamed].set("eth0", new_name="wan")
        for use in (partial(wire.set, loss=1), wire.clear):
            with raises(LinkNotFound):
                use()
        assert str(wire.impairment(towards="b" if renamed == "a" else "a")) == "delay=20ms"


def test_without_netem_the_reason_is_the_error_and_nothing_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    # Of a kind that no kernel has, as netem is on some.
    monkeypatch.setattr("vethlib._nl.dependents.netem.KIND", "netmm")
    with pytest.raises(ImpairmentNotSupported):
        Topology.build("a -- b delay=1ms")
    with Topology.build("a -- b") as net:
        with pytest.raises(ImpairmentNotSupported):
            net.wire("a", "b").set(loss="1%")
        net.wire("a", "b").clear()


def test_a_wire_without_an_attribute_has_no_relay(impair: Impair) -> None:
    with Topology.build("a -- b; a -- c", impair=impair) as net:
        assert net._relay is None
        assert net.wire("a", "b") == net.layout.wires[0]
        assert hash(net.wire("a", "b")) == hash(net.wire("a", "b"))
    with pytest.raises(InvalidValue) as wrong:
        Topology.build("a -- b", impair="magic")  # type: ignore[arg-type]
    assert wrong.value.field == "impair"


IMPAIRED = """
import unittest
import pytest

class TestCase(unittest.TestCase):
    @pytest.fixture(autouse=True)
    def _topology(self, topology):
        self.topology = topology

    def test_it(self):
        self.topology("a -- b delay=10ms")

@pytest.fixture(scope="module")
def net(module_topology):
    return module_topology("a -- b delay=10ms")

@pytest.mark.parametrize("number", range(2))
def test_fixture(net, number):
    pass

def test_group(topology):
    try:
        topology("a -- b delay=10ms")
    except Exception as error:
        raise ExceptionGroup("tasks", [ExceptionGroup("inner", [error])])

def test_described(topology):
    net = topology("a -- b delay=10ms")
    assert net["a"].run(["ping", "-c1", net["b"].ipv4]).returncode == 0

def test_at_run_time(veth, topology):
    topology("a -- b").wire("a", "b").set(loss="100%")
"""


def test_a_test_is_skipped_without_netem_and_runs_with_the_relay(pytester: pytest.Pytester) -> None:
    project = Project(pytester)
    project.write(IMPAIRED)
    project.write("from vethlib._nl.dependents import netem\nnetem.KIND = 'netmm'\n", "conftest.py")
    skipped = project.run("-rs")
    skipped.assert_outcomes(skipped=6)
    assert "--netns-impair=userspace does not need it" in skipped.stdout.str()
    project.run("--netns-impair=userspace", "-k", "described").assert_outcomes(passed=1)
    project.write("[pytest]\nnetns_impair = userspace\n", "pytest.ini")
    skipped = project.run("-rs")
    skipped.assert_outcomes(passed=5, skipped=1)
    assert "delay=0ms" in skipped.stdout.str()
    assert "--netns-impair" not in skipped.stdout.str()  # which is set already
