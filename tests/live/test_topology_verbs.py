"""The methods of a node for tests: wait, sysctls, routes, addresses, and the names of nodes in programs."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from enum import IntEnum
from functools import partial
from ipaddress import ip_network
from typing import Any

import pytest

from tests.live.plugin import UNPRIVILEGED
from tests.refusing import raises
from tests.witness import ip, poll
from vethlib import InvalidValue, LinkNotFound, NetlinkError, NetnsNotFound, NotPermitted, WaitTimeout
from vethlib.topology import Node, Topology


@pytest.fixture(scope="module")
def chain() -> Iterator[Topology]:
    with Topology.build("a -- r -- b; a -- c; node alone", routes=True) as net:
        yield net


@pytest.fixture
def net() -> Iterator[Topology]:
    with Topology.build("a -- r -- b") as built:
        yield built


@pytest.mark.parametrize("wrong", ["b", "10.0.0.1/24", 7, "fe80::1"])
@pytest.mark.parametrize("field", ["other", "towards", "via"])
def test_a_wrong_address_is_an_error_of_the_argument_that_has_it(chain: Topology, field: str, wrong: Any) -> None:
    use: dict[str, Callable[[Any], object]] = {
        "other": chain["a"].ping,
        "towards": lambda to: chain["a"].address(towards=to),
        "via": lambda via: chain["a"].route("10.9.0.0/16", via=via),
    }
    with raises(InvalidValue, field=field, value=wrong):
        use[field](wrong)


class _Port(IntEnum):
    HTTP = 80


def test_the_port_of_a_listener_may_be_a_member_of_an_enumeration(chain: Topology) -> None:
    with chain["a"].socket() as server:
        server.bind(("", _Port.HTTP))
        server.listen()
        chain["a"].wait_listening(_Port.HTTP)


@pytest.mark.parametrize("port", ["80", 0, -1, 65536, True, None, 80.0])
def test_a_port_that_no_listener_can_have_is_refused_at_once(chain: Topology, port: Any) -> None:
    with raises(InvalidValue, field="port", value=port):
        chain["a"].wait_listening(port)


async def _coroutine() -> bool:
    return False


@pytest.mark.parametrize("function", [_coroutine, lambda: _coroutine(), partial(_coroutine)])
@pytest.mark.parametrize("use", ["wait_for", "call", "submit"])
def test_a_coroutine_function_is_refused(chain: Topology, use: str, function: Any) -> None:
    with pytest.raises(TypeError) as caught:
        result = getattr(chain["a"], use)(function)
        if use == "submit":
            result.result()
    assert "coroutine function" in str(caught.value)


def test_a_link_local_address_has_its_link_in_the_node() -> None:
    with Topology.build("a -- b; a:wan -- c") as net:
        a, b = net["a"], net["b"]
        (seen,) = ip("-6", "addr", "show", "dev", "eth0", netns=b.netns)
        theirs = next(one["local"] for one in seen["addr_info"] if one.get("scope") == "link")
        (seen,) = ip("-6", "addr", "show", "dev", "eth0", netns=a.netns)
        mine = next(one["local"] for one in seen["addr_info"] if one.get("scope") == "link")
        # Addresses that the kernel has chosen are usable some time after the topology is.
        assert poll(lambda: bool(a.ping(f"{theirs}%eth0", timeout=0.1)))
        for link in ("eth0", seen["ifindex"]):
            assert a.ping(f"{theirs}%{link}")
            assert a.address(towards=f"{theirs}%{link}") == mine
        assert not a.ping(f"{theirs}%wan", timeout=0.1)
        assert not a.ping(f"{theirs}%lo", timeout=0.1)
        for method in (a.ping, lambda to: a.address(towards=to)):
            with pytest.raises(LinkNotFound):
                method(f"{theirs}%none")
            with pytest.raises(InvalidValue):
                method(theirs)
        a.route("fd77::/64", via=f"{theirs}%eth0")
        a.route("fd78::/64", via=theirs, link="eth0")
        routes = ip("-6", "route", netns=a.netns)
        assert {(one["dst"], one["gateway"], one["dev"]) for one in routes if "gateway" in one} == {
            ("fd77::/64", theirs, "eth0"),
            ("fd78::/64", theirs, "eth0"),
        }


@pytest.mark.parametrize("addresses", ["fe80::{}/64, 10.0.0.{}/24", "fe80::{}/64, fd00:7::{}/64", "fe80::{}/64"])
def test_a_node_is_reached_by_an_address_that_needs_no_link_if_it_has_one(addresses: str) -> None:
    of = {number: addresses.format(number, number) for number in (1, 2, 3, 4)}
    with Topology.build(f"x(fe80::9/64) -- a(fe80::8/64); a({of[1]}) -- b({of[2]})") as net:
        a, b = net["a"], net["b"]
        assert a.ping(b)
        assert b.ping(a)
        if "," in addresses:
            assert a.address(towards=b) == of[1].split(", ")[-1].partition("/")[0]
        else:
            with pytest.raises(LookupError):
                net["x"].ping(b)
        if "fd00" in addresses:
            assert b.ipv6 == "fd00:7::2"


@pytest.mark.parametrize(
    "text",
    [
        "switch s; a(fe80::1/64) -- s; b(fe80::2/64) -- s; c(fe80::3/64) -- s",
        "switch s t; a(fe80::1/64) -- s -- t -- b(fe80::2/64); t -- c(fe80::3/64)",
        "switch s; x(fe80::9/64) -- a(fe80::8/64); a(fe80::1/64) -- s; x(fe80::7/64) -- b(fe80::6/64);"
        "b(fe80::2/64) -- s",
    ],
)
def test_a_node_behind_a_switch_is_reached_by_an_address_that_needs_a_link(text: str) -> None:
    with Topology.build(text) as net:
        a, b = net["a"], net["b"]
        (link,) = (
            one["ifname"]
            for one in ip("-6", "addr", "show", netns=a.netns)
            if any(address["local"] == "fe80::1" for address in one["addr_info"])
        )
        assert a.ping(f"fe80::2%{link}")
        assert a.ping(b)
        assert b.ping(a)
        source = a.address(towards=b)
        (seen,) = ip("-6", "addr", "show", "dev", link, netns=a.netns)
        assert source in {address["local"] for address in seen["addr_info"]}


def test_no_address_that_needs_a_link_leads_over_a_router() -> None:
    with (
        Topology.build("switch s t; a(fe80::1/64) -- s; r -- s; r -- t; b(fe80::2/64) -- t") as net,
        pytest.raises(LookupError),
    ):
        net["a"].ping(net["b"])


def test_programs_know_no_node_by_an_address_that_needs_a_link() -> None:
    with Topology.build("a(fe80::1/64, 10.0.0.1/24) -- b(fe80::2/64, 10.0.0.2/24)", hosts=True) as net:
        names = net["a"].run(["cat", "/etc/hosts"]).stdout
        assert "10.0.0.2\tb\n" in names
        assert "fe80" not in names


def test_programs_and_functions_of_a_node_may_ping_without_privilege(net: Topology) -> None:
    script = "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP)"
    net["b"].run([*UNPRIVILEGED, sys.executable, "-c", script])
    net["a"].call(socket.socket, socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP).close()


def test_the_address_towards_a_node_is_the_one_that_it_sees(chain: Topology) -> None:
    a, b, c, r = (chain[name] for name in "abcr")
    assert (a.address(towards=r), a.address(towards=c)) == ("10.0.0.1", "10.0.2.1")
    assert a.address(towards=b) == a.address(towards="10.0.1.2") == "10.0.0.1"
    assert (a.address(towards=c, version=6), r.address(towards=b, version=6)) == ("fd00:2::1", "fd00:1::1")
    with b.socket(type=socket.SOCK_DGRAM) as server, a.socket(type=socket.SOCK_DGRAM) as client:
        server.bind(("", 7))
        server.settimeout(5)
        client.sendto(b"x", (b.address(towards=a), 7))
        assert server.recvfrom(10)[1][0] == a.address(towards=b)
    for node, towards in ((a, chain["alone"]), (chain["alone"], a)):
        with pytest.raises(LookupError):
            node.address(towards=towards)


def test_a_condition_is_called_in_the_node_until_it_holds(net: Topology) -> None:
    a, r = net["a"], net["r"]
    calls: list[set[str]] = []

    def condition() -> int:
        calls.append({name for _, name in socket.if_nameindex()})
        if len(calls) == 1:
            raise ConnectionRefusedError
        return len(calls) if len(calls) > 3 else 0

    assert r.wait_for(condition) == 4
    assert calls == [{"lo", "eth0", "eth1"}] * 4

    def serve_later() -> socket.socket:
        time.sleep(0.2)
        return socket.create_server(("", 7))

    server = r.submit(serve_later)
    a.wait_for(lambda: socket.create_connection((r.ipv4, 7), timeout=5), timeout=20).close()
    server.result().close()


def test_a_condition_that_never_holds_is_a_timeout_with_its_cause(net: Topology) -> None:
    def refused() -> bool:
        raise ConnectionRefusedError("nobody listens")

    with raises(WaitTimeout, awaited="condition", name="a", seconds=0.1) as timeout:
        net["a"].wait_for(refused, timeout=0.1)
    assert isinstance(timeout.value.__cause__, ConnectionRefusedError)
    with pytest.raises(WaitTimeout) as timeout:
        net["a"].wait_for(lambda: False, timeout=0)
    assert timeout.value.__cause__ is None
    with pytest.raises(TypeError):
        net["a"].wait_for(lambda: 1 + "1")  # type: ignore[operator]


def test_a_node_that_is_closed_is_not_waited_for(net: Topology) -> None:
    net["a"].close()
    called: list[int] = []
    with pytest.raises(NetnsNotFound):
        net["a"].wait_for(lambda: called.append(1), timeout=60)
    assert not called


def test_a_sysctl_is_the_node_s_own(net: Topology) -> None:
    a, b = net["a"], net["b"]
    assert a.sysctl("net.ipv4.ip_forward") == "0"
    assert a.sysctl("net.ipv4.ip_forward", 1) == "1"
    assert a.sysctl("net/ipv4/conf/eth0/rp_filter", "2") == "2"
    assert a.sysctl("net.ipv4.ip_forward", False) == "0"
    assert a.run(["cat", "/proc/sys/net/ipv4/conf/eth0/rp_filter"]).stdout == "2\n"
    assert b.sysctl("net.ipv4.conf.eth0.rp_filter") == "0"
    assert a.sysctl("net.ipv4.ping_group_range").split()[0] == "0"


def test_a_sysctl_that_is_a_list_can_be_emptied(net: Topology) -> None:
    assert net["a"].sysctl("net.ipv4.ip_local_reserved_ports", "8080") == "8080"
    assert net["a"].sysctl("net.ipv4.ip_local_reserved_ports", "") == ""


def test_a_sysctl_that_can_only_be_written_is_written_and_returned_as_given(net: Topology) -> None:
    assert net["a"].sysctl("net.ipv4.route.flush", 1) == "1"
    with pytest.raises(NotPermitted):
        net["a"].sysctl("net.ipv4.route.flush")


@pytest.mark.parametrize(
    ("name", "value", "field"),
    [
        ("kernel.hostname", None, "name"),
        ("net", None, "name"),
        ("net..ipv4", None, "name"),
        ("net/../kernel/hostname", None, "name"),
        ("net.ipv4.no_such", None, "name"),
        ("net.ipv4.conf", 1, "name"),
        ("net.ipv4.ip_forward", "maybe", "value"),
        ("net.ipv4.ip_forward", "\udc80", "value"),
        ("net.ipv4.ip_forward", "1\ud800", "value"),
        ("net.ipv4.ip_forward", b"1", "value"),
        ("net.ipv4.ip_forward", "", "value"),
        ("net.ipv4.tcp_congestion_control", "no_such", "value"),  # the kernel says ENOENT
        ("net.ipv6.conf.all.stable_secret", "no address", "value"),  # and here EIO
        (7, None, "name"),
    ],
)
def test_another_sysctl_or_value_is_refused(net: Topology, name: Any, value: Any, field: str) -> None:
    with pytest.raises(InvalidValue) as wrong:
        net["a"].sysctl(name, value)
    assert wrong.value.field == field


def routes(node: Node, *words: str) -> list[dict[str, Any]]:
    found = [route for route in ip(*words, "route", netns=node.netns) if route.get("protocol") == "static"]
    return [{key: route[key] for key in ("dst", "gateway", "dev", "metric") if key in route} for route in found]


def test_routes_are_added_replaced_and_removed(net: Topology) -> None:
    a, r, b = net["a"], net["r"], net["b"]
    r.sysctl("net.ipv4.ip_forward", 1)
    a.route("default", via=r)
    b.route("10.0.0.0/24", via=r.address(towards=b))
    assert a.ping(b)
    assert routes(a) == [{"dst": "default", "gateway": "10.0.0.2", "dev": "eth0"}]
    a.route("10.9.0.0/16", via="10.0.0.2", metric=7)
    a.route("10.9.0.0/16", link="eth0", metric=7)
    a.route("10.9.0.1", via=r)
    assert routes(a)[1:] == [
        {"dst": "10.9.0.0/16", "dev": "eth0", "metric": 7},
        {"dst": "10.9.0.1", "gateway": "10.0.0.2", "dev": "eth0"},
    ]
    a.remove_route("10.9.0.0/16", metric=7)
    a.remove_route("10.9.0.1", via=r)
    a.remove_route("default")
    assert routes(a) == []
    a.remove_route("default", missing_ok=True)
    with pytest.raises(NetlinkError):
        a.remove_route("default")


def test_routes_of_ipv6_are_added_too(net: Topology) -> None:
    a, r, b = net["a"], net["r"], net["b"]
    r.sysctl("net.ipv6.conf.all.forwarding", 1)
    a.route("fd00:1::/64", via=r)
    b.route("default", via=r.address(towards=b, version=6))
    assert a.ping(b, version=6)
    a.route("fd00:9::/64", link="eth0", metric=7)
    assert [route["dst"] for route in ip("-6", "route", netns=a.netns) if route["dst"].startswith("fd00:9")]


@pytest.mark.parametrize(
    ("destination", "given", "field"),
    [
        ("default", {}, "via"),
        ("10.0.0.1/24", {"via": "10.0.0.2"}, "destination"),
        ("b", {"via": "10.0.0.2"}, "destination"),
        ("fd00:9::/64", {"via": "10.0.0.2"}, "via"),
        ("10.9.0.0/16", {"via": "r"}, "via"),
        ("10.9.0.0/16", {"via": "10.0.0.2", "metric": 0}, "metric"),
    ],
)
def test_a_wrong_route_names_its_field(net: Topology, destination: str, given: Any, field: str) -> None:
    with pytest.raises(InvalidValue) as wrong:
        net["a"].route(destination, **given)
    assert wrong.value.field == field
    assert routes(net["a"]) == []


@pytest.mark.parametrize("wrong", [1, True, b"\x0a\x09\0\1", ("10.9.0.0", 16), None])
def test_a_destination_is_a_text_or_a_network(net: Topology, wrong: Any) -> None:
    network: Any = ip_network("10.9.0.0/16")
    for change in (net["a"].route, net["a"].remove_route):
        with raises(InvalidValue, field="destination"):
            change(wrong, link="eth0")
        change(network, link="eth0")


def test_a_route_that_the_kernel_refuses_is_an_error(net: Topology) -> None:
    with pytest.raises(NetlinkError):
        net["a"].route("10.9.0.0/16", via="10.77.0.1")
    with pytest.raises(LinkNotFound):
        net["a"].route("10.9.0.0/16", link="eth9")


def test_programs_resolve_the_names_of_nodes_and_have_the_name_server_that_is_given() -> None:
    with Topology.build("a -- b", hosts=True, resolv_conf="nameserver 10.0.0.2\n") as net:
        assert net["a"].run(["getent", "hosts", "b"]).stdout.split()[1] == "b"
        for node in net.values():
            assert node.run(["cat", "/etc/resolv.conf"]).stdout == "nameserver 10.0.0.2\n"
    with Topology.build("a -- b", resolv_conf="nameserver 10.0.0.7\n") as net:
        assert net["a"].run(["cat", "/etc/resolv.conf"]).stdout == "nameserver 10.0.0.7\n"
        with pytest.raises(subprocess.CalledProcessError):
            net["a"].run(["grep", "-w", "b", "/etc/hosts"])
    with pytest.raises(InvalidValue) as wrong:
        Topology.build("a -- b", resolv_conf=["10.0.0.7"])  # type: ignore[arg-type]
    assert wrong.value.field == "resolv_conf"


def test_the_fixtures_pass_the_name_server_on(topology: Any) -> None:
    net = topology("a -- b", resolv_conf="nameserver 10.0.0.2\n")
    assert json.dumps(net["b"].run(["cat", "/etc/resolv.conf"]).stdout) == '"nameserver 10.0.0.2\\n"'
