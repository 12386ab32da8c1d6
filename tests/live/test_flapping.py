"""A tenant that changes its links as fast as possible takes neither the time of other tenants nor that of the agent."""

from __future__ import annotations

import json
import os
import select
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.flapping import addresses, flapping, give_addresses
from tests.patience import Patience
from tests.witness import cpu_of, ip, poll, seen
from vethlib import End, IfIndexCache, LinkEvent, LinkNotFound, NetnsNotFound, Session, Veth, ns
from vethlib._nl.addr import new_addr
from vethlib._nl.link import set_link
from vethlib._nl.sock import RtnlSocket
from vethlib.agent.reasons import ReasonCode
from vethlib.agent.reconcile import configurator as configurator_module
from vethlib.agent.reconcile import observer, occasions, watches
from vethlib.agent.reconcile.configurator import Configurator
from vethlib.agent.reconcile.passes import choice
from vethlib.ifindex import cache as cache_module
from vethlib.ifindex import noise, observatory, reader, watching
from vethlib.ifindex.changes import LinkChanges

from .agents import started
from .applying import value
from .configuring import bind, configured, pair, put, quickly, settle, state_of, unbind, until
from .reused_identity import with_inode_again

pytestmark = pytest.mark.slow

SOON = 0.5 if (os.cpu_count() or 1) > 1 else 5.0  # the tenant has half of the only CPU
AT_ALL = 10 * SOON  # on a machine that has much else to do


def is_up(name: str, netns: str) -> bool:
    links = [link for link in ip("link", netns=netns) if link["ifname"] == name]
    return bool(links) and "UP" in links[0]["flags"]


def wait_for(condition: Callable[[], object], within: float) -> float:
    began = time.monotonic()
    assert poll(lambda: bool(condition()), within), f"not within {within} s"
    return time.monotonic() - began


def cpu_until_its_end(pid: int, within: float) -> float:
    """Seconds of CPU time that a child has used in all, once it has ended."""
    deadline = time.monotonic() + within
    while not (done := os.wait4(pid, os.WNOHANG))[0]:
        assert time.monotonic() < deadline, f"not within {within} s"
        time.sleep(0.005)
    return done[2].ru_utime + done[2].ru_stime


def ended(pid: int) -> bool:
    return os.waitpid(pid, os.WNOHANG)[0] == pid


# --- an agent, one tenant who flaps and one who does not


@pytest.fixture
def store(home: ns.Netns, tmp_path: Path, make_netns: Callable[..., None]) -> Path:
    """The pairs fa ⇄ fb and ha ⇄ hb, whose far ends are in the namespaces `flapper` and `honest`."""
    make_netns("flapper", "honest")
    there = tmp_path / "store"
    there.mkdir()
    for a, b, netns in (("fa", "fb", "flapper"), ("ha", "hb", "honest")):
        (there / f"{a}.json").write_text(json.dumps(value(a, b)))
        (there / f"{b}.json").write_text(json.dumps(value(b, a, netns)))
    return there


@pytest.fixture
def agent(store: Path) -> Iterator[int]:
    pid = started(store)
    try:
        wait_for(lambda: is_up("fb", "flapper") and is_up("hb", "honest"), 60)
        yield pid
    finally:
        try:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass


def repaired() -> float:
    """Seconds until the honest tenant's pair is back, of which an end was deleted."""
    ip("link", "del", "dev", "hb", netns="honest")
    return wait_for(lambda: is_up("hb", "honest"), 10 * AT_ALL)


