"""Many agents on one etcd, each with its own host: all start, all follow, and none gets anything of another."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from benchmarks.fleet.hosts import UPLINK, Host, open_hosts
from tests.backends.etcd import Etcd
from tests.backends.etcd_fixtures import MakeEtcd
from tests.live.applying import value
from tests.witness import poll
from vethlib import Session

pytestmark = pytest.mark.slow

AGENTS = 20  # `python -m benchmarks.fleet many` has 50
PAIRS = 10
PATIENCE = 120.0


class Fleet:
    """The hosts, and the etcd to which only others write."""

    def __init__(self, etcd: Etcd, hosts: Sequence[Host]) -> None:
        self.etcd = etcd
        self.hosts = hosts

    def start_etcd(self) -> None:
        """On all addresses, one of which each host reaches."""
        self.etcd.start("--listen-client-urls", f"http://0.0.0.0:{self.etcd.address[1]}")

    def put(self, values: Mapping[str, list[dict[str, Any]]]) -> None:
        """Write interfaces of each label."""
        self.etcd.fill(
            {config_key(label, one["name"]): json.dumps(one) for label, some in values.items() for one in some}
        )

    def keys(self, prefix: str) -> set[str]:
        return {key.decode() for key in self.etcd.values(prefix)}

    def states(self) -> dict[str, list[str]]:
        """The states that each label's agent has written, by label."""
        found: dict[str, list[str]] = {}
        for key, raw in self.etcd.values("/vnf-agent/").items():
            if b"/linux/status/v1/interface/" in key:
                found.setdefault(key.decode().split("/")[2], []).append(json.loads(raw)["state"])
        return found

    def all_are_configured(self) -> bool:
        return self.states() == {host.label: ["CONFIGURED"] * 2 * PAIRS for host in self.hosts}


def config_key(label: str, name: str) -> str:
    return f"/vnf-agent/{label}/linux/config/v1/interface/{name}"


def wanted(number: int, mtu: int) -> list[dict[str, Any]]:
    """The interfaces of one host: the same names as on every other, with another MTU."""
    found = []
    for pair in range(PAIRS):
        found.append(value(f"p{pair}", f"q{pair}", mtu=mtu, ip_addresses=[f"192.168.{pair}.1/24"], enabled=True))
        inside = {"type": 2, "name": f"ns{pair}"}
        found.append(value(f"q{pair}", f"p{pair}", mtu=mtu, namespace=inside, host_if_name="eth0", enabled=True))
    return found


def mtu_of(number: int) -> int:
    return 1300 + number


def links(host: Host) -> dict[str, tuple[int, int]]:
    """The veths of a host: name → MTU and ifindex, as ``ip`` sees them there."""
    (found,) = _seen_by_ip(host, "ip -d -j link")
    return found


def mtus(host: Host) -> dict[str, int]:
    """The MTU of each veth of a host and, as name@netns, of its named namespaces."""
    names = [f"ns{pair}" for pair in range(PAIRS)]
    # One shell for all of them, and no `ip -n`, which mounts a sysfs each time: there are hundreds to ask.
    asked = [f"nsenter --net=/run/netns/{name} ip -d -j link" for name in names]
    home, *inside = _seen_by_ip(host, "; ".join(["ip -d -j link", *asked]))
    found = {name: mtu for name, (mtu, _) in home.items()}
    for netns, there in zip(names, inside, strict=True):
        found |= {f"{name}@{netns}": mtu for name, (mtu, _) in there.items()}
    return found


def _seen_by_ip(host: Host, script: str) -> list[dict[str, tuple[int, int]]]:
    """What each ``ip`` of a shell script prints on a host."""
    command = ["nsenter", f"--net={host.netns}", f"--mount=/proc/{host.pid}/ns/mnt", "sh", "-ec", script]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return [
        {
            one["ifname"]: (one["mtu"], one["ifindex"])
            for one in json.loads(line)
            if one.get("linkinfo", {}).get("info_kind") == "veth" and one["ifname"] != UPLINK
        }
        for line in done.stdout.splitlines()
    ]


def as_wanted(mtu: int) -> dict[str, int]:
    return dict.fromkeys([f"p{pair}" for pair in range(PAIRS)] + [f"eth0@ns{pair}" for pair in range(PAIRS)], mtu)


@pytest.fixture
def fleet(make_etcd: MakeEtcd, tmp_path: Path) -> Iterator[Fleet]:
    with ExitStack() as stack:
        session = stack.enter_context(Session())
        fleet = Fleet(make_etcd(), open_hosts(AGENTS, tmp_path, session, stack))
        fleet.start_etcd()
        yield fleet


def test_twenty_agents_on_one_etcd_have_each_their_own(fleet: Fleet) -> None:
    fleet.put({host.label: wanted(host.number, mtu_of(host.number)) for host in fleet.hosts})
    for host in fleet.hosts:
        host.start(fleet.etcd.address[1])
    assert poll(fleet.all_are_configured, PATIENCE), fleet.states()
    assert [mtus(host) for host in fleet.hosts] == [as_wanted(mtu_of(host.number)) for host in fleet.hosts]

    # A change on one is one on no other.
    first, *others = fleet.hosts
    fleet.put({first.label: wanted(0, 1500)})
    assert poll(lambda: mtus(first) == as_wanted(1500), PATIENCE)
    assert [mtus(host) for host in others] == [as_wanted(mtu_of(host.number)) for host in others]

    # etcd ends, and its end changes nothing; it is back, and what was written to it is made, and nothing else.
    before = [links(host) for host in fleet.hosts]
    fleet.etcd.kill()
    assert poll(lambda: all("is down" in host.log.read_text() for host in fleet.hosts), PATIENCE)
    fleet.start_etcd()
    fleet.put({host.label: wanted(host.number, 1500)[:1] for host in others})
    after = as_wanted(1500)
    assert poll(lambda: all(links(host)["p0"][0] == 1500 for host in others), PATIENCE)
    for host, ends in zip(fleet.hosts, before, strict=True):
        assert {name: index for name, (_, index) in links(host).items()} == {
            name: index for name, (_, index) in ends.items()
        }
    assert [mtus(host) for host in others] == [as_wanted(mtu_of(host.number)) | {"p0": after["p0"]} for host in others]

    # Each says that it is alive, and not once it has ended.
    alive = {f"/vnf-agent/{host.label}/check/status/v1/agent" for host in fleet.hosts}
    assert alive <= fleet.keys("/vnf-agent/")
    others[0].close()
    gone = f"/vnf-agent/{others[0].label}/"
    assert poll(lambda: all("/config/" in key for key in fleet.keys(gone))), fleet.keys(gone)
