"""What IfIndexCache knows: lookups, and which namespaces it watches."""

from __future__ import annotations

import dataclasses
import os
from collections import UserString
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import pytest

from tests.live.following import assert_right, known, told
from tests.refusing import raises
from tests.witness import host_state, ip, open_fds, poll, rename, seen, wait_for_carrier
from vethlib import End, InvalidValue, LinkNotFound, Netns, NetnsNotFound, Session, SessionClosed, Veth, ns
from vethlib.ifindex import IfIndexCache, observatory, watching


@pytest.fixture
def cache(session: Session) -> Iterator[IfIndexCache]:
    with IfIndexCache(session) as cache:
        yield cache


def test_a_link_is_found_by_name_and_by_index(session: Session, cache: IfIndexCache, blue: str, red: str) -> None:
    pair = session.create(Veth(End("va", "blue"), End("vb", "red")))
    cache.watch_all(["blue", "red", ""])
    assert cache.index("va", "blue") == pair.a.index
    assert cache.name(pair.b.index, "red") == "vb"
    assert cache.index("lo") == cache.index("lo", None) == 1
    assert cache.link("va", "blue").mac == pair.a.mac
    assert_right(cache, ["blue", "red", ""])


def test_links_are_as_the_session_shows_them_but_for_their_addresses(
    session: Session, cache: IfIndexCache, blue: str
) -> None:
    session.create(Veth(End("va", "blue", group=7, num_queues=1), End("vb", "blue", addresses=["10.0.0.1/24"])))
    ip("link", "add", "name", "br", "type", "bridge", netns="blue")
    ip("link", "add", "link", "va", "name", "mv", "type", "macvlan", netns="blue")
    wait_for_carrier(("va", "blue"), ("vb", "blue"))
    cache.watch("blue")
    asked = session.links("blue")
    assert [link.name for link in cache.links("blue")] == ["lo", "vb", "va", "br", "mv"]
    assert cache.links("blue") == [dataclasses.replace(link, addresses=()) for link in asked]


def test_the_netnsid_of_a_peer_is_that_of_the_links_own_namespace(
    session: Session, cache: IfIndexCache, blue: str, red: str
) -> None:
    session.create(Veth(End("va", "blue"), End("vb", "red")))
    cache.watch_all(["", "blue", "red"])
    by_dump = [cache.link("va", "blue").peer_netnsid, cache.link("vb", "red").peer_netnsid]
    ip("link", "set", "va", "mtu", "1400", netns="blue")
    ip("link", "set", "vb", "mtu", "1400", netns="red")
    cache.catch_up()
    by_event = [cache.link("va", "blue").peer_netnsid, cache.link("vb", "red").peer_netnsid]
    assert cache.link("va", "blue").mtu == 1400
    assert by_dump == by_event == [seen("va", "blue")["link_netnsid"], seen("vb", "red")["link_netnsid"]]


def test_of_several_references_to_a_namespace_the_first_is_the_one_in_events(
    session: Session, cache: IfIndexCache, blue: str, red: str
) -> None:
    cache.watch_all(["blue", "netns:blue", "path:/proc/thread-self/ns/net", "", "path:/run/netns/blue", "red", "blue"])
    assert cache.netns() == ["path:/proc/thread-self/ns/net", "blue", "red"]
    session.create(Veth(End("va", "blue"), End("vb", "red")))
    assert {event.netns for event in cache.poll()} == {"blue", "red"}


@pytest.mark.parametrize("refs", [None, 5, object()])
def test_references_that_are_no_list_are_refused(cache: IfIndexCache, refs: Any) -> None:
    for watch in (cache.watch_all, cache.watch_and_read):
        with raises(InvalidValue, field="refs"):
            watch(refs)
    with raises(InvalidValue, field="refs"):
        cache.watch_and_read([None])  # type: ignore[list-item]


def test_a_bad_time_out_is_refused(cache: IfIndexCache) -> None:
    for timeout in (float("nan"), "1", b"", Decimal("sNaN"), UserString("x"), 1j, [0]):
        with raises(InvalidValue, field="timeout"):
            cache.poll(timeout)  # type: ignore[arg-type]


