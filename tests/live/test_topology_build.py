"""Building topologies: their state in the kernel, that packets arrive, and that nothing is left."""

from __future__ import annotations

import errno
import gc
import ipaddress
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from ipaddress import ip_interface
from pathlib import Path
from typing import Any

import pytest

from tests import witness
from tests.live.descriptors import descriptors_left
from tests.live.offloads import offloads
from tests.live.reaching import all_reach_all, of, reaches
from tests.refusing import raises
from vethlib import InvalidValue, LinkNotFound, NetlinkError, NotPermitted, Session, ns
from vethlib.topology import Description, Member, Node, Port, Topology, Wire, fat_tree, line, mesh, ring, star
from vethlib.topology.design.description import Layout, Route
from vethlib.topology.design.layout import lay_out
from vethlib.topology.design.text import parse
from vethlib.topology.live import build as building
from vethlib.topology.live.settings import Settings


def addresses(node: Node, link: str) -> set[str]:
    (seen,) = of(node, "address", "show", link)
    return {f"{one['local']}/{one['prefixlen']}" for one in seen["addr_info"] if one["scope"] != "link"}


def test_addresses_of_ports_have_the_attributes_that_are_listed_with_them() -> None:
    text = "a(10.0.0.1/24 brd + label eth0:x, 2001:db8::1/64 nodad) -- b(10.0.0.2/24, 2001:db8::2/64 nodad) -- c"
    with pytest.raises(InvalidValue):
        Topology.build(text)
    text = """
    a(10.0.0.1/24 brd + label eth0:x, 2001:db8::1/64 nodad) -- b(10.0.0.2/24, 2001:db8::2/64 nodad)
    b(10.9.0.2 peer 10.9.0.1/32) -- c(10.9.0.1 peer 10.9.0.2/32)
    """
    with Topology.build(text, routes=True) as net:
        (link,) = of(net["a"], "address", "show", "eth0")
        (one,) = [each for each in link["addr_info"] if each["family"] == "inet"]
        assert (one["broadcast"], one["label"]) == ("10.0.0.255", "eth0:x")
        assert (net["a"].ipv4, net["b"].ipv4, net["c"].ipv4) == ("10.0.0.1", "10.0.0.2", "10.9.0.1")
        assert reaches(net["a"], net["b"], "10.0.0.2")
        assert reaches(net["b"], net["a"], "2001:db8::1")
        assert reaches(net["b"], net["c"], "10.9.0.1")


@pytest.mark.parametrize("relayed", [False, True])
def test_links_have_the_fields_of_their_ends(relayed: bool) -> None:
    text = """
    a(default via 10.0.0.2, 10.0.0.9 lladdr 02:00:00:00:00:09) -- b  txqlen=500 mac=02:00:00:00:00:05/ alias=x/y
    b -- c  offload=/off altname=uplink/downlink gso_max_size=4096 sysctl.rp_filter=2/0
    """
    text = text.replace("alias=x/y", "alias=x/y delay=1ms") if relayed else text
    with Topology.build(text, routes=True, impair="userspace") as net:
        (one,), (other,) = (of(net[name], "-d", "link", "show", "eth0") for name in ("a", "b"))
        assert [link["txqlen"] for link in (one, other)] == [500, 500]
        assert (one["address"], one["ifalias"], other["ifalias"]) == ("02:00:00:00:00:05", "x", "y")
        (uplink,), (downlink,) = (
            of(net[name], "-d", "link", "show", link) for name, link in (("b", "uplink"), ("c", "downlink"))
        )
        assert [link["gso_max_size"] for link in (uplink, downlink)] == [4096, 4096]
        assert [
            net[name].sysctl(f"net.ipv4.conf.{link}.rp_filter") for name, link in (("b", "eth1"), ("c", "eth0"))
        ] == ["2", "0"]
        assert any(net["b"].call(offloads, "eth1").values())
        assert not any(net["c"].call(offloads, "eth0").values())
        for _ in range(2):
            assert [route["gateway"] for route in of(net["a"], "route", "show", "default")] == ["10.0.0.2"]
            (neighbour,) = of(net["a"], "neighbour", "show", "to", "10.0.0.9")
            assert (neighbour["lladdr"], neighbour["state"]) == ("02:00:00:00:00:09", ["PERMANENT"])
            net.down("a", "b")
            net.up("a", "b")


BRIDGED = "a(10.0.0.1/24) -- h:p0() master=/lan; h:p1() -- b(10.0.0.2/24) master=lan/"
IMPAIRED = BRIDGED.replace("master=/lan", "master=/lan delay=1ms")


