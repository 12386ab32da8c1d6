"""Reading links, addresses and counters, compared with ip, and the kernel's bytes with pyroute2."""

from __future__ import annotations

import errno
import socket
from dataclasses import replace
from ipaddress import ip_interface
from typing import Any

import pytest

from tests.live.answers import edit_answers, refuse_all
from tests.live.sysctls import sysctl, without_link_local
from tests.refusing import raises
from tests.witness import RTM_GETADDR, RTM_GETLINK, decoded, ip, names, poll, raw_dump, seen
from vethlib import End, InvalidValue, Link, LinkNotFound, NetlinkError, Session, Stats, Veth, interface_index, ns
from vethlib._nl.addr import parse_addr
from vethlib._nl.batch import Outcome
from vethlib._nl.const import OPERSTATES
from vethlib._nl.link import parse_link


@pytest.fixture
def zoo(session: Session, blue: str) -> None:
    """A link of each kind that is available here, in blue, once nothing changes any longer."""
    without_link_local("", "blue")
    ends = End("va", "blue", addresses=["10.0.0.1/24", "2001:db8::1/64"], alias="ä b"), End("vb")
    session.create(Veth(*ends), wait=30)
    session.create(Veth(End("vc", "blue", group=9, num_queues=3), End("vd", "blue", up=False)))
    ip("link", "add", "name", "br0", "type", "bridge", netns="blue")
    ip("link", "add", "name", "vx0", "type", "vxlan", "id", "3", "dstport", "4789", netns="blue")
    ip("link", "add", "link", "va", "name", "mv0", "type", "macvlan", netns="blue")
    ip("link", "set", "dev", "vc", "master", "br0", netns="blue")
    ip(
        "link",
        "property",
        "add",
        "dev",
        "va",
        "altname",
        "short",
        "altname",
        "an-alternative-name-of-30-bytes",
        netns="blue",
    )
    ip("address", "add", "10.9.0.1", "peer", "10.9.0.2/32", "dev", "br0", netns="blue")
    ip("address", "add", "10.8.0.1/24", "broadcast", "+", "label", "br0:x", "dev", "br0", netns="blue")
    ip("link", "set", "dev", "lo", "up", netns="blue")
    assert poll(lambda: seen("vc", "blue")["operstate"] == "LOWERLAYERDOWN")  # which it is told later (linkwatch)


def check(link: Link, told: dict[str, Any]) -> None:
    assert (link.index, link.name, link.mac, link.mtu) == (
        told["ifindex"],
        told["ifname"],
        told["address"],
        told["mtu"],
    )
    assert link.kind == told.get("linkinfo", {}).get("info_kind", "")
    assert link.up == ("UP" in told["flags"])
    assert link.operstate == told["operstate"].lower()
    assert link.alias == told.get("ifalias", "")
    assert str(link.group) == told["group"].replace("default", "0")
    assert link.num_queues == told["num_tx_queues"]
    assert list(link.altnames) == told.get("altnames", [])
    assert [one.ip.compressed for one in link.addresses] == [one["local"] for one in told["addr_info"]]
    assert [one.network.prefixlen for one in link.addresses] == [one["prefixlen"] for one in told["addr_info"]]


@pytest.mark.usefixtures("zoo")
def test_every_link_is_listed_as_ip_lists_it(session: Session) -> None:
    told = ip("address", netns="blue")
    links = session.links("blue")
    assert [link.name for link in links] == [one["ifname"] for one in told]
    assert {link.kind for link in links} >= {"", "veth", "bridge", "vxlan", "macvlan"}
    for link, one in zip(links, told, strict=True):
        check(link, one)
        assert link.netns == "blue"
        assert session.lookup(link.name, "blue").index == link.index