@pytest.mark.parametrize(
    ("kind", "resident"), [("addresses", 3000), ("state", 0), ("values", 0), ("altnames", 0), ("name", 0), ("links", 0)]
)
def test_another_tenant_is_repaired_and_sigterm_obeyed_while_one_flaps(
    store: Path, agent: int, kind: str, resident: int
) -> None:
    if resident:
        give_addresses("/run/netns/flapper", "fb", resident)
    at_rest = max(repaired() for _ in range(3))  # as long as this machine takes, with all else that it has to do
    with flapping("flapper", "fb", kind, seconds=2000):
        took = []
        for pause in (0.3, 0.3, 0.3):
            time.sleep(pause)
            took.append(repaired())
        os.kill(agent, signal.SIGTERM)
        stopped = wait_for(lambda: ended(agent), 10 * AT_ALL)
    print(f"{kind}: repaired after {', '.join(f'{one:.3f}' for one in took)} s, stopped after {stopped:.3f} s")
    assert min(took) < SOON + 10 * at_rest
    assert max(took) < AT_ALL + 50 * at_rest
    assert stopped < AT_ALL + 50 * at_rest


# --- what it rests on: reading


@pytest.fixture
def cache(session: Session, blue: str, red: str) -> Iterator[IfIndexCache]:
    """Coalesces what happens in blue, red and home, where the pair va ⇄ vb is, whose carrier has come."""
    session.create(Veth(End("va", "blue"), End("vb", "red")), wait=30)
    with IfIndexCache(session, addresses=True, coalesce=True) as cache:
        cache.watch_all(["", "blue", "red"])
        yield cache


def burst(netns: str, name: str, make: Callable[[int, int], bytes], count: int, first: int = 0) -> None:
    """Requests of which each makes an event or more."""
    index = seen(name, netns)["ifindex"]
    with ns.Netns.open(netns) as held:
        sock = ns.call_in(held.fileno(), RtnlSocket)
    try:
        for start in range(first, first + count, 100):
            sock.exchange([make(index, number) for number in range(start, min(start + 100, first + count))])
    finally:
        sock.close()


def mtu(index: int, number: int) -> bytes:
    return set_link(index, mtu=1000 + number % 400)


def address(index: int, number: int) -> bytes:
    own = addresses(number, 1)[0]
    return new_addr(index, own, 8 * len(own))


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


def until_current(cache: IfIndexCache) -> None:
    """Events that a flood has cost are made up for when it is over."""
    patience = Patience(60.0)
    while cache.link("va", "blue").mtu != seen("va", "blue")["mtu"]:
        assert not patience.is_over()
        cache.poll(0.1)


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


@pytest.fixture
def easily_disturbed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(noise, "NOISY", 300)
    monkeypatch.setattr(noise, "WINDOW", 60.0)


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


# --- what it rests on: looking, and working


@pytest.fixture
def configurator(session: Session, blue: str, red: str) -> Iterator[Configurator]:
    with Configurator(session) as configurator:
        put(configurator, *pair("a", "b", "", "blue"), *pair("x", "y", "", "red"))
        settle(configurator)
        yield configurator


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[set[str]]:
    """The interfaces of every look."""
    made: list[set[str]] = []
    look = observer.HostObserver.look

    def counted(self: observer.HostObserver, desired: Any, names: Any) -> Any:
        made.append(set(names))
        return look(self, desired, made[-1])

    monkeypatch.setattr(observer.HostObserver, "look", counted)
    return made


@pytest.mark.parametrize("count", [200, 2000])
def test_ten_times_the_addresses_are_not_ten_times_the_looks_and_statuses(
    configurator: Configurator, looks: list[set[str]], count: int
) -> None:
    with configurator.subscribe() as told:
        told.take()
        for start in range(0, count, 100):
            burst("blue", "b", address, 100, first=start)
            configurator.poll(0)
        until(configurator, lambda: len(configurator.status("b")[0].link.addresses) >= count)  # type: ignore[union-attr]
        assert len(looks) < 25
        assert len(told.take()) < 25
    assert configured(configurator, "a", "b")()


def test_an_address_that_is_wanted_comes_back_though_thousands_of_others_went_too(
    configurator: Configurator,
) -> None:
    put(configurator, *pair("a", "b", "", "blue", ip_addresses=["10.0.0.1/24"]))
    settle(configurator)
    burst("blue", "b", address, 300)
    settle(configurator)
    quickly("addr flush dev b", netns="blue")
    until(configurator, lambda: [one["local"] for one in seen("b", "blue")["addr_info"] if one["family"] == "inet"])
    assert [one["local"] for one in seen("b", "blue")["addr_info"] if one["family"] == "inet"] == ["10.0.0.1"]


