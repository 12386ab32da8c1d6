"""How a link is recognised later, in the same call or in another."""

from __future__ import annotations

from dataclasses import replace

import pytest

from vethlib._nl.link import LinkMessage
from vethlib.links import Link
from vethlib.session.read.samelink import UNKNOWN, KnownVeth, is_another

MAC, OTHER = b"\2\0\0\0\0\1", b"\2\0\0\0\0\2"


def link(mac: bytes, peer: int | None, netnsid: int | None, kind: str = "veth") -> LinkMessage:
    return LinkMessage(2, 0, "eth0", mac, 1500, peer, netnsid, "down", kind, "", 0, 1, ())


@pytest.mark.parametrize(
    ("known", "now", "same"),
    [
        (KnownVeth(MAC, 7, 3), link(MAC, 7, 3), True),
        (KnownVeth(MAC, 7, 3), link(MAC, 9, 4), True),  # the peer was moved
        (KnownVeth(MAC, 7, 3), link(OTHER, 7, 3), True),  # its MAC was changed
        (KnownVeth(MAC, 7, None), link(OTHER, 7, None), True),
        (KnownVeth(MAC, 7, 3), link(OTHER, 7, 4), False),
        (KnownVeth(MAC, 7, 3), link(OTHER, 7, None), False),
        (KnownVeth(MAC, 7, None), link(OTHER, 7, 3), False),
        (KnownVeth(MAC, 7, 3), link(OTHER, 8, 3), False),
        (KnownVeth(MAC, 7, 3), link(MAC, 7, 3, "macvlan"), False),
        (KnownVeth(b"", 7, UNKNOWN), link(OTHER, 7, 3), True),
        (KnownVeth(b"", 7, UNKNOWN), link(OTHER, 8, 3), False),
        (KnownVeth(MAC, 0, UNKNOWN), link(OTHER, 0, UNKNOWN), False),
        (KnownVeth(MAC, 0, None), link(OTHER, None, None), False),
        (KnownVeth(b"", 0, UNKNOWN), link(MAC, 7, 3), True),
        (KnownVeth(b"", 0, UNKNOWN), link(MAC, 7, 3, ""), False),
    ],
)
def test_a_veth_is_recognised_by_its_mac_or_by_its_peer(known: KnownVeth, now: LinkMessage, same: bool) -> None:
    assert known.is_now(now) is same


def seen(mac: str, peer: int | None, cookie: int = 0, kind: str = "veth") -> Link:
    return Link(2, "eth0", "blue", kind, mac, 1500, False, "down", (), peer, 0, "", 0, 1, cookie=cookie)


MINE = "02:00:00:00:00:01"
THEIRS = "02:00:00:00:00:02"


@pytest.mark.parametrize("in_home", [True, False])
def test_a_link_of_another_namespace_is_another_one(in_home: bool) -> None:
    assert is_another(seen(MINE, 7, cookie=5), link(MAC, 7, 3), 6, in_home=in_home)


@pytest.mark.parametrize("in_home", [True, False])
def test_in_the_same_namespace_the_mac_or_the_peer_decides(in_home: bool) -> None:
    for unlike in (link(OTHER, 9, 0), link(MAC, 7, 0, "macvlan")):
        assert is_another(seen(MINE, 7, cookie=5), unlike, 5, in_home=in_home)
    # In home, also one whose peer was moved to another namespace.
    assert is_another(seen(MINE, 7, cookie=5), link(OTHER, 7, 4), 5, in_home=in_home) is not in_home
    for alike in (link(MAC, 9, 4), link(OTHER, 7, 0), link(OTHER, None, None)):
        assert not is_another(seen(MINE, 7, cookie=5), alike, 5, in_home=in_home)
    assert not is_another(seen(MINE, None, cookie=5), link(OTHER, 7, 0), 5, in_home=in_home)


@pytest.mark.parametrize(("cookie", "now"), [(0, 0), (5, 0), (0, 5)])
def test_if_it_is_not_known_they_also_decide_in_home_wherever_the_peer_is(cookie: int, now: int) -> None:
    assert is_another(seen(MINE, 7, cookie), link(OTHER, 9, 4), now, in_home=True)
    for alike in (link(MAC, 9, 4), link(OTHER, 7, 0), link(OTHER, None, None)):
        assert not is_another(seen(MINE, 7, cookie), alike, now, in_home=True)


@pytest.mark.parametrize(("cookie", "now"), [(0, 0), (5, 0), (0, 5)])
@pytest.mark.parametrize(
    ("link_seen", "peer", "peer_is_home", "another"),
    [
        (seen(MINE, 8), 7, False, False),
        (seen(THEIRS, 7), 7, True, False),
        (seen(THEIRS, 7), 7, False, True),  # as the peers of all pairs between two new namespaces
        (seen(THEIRS, 8), 7, True, True),
        (seen(THEIRS, None), None, True, True),
        (seen(MINE, None, kind="macvlan"), 7, False, True),
    ],
)
def test_if_it_is_not_known_the_mac_decides_or_a_peer_in_home(
    link_seen: Link, peer: int | None, peer_is_home: bool, another: bool, cookie: int, now: int
) -> None:
    link_seen = replace(link_seen, cookie=cookie)
    is_now = is_another(link_seen, link(MAC, peer, 0), now, in_home=False, peer_is_home=lambda: peer_is_home)
    assert is_now is another


def test_of_other_links_the_kind_is_all_that_stays() -> None:
    bridge = seen(THEIRS, None, kind="bridge")
    assert not is_another(bridge, link(MAC, None, None, "bridge"), 0, in_home=False)
    assert is_another(bridge, link(MAC, None, None, "dummy"), 0, in_home=False)
