"""What passes a relayed wire, and what waits there: large packets, changed MTUs, tags, and changes to the wire."""

from __future__ import annotations

import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterable
from contextlib import suppress

import pytest

from tests.live.traffic import datagrams
from tests.programs import freeze
from tests.witness import poll
from vethlib.topology import Topology
from vethlib.topology.design.impairment import Impairments

HOUR = 3600  # seconds, for which no test waits


# --- sizes


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


# --- tags and states


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


# --- what waits


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
