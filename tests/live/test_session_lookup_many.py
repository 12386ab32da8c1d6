"""Looking up many links at once: the same result as lookup for each, with few exchanges."""

from __future__ import annotations

from typing import Any

import pytest

from tests.refusing import raises
from tests.witness import ip, open_fds, seen
from vethlib import End, InvalidValue, LinkNotFound, Netns, NetnsNotFound, Session, Veth
from vethlib.links import NetnsRef


@pytest.fixture
def star(session: Session, make_netns: Any) -> list[tuple[str, str]]:
    """Ten pairs from home into ten namespaces, with addresses; returns all ends."""
    make_netns(*(f"n{i}" for i in range(10)))
    session.create_many(
        Veth(End(f"h{i}", addresses=[f"10.0.{i}.1/24"]), End("eth0", f"n{i}", addresses=[f"10.0.{i}.2/24"]))
        for i in range(10)
    )
    return [end for i in range(10) for end in ((f"h{i}", ""), ("eth0", f"n{i}"))]


def test_each_is_found_as_a_lookup_of_its_own_finds_it(session: Session, star: list[tuple[str, str]]) -> None:
    found = session.lookup_many(star)
    assert found == [session.lookup(*end) for end in star]
    for link, (name, netns) in zip(found, star, strict=True):
        told = seen(name, netns)
        assert (link.index, link.mac, link.netns) == (told["ifindex"], told["address"], netns)
        assert len([one for one in link.addresses if one.version == 4]) == 1


def test_without_addresses_everything_else_is_the_same(session: Session, star: list[tuple[str, str]]) -> None:
    for bare, full in zip(session.lookup_many(star, addresses=False), session.lookup_many(star), strict=True):
        assert bare.addresses == ()
        assert (bare.index, bare.peer_index, bare.peer_netnsid) == (full.index, full.peer_index, full.peer_netnsid)


def test_nothing_is_looked_up_in_no_time(session: Session) -> None:
    assert session.lookup_many([]) == []


def test_one_link_by_several_spellings_and_names_is_found_each_time(session: Session, blue: str) -> None:
    session.create(Veth(End("a", "blue"), End("b")))
    ip("link", "property", "add", "dev", "a", "altname", "a-longer-name-of-it", netns="blue")
    with Netns.open("blue") as opened:
        items: list[tuple[str, NetnsRef]] = [
            ("a", "blue"),
            ("a", "netns:blue"),
            ("a-longer-name-of-it", opened),
            ("a", "blue"),
        ]
        found = session.lookup_many(items)
        assert [(link.name, link.netns) for link in found] == [("a", netns) for _, netns in items]
    assert len({link.index for link in found}) == 1


def test_the_first_that_is_missing_is_named(session: Session, star: list[tuple[str, str]]) -> None:
    fds = open_fds()
    with raises(LinkNotFound, netns="n3") as caught:
        session.lookup_many([*star, ("nope", "n3"), ("never", "n4")])
    assert caught.value.item == ("nope", "n3")
    with raises(NetnsNotFound, netns="netns:nowhere"):
        session.lookup_many([*star, ("eth0", "nowhere")])
    with pytest.raises(InvalidValue):
        session.lookup_many([*star, ("a\0b", "")])
    assert open_fds() == fds


def test_home_gets_no_namespace_id_by_it(session: Session, star: list[tuple[str, str]]) -> None:
    before = ip("netns", "list-id")
    session.lookup_many(star)
    assert ip("netns", "list-id") == before


def test_more_namespaces_than_are_open_at_a_time(session: Session, make_netns: Any) -> None:
    make_netns(*(f"n{i}" for i in range(70)))
    found = session.lookup_many([("lo", f"n{i}") for i in range(70)], addresses=False)
    assert [link.netns for link in found] == [f"n{i}" for i in range(70)]
    assert {link.index for link in found} == {1}
