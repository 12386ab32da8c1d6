"""Links of a dump that differ little are read together, with the same result as one by one."""

from __future__ import annotations

from collections.abc import Callable
from socket import AF_INET6
from struct import pack
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vethlib._nl import direct
from vethlib._nl.const import (
    IFLA_ADDRESS,
    IFLA_AF_SPEC,
    IFLA_ALT_IFNAME,
    IFLA_IFALIAS,
    IFLA_IFNAME,
    IFLA_INET6_CACHEINFO,
    IFLA_INET6_CONF,
    IFLA_INFO_KIND,
    IFLA_LINK,
    IFLA_LINK_NETNSID,
    IFLA_LINKINFO,
    IFLA_MASTER,
    IFLA_MTU,
    IFLA_OPERSTATE,
    IFLA_PROP_LIST,
    IFLA_STATS64,
    NLMSG_DONE,
    RTM_NEWLINK,
)
from vethlib._nl.link import LinkMessage, dump_links, parse_alike, parse_link
from vethlib._nl.wire import attribute

NUMBER = 7


def header(size: int, kind: int) -> bytes:
    return pack("=IHHII", size, kind, 2, NUMBER, 42)


def one_message(body: bytes) -> bytes:
    return header(16 + len(body), RTM_NEWLINK) + body


class Answered:
    """A socket that answers a dump with these datagrams."""

    def __init__(self, datagrams: list[bytes]) -> None:
        self._datagrams = iter([*datagrams, header(20, NLMSG_DONE) + bytes(4)])

    def send(self, request: bytes) -> None:
        pass

    def recv(self, size: int) -> bytes:
        return next(self._datagrams)


def dumped(
    datagrams: list[bytes], parse: Callable[[bytes], Any] = parse_link, alike: direct.ParseAlike | None = parse_alike
) -> list[LinkMessage]:
    outcome = direct.dump(Answered(datagrams), NUMBER, dump_links(), parse, alike)  # type: ignore[arg-type]
    assert outcome is not None
    return list(outcome.bodies)


def link_body(index: int = 5, flags: int = 0, **attrs: Any) -> bytes:
    """Return the body of a link message with the attributes in the order of the kernel."""
    given: dict[str, Any] = {"name": b"veth0", "mac": bytes(6), "mtu": 1500, "link": 9} | attrs
    parts = [pack("=BxHiII", 0, 1, index, flags, 0), attribute(IFLA_IFNAME, given["name"] + b"\0")]
    for key, kind in (("operstate", IFLA_OPERSTATE), ("mtu", IFLA_MTU), ("master", IFLA_MASTER)):
        if key in given:
            parts.append(attribute(kind, bytes([given[key]]) if key == "operstate" else pack("=I", given[key])))
    if "alias" in given:
        parts.append(attribute(IFLA_IFALIAS, given["alias"]))
    if given["mac"] is not None:
        parts.append(attribute(IFLA_ADDRESS, given["mac"]))
    parts.append(attribute(IFLA_STATS64, given.get("stats", bytes(16))))
    kind = given.get("kind", b"veth")
    parts.append(attribute(IFLA_LINKINFO, attribute(IFLA_INFO_KIND, kind + b"\0") + given.get("slave", b"")))
    for key, number in (("netnsid", IFLA_LINK_NETNSID), ("link", IFLA_LINK)):
        if given.get(key) is not None:
            parts.append(attribute(number, pack("=i", given[key])))
    if "ipv6_off" in given:
        inet6 = attribute(IFLA_INET6_CACHEINFO, given.get("times", bytes(16)))
        inet6 += attribute(IFLA_INET6_CONF, pack("=104xI16x", given["ipv6_off"]))
        parts.append(attribute(IFLA_AF_SPEC, attribute(AF_INET6, inet6)))
    if "altname" in given:
        parts.append(attribute(IFLA_PROP_LIST, attribute(IFLA_ALT_IFNAME, given["altname"] + b"\0")))
    return b"".join(parts)


# Few values of each, so that neighbours are often alike or nearly alike.
bodies = st.builds(
    link_body,
    index=st.integers(1, 0x7FFF_FFFF),
    flags=st.sampled_from([0, 0, 0, 1]),
    name=st.sampled_from([b"veth0", b"veth1", b"caf\xe9s", b"a", b"ab"]),
    mac=st.sampled_from([bytes(6), b"\2\0\0\0\0\1", None]),
    mtu=st.sampled_from([1500, 1500, 1500, 9000]),
    link=st.sampled_from([1, 2, 3, None]),
    netnsid=st.sampled_from([None, None, 0, 1]),
    kind=st.sampled_from([b"veth", b"veth", b"veth", b"dumb"]),
    slave=st.sampled_from([b"", bytes(80), b"\1" * 80]),
    stats=st.sampled_from([bytes(16), b"\1" * 16]),
    times=st.sampled_from([bytes(16), b"\1" * 16]),
    ipv6_off=st.sampled_from([0, 0, 1]),
    operstate=st.sampled_from([6, 6, 2]),
)