def add_lan(nodes: Mapping[str, Node]) -> None:
    assert names_of_links(nodes["h"]) == {"lo"}
    nodes["h"].run(["ip", "link", "add", "lan", "up", "type", "bridge"])


def names_of_links(node: Node) -> set[str]:
    return {link["ifname"] for link in of(node, "link", "show")}


@pytest.mark.parametrize("relayed", [False, True])
def test_links_are_attached_to_masters_that_are_made_before_there_are_links(relayed: bool) -> None:
    with Topology.build(IMPAIRED if relayed else BRIDGED, impair="userspace", prepare=add_lan) as net:
        assert {link["ifname"] for link in of(net["h"], "link", "show", "master", "lan")} == {"p0", "p1"}
        assert net["a"].ping("10.0.0.2")
        net.down("a", "h")
        net.up("a", "h")
        assert net["a"].ping("10.0.0.2")


def test_a_description_may_have_masters() -> None:
    left = Port("a", addresses=(ip_interface("10.0.0.1/24"),))
    wires = (Wire(left, Port("h", addresses=(), fields={"master": "lan"})),)
    with Topology.build(Description((Member("a"), Member("h")), wires), prepare=add_lan) as net:
        assert [link["ifname"] for link in of(net["h"], "link", "show", "master", "lan")] == ["eth0"]


@pytest.mark.parametrize("text", [BRIDGED, IMPAIRED])
def test_a_topology_whose_master_is_missing_is_refused_with_the_node_and_the_name(text: str) -> None:
    before = witness.open_fds()
    with pytest.raises(LinkNotFound) as refused:
        Topology.build(text, impair="userspace")
    message = str(refused.value)
    assert "node h" in message
    assert "'lan'" in message
    assert "fd:" not in message  # a namespace that nobody knows
    assert message.count("create veth") == 1
    assert witness.open_fds() == before


def test_nothing_is_left_if_the_preparation_fails() -> None:
    started: list[subprocess.Popen[str]] = []

    def fail(nodes: Mapping[str, Node]) -> None:
        started.append(nodes["h"].start(["sleep", "60"]))
        raise ZeroDivisionError

    warm_up = Topology.build("a -- h")  # what is opened once for all
    warm_up["h"].start(["true"]).wait()
    warm_up.close()
    before = witness.open_fds()
    with pytest.raises(ZeroDivisionError):
        Topology.build(BRIDGED, prepare=fail)
    assert started[0].poll() is not None
    assert witness.open_fds() == before


