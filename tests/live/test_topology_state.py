"""A node as text, for the report of a failure."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.witness import poll
from vethlib import WaitTimeout
from vethlib.topology import Node, Topology, star
from vethlib.topology.live.state import describe


def test_links_addresses_routes_and_counters_are_those_that_ip_tells() -> None:
    with Topology.build("a -- r -- b mtu=1400", routes=True) as net:
        a = net["a"]
        with a.socket(type=socket.SOCK_DGRAM) as sender:
            sender.sendto(b"x" * 100, (net["b"].ipv4, 9))
        lines = describe(a)
        (link,) = json.loads(a.run(["ip", "-j", "-s", "addr", "show", "eth0"]).stdout)
    told = " ".join(next(line for line in lines if line.startswith("eth0")).split())
    addresses = " ".join(f"{one['local']}/{one['prefixlen']}" for one in link["addr_info"])
    assert told == f"eth0 UP mtu 1400 {link['address']} {addresses}"
    routes = [" ".join(line.split()) for line in lines]
    assert "default via 10.0.0.2 dev eth0" in routes
    assert "10.0.0.0/24 dev eth0" in routes
    assert "default via fd00::2 dev eth0" in routes
    counters = next(line for line in lines if line.startswith("  eth0 tx")).split()
    assert int(counters[2]) >= 1
    assert int(counters[3]) >= 142


def test_a_link_that_is_down_is_told_from_one_whose_peer_is() -> None:
    with Topology.build("a -- b") as net:
        net["b"].set("eth0", up=False)
        assert " DOWN " in next(line for line in describe(net["b"]) if line.startswith("eth0"))
        deadline = time.monotonic() + 5
        while " NO-CARRIER " not in next(line for line in describe(net["a"]) if line.startswith("eth0")):
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_names_that_are_no_text_or_would_be_obeyed_by_a_terminal_are_escaped_in_columns() -> None:
    name = os.fsdecode(b"d\xff\x1b[1m")
    with Topology.build("a -- b") as net:
        node = net["a"]
        node.run(["ip", "link", "add", name, "up", "type", "veth", "peer", "name", "p"])
        node.run(["ip", "route", "add", "10.9.0.0/16", "dev", name])
        node.start(["sh", "-c", "sleep 60; :", name])
        lines = describe(node)
    assert all(map(str.isprintable, lines))
    shown = r"d\xff\x1b[1m"
    starts = [next(line for line in lines if line.startswith(f"{start} ")) for start in (shown, "eth0", "lo")]
    assert len({line.index(" mtu ") for line in starts}) == 1
    assert ["10.9.0.0/16", "dev", shown] in [line.split() for line in lines]
    assert any(line.startswith(f"  {shown} rx ") for line in lines)
    assert any(line.startswith(f"  sh -c sleep 60; : {shown} is running") for line in lines)


def test_of_many_links_some_are_shown_and_first_those_that_are_not_up() -> None:
    with Topology.build(star(40, hub="node")) as net:
        net["leaf33"].set("eth0", up=False)
        net["hub"].set("eth35", up=False)
        assert poll(lambda: "DOWN" in operstate(net["hub"], "eth33"))
        lines = describe(net["hub"])
    links = [line.split()[0] for line in lines if " mtu " in line]
    assert ({"eth33", "eth35", "eth0"} <= set(links), len(links) <= 16) == (True, True)
    counted = {line.split()[0] for line in lines if line.startswith("  eth")}
    assert counted <= set(links)
    assert len(lines) < 80
    assert any(f"{41 - len(links)} more" in line for line in lines)


def operstate(node: Node, link: str) -> str:
    (seen,) = json.loads(node.run(["ip", "-j", "link", "show", link]).stdout)
    return str(seen["operstate"])


def test_of_many_addresses_some_are_shown() -> None:
    listed = [f"10.9.0.{number}/24" for number in range(1, 101)]
    with Topology.build(f"a({', '.join(listed)}) -- b()") as net:
        line = next(line for line in describe(net["a"]) if line.startswith("eth0"))
    shown = [word for word in line.split() if word in listed]
    assert 0 < len(shown) <= 16
    assert shown == listed[: len(shown)]
    assert "more" in line


def test_of_many_programs_the_failed_ones_and_the_last_ones_are_shown() -> None:
    with Topology.build("node a") as net:
        node = net["a"]
        failed = [node.start(["sh", "-c", f"exit {code}"]) for code in (3, 4)]
        ended = [node.start(["true", f"{number}"]) for number in range(40)]
        running = [node.start(["sleep", f"1{number:03}"]) for number in range(4)]
        for program in (*failed, *ended):
            program.wait()
        lines = [line.strip() for line in describe(node)]
    programs = lines[lines.index("programs:") + 1 :]
    assert len(programs) <= 16
    assert [line for line in programs if "exit code" in line and "code 0" not in line] == [
        "sh -c exit 3 ended with exit code 3",
        "sh -c exit 4 ended with exit code 4",
    ]
    assert sum("is running" in line for line in programs) == len(running)
    assert any(line.startswith("true 39 ") for line in programs)
    assert not any(line.startswith("true 0 ") for line in programs)


@pytest.mark.parametrize(
    "command",
    ["exit 3 # see /etc/passwd", "cat </proc/nothing", "/bin/false||exit 3", b"exit 3 /", "  false", ["exit 3; /"]],
)
def test_a_command_of_a_shell_is_named_as_it_was_given(command: Any) -> None:
    shown = command[0] if isinstance(command, list) else os.fsdecode(command).strip()
    with Topology.build("node a") as net:
        node = net["a"]
        node.start(command, shell=True, stderr=subprocess.DEVNULL).wait()
        assert any(line.strip().startswith(f"{shown} ended") for line in describe(node))
        with pytest.raises(WaitTimeout) as caught:
            node.wait_listening(80, timeout=0)
    assert f"{shown} ended" in str(caught.value)


@pytest.mark.parametrize("command", ["/bin/true", Path("/bin/true"), ["/bin/true"], [Path("/bin/true")]])
def test_a_program_is_named_without_its_directory(command: Any) -> None:
    with Topology.build("node a") as net:
        net["a"].start(command).wait()
        assert "  true ended with exit code 0" in describe(net["a"])


@pytest.mark.parametrize("count", [100, 20])
def test_of_many_failed_programs_the_last_ones_are_shown(count: int) -> None:
    with Topology.build("node a") as net:
        for program in [net["a"].start(["sh", "-c", "exit 3", f"{number}"]) for number in range(count)]:
            program.wait()
        lines = describe(net["a"])
    assert len([line for line in lines if "exit code 3" in line]) <= 16
    assert any(f"exit 3 {count - 1} ended" in line for line in lines)


def test_a_closed_node_is_a_line_that_says_so() -> None:
    with Topology.build("a -- b") as net:
        net["a"].close()
        assert describe(net["a"]) == ["closed"]


def test_a_node_that_cannot_be_read_is_a_line_that_says_so() -> None:
    with Topology.build("a -- b") as net:
        fd = net["a"].netns.fd
        kept = os.dup(fd)
        os.dup2(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC), fd)  # as a test that closes what is not its own
        try:
            (line,) = describe(net["a"])
        finally:
            os.dup2(kept, fd)
            os.close(kept)
    assert line.startswith("cannot be read: ")


@pytest.mark.parametrize(
    ("network", "via"),
    [
        pytest.param(
            "10.7.0.0/16",
            ["10.0.0.2", "10.0.1.2"],
            marks=pytest.mark.needs_file("/proc/sys/net/ipv4/fib_multipath_use_neigh"),  # CONFIG_IP_ROUTE_MULTIPATH
        ),
        ("fd77::/64", ["fd00::2", "fd00:1::2"]),
    ],
)
def test_a_route_with_several_next_hops_has_their_links(network: str, via: list[str]) -> None:
    with Topology.build("a -- b; a -- c") as net:
        hops = [word for address in via for word in ("nexthop", "via", address)]
        net["a"].run(["ip", "route", "add", network, *hops])
        (line,) = [line for line in describe(net["a"]) if line.lstrip().startswith(network)]
    assert line.endswith("dev eth0, eth1")