def test_what_is_not_there_is_not_found(cache: IfIndexCache, blue: str) -> None:
    cache.watch("blue")
    with raises(LinkNotFound, netns="blue") as caught:
        cache.index("nope", "blue")
    assert caught.value.netns == "blue"
    for index in (77, 0, -1, 10**5000):  # Python refuses to make a text of the last
        with raises(LinkNotFound, netns="blue"):
            cache.name(index, "blue")
    with pytest.raises(LinkNotFound):
        cache.link("nope", "blue")


def test_a_namespace_that_is_not_watched_is_not_guessed_at(cache: IfIndexCache, blue: str, red: str) -> None:
    cache.watch("blue")
    for ref in ("red", "nowhere", "pid:2147483647"):
        for ask in (cache.links, lambda ref: cache.index("lo", ref), lambda ref: cache.name(1, ref), cache.unwatch):
            with raises(NetnsNotFound, netns=ref):
                ask(ref)
    with raises(NetnsNotFound, netns=""):
        cache.index("lo")
    with pytest.raises(InvalidValue):
        cache.index("lo", "no:where")


def test_a_link_is_found_although_the_name_was_that_of_another_at_the_last_event_that_was_read(
    session: Session, cache: IfIndexCache, blue: str
) -> None:
    former = session.create(Veth(End("va", "blue", up=False), End("vb", "blue", up=False))).a
    cache.watch("blue")
    ip("link", "del", "va", netns="blue")
    ip("link", "add", "name", "va", "type", "veth", "peer", "name", "vb", netns="blue")
    with Session() as other:
        link = other.lookup("va", "blue")
    assert cache.index("va", "blue") == former.index != link.index
    assert cache.index(link) == link.index
    assert cache.link(link).mac == link.mac
    with pytest.raises(LinkNotFound) as caught:
        cache.index(former)
    assert caught.value.index == link.index


def test_links_that_have_exchanged_their_names_are_found_before_their_events_are_read(
    session: Session, cache: IfIndexCache, blue: str
) -> None:
    first, second = session.create(Veth(End("va", "blue", up=False), End("vb", "blue", up=False)))
    cache.watch("blue")
    for name, to in (("va", "vc"), ("vb", "va"), ("vc", "vb")):
        rename(name, to, netns="blue")
    with Session() as other:
        assert cache.index(other.lookup("va", "blue")) == second.index
        assert cache.index(other.lookup("vb", "blue")) == first.index


def test_every_spelling_of_a_namespace_is_the_same_watch(
    session: Session, cache: IfIndexCache, blue: str, spawn: Callable[[str], int]
) -> None:
    pid = spawn("blue")
    session.create(Veth(End("va", "blue", up=False), End("vb", up=False)))
    cache.watch("blue")
    with Netns.open("blue") as held:
        spellings: list[Netns | str] = ["blue", "netns:blue", f"pid:{pid}", "path:/run/netns/blue", held]
        for ref in [*spellings, f"fd:{held.fileno()}"]:
            assert cache.index("va", ref) == 2
            assert [link.netns for link in cache.links(ref)] == [ref, ref]
        cache.watch_all(spellings)
        ip("link", "set", "va", "mtu", "1400", netns="blue")
        assert told(cache.poll()) == [("changed", "blue", "va", "va")]
        cache.unwatch(held)
        for ref in spellings:
            with pytest.raises(NetnsNotFound):
                cache.index("va", ref)
    ip("link", "set", "va", "mtu", "1300", netns="blue")
    assert cache.poll() == []


def test_a_namespace_without_a_name_is_watched_through_its_netns(session: Session, cache: IfIndexCache) -> None:
    with Netns.anonymous() as held:
        cache.watch(held)
        session.create(Veth(End("va", held, up=False), End("vb", up=False)))
        cache.catch_up()
        assert cache.index("va", held) == 2
        assert {event.netns for event in cache.poll()} == {held}
        (link,) = [link for link in cache.links(held) if link.name == "va"]
        assert link.netns is held
    assert told(cache.poll(30)) == [("netns-gone", held, None, None)]
    with pytest.raises(NetnsNotFound):
        cache.links(held)