@given(st.lists(st.lists(bodies, min_size=1, max_size=12), max_size=4), st.sampled_from([1, 2, 4]))
def test_links_are_read_together_as_they_are_one_by_one(datagrams: list[list[bytes]], repeats: int) -> None:
    parts = [b"".join(one_message(body) for body in found * repeats) for found in datagrams]
    expected = [parse_link(body) for found in datagrams for body in found * repeats]
    for _ in range(3):  # layouts are learnt meanwhile
        assert dumped(parts) == expected


ALIKE = [
    link_body(index, name=b"v%05d" % index, mac=index.to_bytes(6, "big"), link=index + 1, netnsid=index % 3, ipv6_off=0)
    for index in range(1, 29)
]


def parsed_alone(bodies: list[bytes]) -> int:
    """Return how many messages of one datagram are parsed on their own."""
    datagram = b"".join(map(one_message, bodies))
    assert dumped([datagram] * 3) == 3 * [parse_link(body) for body in bodies]  # learns the layouts, too
    alone: list[bytes] = []

    def parse(body: bytes) -> LinkMessage:
        alone.append(body)
        return parse_link(body)

    dumped([datagram], parse)
    return len(alone)


def test_only_the_first_of_the_links_that_differ_little_is_parsed_on_its_own() -> None:
    assert parsed_alone(ALIKE) == 1


@pytest.mark.parametrize(
    "attrs",
    [
        {"stats": b"\7" * 16},
        {"times": b"\7" * 16},
        {"slave": bytes(70) + b"\7" * 10},
    ],
)
def test_counters_and_times_that_differ_do_not_separate_links(attrs: dict[str, bytes]) -> None:
    attrs = {"slave": bytes(80)} | attrs
    base: dict[str, Any] = {"netnsid": 0, "ipv6_off": 0, "slave": bytes(80)}
    assert parsed_alone([link_body(index, **base | attrs if index % 2 else base) for index in range(1, 29)]) == 1


@pytest.mark.parametrize(
    "attrs",
    [
        {"flags": 1},
        {"mtu": 9000},
        {"kind": b"dumb"},
        {"ipv6_off": 1},
        {"operstate": 2},
        {"alias": b"blue"},
        {"altname": b"blue"},
        {"slave": b"\1" + bytes(79)},
    ],
)
def test_a_link_with_something_else_ends_the_run_and_begins_another(attrs: dict[str, Any]) -> None:
    base: dict[str, Any] = {"operstate": 6, "ipv6_off": 0, "alias": b"pink", "altname": b"pink", "slave": bytes(80)}
    links = [link_body(index, **base) for index in range(1, 15)]
    links += [link_body(index, **base | attrs) for index in range(15, 29)]
    assert parsed_alone(links) == 2


def test_links_that_take_turns_are_attempted_together_once_in_a_datagram(monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = []

    def counted(datagram: bytes, start: int, end: int, first: LinkMessage) -> list[LinkMessage]:
        attempts.append(start)
        return parse_alike(datagram, start, end, first)

    turns = [link_body(index, mtu=1500 + index % 2) for index in range(28)]
    datagram = b"".join(map(one_message, turns))
    assert dumped([datagram] * 5, alike=counted) == 5 * [parse_link(body) for body in turns]
    assert len(attempts) == 5


def test_bytes_that_the_owner_of_a_link_has_chosen_are_never_taken_for_a_link() -> None:
    """An alias can contain a whole message, exactly where one would be if the link were as long as the one before."""
    usual = one_message(link_body(ipv6_off=0))
    forged = one_message(link_body(666, name=b"root0", ipv6_off=0))
    for prefix in range(0, 200, 4):
        long = one_message(link_body(6, alias=bytes(prefix) + forged, ipv6_off=0))
        datagram = usual * 3 + long + usual
        for _ in range(3):
            assert [found.ifindex for found in dumped([datagram])] == [5, 5, 5, 6, 5]


def test_a_message_of_another_dump_is_not_read() -> None:
    datagram = b"".join(map(one_message, ALIKE[:9]))
    stale = pack("=IHHII", 16 + len(ALIKE[9]), RTM_NEWLINK, 2, NUMBER - 1, 42) + ALIKE[9]
    assert dumped([datagram] * 3) == 3 * [parse_link(body) for body in ALIKE[:9]]
    answered: Any = Answered([datagram + stale])
    assert direct.dump(answered, NUMBER, dump_links(), parse_link, parse_alike) is None


def test_links_without_a_peer_or_a_mac_are_read_together() -> None:
    links = [link_body(index, mac=None, link=None, netnsid=index, ipv6_off=0) for index in range(1, 20)]
    assert parsed_alone(links) == 1
    assert [(found.mac, found.link) for found in dumped([b"".join(map(one_message, links))])] == [
        (b"", index) for index in range(1, 20)
    ]
