"""Pings of a node: versions, replies and losses, refusals on the way, and the groups that may ping."""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.live.descriptors import descriptors_left
from tests.live.firewall import drop_output
from tests.refusing import raises
from vethlib import InvalidValue, NetlinkError, NetnsNotFound, NotPermitted, VethError, ns
from vethlib.topology import Node, Pings, Topology
from vethlib.topology.live import pinging


@pytest.fixture(scope="module")
def chain() -> Iterator[Topology]:
    with Topology.build("a -- r -- b; a -- c; node alone", routes=True) as net:
        yield net


@pytest.fixture
def net() -> Iterator[Topology]:
    with Topology.build("a -- r -- b") as built:
        yield built


@pytest.mark.parametrize("version", [4, 6, None])
def test_a_node_pings_another_without_a_program(chain: Topology, version: Any) -> None:
    pings = chain["a"].ping(chain["b"], count=5, version=version)
    assert (bool(pings), pings.sent, pings.received, pings.loss) == (True, 5, 5, 0.0)
    assert all(seconds is not None and 0 < seconds < 2 for seconds in pings.times)
    assert pings.best == min(seconds for seconds in pings.times if seconds is not None)
    assert chain["a"].ping(chain["b"].ipv6)
    assert chain["alone"].ping("127.0.0.1")


@pytest.mark.parametrize("version", [5, "4", True, 4.0])
def test_no_other_version_of_ip_is_taken_for_an_address_that_is_missing(chain: Topology, version: Any) -> None:
    a, b = chain["a"], chain["b"]
    for verb in (lambda: a.ping(b, version=version), lambda: a.address(towards=b, version=version)):
        with pytest.raises(InvalidValue) as wrong:
            verb()
        assert (wrong.value.field, wrong.value.value) == ("version", version)


@pytest.mark.parametrize("version", [4, 6])
def test_an_address_of_another_version_is_not_used_in_silence(chain: Topology, version: Any) -> None:
    a, address = chain["a"], {4: chain["b"].ipv6, 6: chain["b"].ipv4}[version]
    for verb in (lambda: a.ping(address, version=version), lambda: a.address(towards=address, version=version)):
        with pytest.raises(InvalidValue) as wrong:
            verb()
        assert (wrong.value.field, wrong.value.value) == ("version", version)


@pytest.mark.parametrize("left", range(6))
def test_a_node_can_be_pinged_from_when_there_are_descriptors_again(net: Topology, left: int) -> None:
    net["r"].ping(net["a"])  # imports and opens what is opened once
    with descriptors_left(left), suppress(OSError, VethError):
        net["a"].ping(net["r"])
    assert net["a"].ping(net["r"])


def pings_itself_if_it_may(node: Node) -> None:
    with suppress(NotPermitted):
        node.ping("127.0.0.1")


RANGE = "net.ipv4.ping_group_range"
FIRST_USES: dict[str, Callable[[Node], object]] = {
    "run": lambda node: node.run(["true"]),
    "start": lambda node: node.start(["true"]).wait(),
    "call": lambda node: node.call(os.getpid),
    "with": lambda node: node.__enter__().__exit__(None, None, None),
    "ping": pings_itself_if_it_may,
    "wait_for": lambda node: node.wait_for(lambda: True),
    "socket": lambda node: node.socket().close(),
    "ns.run": lambda node: ns.run(node, ["true"]),
}


def write_range_entered(node: Node, groups: str) -> None:
    with ns.entered(node.netns):
        Path("/proc/sys/net/ipv4/ping_group_range").write_text(groups)


WAYS_TO_SET: dict[str, Callable[[Node, str], object]] = {
    "node.sysctl": lambda node, groups: node.sysctl(RANGE, groups),
    "ns.run": lambda node, groups: ns.run(node.netns, ["sysctl", "-qw", f"{RANGE}={groups}"]),
    "ns.entered": write_range_entered,
}


@pytest.mark.parametrize("groups", ["5 7", "0 0", "1 0"])
@pytest.mark.parametrize("way", WAYS_TO_SET)
@pytest.mark.parametrize("use", FIRST_USES)
def test_the_groups_that_a_test_lets_ping_stay_when_the_node_is_first_used(
    net: Topology, use: str, way: str, groups: str
) -> None:
    WAYS_TO_SET[way](net["a"], groups)
    FIRST_USES[use](net["a"])
    assert net["a"].run(["cat", "/proc/sys/net/ipv4/ping_group_range"]).stdout.split() == groups.split()