def test_an_alternative_name_finds_a_link(session: Session, cache: IfIndexCache, blue: str) -> None:
    session.create(Veth(End("va", "blue"), End("vb", "blue")))
    ip("link", "property", "add", "dev", "va", "altname", "uplink-with-a-long-name", netns="blue")
    wait_for_carrier(("va", "blue"), ("vb", "blue"))
    cache.watch("blue")
    assert cache.index("uplink-with-a-long-name", "blue") == cache.index("va", "blue")
    ip("link", "property", "add", "dev", "va", "altname", "second", netns="blue")
    assert cache.index("second", "blue") == cache.index("va", "blue")
    ip("link", "property", "del", "dev", "va", "altname", "uplink-with-a-long-name", netns="blue")
    cache.catch_up()
    with pytest.raises(LinkNotFound):
        cache.index("uplink-with-a-long-name", "blue")
    assert cache.link("second", "blue").altnames == ("second",)
    assert told(cache.poll()) == [("changed", "blue", "va", "va")] * 2


def test_of_a_link_that_is_down_the_kernel_tells_no_change_of_alias_group_or_altname(
    session: Session, cache: IfIndexCache, blue: str
) -> None:
    session.create(Veth(End("va", "blue", up=False), End("vb", "blue", up=False)))
    cache.watch("blue")
    ip("link", "set", "va", "alias", "mark", "group", "7", netns="blue")
    ip("link", "property", "add", "dev", "va", "altname", "other", netns="blue")
    assert cache.poll(0.1) == []
    assert cache.link("va", "blue").alias == ""
    ip("link", "set", "va", "mtu", "1400", netns="blue")
    cache.catch_up()
    assert (cache.link("va", "blue").alias, cache.link("other", "blue").group) == ("mark", 7)


def test_of_its_peer_a_veth_is_told_when_it_comes_up(
    session: Session, cache: IfIndexCache, blue: str, red: str
) -> None:
    cache.watch_all(["blue", "red"])
    a, b = session.create(Veth(End("va", "blue", up=False), End("vb", "red", up=False)))
    cache.catch_up()
    assert None in (cache.link("va", "blue").peer_index, cache.link("vb", "red").peer_index)
    for name, netns in (("va", "blue"), ("vb", "red")):
        ip("link", "set", name, "up", netns=netns)
    cache.catch_up()
    assert (cache.link("va", "blue").peer_index, cache.link("vb", "red").peer_index) == (b.index, a.index)
    assert cache.link("va", "blue").peer_netnsid == seen("va", "blue")["link_netnsid"]


def test_a_lookup_that_would_fail_looks_at_what_is_queued_first(
    session: Session, cache: IfIndexCache, blue: str
) -> None:
    cache.watch("blue")
    pair = session.create(Veth(End("va", "blue"), End("vb")))
    assert cache.index("va", "blue") == pair.a.index
    assert "new" in {event.kind for event in cache.poll()}


def test_links_that_trade_names_are_not_confused(session: Session, cache: IfIndexCache, blue: str) -> None:
    a, b = session.create(Veth(End("va", "blue", up=False), End("vb", "blue", up=False)))
    cache.watch("blue")
    for old, new in (("va", "tmp"), ("vb", "va"), ("tmp", "vb")):
        ip("link", "set", old, "name", new, netns="blue")
    cache.catch_up()
    assert (cache.index("vb", "blue"), cache.index("va", "blue")) == (a.index, b.index)
    with pytest.raises(LinkNotFound):
        cache.index("tmp", "blue")
    assert_right(cache, ["blue"])


def test_a_port_that_leaves_a_bridge_is_not_deleted(session: Session, cache: IfIndexCache, blue: str) -> None:
    session.create(Veth(End("va", "blue"), End("vb", "blue")))
    ip("link", "add", "name", "br", "up", "type", "bridge", netns="blue")
    cache.watch("blue")
    ip("link", "set", "va", "master", "br", netns="blue")
    ip("link", "set", "va", "nomaster", netns="blue")
    assert "deleted" not in {event.kind for event in cache.poll(0.1)}
    assert_right(cache, ["blue"])


def test_watching_many_is_all_or_nothing(
    session: Session, cache: IfIndexCache, make_netns: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "_SLAB", 2)
    many = [f"n{number}" for number in range(7)]
    make_netns(*many)
    cache.watch("n1")
    for refs, error in (([*many, "nowhere"], NetnsNotFound), (["n0", "n2", "n3", "bad/name"], InvalidValue)):
        with pytest.raises(error):
            cache.watch_all(refs)
        for ref in many:
            if ref != "n1":
                with raises(NetnsNotFound):
                    cache.links(ref)
    session.create(Veth(End("va", "n0", up=False), End("vb", "n1", up=False)))
    assert {event.netns for event in cache.poll()} == {"n1"}
    cache.watch_all(many)
    assert_right(cache, many)
    session.create(Veth(End("va", "n5", up=False), End("vb", "n6", up=False)))
    assert {event.netns for event in cache.poll()} == {"n5", "n6"}
    with raises(NetnsNotFound, netns="netns:nowhere"):
        cache.watch("nowhere")


