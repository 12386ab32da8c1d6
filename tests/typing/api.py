"""The public API as its users write it; mypy checks it, nothing runs it."""

from __future__ import annotations

from ipaddress import IPv4Interface, IPv6Interface
from socket import socket
from typing import assert_type

from vethlib import (
    Address,
    BatchError,
    End,
    IfIndexCache,
    Link,
    LinkEvent,
    Netns,
    NewAddress,
    Pair,
    Session,
    Stats,
    Veth,
    VethError,
    interface_index,
    ns,
)
from vethlib.agent import Configurator, Interface, PacketPort, Status, StatusChange
from vethlib.pytest_netns import Connected, NetnsFactory, Node, Topology, TopologyFactory
from vethlib.topology import Impairment, ring


def imperative(session: Session, netns: Netns) -> None:
    veth = Veth(End("a", netns=netns, mtu=1500, addresses=["10.0.0.1/24"]), End("b", "pid:42", up=False, ipv6=False))
    pair = session.create(veth, wait=1.5)
    assert_type(pair, Pair)
    a, b = pair
    assert_type(a, Link)
    assert_type(b.peer_index, int | None)
    assert_type(a.addresses, tuple[IPv4Interface | IPv6Interface, ...])
    assert_type(session.create_many([veth], on_error="continue", progress=print), list[Pair])
    assert_type(session.create_many([veth], together=True)[0].a.ipv6, bool)
    assert_type(session.lookup("a", netns), Link)
    assert_type(session.lookup_many([("a", netns), ("b", "ns1")], addresses=False), list[Link])
    assert_type(session.index("a", netns), int)
    assert_type(session.links("ns1"), list[Link])
    assert_type(session.addresses(), list[Address])
    assert_type(session.set("a", netns=None, up=True, addresses=[IPv4Interface("10.0.0.1/24")]), Link)
    assert_type(session.move("a", to="ns2"), Link)
    assert_type(session.move("a", to="ns2", name="b"), Link)
    assert_type(session.set("a", offload=False), Link)
    peer = NewAddress("10.0.0.1", peer="10.0.0.2/32", scope="link")
    assert_type(session.set("a", addresses=[peer, NewAddress("10.0.1.1/24", broadcast="+", valid=600)]), Link)
    assert_type(session.stats("a"), Stats)
    assert_type(session.socket("blue"), socket)
    assert_type(session.set(a, mtu=1400), Link)
    assert_type(session.lookup_many([a, veth.b, ("b", None)]), list[Link])
    assert_type(session.move(veth.a, to=netns), Link)
    session.set_many([("a", "ns1"), ("b", netns), a, veth.b], mtu=1400)
    session.delete("a", missing_ok=True)
    session.delete(b)
    session.delete_many([("a", "ns1"), ("b", netns), ("c", "", 7), a])
    assert_type(interface_index("lo"), int)


async def caching(session: Session, netns: Netns) -> None:
    with IfIndexCache(session) as cache:
        cache.watch("ns1")
        cache.watch_all(["", netns, None])
        assert_type(cache.index("a", "ns1"), int)
        assert_type(cache.name(7, netns), str)
        assert_type(cache.name(cache.link("a")), str)
        assert_type(cache.links("ns1"), list[Link])
        assert_type(cache.poll(timeout=0.5), list[LinkEvent])
        async for event in cache.events():
            assert_type(event.link, Link | None)


def configuring(session: Session) -> None:
    with Configurator(session, label="mine", missing_netns="wait") as configurator:
        configurator.put(Interface("a", "b"))
        configurator.delete("a")
        configurator.resync([Interface("a", "b")])
        assert_type(configurator.poll(timeout=0.5), dict[str, Status | None])
        assert_type(configurator.status("a"), list[Status])
        assert_type(configurator.due(), float | None)
        assert_type(configurator.indexes.index("a"), int)
        assert_type(configurator.subscribe().take(), list[StatusChange])
        assert_type(configurator.attach(PacketPort("a", session=session)).link, Link | None)


def errors(error: BatchError) -> None:
    for one in error.exceptions:
        assert_type(one, VethError)
        assert_type(one.item, object)


def namespaces() -> None:
    with Netns.create("blue") as blue, ns.entered(blue), blue.entered():
        assert_type(ns.names(), list[str])
    assert_type(Netns.anonymous().identity, tuple[int, int])
    assert_type(Netns.anonymous().socket(), socket)
    ns.remove("blue", missing_ok=True)


def topologies(topology: TopologyFactory, veth: Connected, netns: Node, netns_factory: NetnsFactory) -> None:
    net = topology("a -- b", routes=True)
    assert_type(net, Topology)
    assert_type(net["a"], Node)
    assert_type(topology.ring(3, mtu=1400, ipv6=False)["n0"].ipv4, str)
    assert_type(topology.star(3, hub="router"), Topology)
    a, b = veth
    assert_type(a, Node)
    assert_type(b.socket(), socket)
    assert_type(netns.run(["true"]).stdout, str)
    assert_type(netns.call(len, "text"), int)
    assert_type(netns.submit(len, "text").result(), int)
    assert_type(netns.links(), list[Link])
    assert_type(netns.set("eth0", up=False), Link)
    assert_type(netns_factory("x").stats("lo"), Stats)
    wire = net.wire("a", "b")
    assert_type(wire.a.link, str)
    wire.set(delay="20ms", loss=0.01, limit=50, towards=a)
    assert_type(wire.impairment("a"), Impairment)
    assert_type(wire.clear(), None)
    assert_type(a.ping(b, count=3, timeout=1).received, int)
    assert_type(a.address(towards="10.0.0.2", version=4), str)
    assert_type(a.wait_for(lambda: 7, timeout=1), int)
    assert_type(a.sysctl("net.ipv4.ip_forward", True), str)
    assert_type(a.route("default", via=b), None)
    with Topology.build(ring(3)) as built, built["n0"] as entered:
        assert_type(entered, Node)