@pytest.mark.usefixtures("zoo")
def test_many_links_are_listed_as_ip_lists_them_whatever_some_of_them_differ_in(session: Session) -> None:
    differing: list[dict[str, Any]] = [{"mtu": 1400}, {"alias": "x"}, {"up": False}, {"num_queues": 2}, {"group": 7}]
    ends = [End(f"n{number}", "blue", up=True, num_queues=1) for number in range(100)]
    ends[30:60:6] = [replace(end, **fields) for end, fields in zip(ends[30:60:6], differing, strict=True)]
    session.create_many([Veth(end, End(f"m{number}", up=number != 80)) for number, end in enumerate(ends)])
    for _ in range(3):  # layouts are learnt meanwhile
        for link, one in zip(session.links("blue"), ip("address", netns="blue"), strict=True):
            check(link, one)
            if link.name[0] == "n":  # in the namespace of its peer, ip shows the name of that
                assert (link.peer_index, link.peer_netnsid) == (one["link_index"], one["link_netnsid"])


@pytest.mark.usefixtures("zoo")
def test_only_a_veth_has_a_peer(session: Session) -> None:
    links = {link.name: link for link in session.links("blue")}
    assert links["mv0"].peer_index is None
    assert links["vc"].peer_index == links["vd"].index == seen("vd", "blue")["ifindex"]
    assert links["va"].peer_index == seen("vb")["ifindex"]
    assert links["va"].peer_netnsid == seen("va", "blue")["link_netnsid"]


@pytest.mark.usefixtures("zoo")
@pytest.mark.parametrize("name", ["va", "short", "an-alternative-name-of-30-bytes"])
def test_a_link_is_looked_up_by_its_name_or_an_alternative_one(session: Session, name: str) -> None:
    link = session.lookup(name, "netns:blue")
    assert (link.name, link.netns, link.index) == ("va", "netns:blue", seen("va", "blue")["ifindex"])
    assert link.altnames == ("short", "an-alternative-name-of-30-bytes")
    assert session.stats(name, "blue").rx_errors == 0
    with ns.entered("blue"):
        if len(name) < 16:
            assert interface_index(name) == link.index


def test_what_is_not_there_is_not_found(session: Session, blue: str) -> None:
    for name in ("nope", "an-alternative-name-of-30-bytes"):
        for call in (session.lookup, session.stats, session.details):
            with raises(LinkNotFound, netns="blue") as caught:
                call(name, "blue")
            assert isinstance(caught.value, LookupError)
            assert (caught.value.netns, caught.value.errno) == ("blue", 19)
    for call in (session.lookup, session.stats):
        with pytest.raises(InvalidValue):
            call("a\0b")
    with raises(LinkNotFound, netns="") as caught:
        interface_index("nope")
    assert caught.value.errno == errno.ENODEV


@pytest.mark.usefixtures("zoo")
def test_addresses_are_those_ip_shows(session: Session) -> None:
    told = [
        (link["ifindex"], f"{one['local']}/{one['prefixlen']}", bool(one.get("tentative")))
        for link in ip("address", netns="blue")
        for one in link["addr_info"]
    ]
    found = [(one.index, one.interface, one.tentative) for one in session.addresses("blue")]
    assert sorted((index, str(one)) for index, one, _ in found) == sorted((index, one) for index, one, _ in told)
    assert ip_interface("10.9.0.1/32") in {one for _, one, _ in found}
    assert not any(one.dadfailed for one in session.addresses("blue"))