def test_watching_again_after_unwatching_starts_from_what_is_there(
    session: Session, cache: IfIndexCache, blue: str
) -> None:
    cache.watch("blue")
    cache.unwatch("netns:blue")
    session.create(Veth(End("va", "blue", up=False), End("vb", up=False)))
    assert cache.poll() == []
    cache.watch("blue")
    assert cache.poll() == []
    assert_right(cache, ["blue"])
    ip("link", "set", "va", "mtu", "1400", netns="blue")
    assert told(cache.poll()) == [("changed", "blue", "va", "va")]


def test_a_namespace_is_watched_until_its_last_reference_is_given_up(
    session: Session, cache: IfIndexCache, blue: str
) -> None:
    with Netns.open(blue) as netns:
        opened = f"fd:{netns.fileno()}"
        cache.watch_all([blue, opened])
        assert cache.unwatch_by(f"netns:{blue}") == opened
        assert cache.netns() == [opened]
        session.create(Veth(End("va", blue, up=False), End("vb", up=False)))
        assert told(cache.poll()) == [("new", opened, "va", None)]
        assert cache.unwatch_by(blue) is None
        assert cache.unwatch_by(opened) is None
        assert cache.netns() == []
        session.delete("vb")
        assert cache.poll() == []


def test_a_namespace_made_anew_under_the_name_is_watched_when_asked_for(
    session: Session, cache: IfIndexCache, blue: str
) -> None:
    session.create(Veth(End("va", "blue", up=False), End("vb", "blue", up=False)))
    cache.watch("blue")
    ns.remove("blue")
    Netns.create("blue").close()
    assert told(cache.poll(30)) == [("netns-gone", "blue", None, None)]
    with raises(NetnsNotFound):
        cache.links("blue")
    cache.watch("blue")
    assert [link.name for link in cache.links("blue")] == ["lo"]
    session.create(Veth(End("vc", "blue", up=False), End("vd", "blue", up=False)))
    assert {event.netns for event in cache.poll()} == {"blue"}
    assert_right(cache, ["blue"])


def test_the_watch_of_a_name_follows_the_name_when_asked_for_again(
    session: Session, cache: IfIndexCache, blue: str, spawn: Callable[[str], int]
) -> None:
    """The old namespace lives on: a process is in it."""
    pid = spawn("blue")
    session.create(Veth(End("va", "blue", up=False), End("vb", "blue", up=False)))
    cache.watch("blue")
    ns.remove("blue")
    Netns.create("blue").close()
    assert cache.index("va", "blue") == cache.index("va", f"pid:{pid}")
    cache.watch("blue")
    assert [link.name for link in cache.links("blue")] == ["lo"]
    assert told(cache.poll()) == [("netns-gone", "blue", None, None)]
    cache.watch_all([f"pid:{pid}", "blue"])
    assert cache.index("va", f"pid:{pid}")
    assert_right(cache, [f"pid:{pid}", "blue"])


@pytest.mark.parametrize(("before", "after"), [("blue", "netns:blue"), ("netns:blue", "blue")])
def test_the_watch_of_a_name_follows_the_name_in_its_other_spelling(
    session: Session, cache: IfIndexCache, blue: str, before: str, after: str
) -> None:
    with Netns.open("blue") as held:
        session.create(Veth(End("va", "blue", up=False), End("vb", "blue", up=False)))
        cache.watch_all([before, ""])
        ns.remove("blue")
        Netns.create("blue").close()
        cache.watch(after)
        for spelling in (before, after):
            assert [link.name for link in cache.links(spelling)] == ["lo"]
            assert cache.identity(spelling) == session.identity("blue")
        with pytest.raises(NetnsNotFound):
            cache.links(held)
        assert told(cache.poll()) == [("netns-gone", before, None, None)]
        session.create(Veth(End("vc", "blue", up=False), End("vd", up=False)))
        assert cache.index("vc", before) == cache.index("vc", after)
        cache.unwatch(before)
        for spelling in (before, after):
            with pytest.raises(NetnsNotFound):
                cache.links(spelling)