def test_links_of_others_in_a_namespace_cost_no_look(configurator: Configurator, looks: list[set[str]]) -> None:
    ip("link", "add", "mine", "type", "veth", "peer", "name", "mine2", netns="blue")
    burst("blue", "mine", mtu, 1000)
    settle(configurator)
    assert looks == []


def test_an_interface_in_a_namespace_that_is_too_noisy_is_still_put_right(
    easily_disturbed: None, configurator: Configurator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watches, "REST", 1.5)
    burst("blue", "b", address, 400)
    until(configurator, lambda: configurator.status("b")[0].warning_code == ReasonCode.EVENTS_IGNORED)
    assert configured(configurator, "a", "b", "x", "y")()
    assert configurator.status("x")[0].warning == ""
    ip("link", "set", "dev", "b", "mtu", "1300", netns="blue")
    until(configurator, lambda: seen("b", "blue")["mtu"] == 1500)
    # As many rests as it takes for duplicate address detection to be through with 200 addresses, each twice as long.
    until(configurator, lambda: not configurator.status("b")[0].warning, 40)
    ip("link", "set", "dev", "b", "down", netns="blue")
    until(configurator, lambda: is_up("b", "blue"), 15)


def test_one_who_was_hurt_comes_before_those_who_are_new(
    configurator: Configurator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(occasions, "AT_ONCE", 4)
    monkeypatch.setattr(configurator_module, "BUDGET", 0.0)
    for number in range(30):
        put(configurator, *pair(f"n{number}", f"m{number}"))
    configurator.poll(0)
    assert configurator.due() == 0
    ip("link", "del", "dev", "y", netns="red")
    polls = 0
    while not is_up("y", "red"):
        configurator.poll(0)
        polls += 1
    assert polls <= 3
    assert configurator.due() == 0
    settle(configurator)
    assert configured(configurator, *(f"{end}{number}" for end in "nm" for number in range(30)))()


def test_what_is_found_at_a_look_at_everything_is_done_part_by_part(
    session: Session, blue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(configurator_module, "BUDGET", 0.0)
    monkeypatch.setattr(choice, "AT_ONCE", 4)
    with Configurator(session) as configurator:
        wanted = [one for number in range(20) for one in pair(f"n{number}", f"m{number}", "", "blue")]
        configurator.resync(wanted)
        configurator.poll(0)
        assert len(ip("link", netns="blue")) == 1 + 4
        assert {state_of(configurator, one.name) for one in wanted} == {"", "CONFIGURED"}
        settle(configurator)
        assert configured(configurator, *(one.name for one in wanted))()
        configurator.resync(wanted[:2])
        settle(configurator)
        assert len(ip("link", netns="blue")) == 1 + 1
        assert {status.name for status in configurator.status()} == {"n0", "m0"}


def test_an_agent_that_has_much_to_do_obeys_sigterm_and_leaves_nothing_half_made(
    home: ns.Netns, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    store.mkdir()
    for number in range(1500):
        (store / f"a{number}.json").write_text(json.dumps(value(f"a{number}", f"b{number}")))
        (store / f"b{number}.json").write_text(json.dumps(value(f"b{number}", f"a{number}")))
    pid = started(store)
    try:
        wait_for(lambda: len(os.listdir("/proc/thread-self/net/dev_snmp6")) > 50, 60)
        os.kill(pid, signal.SIGTERM)
        before = cpu_of(pid)
        used = cpu_until_its_end(pid, 10 * AT_ALL) - before
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        raise
    links = {link["ifname"]: link for link in ip("-d", "link")}
    made = [name for name in links if name[0] in "ab"]
    assert 50 < len(made) < 3000
    assert all("UP" in links[name]["flags"] and links[name]["ifalias"] for name in made)
    assert used < AT_ALL  # seconds of CPU time: how long it waits for a processor is not its doing