@pytest.mark.needs_kernel("5.18")
def test_peer_state_and_lifetimes_of_each_address_are_those_ip_shows(session: Session, blue: str) -> None:
    sysctl(blue, "ipv6/conf/all/accept_dad", "0")
    sysctl(blue, "ipv6/conf/default/accept_dad", "0")
    ends = End("va", blue, addresses=["10.0.0.1/24", "10.0.0.2/24"], address_proto=7), End("vb")
    session.create(Veth(*ends), wait=30)

    def has_its_link_local_address() -> bool:
        return any(one["scope"] == "link" and not one.get("tentative") for one in seen("va", blue)["addr_info"])

    assert poll(has_its_link_local_address)
    for text in (
        "10.0.0.1 peer 10.0.0.9/32",
        "10.1.0.1 peer 10.2.0.1/24 valid_lft 900 preferred_lft 0",
        "2001:db8::1 peer 2001:db8::2/128 nodad",
        "2001:db8::3/64 valid_lft 900 preferred_lft 800 nodad",
        "fe80::77/64 nodad",
    ):
        ip("address", "add", *text.split(), "dev", "va", netns=blue)
    told = seen("va", blue)["addr_info"]
    link = session.lookup("va", blue)
    assert link == next(one for one in session.links(blue) if one.name == "va")
    (again,) = session.lookup_many([("va", blue)])
    (surveyed,) = [one for one in session.survey([blue]).links if one.link.name == "va"]
    for ifaddrs in (link.ifaddrs, again.ifaddrs, surveyed.addresses, surveyed.link.ifaddrs):
        assert tuple(one.interface for one in ifaddrs) == link.addresses
        assert len(ifaddrs) == len(told)
        for ours, theirs in zip(ifaddrs, told, strict=True):
            assert str(ours.interface) == f"{theirs['local']}/{theirs['prefixlen']}"
            assert (None if ours.peer is None else str(ours.peer)) == theirs.get("address")
            assert ours.tentative == theirs.get("tentative", False)
            assert ours.deprecated == theirs.get("deprecated", False)
            assert ours.expires == theirs.get("dynamic", False)
            assert ours.secondary == theirs.get("secondary", False)
            for seconds, shown in ((ours.valid, "valid_life_time"), (ours.preferred, "preferred_life_time")):
                assert (2**32 - 1 if seconds is None else seconds) == pytest.approx(theirs[shown], abs=60)
    states = {str(one): one.state for one in link.ifaddrs}
    assert states["10.0.0.1/24"] == states["10.0.0.1 peer 10.0.0.9/32"] == "usable"
    assert states["10.1.0.1 peer 10.2.0.1/24"] == "deprecated"
    assert states["2001:db8::3/64"] == "expiring"
    assert {str(one.interface) for one in link.ifaddrs if one.proto == 7} == {"10.0.0.1/24", "10.0.0.2/24"}
    kernels = [one.interface.ip for one in link.ifaddrs if one.by_kernel]
    assert len(kernels) == 1
    assert str(kernels[0]) not in ("fe80::77", "2001:db8::1")


def test_a_link_whose_addresses_were_not_read_knows_nothing_of_their_state(session: Session) -> None:
    pair = session.create(Veth(End("va", addresses=["10.0.0.1/24"]), End("vb")))
    assert ([str(one) for one in pair.a.addresses], pair.a.ifaddrs) == (["10.0.0.1/24"], ())
    assert pair.a.addresses == session.lookup("va").addresses[:1]
    assert session.lookup_many([("va", "")], addresses=False)[0].ifaddrs == ()


def test_a_link_without_any_ip_has_no_addresses(session: Session) -> None:
    """Where IPv4 and IPv6 were never there: its MTU is too small for both."""
    session.create(Veth(End("va", mtu=68, up=False), End("vb", mtu=68, up=False)))
    ip("link", "set", "dev", "va", "mtu", "68")
    assert session.lookup("va").addresses == ()


def test_the_counters_are_those_ip_shows(session: Session, blue: str) -> None:
    sysctl("", "ipv6/conf/default/disable_ipv6", "1")
    sysctl("blue", "ipv6/conf/default/disable_ipv6", "1")
    veth = Veth(End("va", addresses=["10.0.0.1/24"]), End("vb", "blue", addresses=["10.0.0.2/24"]))
    session.create(veth, wait=30)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for _ in range(5):
            sender.sendto(b"x" * 100, ("10.0.0.2", 9))
    for name, netns in (("va", ""), ("vb", "blue")):
        before, found, after = seen(name, netns)["stats64"], session.stats(name, netns), seen(name, netns)["stats64"]
        assert isinstance(found, Stats)
        for way in ("rx", "tx"):
            for counter in ("packets", "bytes", "errors", "dropped"):  # an answer of ARP may come in between
                assert before[way][counter] <= getattr(found, f"{way}_{counter}") <= after[way][counter]
        assert (found.multicast, found.collisions) == (before["rx"]["multicast"], before["tx"]["collisions"])
        assert found.rx_packets > 5 or found.tx_packets > 5


