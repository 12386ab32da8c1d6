"""A learning switch in user space, as bmv2 and VPP are: it reads and writes frames through packet sockets.

    python examples/switch.py    # as any user: three hosts around a switch, all in private namespaces

A packet socket receives frames as the sender's kernel hands them to the link. Normally, the kernel leaves checksums and
the segmentation of long TCP segments to a network card, but here there is none. So the hosts' links have offload=False:
every frame is complete, and fits the MTU.
"""

import random
import selectors
import socket
import sys
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack

from vethlib import End, Netns, Session, Veth, ns

ADDRESSES = {"h1": "10.0.0.1", "h2": "10.0.0.2", "h3": "10.0.0.3"}
PATIENCE = 30.0  # seconds

ETH_P_ALL, ETH_P_EXPERIMENT, BROADCAST = 0x0003, 0x88B5, b"\xff" * 6  # linux/if_ether.h, IEEE 802
SOL_PACKET, PACKET_IGNORE_OUTGOING = 263, 23  # linux/socket.h, linux/if_packet.h


class Switch:
    """Packet sockets as ports, and for each MAC address the port where it was last seen."""

    def __init__(self) -> None:
        self.ports = selectors.DefaultSelector()
        self.learnt: dict[bytes, socket.socket] = {}
        self.longest = 0  # bytes of the longest frame so far

    def plug(self, port: socket.socket) -> None:
        """Add a port."""
        port.setblocking(False)
        self.ports.register(port, selectors.EVENT_READ, port)

    def turn(self, timeout: float) -> None:
        """Forward what arrives; wait for it up to `timeout` seconds."""
        for key, _ in self.ports.select(timeout):
            try:
                while True:
                    self.forward(key.data.recv(1 << 16), key.data)
            except BlockingIOError:
                pass  # that was all

    def forward(self, frame: bytes, source: socket.socket) -> None:
        """Send a frame to the port of its destination, or to all others while that is not known."""
        destination, sender = frame[:6], frame[6:12]
        self.learnt[sender] = source
        self.longest = max(self.longest, len(frame))
        known = self.learnt.get(destination)
        for port in [known] if known else [key.data for key in self.ports.get_map().values()]:
            if port is not source:
                port.send(frame)


def packets(session: Session, netns: str, link: str, kind: int = ETH_P_ALL) -> socket.socket:
    """Return a socket for the frames that arrive at a link of another namespace, which the caller never enters."""
    port = session.socket(netns, socket.AF_PACKET, socket.SOCK_RAW, socket.htons(kind))
    port.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
    port.bind((link, kind))
    return port


def shout(session: Session) -> list[str]:
    """Send a frame of no known protocol from h1 to everybody; return the hosts where it arrived."""
    with ExitStack() as sockets:
        h1, *others = (sockets.enter_context(packets(session, host, "eth0", ETH_P_EXPERIMENT)) for host in ADDRESSES)
        sender = session.lookup("eth0", "h1").mac
        h1.send(BROADCAST + bytes.fromhex(sender.replace(":", "")) + ETH_P_EXPERIMENT.to_bytes(2) + b"hello")
        for other in others:
            other.settimeout(PATIENCE)
        return [host for host, other in zip(list(ADDRESSES)[1:], others, strict=True) if b"hello" in other.recv(100)]


def transfer(session: Session, executor: Executor, source: str, target: str, data: bytes) -> bool:
    """Send data over TCP; return whether it arrived as it was."""

    def send() -> None:
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)

    with session.socket(source) as client, session.socket(target) as listening:
        for one in client, listening:
            one.settimeout(PATIENCE)
        listening.bind((ADDRESSES[target], 80))
        listening.listen()
        client.connect((ADDRESSES[target], 80))
        with listening.accept()[0] as server:
            sending = executor.submit(send)
            arrived = b"".join(iter(lambda: server.recv(1 << 16), b""))
            sending.result()
    return arrived == data


def demo(session: Session, executor: Executor) -> bool:
    """Let the hosts talk, and print what arrives; return whether all of it did."""
    reached = shout(session)
    print(f"a broadcast of h1 has reached {' and '.join(reached)}")
    data = random.randbytes(1 << 20)
    arrived = transfer(session, executor, "h1", "h3", data)
    print(f"{len(data)} bytes of TCP from h1 to h3 have {'' if arrived else 'not '}arrived")
    return arrived and len(reached) == 2


def main() -> int:
    """Connect the hosts to the switch, and forward frames as long as they talk."""
    ns.isolate()
    with Session() as session, ThreadPoolExecutor() as executor, ExitStack() as closing:
        for name in ("switch", *ADDRESSES):
            closing.enter_context(Netns.create(name))
        session.create_many(
            Veth(
                End("eth0", netns=host, addresses=[f"{address}/24"], ipv6=False, offload=False),
                End(f"to-{host}", netns="switch", ipv6=False),
            )
            for host, address in ADDRESSES.items()
        )
        switch = Switch()
        for host in ADDRESSES:
            switch.plug(closing.enter_context(packets(session, "switch", f"to-{host}")))
        talking = executor.submit(demo, session, executor)
        while not talking.done():
            switch.turn(timeout=0.1)
        print(f"the longest frame had {switch.longest} bytes; the switch has learnt {len(switch.learnt)} addresses")
        return 0 if talking.result() else 1


if __name__ == "__main__":
    sys.exit(main())
