"""The fixtures of the plugin, used as their users use them."""

from __future__ import annotations

import json
import os
import socket
from typing import TYPE_CHECKING

from vethlib import ns
from vethlib.topology import Node

if TYPE_CHECKING:
    from vethlib.pytest_netns import Connected, NetnsFactory, VethFactory


def test_a_node_has_its_loopback_up_and_nothing_else(netns: Node) -> None:
    (lo,) = json.loads(netns.run(["ip", "-j", "link"]).stdout)
    assert lo["ifname"] == "lo"
    assert "UP" in lo["flags"]


def test_inside_a_with_the_thread_is_in_the_node_and_after_it_home(netns: Node, netns_factory: NetnsFactory) -> None:
    home = os.stat("/proc/thread-self/ns/net").st_ino
    other = netns_factory()
    with netns:
        assert os.stat("/proc/thread-self/ns/net").st_ino == netns.netns.identity[1]
        with other, netns:
            assert os.stat("/proc/thread-self/ns/net").st_ino == netns.netns.identity[1]
        assert os.stat("/proc/thread-self/ns/net").st_ino == netns.netns.identity[1]
    assert os.stat("/proc/thread-self/ns/net").st_ino == home


def test_two_nodes_of_a_veth_talk_to_each_other(veth: Connected) -> None:
    a, b = veth
    with b.socket() as server, a.socket() as client:
        server.bind(("10.0.0.2", 7))
        server.listen()
        client.connect(("10.0.0.2", 7))
        accepted, address = server.accept()
        with accepted:
            client.sendall(b"hello")
            assert accepted.recv(5) == b"hello"
    assert address[0] == "10.0.0.1"


def test_another_veth_has_nodes_and_addresses_of_its_own(veth: Connected, veth_factory: VethFactory) -> None:
    other = veth_factory()
    assert {str(one) for link in other.a.links() for one in link.addresses} >= {"10.0.1.1/24", "fd00:1::1/64"}
    assert other.a.netns != veth.a.netns


def test_call_runs_a_function_inside(netns: Node) -> None:
    assert netns.call(lambda number: (number, socket.if_nameindex()), 7) == (7, [(1, "lo")])


def test_a_closed_node_leaves_nothing_behind(netns_factory: NetnsFactory) -> None:
    names = ns.names()
    netns_factory().close()
    assert ns.names() == names
