"""Wires that delay, drop, duplicate, reorder and limit packets, with netem and with the relay."""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from typing import Literal

import pytest

from tests.live.plugin import Project
from tests.programs import attended, freeze
from tests.refusing import raises
from tests.witness import poll
from vethlib import InvalidValue, LinkNotFound, NetlinkError
from vethlib.topology import Impairment, ImpairmentNotSupported, Node, Topology
from vethlib.topology.design.impairment import Impairments

Impair = Literal["kernel", "userspace"]

HOUR = 3600  # seconds, for which no test waits

# Of a busy machine: how much later than asked a packet of the best of several may be.
SLACK = 0.03


@pytest.fixture(params=[pytest.param("kernel", marks=pytest.mark.needs_module("sch_netem")), "userspace"])
def impair(request: pytest.FixtureRequest) -> Impair:
    which: Impair = request.param
    return which


@contextmanager
def datagrams(sender: Node, receiver: Node) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two UDP sockets, connected; the neighbour is known, so that nothing waits for it."""
    with sender.socket(type=socket.SOCK_DGRAM) as out, receiver.socket(type=socket.SOCK_DGRAM) as into:
        into.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        into.bind((receiver.ipv4, 7))
        into.settimeout(30)
        out.connect((receiver.ipv4, 7))
        out.send(b"first")
        assert into.recv(100) == b"first"
        yield out, into


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


@pytest.mark.needs_kernel("6.6")  # earlier ones accept no such packets (packet_alloc_skb, net/packet/af_packet.c)
@pytest.mark.parametrize("size", [69_900, 80_000, 200_000, 524_000])
def test_packets_of_uncut_segments_pass_the_relay_however_large(size: int) -> None:
    ethernet = b"\xff" * 6 + b"\x02\0\0\0\0\x01" + b"\x86\xdd"
    ipv6 = struct.pack("!IHBB16s16s", 6 << 28, 0, socket.IPPROTO_TCP, 64, b"\xfd" + bytes(15), b"\xfd" + bytes(15))
    tcp = struct.pack("!HHIIBBHHH", 7, 7, 0, 0, 5 << 4, 0x10, 0, 0, 0)
    headers = ethernet + ipv6 + tcp
    # struct virtio_net_hdr: the checksum is to be computed, and the payload to be cut into segments of 8000 bytes.
    virtio = struct.pack("=BBHHHH", 1, 4, len(headers), 8000, len(headers) - len(tcp), 16)
    with (
        Topology.build("a -- b mtu=9000 gso_max_size=524280 delay=0ms", impair="userspace") as net,
        net["a"].socket(17, socket.SOCK_RAW) as out,
        net["b"].socket(17, socket.SOCK_RAW) as into,
    ):
        into.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        into.bind(("eth0", 3))
        into.settimeout(20)
        out.setsockopt(263, 15, 1)  # SOL_PACKET, PACKET_VNET_HDR
        out.bind(("eth0", 0))
        out.send(virtio + headers + bytes(size))
        left = size
        while left > 0:
            frame = into.recv(10_000)
            if frame.startswith(ethernet):
                left -= len(frame) - len(headers)
    assert left == 0


def passing(net: Topology, sizes: Iterable[int]) -> list[int]:
    """The sizes of the datagrams that arrive unfragmented."""
    arrived = []
    with datagrams(net["a"], net["b"]) as (out, into):
        out.setsockopt(socket.IPPROTO_IP, 10, 2)  # IP_MTU_DISCOVER, IP_PMTUDISC_DO
        for size in sizes:
            with suppress(OSError):  # EMSGSIZE: it is too long for the sender's own link
                out.send(bytes(size))
            out.send(b"next")
            while (received := into.recv(1 << 16)) != b"next":
                arrived.append(len(received))
    return arrived


MTUS: dict[str, list[tuple[str, str, int]]] = {
    "as they are": [],
    "both raised": [("a", "eth0", 9000), ("b", "eth0", 9000)],
    "the sender's raised": [("a", "eth0", 9000)],
    "the receiver's raised": [("b", "eth0", 9000)],
    "both far": [("a", "eth0", 60_000), ("b", "eth0", 60_000)],
    "both lowered": [("a", "eth0", 1300), ("b", "eth0", 1300)],
    "the sender's lowered": [("a", "eth0", 1300)],
    "the receiver's lowered": [("b", "eth0", 1300)],
    "raised and lowered again": [("a", "eth0", 9000), ("b", "eth0", 9000), ("a", "eth0", 1400), ("b", "eth0", 1350)],
}
LENGTHS = [1200, 1272, 1273, 1276, 1277, 1322, 1372, 1472, 1473, 1476, 1477, 5000, 8972, 8973, 50_000]


@pytest.mark.parametrize("described", ["", "mtu=4000", "mtu=60000"])
@pytest.mark.parametrize("change", MTUS)
def test_a_relayed_wire_passes_what_a_plain_one_passes_when_the_mtu_of_its_ends_is_changed(
    change: str, described: str
) -> None:
    passed = []
    for text in f"a -- b {described}", f"a -- b {described} delay=0ms":
        with Topology.build(text, impair="userspace") as net:
            for node, link, mtu in MTUS[change]:
                net[node].set(link, mtu=mtu)
            passed.append(passing(net, LENGTHS))
    assert passed[0] == passed[1]
    assert passed[0]


def test_a_relayed_wire_of_a_switch_passes_what_is_longer_since_the_mtu_was_raised() -> None:
    with Topology.build("switch s; a -- s delay=0ms; s -- b delay=0ms", impair="userspace") as net:
        for name, link in ("a", "eth0"), ("b", "eth0"), ("s", "eth0"), ("s", "eth1"), ("s", "br0"):
            net[name].set(link, mtu=4000)
        assert passing(net, [3000, 3972, 3973]) == [3000, 3972]


def test_tcp_without_segmentation_passes_a_relayed_wire_whose_mtu_was_raised() -> None:
    with Topology.build("a -- b delay=0ms offload=off", impair="userspace") as net:
        a, b = net["a"], net["b"]
        for node in a, b:
            node.set("eth0", mtu=3000)
        with (
            b.call(socket.create_server, ("", 7)) as listening,
            a.call(socket.create_connection, (b.ipv4, 7), timeout=30) as client,
            listening.accept()[0] as server,
        ):
            server.settimeout(30)
            client.sendall(bytes(20_000))
            client.shutdown(socket.SHUT_WR)
            assert sum(map(len, iter(lambda: server.recv(1 << 16), b""))) == 20_000


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


def test_both_ends_of_a_relayed_wire_have_one_state() -> None:
    with Topology.build("a -- b delay=0ms; b -- c delay=0ms", impair="userspace") as net:
        a, b = net["a"], net["b"]

        def carrier() -> bool:
            return next(link.carrier is True for link in b.links() if link.name == "eth0")

        assert carrier()
        a.set("eth0", up=False)
        assert poll(lambda: not carrier())
        a.set("eth0", up=True)
        assert poll(carrier)
        net.down("a", "b")
        net.up("a", "b")
        assert poll(lambda: a.run(["ping", "-c1", "-W1", b.ipv4], check=False).returncode == 0)
        a.close()
        assert poll(lambda: {link.name for link in b.links()} == {"lo", "eth1"})


def test_a_tagged_frame_keeps_its_tag_on_a_relayed_wire() -> None:
    frame = b"\xff" * 6 + b"\x02\0\0\0\0\x01" + b"\x81\0\0\x07" + b"\x88\xb5" + bytes(50)
    with (
        Topology.build("a -- b delay=0ms", impair="userspace") as net,
        net["a"].socket(17, socket.SOCK_RAW) as out,
        net["b"].socket(17, socket.SOCK_RAW) as into,
    ):
        into.setsockopt(263, 8, 1)  # SOL_PACKET, PACKET_AUXDATA: the kernel takes the tag out
        into.bind(("eth0", 3))
        into.settimeout(30)
        out.bind(("eth0", 0))
        out.send(frame)
        while True:
            data, control, _flags, _address = into.recvmsg(2000, 100)
            if data[12:14] == b"\x88\xb5":
                break
    (aux,) = [value for level, kind, value in control if (level, kind) == (263, 8)]
    assert int.from_bytes(aux[16:18], sys.byteorder) == 7


@pytest.mark.parametrize("count", [1, 200])
def test_what_was_sent_before_a_change_is_treated_as_before_it_by_a_busy_relay(count: int) -> None:
    with Topology.build("a -- b delay=0ms ipv6=off", impair="userspace") as net:
        wire, relay = net.wire("a", "b"), net._relay
        assert relay is not None
        with datagrams(net["a"], net["b"]) as (out, into):
            wire.set(loss="100%", towards="b")
            freeze(relay._process.pid)
            for _ in range(count):
                out.send(b"meanwhile")
            clearing = threading.Thread(target=wire.clear)
            clearing.start()
            time.sleep(0.2)  # the command is before the relay, and so are the packets
            relay._process.send_signal(signal.SIGCONT)
            clearing.join()
            out.send(b"after")
            assert into.recv(100) == b"after"


@pytest.mark.parametrize("ends", [{}, {"delay": 0, "duplicate": "0.0001%"}], ids=["clear", "set"])
def test_what_waits_at_a_relay_leaves_when_nothing_has_to_wait_any_more(ends: Impairments) -> None:
    with Topology.build("a -- b delay=0ms ipv6=off", impair="userspace") as net:
        wire = net.wire("a", "b")
        with datagrams(net["a"], net["b"]) as (out, into):
            wire.set(delay=HOUR, limit=3, towards="b")
            for number in range(9):
                out.send(bytes([number]))
            if ends:
                wire.set(towards="b", **ends)
            else:
                wire.clear()
            assert [into.recv(100) for _ in range(3)] == [b"\0", b"\1", b"\2"]
            wire.set(rate="1gbit", towards="b")
            out.send(b"after")
            assert into.recv(100) == b"after"


def test_what_waits_at_a_relay_keeps_its_time_while_there_is_a_rate_or_a_delay() -> None:
    with Topology.build("a -- b delay=0ms ipv6=off", impair="userspace") as net:
        wire = net.wire("a", "b")
        with datagrams(net["a"], net["b"]) as (out, into):
            wire.set(delay=HOUR, towards="b")
            out.send(b"waits")
            wire.set(delay="1ms", towards="b")
            out.send(b"overtakes")
            assert into.recv(100) == b"overtakes"
            wire.set(delay=0, rate="1gbit", towards="b")
            into.settimeout(0.1)
            with pytest.raises(TimeoutError):
                into.recv(100)


class Interruption(Exception):
    """The exception that the handler of a signal raises."""


@contextmanager
def interrupted_while_the_relay_is_stopped(net: Topology) -> Iterator[None]:
    """A block whose command is interrupted after it was sent; the relay has not read it by then, but does later."""
    relay = net._relay
    assert relay is not None
    main, control = threading.get_ident(), relay._control.fileno()

    def interrupt() -> None:
        assert poll(lambda: unread(control) > 0)
        signal.pthread_kill(main, signal.SIGUSR1)

    def refuse(*_: object) -> None:
        raise Interruption

    before = signal.signal(signal.SIGUSR1, refuse)
    freeze(relay._process.pid)
    interrupting = threading.Thread(target=interrupt)
    interrupting.start()
    try:
        with pytest.raises(Interruption):
            yield
    finally:
        interrupting.join()
        relay._process.send_signal(signal.SIGCONT)
        signal.signal(signal.SIGUSR1, before)


def unread(descriptor: int) -> int:
    """Return how many bytes that were sent through a socket have not been received yet."""
    count: int = struct.unpack("i", fcntl.ioctl(descriptor, termios.TIOCOUTQ, bytes(4)))[0]
    return count


def test_after_an_interrupted_change_what_happens_on_a_wire_is_what_is_read() -> None:
    with Topology.build("a -- b delay=1ms", impair="userspace") as net:
        wire = net.wire("a", "b")
        with interrupted_while_the_relay_is_stopped(net):
            wire.set(loss="100%", towards="b")
        assert wire.impairment("b") == Impairment(delay=0.001, loss=1.0)
        assert wire.impairment("a") == Impairment(delay=0.001)
        assert not net["a"].ping(net["b"], timeout=0.2)
        wire.set(loss=0, towards="b")
        assert net["a"].ping(net["b"])


def test_a_change_after_an_interrupted_one_keeps_what_that_has_changed() -> None:
    with Topology.build("a -- b delay=1ms", impair="userspace") as net:
        wire = net.wire("a", "b")
        with interrupted_while_the_relay_is_stopped(net):
            wire.clear()
        wire.set(limit=500)
        assert wire.impairment("b") == Impairment(limit=500)  # the first of both directions
        assert wire.impairment("a") == Impairment(delay=0.001, limit=500)


def test_a_command_after_an_interrupted_one_waits_for_its_own_answer() -> None:
    with Topology.build("a -- b delay=1ms", impair="userspace") as net:
        relay, wire = net._relay, net.wire("a", "b")
        assert relay is not None
        with interrupted_while_the_relay_is_stopped(net):
            wire.set(loss="100%", towards="b")
        assert poll(lambda: bool(select.select([relay._control], [], [], 0)[0]))
        freeze(relay._process.pid)
        clearing = threading.Thread(target=wire.clear, kwargs={"towards": "b"})
        clearing.start()
        try:
            clearing.join(0.2)  # nothing is to happen
            assert clearing.is_alive()
        finally:
            relay._process.send_signal(signal.SIGCONT)
            clearing.join()
        assert net["a"].ping(net["b"])


def test_two_threads_that_change_a_wire_leave_what_is_read() -> None:
    with Topology.build("a -- b delay=1ms", impair="userspace") as net:
        relay, wire = net._relay, net.wire("a", "b")
        assert relay is not None
        with ThreadPoolExecutor(4) as threads:
            list(threads.map(lambda limit: wire.set(limit=limit), range(100, 300)))
        known = {towards: wire.impairment(towards) for towards in "ab"}
        relay._now.clear()  # so that the relay itself is asked
        assert {towards: wire.impairment(towards) for towards in "ab"} == known


def test_a_relay_that_was_almost_kept_ends_with_its_topology() -> None:
    with Topology.build("a -- b delay=1ms", impair="userspace") as net:
        assert net._relay is not None
        process = net._relay._process
        with interrupted_while_the_relay_is_stopped(net):
            net.let_go()
        ending = threading.Thread(target=net.close, daemon=True)
        ending.start()
        ending.join(20)
        assert not ending.is_alive()
        assert process.poll() is not None


@pytest.mark.parametrize("interrupted", [False, True])
def test_a_stopped_relay_does_not_delay_the_end_of_its_topology(interrupted: bool) -> None:
    net = Topology.build("a -- b delay=1ms", impair="userspace")
    assert net._relay is not None
    process = net._relay._process
    freeze(process.pid)
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    begun = time.monotonic()
    try:
        if interrupted:
            signal.setitimer(signal.ITIMER_REAL, 0.2)
            with pytest.raises(KeyboardInterrupt):
                net.close()
        else:
            net.close()
    finally:
        signal.signal(signal.SIGALRM, before)
    assert time.monotonic() - begun < 20
    assert net.closed
    assert not os.path.exists(f"/proc/{process.pid}")


def test_nodes_are_released_though_their_relay_has_ended() -> None:
    net = Topology.build("a -- b delay=1ms", impair="userspace")
    assert net._relay is not None
    net._relay._process.kill()
    net._relay._process.wait()
    with pytest.raises(NetlinkError):
        net.let_go()
    assert net.closed


def test_the_relay_ends_with_its_topology_and_its_death_is_an_error() -> None:
    with Topology.build("a -- b delay=1ms", impair="userspace") as net:
        assert net._relay is not None
        process = net._relay._process
        assert process.poll() is None
    assert process.returncode == 0
    with Topology.build("a -- b delay=1ms", impair="userspace") as net:
        assert net._relay is not None
        net._relay._process.kill()
        net._relay._process.wait()
        with pytest.raises(NetlinkError):
            net.wire("a", "b").set(delay="2ms")


def test_the_relay_ends_with_its_owner_however_that_ends() -> None:
    script = (
        "import time; from vethlib.topology import Topology\n"
        "net = Topology.build('a -- b delay=1ms', impair='userspace')\n"
        "print(net._relay._process.pid, flush=True); time.sleep(60)"
    )
    with attended(subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)) as owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        ended = os.pidfd_open(pid)
        owner.send_signal(signal.SIGKILL)
    try:
        assert poll(lambda: not os.path.exists(f"/proc/{pid}/fd/0"))
    finally:
        os.close(ended)


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
    assert "netem" in skipped.stdout.str()
    project.run("--netns-impair=userspace", "-k", "described").assert_outcomes(passed=1)
    project.write("[pytest]\nnetns_impair = userspace\n", "pytest.ini")
    project.run().assert_outcomes(passed=5, skipped=1)