def test_what_prepares_a_node_can_choose_the_groups_that_may_ping() -> None:
    def prepare(nodes: Mapping[str, Node]) -> None:
        write_range_entered(nodes["a"], "5 7")

    with Topology.build("a -- b", prepare=prepare) as net:
        assert net["a"].run(["cat", "/proc/sys/net/ipv4/ping_group_range"]).stdout.split() == ["5", "7"]


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM], ids=errno.errorcode.get)
def test_if_there_is_no_room_to_let_nodes_ping_the_topology_is_refused(
    monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(pinging, "_write", failing(number))
    with raises(NetlinkError, errno=number):
        Topology.build("a -- b")


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOENT], ids=errno.errorcode.get)
def test_where_nodes_cannot_be_let_ping_they_are_built_nevertheless(
    monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(pinging, "_write", failing(number))
    with Topology.build("a -- b") as net:
        assert net["a"].run(["true"]).returncode == 0


def failing(number: int) -> Callable[[int], None]:
    def fail(_last: int) -> None:
        raise OSError(number, os.strerror(number))

    return fail


def test_the_groups_that_may_ping_are_the_same_before_and_after_the_first_program(net: Topology) -> None:
    before = net["a"].sysctl(RANGE)
    net["a"].run(["true"])
    assert net["a"].sysctl(RANGE) == before


@pytest.mark.parametrize(
    ("family", "protocol"), [(socket.AF_INET, socket.IPPROTO_ICMP), (socket.AF_INET6, socket.IPPROTO_ICMPV6)]
)
@pytest.mark.parametrize("way", ["socket", "call", "ns.entered"])
def test_an_icmp_socket_can_be_opened_in_a_new_node(
    net: Topology, way: str, family: socket.AddressFamily, protocol: int
) -> None:
    arguments = family, socket.SOCK_DGRAM, protocol
    if way == "ns.entered":
        with ns.entered(net["a"]):
            socket.socket(*arguments).close()
    else:
        (net["a"].socket(*arguments) if way == "socket" else net["a"].call(socket.socket, *arguments)).close()


def test_a_ping_without_a_reply_is_false_when_its_time_is_over(chain: Topology) -> None:
    begun = time.monotonic()
    pings = chain["a"].ping("10.0.0.99", count=3, timeout=0.2)
    assert 0.2 <= time.monotonic() - begun < 10
    assert (bool(pings), pings.sent, pings.received, pings.loss, pings.times) == (False, 3, 0, 1.0, (None,) * 3)
    with pytest.raises(LookupError):
        _ = pings.best
    assert not chain["alone"].ping("10.0.0.1", timeout=0.1)  # no route


@pytest.mark.parametrize("seconds", [float("inf"), 1e12, 3e6])
def test_the_time_limit_of_a_ping_may_be_of_any_length(seconds: float) -> None:
    with Topology.build("a -- b delay=5ms", impair="userspace") as net:
        assert net["a"].ping(net["b"], timeout=seconds)


def test_pings_count_what_is_lost() -> None:
    assert (Pings((0.1, None, None, 0.2)).loss, Pings((0.1, None)).best) == (0.5, 0.1)


@pytest.mark.parametrize("service", ["192.0.2.1/32", "192.0.2.1/24", "2001:db8::1/128"])
def test_a_further_address_of_a_host_is_reached_with_routes_from_everywhere(service: str) -> None:
    text = "c -- r; switch s; r(10.9.0.1/24, fd00:9::1/64) -- s; a(10.9.0.2/24, fd00:9::2/64) -- s"
    with Topology.build(f"{text}; b(10.9.0.3/24, fd00:9::3/64, {service}) -- s", routes=True) as net:
        for name in "c", "r", "a", "b":
            assert net[name].ping(service.partition("/")[0], timeout=30)


def test_what_cannot_be_pinged_is_an_error(chain: Topology) -> None:
    with pytest.raises(LookupError):
        chain["a"].ping(chain["alone"])
    for wrong in ("b", "10.0.0.1/24", 7):
        with pytest.raises(InvalidValue) as error:
            chain["a"].ping(wrong)  # type: ignore[arg-type]
        assert error.value.field == "other"
    for count in (0, 70000, 1.5):
        with pytest.raises(InvalidValue) as error:
            chain["a"].ping(chain["b"], count=count)  # type: ignore[arg-type]
        assert error.value.field == "count"
    with Topology.build("x -- y") as closed:
        node = closed["x"]
    with pytest.raises(NetnsNotFound):
        node.ping("10.0.0.1")


@pytest.mark.parametrize(
    ("prepare", "to"),
    [
        ("ip route add blackhole 10.9.0.0/16", "10.9.0.1"),
        ("ip route add prohibit 10.9.0.0/16", "10.9.0.1"),
        ("ip route add unreachable 10.9.0.0/16", "10.9.0.1"),
        ("ip route add throw 10.9.0.0/16", "10.9.0.1"),
        ("ip route add blackhole fd09::/16", "fd09::1"),
        ("ip route add prohibit fd09::/16", "fd09::1"),
        ("ip route add throw fd09::/16", "fd09::1"),
        ("true", "10.0.0.255"),
    ],
)
def test_a_request_that_the_network_refuses_is_not_answered(net: Topology, prepare: str, to: str) -> None:
    net["a"].run(prepare.split())
    pings = net["a"].ping(to, count=2, timeout=0.1)
    assert pings.times == (None, None)


@pytest.mark.needs_module("nf_tables")
@pytest.mark.parametrize(("version", "to"), [(4, "10.0.0.2"), (6, "fd00::2")])
def test_a_request_that_a_firewall_of_the_node_drops_is_not_answered(net: Topology, version: int, to: str) -> None:
    assert net["a"].ping(to)
    net["a"].call(drop_output, version)
    assert net["a"].ping(to, count=2, timeout=0.1).times == (None, None)


@pytest.mark.parametrize("kind", ["prohibit", "unreachable"])
@pytest.mark.parametrize("to", ["10.9.0.1", "fd09::1"])
def test_a_request_that_a_router_rejects_is_not_answered(kind: str, to: str) -> None:
    with Topology.build("a -- r -- b", routes=True) as net:
        net["r"].run(["ip", "route", "add", kind, to])
        assert net["a"].ping(to, count=2, timeout=0.1).times == (None, None)
