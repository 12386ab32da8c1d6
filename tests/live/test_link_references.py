"""Every method that takes the name of a link takes the Link that was seen, and an End, in its place."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from tests.witness import ip
from vethlib import BatchError, End, IfIndexCache, InvalidValue, Link, LinkNotFound, Session, Veth, interface_index, ns
from vethlib.agent import PacketPort
from vethlib.monitor import Monitor
from vethlib.topology import Topology

A, B = End("a", "blue", addresses=["10.0.0.1/24"]), End("b")


@pytest.fixture
def pair(session: Session, blue: str) -> tuple[Link, Link]:
    a, b = session.create(Veth(A, B))
    return a, b


def links_of(netns: str) -> set[str]:
    return {one["ifname"] for one in ip("link", netns=netns)} - {"lo"}


READERS: dict[str, Callable[[Session, Link | End], int]] = {
    "index": lambda session, link: session.index(link),
    "lookup": lambda session, link: session.lookup(link).index,
    "lookup_many": lambda session, link: session.lookup_many([link])[0].index,
    "details": lambda session, link: int(str(session.details(link)["index"])),
    "stats_many": lambda session, link: session.stats_many([link])[0].index,
    "inspect": lambda session, link: session.inspect([link]).links[0].link.index,
}


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_reading_finds_it_where_it_was_seen(
    session: Session, pair: tuple[Link, Link], read: Callable[[Session, Link | End], int]
) -> None:
    assert read(session, pair[0]) == read(session, A) == pair[0].index
    assert read(session, pair[1]) == read(session, B) == pair[1].index


def test_counters_and_what_it_carries_are_read_of_a_link(session: Session, pair: tuple[Link, Link]) -> None:
    before, by_link, after = session.stats("a", "blue"), session.stats(pair[0]), session.stats("a", "blue")
    assert before.tx_packets <= by_link.tx_packets <= after.tx_packets
    assert by_link.rx_dropped == before.rx_dropped
    assert session.dependents([pair[0]]) == session.dependents([("blue", pair[0].index)])


def test_changing_moving_and_deleting_take_a_link(session: Session, pair: tuple[Link, Link], blue: str) -> None:
    ns.Netns.create("red").close()
    changed = session.set(pair[0], mtu=1400)
    assert (changed.mtu, changed.netns) == (1400, "blue")
    session.restore_addresses(
        pair[0], addresses=[one for one in session.addresses("blue") if one.index == changed.index]
    )
    moved = session.move(changed, to="red")
    assert links_of("red") == {"a"}
    session.delete(moved)
    assert links_of("red") == set()


def test_an_end_of_a_veth_is_changed_and_deleted(session: Session, pair: tuple[Link, Link]) -> None:
    assert session.set(A, up=False, wait=None).up is False
    session.delete_many([A], missing_ok=False)
    assert links_of("blue") == set()


def only_error(call: Callable[[], object]) -> None:
    """Raise the error of the only item of a call with many."""
    with pytest.raises(BatchError) as caught:
        call()
    (error,) = caught.value.exceptions
    raise error


CALLS: dict[str, Callable[[Session, Link], object]] = {
    **READERS,
    "stats": lambda session, link: session.stats(link),
    "set": lambda session, link: session.set(link, mtu=1300),
    "move": lambda session, link: session.move(link, to=""),
    "restore_addresses": lambda session, link: session.restore_addresses(link, addresses=[]),
    "renew_addresses": lambda session, link: session.renew_addresses(link, addresses=[]),
    "fields": lambda session, link: session.fields(link),
    "ipv6_settings": lambda session, link: session.ipv6_settings(link),
    "set_many": lambda session, link: only_error(partial(session.set_many, [link], mtu=1300)),
    "delete_many": lambda session, link: only_error(partial(session.delete_many, [link], missing_ok=False)),
    "delete": lambda session, link: session.delete(link),
}


@pytest.mark.parametrize("name", [name for name in CALLS if name != "inspect"])
def test_another_link_that_has_its_name_by_now_is_not_taken_for_it(
    session: Session, pair: tuple[Link, Link], name: str
) -> None:
    old = pair[0]
    session.delete("a", "blue")
    session.create(Veth(End("filler", "blue"), End("filler2")))  # which has the ifindex that is free now
    new = session.create(Veth(A, B)).a
    assert new.index != old.index
    with pytest.raises(LinkNotFound):
        CALLS[name](session, old)
    assert session.lookup(new).mtu == 1500
    assert {"a", "filler"} == links_of("blue")


@pytest.mark.parametrize("index", [0, -1, 1 << 31, "2", True, 2.0])
def test_what_is_no_ifindex_is_refused_before_anything_is_done(
    session: Session, pair: tuple[Link, Link], index: Any
) -> None:
    uses: list[Callable[[], object]] = [
        lambda: session.delete_many([("b", ""), ("a", "blue", index)], renamed_ok=True),
        lambda: session.set("b", index=index, mtu=1400),
        lambda: session.renew_addresses("b", addresses=[], index=index),
        lambda: session.restore_addresses("b", addresses=[], index=index),
        lambda: session.dependents([("", index)]),
    ]
    for use in uses:
        with pytest.raises(InvalidValue):
            use()
    assert session.lookup("b").mtu == 1500


def test_what_is_no_reference_is_refused_before_anything_is_done(session: Session, pair: tuple[Link, Link]) -> None:
    nowhere: Any = ["blue"]
    uses: list[Callable[[], object]] = [
        lambda: session.delete_many([("b", ""), ("a", nowhere)]),
        lambda: session.lookup_many([("a", nowhere)]),
        lambda: session.stats_many([("a", nowhere)]),
        lambda: session.dependents([(nowhere, 2)]),
    ]
    for use in uses:
        with pytest.raises(InvalidValue):
            use()
    assert session.lookup("b").index == pair[1].index


def test_an_error_of_many_names_the_item_as_it_was_given(session: Session, pair: tuple[Link, Link]) -> None:
    session.delete(pair[0])
    for call in (session.lookup_many, session.stats_many):
        with pytest.raises(LinkNotFound) as caught:
            call([pair[0]])
        assert caught.value.item is pair[0]
    assert session.stats_many([pair[0], A, ("lo", "")], missing_ok=True)[:2] == [None, None]


def test_a_cache_and_a_monitor_take_a_link(session: Session, pair: tuple[Link, Link]) -> None:
    a, b = pair
    with IfIndexCache(session) as cache:
        cache.watch_all(["", "blue"])
        assert cache.index(a) == cache.index(A) == cache.index("a", "blue") == a.index
        assert cache.name(a) == "a"
        assert cache.link(a).netns == "blue"
        session.set(a, new_name="c")
        with pytest.raises(LinkNotFound):
            cache.index(a)
        assert cache.name(a) == "c"
    with Monitor(session) as monitor:
        assert monitor.peer(a) == monitor.peer("blue", a.index) == ("", "b")
        assert monitor.peer(b) == ("netns:blue", "c")


def test_what_attaches_to_a_link_takes_one(session: Session, pair: tuple[Link, Link]) -> None:
    port = PacketPort(pair[0], session=session)
    assert (port.host_if_name, port.netns) == ("a", "blue")


def test_nodes_of_a_topology_take_links_and_nodes(session: Session) -> None:
    with Topology.build("a -- b", session=session) as net:
        a, b = net["a"], net["b"]
        (link,) = [one for one in a.links() if one.name != "lo"]
        assert a.set(link, up=False).up is False
        a.set(link, up=True)
        assert a.stats(link).rx_bytes >= 0
        assert net.wire(a, b) == net.wire("a", "b")
        net.down(a, b)
        assert a.stats(link) is not None
        net.up(a, b)


def test_the_calling_threads_own_link_of_that_name(session: Session, pair: tuple[Link, Link]) -> None:
    assert interface_index(pair[1]) == interface_index(B) == pair[1].index
