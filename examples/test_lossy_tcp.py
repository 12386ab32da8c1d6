"""TCP on a lossy wire: every byte arrives, and the kernel tells how often it had to send some again.

    pytest examples/test_lossy_tcp.py                           # on a kernel with netem
    pytest examples/test_lossy_tcp.py --netns-impair=userspace  # on any kernel

Only data are lost, not acknowledgements, and only once the connection exists.
"""

import random
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

from vethlib.pytest_netns import Topology, TopologyFactory

PATIENCE = 60.0  # seconds


def retransmits(connection: socket.socket) -> int:
    """Return how many segments a connection has sent again so far."""
    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    (total,) = struct.unpack_from("=I", info, 100)  # tcpi_total_retrans of struct tcp_info (linux/tcp.h)
    return int(total)


@contextmanager
def connection(net: Topology) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Connect the client to the server; provide the sockets of both."""
    client, server = net["client"], net["server"]
    with (
        server.call(socket.create_server, ("", 7)) as listening,
        client.call(socket.create_connection, (server.ipv4, 7), timeout=PATIENCE) as sending,
        listening.accept()[0] as receiving,
    ):
        receiving.settimeout(PATIENCE)
        yield sending, receiving


def receive_all(connection: socket.socket) -> bytes:
    """Return everything that arrives until the other side has no more to send."""
    return b"".join(iter(lambda: connection.recv(1 << 16), b""))


def test_every_byte_arrives_though_packets_are_lost(topology: TopologyFactory) -> None:
    net = topology("client -- server delay=1ms")
    with connection(net) as (sending, receiving):
        net.wire("client", "server").set(loss="5%", towards="server")
        arriving = net["server"].submit(receive_all, receiving)
        data = bytearray()
        while retransmits(sending) < 10 and len(data) < 1 << 26:
            chunk = random.randbytes(1 << 16)
            sending.sendall(chunk)
            data += chunk
        sending.shutdown(socket.SHUT_WR)
        assert arriving.result(timeout=PATIENCE) == data
        assert retransmits(sending) >= 10


def test_what_is_sent_on_a_dead_wire_arrives_once_the_wire_is_alive(topology: TopologyFactory) -> None:
    net = topology("client -- server delay=0ms")
    wire = net.wire("client", "server")
    with connection(net) as (sending, receiving):
        assert retransmits(sending) == 0
        wire.set(loss="100%", towards="server")
        sending.sendall(b"hello")
        net["client"].wait_for(lambda: retransmits(sending) >= 2, timeout=PATIENCE)
        wire.clear()
        assert receiving.recv(100) == b"hello"