def test_the_watch_of_an_older_namespace_goes_on_by_its_other_reference_when_its_name_is_watched_again(
    session: Session, cache: IfIndexCache, blue: str, spawn: Callable[[str], int]
) -> None:
    pid = spawn("blue")
    session.create(Veth(End("va", "blue", up=False), End("vb", "blue", up=False)))
    cache.watch_all(["blue", f"pid:{pid}"])
    ns.remove("blue")
    Netns.create("blue").close()
    cache.watch("netns:blue")
    assert [link.name for link in cache.links("blue")] == ["lo"]
    assert cache.index("va", f"pid:{pid}")
    assert cache.netns() == [f"pid:{pid}", "netns:blue"]
    assert_right(cache, [f"pid:{pid}", "netns:blue", "blue"])


def test_a_name_that_looks_like_another_reference_is_not_taken_for_it(
    session: Session, cache: IfIndexCache, make_netns: Callable[..., None], spawn: Callable[[str], int]
) -> None:
    make_netns("blue")
    pid = spawn("blue")
    make_netns(f"netns:pid:{pid}")
    session.create(Veth(End("va", f"pid:{pid}", up=False), End("vb", f"netns:pid:{pid}", up=False)))
    cache.watch(f"netns:pid:{pid}")
    with pytest.raises(NetnsNotFound):
        cache.index("vb", f"pid:{pid}")
    cache.watch(f"pid:{pid}")
    for ref, name in ((f"pid:{pid}", "va"), (f"netns:pid:{pid}", "vb")):
        assert [link.name for link in cache.links(ref)] == ["lo", name]
    cache.unwatch(f"pid:{pid}")
    with pytest.raises(NetnsNotFound):
        cache.index("vb", f"pid:{pid}")


def test_two_names_for_a_namespace_outlive_one_another(
    session: Session, cache: IfIndexCache, blue: str, spawn: Callable[[str], int]
) -> None:
    pid = spawn("blue")
    cache.watch_all(["blue", f"pid:{pid}"])
    ns.remove("blue")
    Netns.create("blue").close()
    cache.watch("blue")
    session.create(Veth(End("va", f"pid:{pid}", up=False), End("vb", "blue", up=False)))
    assert {event.netns for event in cache.poll()} == {f"pid:{pid}", "blue"}
    assert known(cache, "blue") != known(cache, f"pid:{pid}")


def test_home_is_that_of_the_session_whoever_asks(session: Session, cache: IfIndexCache, blue: str) -> None:
    session.create(Veth(End("va"), End("vb", "blue")))
    with ns.entered("blue"):
        cache.watch(None)
        assert cache.index("va", "") == session.lookup("va").index
    ip("link", "set", "va", "mtu", "1400")
    assert told(cache.poll())[-1] == ("changed", "", "va", "va")


def test_a_netns_that_is_no_more_leaves_its_text(session: Session, cache: IfIndexCache, blue: str) -> None:
    session.create(Veth(End("va", "blue", up=False), End("vb", "blue", up=False)))
    for _ in range(3):
        with Netns.open("blue") as held:
            cache.watch(held)
    ip("link", "set", "va", "mtu", "1400", netns="blue")
    assert told(cache.poll()) == [("changed", held, "va", "va")]
    del held
    ip("link", "set", "va", "mtu", "1300", netns="blue")
    assert told(cache.poll()) == [("changed", "netns:blue", "va", "va")]
    cache.watch("blue")
    assert cache.index("va", "blue") == session.lookup("va", "blue").index


def test_a_microservice_is_found_through_the_sessions_resolver(home: Netns, blue: str) -> None:
    with Session(resolver=lambda label: {"vnf": "blue"}[label]) as session, IfIndexCache(session) as cache:
        session.create(Veth(End("va", "blue"), End("vb")))
        cache.watch("microservice:vnf")
        assert cache.index("va", "microservice:vnf") == cache.index("va", "blue")
        ip("link", "set", "va", "mtu", "1400", netns="blue")
        assert told(cache.poll())[-1] == ("changed", "microservice:vnf", "va", "va")