@pytest.mark.usefixtures("zoo")
def test_the_index_of_a_link_is_that_ip_shows(session: Session) -> None:
    for name in ("va", "br0"):
        assert session.index(name, "blue") == seen(name, "blue")["ifindex"]
    for name in ("short", "an-alternative-name-of-30-bytes"):
        assert session.index(name, "blue") == seen("va", "blue")["ifindex"]
    assert session.index("vb") == seen("vb")["ifindex"] == interface_index("vb")
    with raises(LinkNotFound, netns=""):
        session.index("va")
    with pytest.raises(InvalidValue):
        session.index("a\0b")


@pytest.mark.usefixtures("zoo")
def test_details_are_all_that_the_kernel_says(session: Session) -> None:
    details, told = session.details("short", "blue"), seen("va", "blue")
    assert (details["IFLA_IFNAME"], details["IFLA_MTU"]) == ("va", told["mtu"])
    assert details["index"] == told["ifindex"]
    assert "IFLA_STATS64" in details


def test_a_link_that_goes_between_two_looks_is_not_found(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    session.create(Veth(End("va"), End("vb")))
    answers = [Outcome(19), Outcome(105, "lost")]
    edit_answers(monkeypatch, lambda _, requests, first: [answers[0]] if b"va\0" not in requests[0] else first)
    with raises(LinkNotFound, netns=""):
        session.stats("va")
    assert session.lookup("va").addresses == ()
    answers.pop(0)
    with raises(NetlinkError, errno=errno.ENOBUFS, extack="lost", request="read the counters of 'va'"):
        session.stats("va")
    with raises(NetlinkError, errno=errno.ENOBUFS, extack="lost"):
        session.lookup("va")
    with raises(NetlinkError, errno=errno.ENOBUFS, extack="lost"):
        session.links()


def test_a_look_that_fails_says_so(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_all(monkeypatch, Outcome(12))
    with raises(NetlinkError, errno=errno.ENOMEM):
        session.lookup("va")
    with raises(NetlinkError, errno=errno.ENOMEM):
        session.details("va")


@pytest.mark.usefixtures("zoo")
def test_every_link_the_kernel_shows_is_read_as_pyroute2_reads_it() -> None:
    with ns.entered("blue"):
        raw = raw_dump(RTM_GETLINK)
    assert len(raw) == len(names("blue")) + 1
    for message in raw:
        ours, (theirs,) = parse_link(message[16:]), decoded(message)
        info = theirs.get_attr("IFLA_LINKINFO")
        properties = theirs.get_attr("IFLA_PROP_LIST")
        assert (ours.ifindex, ours.flags) == (theirs["index"], theirs["flags"])
        assert ours.name == theirs.get_attr("IFLA_IFNAME")
        assert ours.mac.hex(":") == theirs.get_attr("IFLA_ADDRESS")
        assert ours.mtu == theirs.get_attr("IFLA_MTU")
        assert ours.link == theirs.get_attr("IFLA_LINK")
        assert ours.link_netnsid == theirs.get_attr("IFLA_LINK_NETNSID")
        assert ours.operstate.upper() == theirs.get_attr("IFLA_OPERSTATE")
        assert ours.operstate in OPERSTATES
        assert ours.kind == (info.get_attr("IFLA_INFO_KIND") if info else "")
        assert ours.alias == (theirs.get_attr("IFLA_IFALIAS") or "")
        assert ours.group == theirs.get_attr("IFLA_GROUP")
        assert ours.num_tx_queues == theirs.get_attr("IFLA_NUM_TX_QUEUES")
        assert list(ours.altnames) == [value for _, value in properties["attrs"]] if properties else not ours.altnames


@pytest.mark.usefixtures("zoo")
def test_every_address_the_kernel_shows_is_read_as_pyroute2_reads_it() -> None:
    with ns.entered("blue"):
        raw = raw_dump(RTM_GETADDR)
    assert len(raw) >= 6
    for message in raw:
        ours, (theirs,) = parse_addr(message[16:]), decoded(message)
        text = str(ip_interface((ours.address, ours.prefixlen)).ip)
        assert text == (theirs.get_attr("IFA_LOCAL") or theirs.get_attr("IFA_ADDRESS"))
        assert (ours.ifindex, ours.prefixlen) == (theirs["index"], theirs["prefixlen"])
        assert ours.flags == theirs.get_attr("IFA_FLAGS")
        assert ours.proto == (theirs.get_attr("IFA_PROTO") or 0)