@pytest.mark.parametrize("error", [PermissionError(1, "refused"), KeyboardInterrupt(), MemoryError()])
def test_nothing_is_left_if_a_file_of_a_node_cannot_be_replaced(
    monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    started: list[subprocess.Popen[str]] = []

    def fail(*_: object) -> None:
        raise error

    def begin(nodes: Mapping[str, Node]) -> None:
        started.append(nodes["a"].start(["sleep", "60"]))
        monkeypatch.setattr("vethlib.topology.programs.mounts.View._cover", fail)
        started.append(nodes["b"].start(["sleep", "60"]))

    warm_up = Topology.build("a -- b", hosts=True)  # opens what stays open
    warm_up["a"].start(["true"]).wait()
    warm_up.close()
    before = witness.open_fds()
    with pytest.raises((NotPermitted, type(error))):
        Topology.build("a -- b", hosts=True, prepare=begin)
    assert [program.poll() is None for program in started] == [False]
    assert witness.open_fds() == before


def test_a_resolv_conf_that_is_no_text_is_refused_before_anything_is_created() -> None:
    before = witness.open_fds()
    for wrong in ("\ud800", b"nameserver 10.0.0.1", 7):
        with raises(InvalidValue, field="resolv_conf"):
            Topology.build("a -- b", resolv_conf=wrong, prepare=lambda _: 1 / 0)  # type: ignore[arg-type]
    assert witness.open_fds() == before


def test_programs_of_the_preparation_know_the_nodes_by_name() -> None:
    names: list[str] = []
    with Topology.build(
        "a -- b", hosts=True, prepare=lambda nodes: names.append(nodes["a"].run(["cat", "/etc/hosts"]).stdout)
    ) as net:
        assert f"{net['b'].ipv4}\tb\n" in names[0]


def test_two_nodes_have_a_wire_with_addresses_of_both_families() -> None:
    with Topology.build("a -- b") as net:
        assert addresses(net["a"], "eth0") == {"10.0.0.1/24", "fd00::1/64"}
        assert addresses(net["b"], "eth0") == {"10.0.0.2/24", "fd00::2/64"}
        assert net["a"].ipv4 == "10.0.0.1"
        assert net["b"].ipv6 == "fd00::2"


def test_no_address_is_tentative_when_it_is_built() -> None:
    with Topology.build(ring(8)) as net:
        for node in net.values():
            flags = [one for link in of(node, "-6", "address") for one in link["addr_info"]]
            assert flags
            assert not any("tentative" in one for one in flags)


def test_names_addresses_and_mtu_are_what_the_description_says() -> None:
    with Topology.build("a:wan0(192.0.2.1/30, 2001:db8::1/127) -- b(192.0.2.2/30)  mtu=1400") as net:
        (wan0,) = of(net["a"], "address", "show", "wan0")
        assert wan0["mtu"] == 1400
        assert addresses(net["a"], "wan0") == {"192.0.2.1/30", "2001:db8::1/127"}
        assert addresses(net["b"], "eth0") == {"192.0.2.2/30"}


def test_the_nodes_of_a_switch_are_on_one_bridge_and_reach_each_other() -> None:
    with Topology.build("switch s; a -- s; b -- s; c -- s") as net:
        bridged = [link["ifname"] for link in of(net["s"], "link", "show", "master", "br0")]
        assert bridged == ["eth0", "eth1", "eth2"]
        assert not net["s"].addresses
        assert all_reach_all(net)


def test_switches_may_be_joined_to_each_other() -> None:
    with Topology.build("switch s1 s2; a -- s1 -- s2 -- b") as net:
        assert all_reach_all(net)


@pytest.mark.parametrize(
    "shape",
    [line(4), ring(5), star(3), star(3, hub="router"), mesh(4), fat_tree(2)],
    ids=lambda shape: len(shape.wires),
)
def test_with_routes_every_node_of_every_shape_reaches_every_other(shape: Any) -> None:
    with Topology.build(shape, routes=True) as net:
        assert all_reach_all(net)


@pytest.mark.parametrize("version", [4, 6])
def test_nodes_behind_more_than_63_routers_are_reached_with_a_larger_ttl(version: Any) -> None:
    with Topology.build(line(66), routes=True) as net:
        ends = net["n0"], net["n65"]
        assert ends[0].ping(net["n64"], version=version, timeout=20)
        assert not ends[0].ping(ends[1], version=version, timeout=0.5)
        for node in ends:
            node.sysctl("net.ipv4.ip_default_ttl", 255)
            node.sysctl("net.ipv6.conf.eth0.hop_limit", 255)
        assert ends[0].ping(ends[1], version=version, timeout=20)


def test_without_routes_only_neighbours_reach_each_other() -> None:
    with Topology.build("a -- b -- c") as net:
        assert reaches(net["a"], net["b"], net["b"].ipv4)
        assert not reaches(net["a"], net["c"], net["c"].ipv4)


@pytest.mark.parametrize("text", ["a -- b", "switch s; a -- s; b -- s", "a -- b ipv6=off", "a -- b delay=0ms"])
def test_a_kernel_without_ipv6_has_topologies_with_ipv4(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # As it answers there: new addresses of IPv6 are refused with EOPNOTSUPP.
    monkeypatch.setattr("vethlib.topology.live.topology.lacks_ipv6", lambda: True)
    with Topology.build(text, impair="userspace", routes=True) as net:
        for node in (net["a"], net["b"]):
            assert {address.version for address in node.addresses} == {4}
            families = {
                each["family"]
                for each in of(node, "address", "show", "eth0")[0]["addr_info"]
                if each["scope"] != "link"
            }
            assert families == {"inet"}
        with raises(LookupError):
            print(net["a"].ipv6)
    with Topology.build("a(2001:db8::1/64) -- b(2001:db8::2/64)") as net:  # the kernel itself refuses these there
        assert net["a"].ipv6 == "2001:db8::1"


def test_only_routers_and_nodes_in_between_forward() -> None:
    with Topology.build("router r; a -- r", routes=True) as net:
        assert net["a"].run(["cat", "/proc/sys/net/ipv4/ip_forward"]).stdout == "0\n"
        assert net["r"].run(["cat", "/proc/sys/net/ipv4/ip_forward"]).stdout == "1\n"
        assert net["r"].run(["cat", "/proc/sys/net/ipv6/conf/all/forwarding"]).stdout == "1\n"


def test_a_host_that_forwards_does_not_make_nodes_forward(monkeypatch: pytest.MonkeyPatch) -> None:
    # New namespaces take it over from the host's, which a test cannot change: what is in one is written by hand here.
    monkeypatch.setattr("vethlib.topology.live.settings._fresh", (0.0, {}))
    settings = Settings(forward=False)

    def as_on_such_a_host() -> ns.Descriptor:
        with open("/proc/sys/net/ipv4/ip_forward", "w") as file:
            file.write("1")
        return settings.settle()

    (owner,) = ns.map_in_new(1, as_on_such_a_host)
    with ns.Netns(owner) as netns, netns.entered():
        assert Path("/proc/sys/net/ipv4/ip_forward").read_text() == "0\n"


def test_wire_tells_the_ports_as_seen_from_either_side() -> None:
    with Topology.build("a:x -- b:y; node c") as net:
        assert (net.wire("a", "b").a.link, net.wire("b", "a").a.link) == ("x", "y")
        with raises(LookupError):
            net.wire("a", "c")
        with raises(KeyError):
            net["d"]


@pytest.mark.parametrize("use", [Topology.wire, Topology.down, Topology.up])
def test_a_node_of_another_topology_is_not_taken_for_the_one_of_its_name(use: Callable[..., object]) -> None:
    with Topology.build("a -- b") as net, Topology.build("a -- b") as other:
        for ends in ((other["a"], other["b"]), (net["a"], other["b"]), (other["a"], "b")):
            with raises(LookupError):
                use(net, *ends)
        assert all("UP" in link["flags"] for node in net.values() for link in of(node, "link"))
        use(net, net["a"], "b")


def test_addresses_of_both_families_outlive_a_link_that_flaps() -> None:
    with Topology.build("a -- b") as net:
        for node in net.values():
            node.set("eth0", up=False)
            node.set("eth0", up=True)
        assert addresses(net["b"], "eth0") == {"10.0.0.2/24", "fd00::2/64"}
        assert all(reaches(net["a"], net["b"], one) for one in (net["b"].ipv4, net["b"].ipv6))


def test_a_topology_is_a_mapping_of_its_nodes_and_prints_as_a_picture() -> None:
    with Topology.build("a -- b") as net:
        assert list(net) == ["a", "b"]
        assert len(net) == 2
        assert "eth0" in str(net)
        assert "10.0.0.2" in str(net)


def test_nothing_of_it_is_in_the_namespace_or_the_names_of_the_caller() -> None:
    links, names = witness.names(), ns.names()
    with Topology.build(ring(4)):
        assert witness.names() == links
        assert ns.names() == names


def test_a_bad_description_makes_nothing() -> None:
    before = _descriptors()
    with pytest.raises(InvalidValue):
        Topology.build("a -- a")
    assert _descriptors() == before


def test_what_the_kernel_refuses_halfway_leaves_nothing() -> None:
    # A route through an address that is no neighbour is refused after everything else was built.
    layout = lay_out(parse("a -- b"))
    broken = {"a": (Route(ipaddress.ip_network("10.9.0.0/24"), ipaddress.ip_address("172.16.0.1")),)}
    gc.collect()
    before = _descriptors()
    with Session() as session:
        request = "node a: add the route to 10.9.0.0/24 via 172.16.0.1"
        with raises(NetlinkError, errno=errno.ENETUNREACH, request=request):
            building.build(session, Layout(layout.members, layout.wires, broken, layout.forwarding))
    assert _descriptors() == before


def test_closing_a_topology_closes_every_descriptor_and_twice_is_harmless() -> None:
    gc.collect()
    before = _descriptors()
    net = Topology.build(star(5))
    was_closed = net.closed
    net.close()
    net.close()
    assert (was_closed, net.closed) == (False, True)
    assert _descriptors() == before


def test_more_nodes_than_the_usual_limit_of_open_files() -> None:
    code = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 2048))
from vethlib.topology import Topology, star
with Topology.build(star(100)) as net:
    print(len(net))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "101\n", done.stderr


def test_a_topology_is_built_where_no_descriptor_is_left() -> None:
    with Session() as session, descriptors_left(0), Topology.build("a -- b", session=session) as net:
        assert net["a"].links()


def test_its_session_may_be_somebody_elses_and_stays_open() -> None:
    with Session() as session:
        with Topology.build("a -- b", session=session):
            pass
        assert session.links()


def _descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def test_a_wire_without_ipv6_has_not_even_link_local_addresses(session: Session) -> None:
    with Topology.build("a -- b ipv6=off; a -- c", session=session) as net:
        links = {link.name: link for link in net["a"].links()}
        assert (links["eth0"].ipv6, links["eth1"].ipv6) == (False, True)
        assert {address.version for address in links["eth0"].addresses} == {4}
        assert net["b"].links()[-1].ipv6 is False
