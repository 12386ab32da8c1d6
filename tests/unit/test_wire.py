"""Messages and attributes as bytes."""

from __future__ import annotations

import errno
from collections.abc import Callable
from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.refusing import raises
from vethlib._nl.addr import parse_addr
from vethlib._nl.const import (
    IFLA_BROADCAST,
    IFLA_GRO_MAX_SIZE,
    IFLA_GSO_MAX_SEGS,
    IFLA_LINKMODE,
    NLA_F_NESTED,
    RT_TABLE_MAIN,
    RTA_ENCAP,
    RTA_GATEWAY,
    RTA_NH_ID,
    RTA_VIA,
    RTN_UNICAST,
)
from vethlib._nl.dependents.attached import parse_mounted, parse_qdisc
from vethlib._nl.dependents.port import port_settings
from vethlib._nl.dependents.route import parse_route
from vethlib._nl.link import parse_link
from vethlib._nl.wire import (
    HEADER,
    MOST_OF_A_NEST,
    Template,
    attribute,
    attributes,
    attributes_of,
    hole,
    message,
    messages,
    nest,
)
from vethlib.errors import Malformed


@given(st.lists(st.tuples(st.integers(1, 0x3FFF), st.binary(max_size=40)), max_size=8))
def test_attributes_are_read_back_as_they_were_written(pairs: list[tuple[int, bytes]]) -> None:
    data = b"".join(attribute(kind, payload) for kind, payload in pairs)
    assert [(kind, data[a:z]) for kind, a, z in attributes(data, 0, len(data))] == pairs


@given(st.lists(st.tuples(st.integers(16, 200), st.integers(0, 0xFFFF), st.binary(max_size=40)), max_size=6))
def test_messages_are_read_back_as_they_were_written(parts: list[tuple[int, int, bytes]]) -> None:
    data = b"".join(message(kind, flags, body) for kind, flags, body in parts)
    assert [(kind, flags, data[a:z]) for kind, flags, _seq, a, z in messages(data)] == parts


@given(st.binary(max_size=64))
def test_arbitrary_bytes_are_read_or_refused_but_never_read_past_their_end(data: bytes) -> None:
    try:
        for _kind, _flags, _seq, start, end in messages(data):
            assert 0 <= start <= end <= len(data)
            for _attr, first, last in attributes(data, start, end):
                assert start <= first <= last <= end
    except Malformed:
        pass


def test_a_header_that_is_cut_short_is_malformed() -> None:
    with raises(Malformed, errno=errno.EBADMSG):
        list(messages(b"\1\2\3"))


def test_a_message_that_claims_more_than_there_is_is_malformed() -> None:
    with raises(Malformed, errno=errno.EBADMSG):
        list(messages(HEADER.pack(99, 16, 0, 0, 0)))


def test_an_attribute_shorter_than_its_header_is_malformed() -> None:
    with raises(Malformed, errno=errno.EBADMSG):
        list(attributes(b"\3\0\1\0", 0, 4))


def test_the_flags_of_an_attribute_are_not_part_of_its_type() -> None:
    data = attribute(18 | NLA_F_NESTED, b"")
    assert [kind for kind, _, _ in attributes(data, 0, len(data))] == [18]


def test_a_template_is_what_the_same_attributes_are_one_by_one() -> None:
    template = Template(16, 5, [b"head", *hole(3, "16s"), *nest(18, [attribute(1, b"veth\0"), *hole(4, "I")])])
    by_hand = b"head" + attribute(3, b"eth0".ljust(16, b"\0"))
    by_hand += attribute(18 | NLA_F_NESTED, attribute(1, b"veth\0") + attribute(4, (1500).to_bytes(4, "little")))
    assert template.fill((b"eth0", 1500)) == message(16, 5, by_hand)


def test_a_hole_of_an_odd_size_is_padded() -> None:
    filled = Template(16, 0, [*hole(1, "6s"), *hole(2, "B")]).fill((b"\2\0\0\0\0\1", 7))
    assert [(kind, filled[a:z]) for kind, a, z in attributes(filled, 16, len(filled))] == [
        (1, b"\2\0\0\0\0\1"),
        (2, b"\7"),
    ]


