"""A tenant that changes its links as fast as possible keeps no cache from the events of other namespaces."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.flapping import flapping
from tests.live.configuring import bind, unbind
from tests.live.floods import address, burst, mtu
from tests.live.reused_identity import with_inode_again
from tests.patience import Patience
from tests.witness import ip, seen
from vethlib import End, IfIndexCache, LinkEvent, LinkNotFound, NetnsNotFound, Session, Veth, ns
from vethlib.ifindex import cache as cache_module
from vethlib.ifindex import noise, observatory, reader, watching
from vethlib.ifindex.changes import LinkChanges

pytestmark = pytest.mark.slow


# --- coalesced changes


@pytest.fixture
def cache(session: Session, blue: str, red: str) -> Iterator[IfIndexCache]:
    """Coalesces what happens in blue, red and home, where the pair va ⇄ vb is, whose carrier has come."""
    session.create(Veth(End("va", "blue"), End("vb", "red")), wait=30)
    with IfIndexCache(session, addresses=True, coalesce=True) as cache:
        cache.watch_all(["", "blue", "red"])
        yield cache


def everything(cache: IfIndexCache) -> LinkChanges:
    """All changes up to now, in as many calls as that takes."""
    whole = LinkChanges()
    while select.select([cache], [], [], 0)[0]:
        changes = cache.changes()
        whole.links.update(changes.links)
        for link, kept in changes.addresses.items():
            # None stands for more than are kept, whatever comes after them.
            whole.addresses[link] = None if whole.addresses.get(link, kept) is None else kept
        whole.lost.update(changes.lost)
        whole.ended += changes.ended
        whole.noisy += changes.noisy
    return whole


def of(changes: LinkChanges) -> tuple[set[tuple[str, int]], set[tuple[str, int]]]:
    """The links that have changed, and those whose addresses have, each by namespace and ifindex."""
    links, given = ({(str(watch.netns), index) for watch, index in kind} for kind in (changes.links, changes.addresses))
    return links, given


def test_a_burst_is_one_change_of_one_link(cache: IfIndexCache) -> None:
    va = seen("va", "blue")["ifindex"]
    burst("blue", "va", mtu, 1500)
    assert of(everything(cache))[0] == {("blue", va)}
    assert cache.link("va", "blue").mtu == seen("va", "blue")["mtu"]


def test_addresses_in_a_burst_are_one_change_of_one_link(cache: IfIndexCache) -> None:
    va = seen("va", "blue")["ifindex"]
    burst("blue", "va", address, 500)
    changes = everything(cache)
    assert ("blue", va) in of(changes)[1]
    at = {(str(watch.netns), index): kept for (watch, index), kept in changes.addresses.items()}
    assert at["blue", va] is None


def test_a_call_reads_for_a_bounded_time_and_no_namespace_keeps_another_from_being_heard(
    session: Session, blue: str, red: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(observatory, "ROOM", 1)
    monkeypatch.setattr(reader, "SLICE", 0.0)
    session.create(Veth(End("va", "blue"), End("vb", "red")))
    with IfIndexCache(session, coalesce=True) as cache:
        cache.watch("blue")
        cache.watch("red")
        while cache.changes():
            pass
        burst("blue", "va", mtu, 1500)
        burst("red", "vb", mtu, 1)
        heard = [of(cache.changes())[0] for _ in range(2)]
        assert ("red", seen("vb", "red")["ifindex"]) in heard[0] | heard[1]
        assert cache.link("vb", "red").mtu == 1000
        calls = 0
        while cache.changes():
            calls += 1
        assert calls > 5
        assert cache.link("va", "blue").mtu == seen("va", "blue")["mtu"]


def test_a_noisy_namespace_is_not_heard_any_more_and_the_others_are(
    easily_disturbed: None, cache: IfIndexCache
) -> None:
    everything(cache)
    burst("blue", "va", mtu, 400)
    changes = everything(cache)
    assert [watch.netns for watch in changes.noisy] == ["blue"]
    assert cache.netns() == ["", "red"]
    with pytest.raises(NetnsNotFound):
        cache.index("va", "blue")
    everything(cache)
    burst("blue", "va", mtu, 400)
    again = everything(cache)
    assert "blue" not in {netns for netns, _ in set.union(*of(again))}  # IPv6 may be at work on vb still
    assert not again.noisy
    assert not again.ended
    ip("link", "set", "vb", "mtu", "1400", netns="red")
    ip("link", "add", "x", "type", "veth", "peer", "name", "y")
    links, _ = of(everything(cache))
    assert links == {("red", seen("vb", "red")["ifindex"]), ("", seen("x")["ifindex"]), ("", seen("y")["ifindex"])}
    assert cache.link("vb", "red").mtu == 1400


def test_what_happens_while_the_others_move_is_not_lost(easily_disturbed: None, cache: IfIndexCache) -> None:
    everything(cache)
    burst("blue", "va", mtu, 400)
    ip("link", "set", "vb", "mtu", "1400", netns="red")
    ip("addr", "add", "10.1.1.1/24", "dev", "vb", netns="red")
    changes = everything(cache)
    assert "red" in {watch.netns for watch in changes.lost}
    assert cache.link("vb", "red").mtu == 1400


def test_a_namespace_whose_first_reference_leads_nowhere_moves_by_another(
    easily_disturbed: None, cache: IfIndexCache, tmp_path: Path
) -> None:
    held = tmp_path / "held"
    held.touch()
    bind("/run/netns/red", held)
    try:
        cache.watch(f"path:{held}")
        ns.remove("red")
        everything(cache)
        burst("blue", "va", mtu, 400)
        changes = everything(cache)
        assert [watch.netns for watch in changes.noisy] == ["blue"]
        assert not changes.ended
        ip("link", "set", "vb", "mtu", "1400", netns=f"path:{held}")
        everything(cache)
        assert cache.link("vb", f"path:{held}").mtu == 1400
    finally:
        unbind(held)


def test_a_namespace_that_was_noisy_is_watched_apart_from_the_others(
    easily_disturbed: None, cache: IfIndexCache
) -> None:
    everything(cache)
    burst("blue", "va", mtu, 400)
    assert everything(cache).noisy
    cache.watch("blue")
    everything(cache)
    ip("link", "set", "va", "mtu", "1300", netns="blue")
    assert of(everything(cache))[0] == {("blue", seen("va", "blue")["ifindex"])}
    burst("blue", "va", mtu, 400)
    changes = everything(cache)
    assert [watch.netns for watch in changes.noisy] == ["blue"]
    assert not changes.lost  # nobody had to move


@pytest.mark.needs_kernel("5.14")  # before, nothing tells the two namespaces apart
def test_a_namespace_with_the_number_of_a_noisy_one_is_watched_with_the_others(
    easily_disturbed: None, session: Session, cache: IfIndexCache
) -> None:
    for number in range(3):
        name = f"green{number}"
        ns.Netns.create(name).close()
        for is_successor in (False, True):
            reused = is_successor and with_inode_again(name)
            session.create(Veth(End("vc", name), End("vd", "red")), wait=10)
            cache.watch(name)
            everything(cache)
            burst(name, "vc", mtu, 400)
            changes = everything(cache)
            assert [watch.netns for watch in changes.noisy] == [name]
            assert "red" in {watch.netns for watch in changes.lost}  # the others had to move
        ns.remove(name)
        if reused:
            return  # otherwise another program was quicker


def test_home_is_heard_however_noisy_it_is(easily_disturbed: None, session: Session, cache: IfIndexCache) -> None:
    session.create(Veth(End("x"), End("y")))
    everything(cache)
    for mtus in (400, 400):
        burst("", "x", mtu, mtus)
        assert not everything(cache).noisy
    everything(cache)
    ip("link", "set", "x", "mtu", "1300")
    assert of(everything(cache))[0] == {("", seen("x")["ifindex"])}
    ip("link", "set", "va", "mtu", "1300", netns="blue")
    assert of(everything(cache))[0] == {("blue", seen("va", "blue")["ifindex"])}


def test_what_the_user_does_himself_is_no_noise(
    easily_disturbed: None, session: Session, cache: IfIndexCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_module, "GLANCE", 10.0)
    everything(cache)
    burst("blue", "va", mtu, 400)
    cache.catch_up()
    cache.excuse([session.identity("blue")])
    assert not everything(cache).noisy


def test_a_noisy_namespace_leaves_no_descriptor_behind(easily_disturbed: None, cache: IfIndexCache) -> None:
    everything(cache)
    before = None
    for _ in range(4):
        burst("blue", "va", mtu, 400)
        assert everything(cache).noisy
        cache.watch("blue")
        count = len(os.listdir("/proc/self/fd"))
        assert before is None or count <= before
        before = count


def test_a_resync_is_not_made_again_at_once(session: Session, blue: str, monkeypatch: pytest.MonkeyPatch) -> None:
    resyncs: list[float] = []
    resync = watching.Watching._resync

    def counted(self: watching.Watching, there: observatory.Observatory, **options: Any) -> None:
        resyncs.append(time.monotonic())
        resync(self, there, **options)
        there.resync_at = time.monotonic() + 0.3  # as if it had taken long

    monkeypatch.setattr(watching.Watching, "_resync", counted)
    session.create(Veth(End("va", "blue"), End("vb", "blue")))
    with IfIndexCache(session, receive_buffer=4096, coalesce=True) as cache:
        cache.watch("blue")
        began = time.monotonic()
        while time.monotonic() - began < 0.8:
            burst("blue", "va", mtu, 100)
            cache.changes()
        until_due = cache.due()
        assert 1 <= len(resyncs) <= 4
        if until_due is not None:
            time.sleep(max(0.0, until_due - time.monotonic()))
        while cache.due() is not None:
            cache.changes()
        assert cache.link("va", "blue").mtu == seen("va", "blue")["mtu"]


# --- every event


@pytest.fixture
def following(session: Session, blue: str, red: str) -> Iterator[IfIndexCache]:
    """A cache whose user follows each change, with little room for events."""
    session.create(Veth(End("va", "blue"), End("vb", "red")), wait=10)
    with IfIndexCache(session, addresses=True, receive_buffer=256 << 10) as cache:
        cache.watch_all(["", "blue", "red"])
        rest_of(cache)
        yield cache


def rest_of(cache: IfIndexCache) -> list[LinkEvent]:
    """All events up to now, in as many calls as that takes."""
    events: list[LinkEvent] = []
    patience = Patience(60.0)
    while select.select([cache], [], [], 0)[0]:
        assert not patience.is_over()
        events += cache.poll()
    return events


def until_current(cache: IfIndexCache) -> None:
    """Events that a flood has cost are made up for when it is over."""
    patience = Patience(60.0)
    while cache.link("va", "blue").mtu != seen("va", "blue")["mtu"]:
        assert not patience.is_over()
        cache.poll(0.1)


def test_a_call_returns_the_events_of_a_bounded_time_and_the_next_ones_the_others(
    session: Session, blue: str, red: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    session.create(Veth(End("va", "blue"), End("vb", "red")), wait=10)
    with IfIndexCache(session) as cache:
        cache.watch("blue")
        rest_of(cache)
        monkeypatch.setattr(reader, "SLICE", 0.0)
        burst("blue", "va", mtu, 300)
        some = cache.poll()
        assert 0 < len(some) < 150
        assert cache.link("va", "blue").mtu == some[-1].link.mtu  # type: ignore[union-attr]
        with pytest.raises(LinkNotFound):
            cache.index("nowhere", "blue")  # reads all that is queued
        assert cache.link("va", "blue").mtu == seen("va", "blue")["mtu"]
        whole = [*some, *rest_of(cache)]
        assert [event.link.mtu for event in whole if event.link is not None] == [1000 + n for n in range(300)]


def test_a_noisy_namespace_is_followed_apart_from_the_others(
    easily_disturbed: None, following: IfIndexCache, session: Session
) -> None:
    burst("blue", "va", mtu, 400)
    events = rest_of(following)
    assert {event.netns for event in events if event.kind == "resync"} >= {"blue", "red"}
    assert set(following.netns()) == {"", "blue", "red"}
    for turn in range(3):
        burst("blue", "va", mtu, 400)
        ip("link", "set", "vb", "mtu", str(1400 + turn), netns="red")
        ip("address", "add", f"10.1.{turn}.1/24", "dev", "vb", netns="red")
        events = rest_of(following)
        assert {event.netns for event in events if event.kind == "resync"} <= {"blue"}
        of_red = [event for event in events if event.netns == "red"]
        assert [event.link.mtu for event in of_red if event.kind == "changed" and event.link] == [1400 + turn]
        assert f"10.1.{turn}.1/24" in [str(event.address.interface) for event in of_red if event.address]
        assert following.link("vb", "red").mtu == 1400 + turn
        until_current(following)


def test_events_of_a_long_time_are_no_noise(following: IfIndexCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(noise, "NOISY", 100)
    monkeypatch.setattr(noise, "WINDOW", 0.0)
    for _ in range(4):
        burst("blue", "va", mtu, 40)
        following.catch_up()
    assert "resync" not in {event.kind for event in rest_of(following)}


def test_a_namespace_that_is_followed_apart_ends_like_any_other(
    easily_disturbed: None, following: IfIndexCache
) -> None:
    burst("blue", "va", mtu, 400)
    rest_of(following)
    ip("link", "add", "x", "type", "veth", "peer", "name", "y", netns="blue")
    assert ("new", "x") in [(event.kind, event.link.name) for event in rest_of(following) if event.link]
    ns.remove("blue")
    patience = Patience(60.0)
    events: list[LinkEvent] = []
    while not [event for event in events if event.kind == "netns-gone"]:
        assert not patience.is_over()
        events += following.poll(0.1)
    assert set(following.netns()) == {"", "red"}


def test_a_flood_does_not_delay_the_events_of_others(easily_disturbed: None, following: IfIndexCache) -> None:
    with flapping("blue", "va", "addresses", seconds=60):
        patience = Patience(60.0)
        while not [one for one in following.poll(0.5) if (one.kind, one.netns) == ("resync", "red")]:
            assert not patience.is_over()
        before = 1500
        for now in (1400, 1401, 1402):
            rest: list[LinkEvent] = []
            ip("link", "set", "vb", "mtu", str(now), netns="red")
            for _ in range(20):  # a call, or a few if the flood is faster than the kernel's work for the other
                rest += following.poll(0.5)
                heard = {event.link.mtu for event in rest if event.netns == "red" and event.link}
                if now in heard:
                    break
            # An event before the change may be reported only now, and the kernel may report a change twice.
            assert {now} <= heard <= {before, now}
            before = now
            assert not [event for event in rest if event.kind == "resync" and event.netns in (None, "red")]
