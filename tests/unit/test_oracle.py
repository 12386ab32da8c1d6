"""pyroute2 as a second opinion: it decodes our messages to what was meant, and we read its messages alike."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.ifstatsmsg import ifstatsmsg
from pyroute2.netlink.rtnl.marshal import MarshalRtnl
from pyroute2.netlink.rtnl.nsidmsg import nsidmsg

from vethlib._nl import addr, link, nsid
from vethlib._nl.batch import Exchange, Limits
from vethlib._nl.const import OPERSTATES
from vethlib._nl.link import NewEnd
from vethlib._nl.trace import decode as trace_decode
from vethlib._nl.wire import attribute

names = st.text("abcdefghijklmnopqrstuvwxyz0123456789._-", min_size=1, max_size=15)
macs = st.binary(min_size=6, max_size=6)
u32 = st.integers(0, 0x7FFF_FFFF)
maybe_u32 = st.none() | u32
ends = st.builds(NewEnd, names.map(str.encode), st.none() | macs, maybe_u32, maybe_u32, maybe_u32)
indexes = st.integers(1, 0x7FFF_FFFF)


def decode(message: bytes) -> Any:
    (decoded,) = MarshalRtnl().parse(message)
    return decoded


def check_end(decoded: Any, end: NewEnd) -> None:
    assert decoded.get_attr("IFLA_IFNAME") == end.name.decode()
    assert decoded.get_attr("IFLA_ADDRESS") == (None if end.mac is None else end.mac.hex(":"))
    assert decoded.get_attr("IFLA_MTU") == end.mtu
    assert decoded.get_attr("IFLA_NUM_TX_QUEUES") == end.num_queues
    assert decoded.get_attr("IFLA_NUM_RX_QUEUES") == end.num_queues
    assert decoded.get_attr("IFLA_GROUP") == end.group


@given(ends, ends, st.none() | st.integers(0, 65535))
def test_a_create_message_says_both_ends(outer: NewEnd, peer: NewEnd, fd: int | None) -> None:
    decoded = decode(link.create_veth(outer, peer, fd))
    assert decoded["header"]["type"] == 16
    assert decoded["header"]["flags"] == 0x1 | 0x8 | 0x200 | 0x400
    check_end(decoded, outer)
    info = decoded.get_attr("IFLA_LINKINFO")
    assert info.get_attr("IFLA_INFO_KIND") == "veth"
    inner = info.get_attr("IFLA_INFO_DATA").get_attr("VETH_INFO_PEER")
    check_end(inner, peer)
    assert inner.get_attr("IFLA_NET_NS_FD") == fd
    assert decoded.get_attr("IFLA_NET_NS_FD") is None


@given(indexes)
def test_set_up_changes_the_up_flag_alone(index: int) -> None:
    decoded = decode(link.set_up(index))
    assert (decoded["index"], decoded["flags"], decoded["change"], decoded["attrs"]) == (index, 1, 1, [])


@given(
    indexes,
    st.none() | names,
    st.none() | st.booleans(),
    st.none() | macs,
    maybe_u32,
    st.none() | st.text("abc def=", min_size=1, max_size=60),
    maybe_u32,
    maybe_u32,
)
def test_set_link_says_what_is_given_and_nothing_else(
    index: int,
    name: str | None,
    up: bool | None,
    mac: bytes | None,
    mtu: int | None,
    alias: str | None,
    group: int | None,
    fd: int | None,
) -> None:
    decoded = decode(
        link.set_link(
            index,
            name=None if name is None else name.encode(),
            up=up,
            mac=mac,
            mtu=mtu,
            alias=None if alias is None else alias.encode(),
            group=group,
            netns_fd=fd,
        )
    )
    wanted = {
        "IFLA_IFNAME": name,
        "IFLA_ADDRESS": None if mac is None else mac.hex(":"),
        "IFLA_MTU": mtu,
        "IFLA_IFALIAS": alias,
        "IFLA_GROUP": group,
        "IFLA_NET_NS_FD": fd,
    }
    assert decoded["header"]["type"] == 19
    assert decoded["index"] == index
    assert (decoded["flags"] & 1, decoded["change"]) == (int(bool(up)), 0 if up is None else 1)
    assert dict(decoded["attrs"]) == {key: value for key, value in wanted.items() if value is not None}


@given(indexes, u32)
def test_set_group_and_delete_group_name_the_group(index: int, group: int) -> None:
    marked, deleted = decode(link.set_group(index, group)), decode(link.delete_group(group))
    assert (marked["index"], marked["change"], marked.get_attr("IFLA_GROUP")) == (index, 0, group)
    assert (deleted["header"]["type"], deleted["index"], deleted.get_attr("IFLA_GROUP")) == (17, 0, group)


@given(indexes, names)
def test_reading_and_deleting_a_link_name_it(index: int, name: str) -> None:
    assert decode(link.delete_link(index))["index"] == index
    assert decode(link.get_link(index))["index"] == index
    by_name = decode(link.get_link(name=name.encode()))
    assert (by_name["index"], by_name.get_attr("IFLA_IFNAME")) == (0, name)
    assert by_name.get_attr("IFLA_EXT_MASK") == 8
    stats = decode(link.get_stats(index))
    assert (stats["header"]["type"], stats["ifindex"], stats["filter_mask"]) == (94, index, 1)


def test_a_dump_may_ask_for_one_kind() -> None:
    decoded = decode(link.dump_links(b"veth"))
    assert decoded["header"]["flags"] == 0x301
    assert decoded.get_attr("IFLA_LINKINFO").get_attr("IFLA_INFO_KIND") == "veth"
    assert decode(link.dump_links()).get_attr("IFLA_LINKINFO") is None


# pyroute2 takes an unspecified IPv4 address for an absent one.
addresses = st.ip_addresses().filter(lambda address: not address.is_unspecified)


@given(indexes, addresses, st.integers(0, 32), st.integers(0, 255))
def test_an_address_message_says_the_address(index: int, address: Any, prefixlen: int, proto: int) -> None:
    decoded = decode(addr.new_addr(index, address.packed, prefixlen, proto))
    assert decoded["header"]["type"] == 20
    assert decoded["family"] == (2 if address.version == 4 else 10)
    assert (decoded["index"], decoded["prefixlen"]) == (index, prefixlen)
    assert ipaddress.ip_address(decoded.get_attr("IFA_LOCAL")) == address
    assert ipaddress.ip_address(decoded.get_attr("IFA_ADDRESS")) == address
    assert decoded.get_attr("IFA_PROTO") == (proto or None)
    gone = decode(addr.del_addr(index, address.packed, prefixlen))
    assert (gone["header"]["type"], gone["index"], gone["prefixlen"]) == (21, index, prefixlen)
    assert ipaddress.ip_address(gone.get_attr("IFA_LOCAL")) == address


@given(st.integers(0, 0x7FFF_FFFF))
def test_an_address_dump_may_be_of_one_link(index: int) -> None:
    decoded = decode(addr.dump_addrs(index))
    assert (decoded["header"]["type"], decoded["header"]["flags"], decoded["index"]) == (22, 0x301, index)


@given(st.integers(0, 65535))
def test_a_namespace_id_is_asked_for_by_fd(fd: int) -> None:
    decoded = decode(nsid.get_nsid(fd))
    assert (decoded["header"]["type"], decoded.get_attr("NETNSA_FD")) == (90, fd)


def encoded(message: Any) -> bytes:
    """The body of a message as pyroute2 encodes it."""
    message.encode()
    return bytes(message.data[16:])


def af_spec(*, disable_ipv6: bool) -> bytes:
    """IFLA_AF_SPEC with the settings of IPv6, which pyroute2 does not encode but reads."""
    conf = bytes(26 * 4) + disable_ipv6.to_bytes(4, "little") + bytes(20 * 4)
    families = attribute(2, attribute(1, bytes(132))) + attribute(10, attribute(1, bytes(4)) + attribute(2, conf))
    spec = attribute(26, families)
    read = decode(link.new_link(bytes(16) + spec)).get_attr("IFLA_AF_SPEC").get_attr("AF_INET6")
    assert read.get_attr("IFLA_INET6_CONF")["disable_ipv6"] == disable_ipv6
    return spec


@given(
    index=indexes,
    flags=st.integers(0, 0xFFFF),
    name=names,
    mac=macs,
    mtu=u32,
    peer=st.none() | u32,
    netnsid=st.none() | st.integers(0, 1000),
    operstate=st.integers(0, 6),
    kind=st.sampled_from(["", "veth", "bridge", "macvlan"]),
    alias=st.text("abc xyz", max_size=40),
    group=u32,
    queues=u32,
    altnames=st.lists(names, max_size=3),
    ipv6=st.none() | st.booleans(),
)
def test_a_link_message_is_read_as_pyroute2_wrote_it(
    index: int,
    flags: int,
    name: str,
    mac: bytes,
    mtu: int,
    peer: int | None,
    netnsid: int | None,
    operstate: int,
    kind: str,
    alias: str,
    group: int,
    queues: int,
    altnames: list[str],
    ipv6: bool | None,
) -> None:
    message = ifinfmsg()
    message["index"], message["flags"] = index, flags
    attrs: list[tuple[str, Any]] = [
        ("IFLA_IFNAME", name),
        ("IFLA_TXQLEN", 1000),
        ("IFLA_ADDRESS", mac.hex(":")),
        ("IFLA_MTU", mtu),
        ("IFLA_GROUP", group),
        ("IFLA_NUM_TX_QUEUES", queues),
        ("IFLA_QDISC", "noqueue"),
    ]
    if peer is not None:
        attrs.append(("IFLA_LINK", peer))
    if netnsid is not None:
        attrs.append(("IFLA_LINK_NETNSID", netnsid))
    if alias:
        attrs.append(("IFLA_IFALIAS", alias))
    if kind:
        attrs.append(("IFLA_LINKINFO", {"attrs": [("IFLA_INFO_KIND", kind)]}))
    if altnames:
        attrs.append(("IFLA_PROP_LIST", {"attrs": [("IFLA_ALT_IFNAME", one) for one in altnames]}))
    message["attrs"] = attrs
    # pyroute2 decodes an operstate to a word but does not encode one.
    body = encoded(message) + b"\5\0\x10\0" + bytes([operstate, 0, 0, 0])
    if ipv6 is not None:
        body += af_spec(disable_ipv6=not ipv6)
    read = link.parse_link(body)
    state = OPERSTATES[operstate]
    if netnsid is not None and peer is None:
        peer = index  # as before Linux 5.2
    expected = index, flags, name, mac, mtu, peer, netnsid, state, kind, alias, group, queues, tuple(altnames)
    assert read == link.LinkMessage(*expected, ipv6=bool(ipv6))
    assert read.up == bool(flags & 1)


@given(indexes, addresses, st.integers(0, 32), st.integers(0, 0xFFFF), st.integers(0, 255), st.booleans())
def test_an_address_message_is_read_as_pyroute2_wrote_it(
    index: int, address: Any, prefixlen: int, flags: int, proto: int, with_peer: bool
) -> None:
    peer = type(address)(int(address) ^ 3) if with_peer else None
    message = ifaddrmsg()
    message["family"] = 2 if address.version == 4 else 10
    message["prefixlen"], message["index"] = prefixlen, index
    message["attrs"] = [("IFA_ADDRESS", str(peer or address)), ("IFA_FLAGS", flags), ("IFA_PROTO", proto)]
    if address.version == 4 or peer is not None:
        message["attrs"].append(("IFA_LOCAL", str(address)))
    body = encoded(message)
    read = addr.parse_addr(body)
    far = b"" if peer is None else peer.packed
    assert read == addr.AddrMessage(index, address.packed, prefixlen, flags, proto, body, far)
    again = addr.restore_addr(read)
    assert (decode(again)["header"]["type"], again[16 : 16 + len(body)]) == (20, body)


@given(st.integers(-1, 100_000))
def test_a_namespace_id_is_read_as_pyroute2_wrote_it(number: int) -> None:
    message = nsidmsg()
    message["attrs"] = [("NETNSA_NSID", number & 0xFFFF_FFFF)]
    assert nsid.parse_nsid(encoded(message)) == (None if number < 0 else number)


@given(st.lists(st.integers(0, 2**64 - 1), min_size=24, max_size=24))
def test_counters_are_read_as_pyroute2_reads_them(values: list[int]) -> None:
    from struct import pack

    from vethlib._nl.wire import attribute, message

    body = bytes(12) + attribute(1, pack("=24Q", *values))
    assert link.parse_stats(body) == tuple(values)
    theirs = ifstatsmsg(message(92, 0, body))
    theirs.decode()
    counters = theirs.get_attr("IFLA_STATS_LINK_64")
    assert (counters["rx_packets"], counters["tx_dropped"]) == (values[0], values[7])


@pytest.mark.parametrize("cut", [0, 3, 15, 17, 21])
def test_a_message_that_is_cut_short_is_malformed_or_read_as_far_as_it_goes(cut: int) -> None:
    whole = link.create_veth(NewEnd(b"a", None, 1500, None, None), NewEnd(b"b", None, None, None, None), 3)[16:]
    try:
        assert link.parse_link(whole[:cut]).name == ""
    except ValueError:
        pass
    with pytest.raises(ValueError):
        addr.parse_addr(whole[: min(cut, 7)])
    with pytest.raises(ValueError):
        nsid.parse_nsid(whole[: min(cut, 4)])
    with pytest.raises(ValueError):
        link.parse_stats(whole[:cut])


def test_numbers_of_a_wrong_size_are_as_good_as_absent() -> None:
    from vethlib._nl.wire import attribute

    read = link.parse_link(bytes(16) + attribute(4, b"\1\0") + attribute(37, b"\1\0"))
    assert (read.mtu, read.link_netnsid) == (0, None)


def test_an_unknown_operstate_and_a_linkinfo_without_a_kind_are_read_as_unknown() -> None:
    from vethlib._nl.wire import attribute

    body = bytes(16) + attribute(16, b"\x63") + attribute(18, attribute(3, b"x")) + attribute(16, b"")
    read = link.parse_link(body)
    assert (read.operstate, read.kind) == ("unknown", "")


def test_the_trace_decodes_a_whole_batch() -> None:
    exchange = Exchange([link.set_up(7), link.get_link(8)], Limits(10_000, 100_000))
    chunk = exchange.next_chunk(3)
    assert chunk is not None
    first, second = trace_decode(bytes(chunk))
    assert (first["index"], second["index"]) == (7, 8)