def wrapped(length: int, inside: bytes) -> bytes:
    """A nest (IFLA_LINKINFO) above 64 KiB as the kernel writes it: its length is truncated to 16 bits."""
    content = (inside * (70_000 // len(inside) + 1))[:length]
    return pack("=HH", (4 + length) & 0xFFFF, 18) + content


@pytest.mark.parametrize("length", [65_532, 65_533, 65_536, 65_540, 65_600, 70_000])
@pytest.mark.parametrize(
    "inside",
    [b"\0" * 8, b"\xff" * 8, attribute(3, b"forged"), attribute(20, b"forged"), attribute(53, b"x"), b"\4\0\1\0"],
)
def test_a_message_that_the_kernel_garbled_is_read_as_far_as_it_is_right(length: int, inside: bytes) -> None:
    body = bytes(16) + attribute(3, b"real\0") + attribute(20, b"mark\0") + wrapped(length, inside)
    assert len(body) > MOST_OF_A_NEST
    link = parse_link(body)
    assert (link.name, link.alias, link.kind) == ("real", "mark", "")
    assert parse_mounted(body).master == 0
    parse_route(body)
    assert len(list(attributes_of(body, 16))) <= 256


@pytest.mark.parametrize("kind", [IFLA_BROADCAST, IFLA_LINKMODE, IFLA_GSO_MAX_SEGS, IFLA_GRO_MAX_SIZE])
@pytest.mark.parametrize("size", [0, 2, 3, 5, 8, 2000, 60_000])
def test_what_passes_for_a_setting_of_another_size_is_none(kind: int, size: int) -> None:
    body = bytes(16) + attribute(kind, b"\xff" * size)
    assert parse_mounted(body).settings == parse_mounted(bytes(16)).settings


def test_a_message_of_ordinary_size_has_to_make_sense() -> None:
    with pytest.raises(Malformed):
        parse_link(bytes(16) + attribute(3, b"real\0") + b"\3\0\0\0")


@pytest.mark.parametrize(
    ("link", "netnsid", "read"),
    [(None, None, None), (None, 0, 7), (None, -1, 7), (3, 0, 3), (0, 0, 0), (3, None, 3)],
)
def test_a_peer_in_another_namespace_that_is_not_named_has_the_same_index(
    link: int | None, netnsid: int | None, read: int | None
) -> None:
    """Before Linux 5.2, such a peer's index is left out."""
    body = pack("=BxHiII", 0, 1, 7, 0, 0)
    body += b"" if link is None else attribute(5, pack("=I", link))
    body += b"" if netnsid is None else attribute(37, pack("=i", netnsid))
    for _ in range(3):  # the layout of a message is learnt
        assert (parse_link(body).link, parse_link(body).link_netnsid) == (read, netnsid)


def test_only_the_settings_of_a_port_of_a_bridge_are_sent_again() -> None:
    settings = attribute(3, pack("=I", 77)) + attribute(33, b"\1")
    reported = attribute(1, b"\3") + settings + attribute(17, b"\1\x80") + attribute(24, b"") + attribute(35, b"\0")

    def port_of(kind: bytes, data: bytes, behind: bytes = b"") -> bytes:
        return port_settings(bytes(16) + attribute(18, attribute(4, kind) + attribute(5, data) + behind))

    assert port_of(b"bridge\0", reported) == settings
    assert port_of(b"vrf\0", reported) == port_of(b"bridge\0", b"\xff" * 8) == b""
    assert port_of(b"bridge\0", reported, b"\xff" * 4) == b""
    assert port_settings(bytes(16) + attribute(18, attribute(1, b"veth\0"))) == b""


READERS = [parse_link, parse_mounted, port_settings, parse_route, parse_addr, parse_qdisc]


@given(st.binary(max_size=200), st.sampled_from(READERS))
def test_a_reader_returns_or_says_malformed(body: bytes, read: Callable[[bytes], object]) -> None:
    for _ in range(2):
        try:
            read(body)
        except Malformed:
            pass


@pytest.mark.parametrize("kind", [RTA_ENCAP, RTA_VIA, RTA_NH_ID])
def test_a_route_with_an_encapsulation_a_foreign_gateway_or_a_next_hop_object_is_special(kind: int) -> None:
    header = pack("=BBBBBBBBI", 2, 24, 0, 0, RT_TABLE_MAIN, 118, 0, RTN_UNICAST, 0)
    assert parse_route(header + attribute(kind, bytes(8))).is_special
    assert not parse_route(header + attribute(RTA_GATEWAY, bytes(4))).is_special
