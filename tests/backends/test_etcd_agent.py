"""vethctl agent on etcd, as a process on a separate host; only etcdctl writes the configuration."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.backends.etcd import Etcd
from tests.backends.etcd_consumer import LABEL, PREFIX, key
from tests.backends.etcd_fixtures import MakeProxy
from tests.backends.proxy import Proxy
from tests.live.applying import EXAMPLES, reaches
from tests.witness import addresses, ip, names, poll, seen
from vethlib import ns
from vethlib.agent.stores.keys import liveness_key, status_key

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
VETH1, VETH2 = ((EXAMPLES / "pair" / f"{name}.json").read_text() for name in ("veth1", "veth2"))
STATUSES = status_key(LABEL, "")
ENDS = (("veth1", "ns1"), ("veth2", "ns2"))

SOON = 60.0  # seconds; an agent needs 0.02, and as a process on a busy machine some more


@pytest.fixture
def host() -> Iterator[ns.Netns]:
    """The namespace that is the host of an agent. Named ones are shared by all, and those that it makes are removed."""
    assert ns.names() == []
    with ns.Netns.anonymous() as host:
        ip("link", "set", "lo", "up", netns=host)
        yield host
    for name in ns.names():
        ns.remove(name)


@pytest.fixture
def network(etcd: Etcd, make_proxy: MakeProxy, host: ns.Netns) -> Proxy:
    """The network between the host and the server."""
    return make_proxy(etcd.address, host)


class Agent:
    """A running agent."""

    def __init__(self, host: ns.Netns, url: str, directory: Path, *options: str) -> None:
        self._errors = directory / "errors"
        command = [sys.executable, "-m", "vethlib", "agent", "--store", url, "--label", LABEL, "--docker", "off"]
        command += ["--status-dir", str(directory / "status"), *options]
        env = {name: text for name, text in os.environ.items() if name != "JOURNAL_STREAM"}
        with self._errors.open("ab") as errors, host.entered():
            self.process = subprocess.Popen(command, stderr=errors, cwd=ROOT, env=env)

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(60)

    @property
    def log(self) -> str:
        return self._errors.read_text()

    def wait_for(self, said: str, count: int = 1) -> None:
        """Wait until its log says that, so many times."""
        assert poll(lambda: self.log.count(said) >= count, SOON), self.log


@pytest.fixture
def start(host: ns.Netns, network: Proxy, tmp_path: Path) -> Iterator[Callable[..., Agent]]:
    """Starts agents on the host; ends those that run at the end."""
    started: list[Agent] = []

    def begin(*options: str, query: str = "") -> Agent:
        started.append(Agent(host, network.url + query, tmp_path, *options))
        return started[-1]

    yield begin
    for one in started:
        if one.process.poll() is None:
            one.end(signal.SIGKILL)


Start = Callable[..., Agent]


@pytest.fixture
def pair(etcd: Etcd, start: Start) -> Agent:
    """An agent that has built the example pair."""
    etcd.put(key("veth1"), VETH1)
    etcd.put(key("veth2"), VETH2)
    agent = start()
    comes_to(etcd, veth1="CONFIGURED", veth2="CONFIGURED")
    return agent


def statuses(etcd: Etcd) -> dict[str, dict[str, Any]]:
    found = (json.loads(raw) for raw in etcd.values(STATUSES).values())
    return {entry["name"]: entry for entry in found}


def comes_to(etcd: Etcd, timeout: float = SOON, **states: str) -> None:
    """Wait until the agent says that its interfaces are in these states, and no others are there."""

    def found() -> dict[str, str]:
        return {name: entry["state"] for name, entry in statuses(etcd).items()}

    poll(lambda: found() == states, timeout)
    assert found() == states, statuses(etcd)


def edit(etcd: Etcd, text: str, **fields: Any) -> None:
    """Write a value with other fields."""
    value = json.loads(text) | fields
    etcd.put(key(value["name"]), json.dumps(value))


def indexes() -> list[int]:
    return [seen(name, netns)["ifindex"] for name, netns in ENDS]


def is_built() -> bool:
    return all(netns in ns.names() and name in names(netns) for name, netns in ENDS)


def traffic_flows() -> bool:
    """Both ways, and in IPv4 only: of IPv6 one end of the example has an address."""
    return reaches("ns1", "192.168.22.2", "ns2") and reaches("ns2", "192.168.22.1", "ns1")


# --- the example pair


def test_the_example_pair_comes_up_and_carries_traffic(etcd: Etcd, start: Start, host: ns.Netns) -> None:
    agent = start()
    agent.wait_for("started")
    etcd.put(key("veth1"), VETH1)
    comes_to(etcd, veth1="PENDING")
    assert ns.names() == []
    etcd.put(key("veth2"), VETH2)
    comes_to(etcd, veth1="CONFIGURED", veth2="CONFIGURED")
    one, two = seen("veth1", "ns1"), seen("veth2", "ns2")
    assert one["address"] == "d2:74:8c:12:67:d2"
    assert (one["mtu"], two["mtu"]) == (1500, 1500)
    assert addresses("veth1", "ns1") == ["192.168.22.1/24", "2001:db8::ff00:89e3:bb42/48"]
    assert addresses("veth2", "ns2") == ["192.168.22.2/24"]
    assert {"UP", "LOWER_UP"} <= set(one["flags"]) & set(two["flags"])
    assert traffic_flows()
    assert names(host) == set()


def test_the_status_in_etcd_is_what_the_kernel_says(etcd: Etcd, pair: Agent) -> None:
    revision = etcd.revision
    told = statuses(etcd)["veth1"]
    one = seen("veth1", "ns1")
    assert told["ifindex"] == one["ifindex"]
    assert told["peer_ifindex"] == seen("veth2", "ns2")["ifindex"]
    assert (told["mac"], told["mtu"], told["up"]) == (one["address"], one["mtu"], True)
    assert told["netns"] == "netns:ns1"
    assert (told["host_name"], told["peer"], told["reason"]) == ("veth1", "veth2", "")
    assert set(addresses("veth1", "ns1")) <= set(told["addresses"])
    assert 0 < told["config_revision"] <= revision
    alive = json.loads(etcd.values(liveness_key(LABEL))[liveness_key(LABEL).encode()])
    assert alive["pid"] == pair.process.pid


def test_mtu_and_addresses_are_changed_in_place(etcd: Etcd, pair: Agent) -> None:
    before = indexes()
    edit(etcd, VETH1, mtu=1400, ip_addresses=["192.168.22.7/24"])
    assert poll(lambda: addresses("veth1", "ns1") == ["192.168.22.7/24"], SOON)
    assert poll(lambda: seen("veth1", "ns1")["mtu"] == 1400, SOON)
    assert poll(lambda: statuses(etcd)["veth1"].get("mtu") == 1400, SOON)
    assert seen("veth2", "ns2")["mtu"] == 1500
    assert indexes() == before
    assert reaches("ns2", "192.168.22.7", "ns1")


def test_one_end_goes_and_comes_back_and_traffic_flows_again(etcd: Etcd, pair: Agent) -> None:
    etcd.delete(key("veth2"))
    comes_to(etcd, veth1="PENDING")
    assert (names("ns1"), names("ns2")) == (set(), set())
    etcd.put(key("veth2"), VETH2)
    comes_to(etcd, veth1="CONFIGURED", veth2="CONFIGURED")
    assert traffic_flows()


def test_both_ends_go_in_one_transaction(etcd: Etcd, pair: Agent) -> None:
    assert etcd.delete_prefix(PREFIX) == 2
    comes_to(etcd)
    assert (names("ns1"), names("ns2")) == (set(), set())


def test_veth1_goes_with_its_peer_and_veth10_stays(etcd: Etcd, pair: Agent) -> None:
    for name, peer in (("veth10", "veth20"), ("veth20", "veth10")):
        value = {"name": name, "enabled": True, "namespace": {"type": 2, "name": "ns1"}, "veth": {"peer_if_name": peer}}
        etcd.put(key(name), json.dumps(value))
    comes_to(etcd, veth1="CONFIGURED", veth2="CONFIGURED", veth10="CONFIGURED", veth20="CONFIGURED")
    before = seen("veth10", "ns1")["ifindex"]
    etcd.delete(key("veth1"))
    comes_to(etcd, veth2="PENDING", veth10="CONFIGURED", veth20="CONFIGURED")
    assert names("ns1") == {"veth10", "veth20"}
    assert seen("veth10", "ns1")["ifindex"] == before


# --- outages


def test_an_agent_that_is_there_before_etcd_builds_when_it_comes(etcd: Etcd, network: Proxy, start: Start) -> None:
    etcd.put(key("veth1"), VETH1)
    etcd.put(key("veth2"), VETH2)
    etcd.kill()
    agent = start()
    agent.wait_for("the store is down")
    assert ns.names() == []
    etcd.start()
    comes_to(etcd, veth1="CONFIGURED", veth2="CONFIGURED")
    assert traffic_flows()
    agent.wait_for("the store is available again")


def test_an_outage_leaves_the_host_alone_and_then_what_differs_is_done(etcd: Etcd, network: Proxy, pair: Agent) -> None:
    before = indexes()
    etcd.kill()
    pair.wait_for("the store is down")
    assert indexes() == before
    assert traffic_flows()
    network.refuse()
    etcd.start()
    edit(etcd, VETH1, mtu=1400)
    etcd.delete(key("veth2"))
    etcd.put(key("veth2"), VETH2)
    network.accept()
    assert poll(lambda: seen("veth1", "ns1")["mtu"] == 1400, SOON)
    pair.wait_for("the store is available again")
    comes_to(etcd, veth1="CONFIGURED", veth2="CONFIGURED")
    assert indexes() == before
    assert traffic_flows()


def test_what_happens_to_the_host_in_an_outage_is_put_right_in_it(etcd: Etcd, pair: Agent) -> None:
    etcd.kill()
    pair.wait_for("the store is down")
    ip("link", "del", "veth1", netns="ns1")
    assert poll(is_built, SOON)
    assert poll(traffic_flows, SOON)


def test_a_wiped_etcd_that_is_filled_again_before_anybody_looks_touches_nothing(
    etcd: Etcd, network: Proxy, pair: Agent
) -> None:
    before = indexes()
    network.refuse()
    network.cut()
    pair.wait_for("the store is down")
    etcd.wipe()
    etcd.start()
    etcd.put(key("veth2"), VETH2)
    etcd.put(key("veth1"), VETH1)
    network.accept()
    comes_to(etcd, veth1="CONFIGURED", veth2="CONFIGURED")
    assert indexes() == before


def test_silence_is_told_in_the_log_and_leaves_the_host_alone(etcd: Etcd, network: Proxy, pair: Agent) -> None:
    before = indexes()
    network.silence()
    assert poll(lambda: "the store is down" in pair.log)
    assert indexes() == before
    edit(etcd, VETH2, mtu=1400)
    network.speak()
    assert poll(lambda: seen("veth2", "ns2")["mtu"] == 1400, SOON)
    assert indexes() == before


# --- the agent's end


def test_an_agent_that_ends_leaves_the_host_and_takes_its_status_along(etcd: Etcd, pair: Agent) -> None:
    before = indexes()
    assert pair.end() == 0
    assert set(etcd.values("/")) == {key("veth1").encode(), key("veth2").encode()}
    assert indexes() == before
    assert traffic_flows()


def test_a_killed_agent_is_succeeded_by_one_that_touches_nothing_and_does_what_it_missed(
    etcd: Etcd, start: Start
) -> None:
    etcd.put(key("veth1"), VETH1)
    etcd.put(key("veth2"), VETH2)
    killed = start(query="?lease=2&heartbeat=0.5")
    comes_to(etcd, veth1="CONFIGURED", veth2="CONFIGURED")
    before = indexes()
    killed.end(signal.SIGKILL)
    assert poll(lambda: statuses(etcd) == {})
    assert etcd.values(liveness_key(LABEL)) == {}
    edit(etcd, VETH2, ip_addresses=["192.168.22.9/24"])
    start()
    comes_to(etcd, veth1="CONFIGURED", veth2="CONFIGURED")
    assert addresses("veth2", "ns2") == ["192.168.22.9/24"]
    assert indexes() == before


def test_with_once_it_brings_the_host_there_and_ends(etcd: Etcd, start: Start) -> None:
    etcd.put(key("veth1"), VETH1)
    etcd.put(key("veth2"), VETH2)
    agent = start("--once")
    assert agent.process.wait(60) == 0, agent.log
    assert traffic_flows()


def test_with_once_and_no_etcd_it_says_so_and_ends(etcd: Etcd, start: Start) -> None:
    etcd.kill()
    agent = start("--once")
    assert agent.process.wait(60) != 0
    assert any(text in agent.log for text in ("the connection was lost", "closed the connection"))


# --- what others write


def test_values_as_other_clients_write_them_build_the_same_pair(etcd: Etcd, start: Start) -> None:
    start()
    etcd.put(
        key("veth2"),
        '{"veth":{"peer_if_name":"veth1"},"linux_namespace":{"name":"ns2","type":2},"ip_addresses":["192.168.22.2/24"],'
        '"enabled":true,"name":"veth2","type":0}',
    )
    etcd.put(
        key("veth1"),
        '{"ipAddresses":["192.168.22.1/24",""],"veth":{"peerIfName":"veth2"},"type":"VETH","enabled":true,'
        '"namespace":{"type":"NAMED_NS","name":"ns1"},"name":"veth1","description":""}',
    )
    comes_to(etcd, veth1="CONFIGURED", veth2="CONFIGURED")
    assert traffic_flows()


def test_a_bad_value_is_told_on_its_key_and_shields_what_is_there(etcd: Etcd, pair: Agent) -> None:
    before = indexes()
    etcd.put(key("veth1"), b"\xff\xfe")
    comes_to(etcd, veth1="INVALID", veth2="CONFIGURED")
    assert "UTF-8" in statuses(etcd)["veth1"]["reason"]
    etcd.put(f"{PREFIX}a/b", VETH1)
    assert poll(lambda: len(statuses(etcd)) == 3, SOON)
    etcd.delete(f"{PREFIX}a/b")
    etcd.put(key("veth1"), VETH1)
    comes_to(etcd, veth1="CONFIGURED", veth2="CONFIGURED")
    assert indexes() == before


def test_no_value_keeps_its_status_or_that_of_others_from_being_written(etcd: Etcd, pair: Agent) -> None:
    bad = {
        "enum": {"name": "enum", "namespace": {"type": 4294967296}},
        "many": {"name": "many", "ip_addresses": ["x"] * 50_000, "veth": {"peer_if_name": "p"}},
        "keys": {"name": "keys"} | {f"key{number}": number for number in range(20_000)},
        "long": {"name": "long", "description": "x" * 1_100_000},
        "lone": {"name": "lone", "\ud800": "\ud800", "host_if_name": "\udcff"},
    }
    for name, value in bad.items():
        etcd.fill({key(name): json.dumps(value)})
    etcd.fill({PREFIX + "\x1b[31m" * 100: "{}"})
    assert poll(lambda: len(statuses(etcd)) == 2 + len(bad) + 1, SOON), pair.log
    states = {name: entry["state"] for name, entry in statuses(etcd).items()}
    assert {states.pop("veth1"), states.pop("veth2")} == {"CONFIGURED"}
    assert set(states.values()) == {"INVALID"}
    assert max(map(len, etcd.values(STATUSES).values())) < 10_000
    assert pair.process.poll() is None
    (odd,) = states.keys() - bad.keys()
    assert odd.isprintable()
