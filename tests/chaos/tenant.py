"""A tenant with CAP_NET_ADMIN in its own namespace: it does to its end, and beside it, all that it may.

``python -m tests.chaos.tenant NETNS END LABEL VICTIM SECONDS SEED``
"""

from __future__ import annotations

import os
import random
import subprocess
import sys

from tests.chaos.attacking import batch, repeat
from tests.flapping import KINDS
from vethlib import ns
from vethlib.agent.config.mark import group_of

__all__ = ["Tenant"]

STANDING = 1000  # addresses that its end has all the time
FLAPPING = 400
ALTNAMES = 495  # of 127 bytes: the message about such a link is longer than 64 KiB


class Tenant:
    """The attacks, from inside the namespace. `victim` is the interface of another tenant."""

    def __init__(self, end: str, label: str, victim: str) -> None:
        self._end = end
        self._label = label
        self._victim = victim
        self._group = group_of(label)
        self._turn = 0

    def flap_addresses(self, choose: random.Random) -> None:
        net = choose.randrange(256)
        some = [f"10.{net}.{number // 250}.{number % 250 + 1}/32 dev {self._end}" for number in range(FLAPPING)]
        for _ in range(3):
            batch(f"address add {one}" for one in some)
            batch(f"address del {one}" for one in some)

    def flap_at_full_speed(self, choose: random.Random) -> None:
        netns, kind = "/proc/thread-self/ns/net", choose.choice(sorted(KINDS))
        command = [sys.executable, "-m", "tests.flapping", netns, self._end, kind, "2"]
        subprocess.run(command, capture_output=True, check=False, timeout=10)

    def hoard_addresses(self, _choose: random.Random) -> None:
        batch(f"address add 172.16.{n // 250}.{n % 250 + 1}/32 dev {self._end}" for n in range(STANDING))

    def forge_marks(self, choose: random.Random) -> None:
        aliases = ["mine", f"vethlib label={self._label} name={self._victim}", "vethlib label=other name=x", "\x1b[31m"]
        batch(
            f"link set {self._end} alias '{choose.choice(aliases)}' group {choose.choice([0, 7, self._group])}"
            for _ in range(200)
        )

    def forge_links(self, _choose: random.Random) -> None:
        self._turn += 1
        names = [(f"{self._victim[:6]}{self._turn % 97}x{number}", f"y{number}") for number in range(60)]
        batch(f"link add {a} group {self._group} type veth peer name {b} group {self._group}" for a, b in names)
        batch(f"link set {a} up alias 'vethlib label={self._label} name={self._victim}'" for a, _ in names)
        batch(f"link del {a}" for a, _ in names)

    def take_the_name(self, _choose: random.Random) -> None:
        batch([f"link add {self._victim} group {self._group} type veth peer name z"])
        batch([f"link set {self._victim} alias 'vethlib label={self._label} name={self._victim}' up"] * 50)
        batch([f"link del {self._victim}"])

    def grow_names(self, _choose: random.Random) -> None:
        batch(["link add fat type bridge"])
        batch(f"link property add dev fat altname {number:04d}{'x' * 123}" for number in range(ALTNAMES))
        batch([f"link set fat {state}" for state in ("up", "down") * 10])
        batch(["link del fat"])

    def change_the_end(self, _choose: random.Random) -> None:
        end = self._end
        batch(
            [f"link set {end} {what}" for what in ("down", "mtu 1280", "address 02:66:66:66:66:66", "up", "mtu 1400")]
        )
        batch([f"link set {end} down", f"link set {end} name mine", "link set mine up"])

    def delete_the_end(self, _choose: random.Random) -> None:
        batch([f"link del {self._end}"])

    def move_the_end(self, _choose: random.Random) -> None:
        with ns.Netns.anonymous() as inner:
            subprocess.run(
                ["ip", "link", "set", self._end, "netns", f"/proc/{os.getpid()}/fd/{inner.fd}"],
                capture_output=True,
                check=False,
            )

    def make_namespaces(self, _choose: random.Random) -> None:
        for _ in range(20):
            with ns.Netns.anonymous() as inner:
                batch([f"link add in type veth peer name out netns /proc/{os.getpid()}/fd/{inner.fd}"])


def _main(netns: str, end: str, label: str, victim: str, seconds: str, seed: str) -> None:
    tenant = Tenant(end, label, victim)
    often = [tenant.flap_addresses, tenant.flap_at_full_speed] * 2 + [
        tenant.forge_marks,
        tenant.forge_links,
        tenant.take_the_name,
    ] * 2
    rarely = [tenant.hoard_addresses, tenant.grow_names, tenant.change_the_end, tenant.make_namespaces]
    with ns.entered(netns):
        repeat([*often, *rarely, tenant.delete_the_end, tenant.move_the_end], float(seconds), int(seed))


if __name__ == "__main__":
    _main(*sys.argv[1:])
