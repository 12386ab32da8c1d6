"""Calls with many links: each is looked up where its own reference leads, whatever the others of the call are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.refusing import raises
from tests.witness import ip, names
from vethlib import BatchError, End, IfIndexCache, LinkNotFound, NetnsNotFound, Session, Veth, ns

SPELLINGS = ["blue", "netns:blue", "path:/run/netns/blue"]


@pytest.fixture
def pairs(session: Session, blue: str) -> None:
    """The links l0, l1, l2 in blue, with the MTUs 1400, 1401, 1402; their peers are at home."""
    session.create_many([Veth(End(f"l{n}", blue, mtu=1400 + n), End(f"p{n}")) for n in range(3)])


@pytest.mark.usefixtures("pairs")
@pytest.mark.parametrize("addresses", [True, False])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_links_of_one_namespace_are_told_apart_however_it_is_spelled(
    session: Session, addresses: bool, order: tuple[int, ...]
) -> None:
    wanted = [(f"l{n}", SPELLINGS[n]) for n in order]
    found = session.lookup_many(wanted, addresses=addresses)
    assert [(link.name, link.mtu, link.netns) for link in found] == [(f"l{n}", 1400 + n, SPELLINGS[n]) for n in order]
    assert [link.mtu for link in session.lookup_many([*wanted, *wanted], addresses=addresses)] == 2 * [
        1400 + n for n in order
    ]
    counted = session.stats_many(wanted)
    assert [sample.index for sample in counted if sample is not None] == [link.index for link in found]
    session.set_many(wanted, group=7)
    assert {link["group"] for link in ip("link", netns="blue") if link["ifname"] != "lo"} == {"7"}
    session.delete_many(wanted)
    assert names("blue") == set()


def look_up(session: Session, items: list[Any]) -> object:
    return session.lookup_many(items)


def look_up_without_addresses(session: Session, items: list[Any]) -> object:
    return session.lookup_many(items, addresses=False)


def count(session: Session, items: list[Any]) -> object:
    return session.stats_many(items)


@pytest.mark.usefixtures("pairs")
@pytest.mark.parametrize("call", [look_up, look_up_without_addresses, count])
@pytest.mark.parametrize("closed", [0, 1])
def test_a_closed_namespace_is_not_served_by_an_open_one(
    session: Session, call: Callable[[Session, list[Any]], object], closed: int
) -> None:
    both = [ns.Netns.open("blue"), ns.Netns.open("blue")]
    both[closed].close()
    with both[1 - closed], raises(NetnsNotFound):
        call(session, [("l0", both[0]), ("l1", both[1])])


@pytest.mark.usefixtures("pairs")
@pytest.mark.parametrize("closed", [0, 1])
def test_of_a_change_only_the_items_of_a_closed_namespace_fail(session: Session, closed: int) -> None:
    both = [ns.Netns.open("blue"), ns.Netns.open("blue")]
    both[closed].close()
    items = [("l0", both[0]), ("l1", both[1])]
    with both[1 - closed]:
        for change in (lambda: session.set_many(items, mtu=1300), lambda: session.delete_many(items, missing_ok=False)):
            with pytest.raises(BatchError) as caught:
                change()
            assert [type(error) for error in caught.value.exceptions] == [NetnsNotFound]
    assert names("blue") == {f"l{closed}", "l2"}
    assert {link["mtu"] for link in ip("link", netns="blue") if link["ifname"] == f"l{closed}"} == {1400 + closed}


def test_an_ended_namespace_is_not_taken_for_one_with_its_inode_number(session: Session) -> None:
    ended, new = ns.Netns.anonymous(), ns.Netns.anonymous()
    ended.close()
    ended.identity = new.identity  # as when the kernel uses the inode number again, which it does when it likes
    with new:
        session.create_many([Veth(End(name, new), End(f"{name}-peer", new)) for name in ("mine", "theirs")])
        with pytest.raises(BatchError) as caught:
            session.delete_many([("mine", new), ("theirs", ended)], missing_ok=False)
        assert [type(error) for error in caught.value.exceptions] == [NetnsNotFound]
        assert {link.name for link in session.links(new)} == {"lo", "theirs", "theirs-peer"}


@pytest.mark.usefixtures("pairs")
@pytest.mark.parametrize("call", [look_up, look_up_without_addresses, count])
def test_the_first_missing_link_is_reported_whatever_the_order_of_the_namespaces(
    session: Session, red: str, call: Callable[[Session, list[Any]], object]
) -> None:
    items = [("lo", "blue"), ("missing1", red), ("missing2", "blue")]
    with raises(LinkNotFound) as caught:
        call(session, items)
    assert caught.value.item == items[1]
    with raises(NetnsNotFound) as lost:
        call(session, [("lo", "blue"), ("lo", "nowhere"), ("missing2", "blue")])
    assert lost.value.item == ("lo", "nowhere")


@pytest.mark.usefixtures("pairs")
@pytest.mark.parametrize("call", [look_up, look_up_without_addresses, count])
def test_the_item_of_an_error_is_the_one_that_is_missing_not_one_of_its_name(
    session: Session, call: Callable[[Session, list[Any]], object]
) -> None:
    stale = session.lookup("l0", "blue")
    session.delete("l0", "blue")
    session.create(Veth(End("spare", "blue"), End("l0", "blue")))
    assert session.index("l0", "blue") != stale.index
    with raises(LinkNotFound) as caught:
        call(session, [("l0", "blue"), stale])
    assert caught.value.item is stale
    with raises(LinkNotFound) as caught:
        call(session, [stale, ("missing", "blue")])
    assert caught.value.item is stale


class Empty:
    """An open namespace that is false, has no hash, and to which there can be no weak references."""

    __slots__ = ("_fd",)

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def fileno(self) -> int:
        return self._fd

    def __len__(self) -> int:
        return 0

    def __eq__(self, other: object) -> bool:
        return self is other


@pytest.fixture
def empty(blue: str) -> Iterator[Empty]:
    with ns.open_owned(blue) as owner:
        yield Empty(owner.fileno())


def test_an_object_that_is_false_is_not_taken_for_the_home_namespace(session: Session, empty: Empty) -> None:
    session.create_many([Veth(End("first"), End("second")), Veth(End("twin"), End("other"))])
    foreign = session.create(Veth(End("twin", empty), End("other", empty))).a
    assert session.lookup(End("twin", empty)).index == foreign.index
    assert session.lookup(End("twin"), empty).index == foreign.index
    assert session.set(session.lookup("twin"), empty, index=foreign.index, mtu=1400).mtu == 1400
    with raises(LinkNotFound) as caught:
        session.delete("missing", empty)
    assert "home" not in str(caught.value)
    session.delete("twin", empty)
    assert names("blue") == set()
    assert names() == {"first", "second", "twin", "other"}


def test_a_cache_watches_the_namespace_of_any_open_object(session: Session, empty: Empty) -> None:
    index = session.create(Veth(End("twin", empty), End("other", empty))).a.index
    for ref in (empty, ns.open_owned(empty)):
        with IfIndexCache(session) as cache:
            cache.watch(ref)
            assert cache.index("twin", ref) == index
            assert cache.name(index, ref) == "twin"
            assert cache.link(End("twin", ref)).index == cache.link("twin", ref).index == index
            assert {link.name for link in cache.links(ref)} == {"lo", "twin", "other"}
            session.set("twin", empty, up=False)
            (event, *_) = cache.poll(1)
            assert isinstance(event.netns, str)
            assert event.netns.startswith("fd:")
            session.set("twin", empty, up=True)
            cache.unwatch(ref)
            with pytest.raises(NetnsNotFound):
                cache.links(ref)
