"""A switch with two ports, which forwards every frame between the namespaces left and right.

    python examples/forward.py           as root: wire left and right to it, and forward until Ctrl-C
    python examples/forward.py --demo    as any user: the same in private namespaces, with pings through it

The configurator keeps the links as configured, and a port has its socket while its link exists and is up: delete a
link, or a whole namespace, while it runs, and it is created again.
"""

import selectors
import socket
import struct
import sys
import time
from collections import Counter

from vethlib import Session, ns
from vethlib.agent import Configurator, Interface, Namespace, NamespaceType, PacketPort

ADDRESSES = {"left": "10.0.0.1", "right": "10.0.0.2"}


class Switch:
    """Two ports and the configurator of their links, in one selector."""

    def __init__(self, session: Session, configurator: Configurator) -> None:
        self.sent: Counter[str] = Counter()
        self.configurator = configurator
        self.selector = selectors.DefaultSelector()
        self.selector.register(configurator, selectors.EVENT_READ, self.configure)
        left, right = (PacketPort(f"to-{side}", session=session, offload=True) for side in ADDRESSES)
        for side, here, other in ("left", left, right), ("right", right, left):
            netns, ip = Namespace(NamespaceType.NAMED_NS, name=side), (f"{ADDRESSES[side]}/24",)
            configurator.put(Interface(side, f"to-{side}", namespace=netns, enabled=True, ip_addresses=ip))
            configurator.put(Interface(f"to-{side}", side, enabled=True))
            here.on_attached = lambda port, other=other: self.plug(port, other)
            here.on_detached = self.selector.unregister
            configurator.attach(here)

    def plug(self, here: PacketPort, other: PacketPort) -> None:
        """Forward frames from `here`, whose link is up, to the `other` port."""
        print(f"{here.host_if_name} plugged in")
        self.selector.register(here, selectors.EVENT_READ, lambda: self.forward(here, other))

    def forward(self, here: PacketPort, other: PacketPort) -> None:
        """Forward all frames that have arrived."""
        while frame := here.receive():
            self.sent[other.host_if_name] += other.send(frame)

    def configure(self) -> None:
        """Let the configurator work, and print the changed states."""
        for name, status in self.configurator.poll().items():
            print(f"{name}: {status.state if status else 'gone'}")

    def turn(self, timeout: float) -> None:
        """Wait up to `seconds` for events, and handle them."""
        due = self.configurator.due()
        for key, _ in self.selector.select(timeout if due is None else min(due, timeout)):
            key.data()
        if self.configurator.due() == 0:
            self.configure()


def ping(switch: Switch, times: int) -> bool:
    """Send echo requests from left to right until `times` were answered, or for 10 seconds."""
    with ns.entered("left"):
        with open("/proc/sys/net/ipv4/ping_group_range", "w", encoding="utf-8") as groups:
            groups.write("0 0")
        echo = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP)  # icmp(7)
    answers: list[bytes] = []
    switch.selector.register(echo, selectors.EVENT_READ, lambda: answers.append(echo.recv(100)))
    deadline = time.monotonic() + 10
    while len(answers) < times and time.monotonic() < deadline:
        number, sent = len(answers), time.monotonic()
        echo.sendto(struct.pack("!BBHHH", 8, 0, 0, 0, number), (ADDRESSES["right"], 0))
        while len(answers) == number and time.monotonic() < sent + 0.5:
            switch.turn(0.1)
        print(f"ping {number + 1}: {'answered' if answers[number:] else 'no answer'}")
    switch.selector.unregister(echo)
    echo.close()
    return len(answers) >= times


def main(demo: bool) -> int:
    """Forward frames; the links stay afterwards, except in a demo."""
    if demo:
        ns.isolate()
    with Session() as session, Configurator(session, label="forward") as configurator:
        switch = Switch(session, configurator)
        switch.configure()
        try:
            while not demo:
                switch.turn(3600)
            return 0 if ping(switch, times=5) else 1
        except KeyboardInterrupt:
            return 0
        finally:
            for name, count in switch.sent.items():
                print(f"{count} frames sent out of {name}")


if __name__ == "__main__":
    sys.exit(main("--demo" in sys.argv[1:]))