def test_home_shows_no_trace_of_a_cache(session: Session, blue: str, red: str) -> None:
    before, fds = host_state(), open_fds()
    nsids = ip("netns", "list-id")
    with IfIndexCache(session) as cache:
        cache.watch_all(["", "blue", "red"])
        assert host_state() == before
        assert ip("netns", "list-id") == nsids
        assert ip("netns", "list-id", netns="blue") == []
    assert (host_state(), open_fds(), ip("netns", "list-id")) == (before, fds, nsids)


def test_a_watched_namespace_ends_with_its_last_user(
    session: Session, cache: IfIndexCache, spawn: Callable[[str], int]
) -> None:
    Netns.create("mortal").close()
    session.create(Veth(End("va", "mortal"), End("vb")))
    cache.watch_all(["mortal", ""])
    fds = open_fds()
    cache.catch_up()
    ns.remove("mortal")
    assert poll(lambda: "vb" not in {link["ifname"] for link in ip("link")})
    events = told(cache.poll(1))
    assert ("netns-gone", "mortal", None, None) in events
    assert ("deleted", "", None, "vb") in events
    assert not [event for event in events if event[1] == "mortal" and event[0] == "deleted"]
    assert open_fds() == fds


def test_the_number_of_descriptors_does_not_grow_with_the_namespaces(
    cache: IfIndexCache, make_netns: Callable[..., None]
) -> None:
    many = [f"n{number}" for number in range(60)]
    make_netns(*many)
    cache.watch(many[0])
    before = open_fds()
    cache.watch_all(many)
    assert open_fds() == before


def test_where_ids_run_out_there_is_another_observatory(
    session: Session, make_netns: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(observatory, "ROOM", 3)
    monkeypatch.setattr(watching, "_SLAB", 3)
    many = [f"n{number}" for number in range(8)]
    make_netns(*many)
    with IfIndexCache(session) as cache:
        cache.watch_all(many)
        session.create_many([Veth(End(f"a{n}", many[n], up=False), End("b", many[n + 1])) for n in range(7)])
        assert {event.netns for event in cache.poll()} == set(many)
        assert_right(cache, many)


def test_watching_and_unwatching_for_ever_needs_no_more_and_more(
    session: Session, make_netns: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(observatory, "ROOM", 3)
    many = [f"n{number}" for number in range(5)]
    make_netns(*many)
    with IfIndexCache(session) as cache:
        fds = []
        for _ in range(4):
            cache.watch_all(many[:3])
            with Netns.open("n3") as held:
                cache.watch(held)
            ip("link", "add", "name", "br", "type", "bridge", netns="n3")
            cache.catch_up()
            assert cache.index("br", "n3")
            fds.append(open_fds())
            for name in many[:4]:
                cache.unwatch(name)
                ns.remove(name)
            make_netns(*many[:4])
        assert len(set(fds)) == 1


def test_a_closed_cache_says_so(session: Session, blue: str) -> None:
    cache = IfIndexCache(session)
    cache.watch("blue")
    cache.close()
    cache.close()
    for call in (
        lambda: cache.index("lo", "blue"),
        lambda: cache.name(1, "blue"),
        lambda: cache.link("lo", "blue"),
        lambda: cache.links("blue"),
        lambda: cache.watch("blue"),
        lambda: cache.unwatch("blue"),
        cache.poll,
        cache.catch_up,
        cache.fileno,
        lambda: cache.find((0, 0), "lo"),
        cache.due,
        cache.netns,
        lambda: cache.unwatch_by("blue"),
        lambda: cache.watch_and_read(["blue"]),
        lambda: cache.identity("blue"),
        lambda: cache.is_at("blue", (0, 0)),
        lambda: cache.references("blue"),
        lambda: cache.record("blue", 1),
        lambda: cache.is_still(session.lookup("lo"), "blue"),
        lambda: cache.cookie_of((0, 0)),
        cache.prepare,
        cache.changes,
        lambda: cache.excuse([]),
    ):
        with raises(SessionClosed):
            call()


def test_a_cache_outlives_its_session_but_watches_nothing_more(home: Netns, blue: str, red: str) -> None:
    with Session() as session:
        cache = IfIndexCache(session)
    with cache, pytest.raises(SessionClosed):
        cache.watch("blue")
    with pytest.raises(SessionClosed):
        IfIndexCache(session)
    assert os.stat("/proc/thread-self/ns/net").st_ino == home.identity[1]
