"""Actions of others between two steps of the configurator: numbers that now mean something else, and work left over."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable
from functools import partial

import pytest

from tests.live.applying import interface
from tests.live.configuring import by_file, configured, foreign, pair, placed, put, quickly, settle, until
from tests.live.descriptors import descriptors_left
from tests.live.reused_identity import foreign_link, with_inode_again
from tests.live.tap import Tap
from tests.witness import ip, names, seen
from vethlib import IfIndexCache, NetlinkError, Session, ns
from vethlib.agent.planning.desired import Desired
from vethlib.agent.planning.observed import Observed
from vethlib.agent.reconcile import watches
from vethlib.agent.reconcile.configurator import Configurator
from vethlib.agent.reconcile.observer import HostObserver
from vethlib.agent.reconcile.passes import reconcilepass
from vethlib.agent.reconcile.watches import Watches
from vethlib.links import NetnsRef


def theirs(name: str, netns: str) -> int:
    """Create a link of another program, up; returns its ifindex."""
    foreign(name, netns, peer=f"{name}-peer")
    ip("link", "set", "dev", name, "up", netns=netns)
    index: int = seen(name, netns)["ifindex"]
    return index


def tapped(configurator: Configurator, netns: str) -> Tap:
    """Attach a dependant to o1 there."""
    tap = Tap("o1", netns)
    configurator.attach(tap)
    settle(configurator)
    return tap


# --- the same ifindex, another link


def test_a_dependant_whose_link_was_moved_away_and_back_is_attached_again(
    configurator: Configurator, blue: str, red: str
) -> None:
    index = theirs("o1", "blue")
    tap = tapped(configurator, "blue")
    quickly("link set dev o1 netns red", netns="blue")
    quickly("link set dev o1 netns blue", netns="red")
    quickly("link set dev o1 up", netns="blue")
    assert seen("o1", "blue")["ifindex"] == index
    until(configurator, lambda: len(tap.calls) > 2)
    assert tap.kinds == ["attached", "detached", "attached"]


@pytest.mark.parametrize("netns", ["", "blue"])
def test_a_dependant_whose_link_was_made_anew_with_its_ifindex_is_attached_again(
    configurator: Configurator, blue: str, netns: str
) -> None:
    index = theirs("o1", netns)
    tap = tapped(configurator, netns)
    quickly(
        "link del dev o1",
        f"link add name o1 index {index} type veth peer name o2",
        "link set dev o1 up",
        netns=netns,
    )
    until(configurator, lambda: len(tap.calls) > 2)
    assert tap.kinds == ["attached", "detached", "attached"]


def test_a_dependant_whose_link_was_made_anew_with_its_ifindex_while_events_were_lost_is_attached_again(
    session: Session, blue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watches, "IfIndexCache", partial(IfIndexCache, receive_buffer=8192))
    with Configurator(session) as configurator:
        index = theirs("o1", "blue")
        tap = tapped(configurator, "blue")
        lines = [f"link set dev o1 mtu {1000 + number}" for number in range(50)]
        lines += ["link del dev o1", f"link add name o1 index {index} type veth peer name o2", "link set dev o1 up"]
        quickly(*lines, netns="blue")
        until(configurator, lambda: len(tap.calls) > 2)
    assert tap.kinds[:3] == ["attached", "detached", "attached"]


# --- the same inode number, another namespace


def test_nothing_is_remembered_of_a_namespace_that_lost_its_name_before_its_end(
    configurator: Configurator, session: Session, blue: str
) -> None:
    with ns.Netns.open("blue"):
        index = theirs("o1", "blue")
        attachment = configurator.attach(Tap("o1", "blue"))
        settle(configurator)
        place = session.identity("blue")
        assert configurator._dependants.knows(place, index)
        ns.remove("blue")
        ns.Netns.create("blue").close()
        until(configurator, lambda: attachment.link is None)
    settle(configurator)
    assert not configurator._dependants.knows(place, index)  # the next one may have its number


def test_a_namespace_with_the_number_of_the_last_one_that_is_first_found_by_another_reference_has_nobody_attached(
    session: Session,
) -> None:
    for _ in range(3):
        ns.Netns.create("blue").close()
        with Configurator(session) as configurator:
            theirs("o1", "blue")
            tap = tapped(configurator, "blue")
            reused = with_inode_again("blue")
            configurator.attach(Tap("o2", "path:/run/netns/blue"))
            until(configurator, partial(has_been, tap, "attached", "detached"))
            theirs("o1", "blue")
            until(configurator, partial(has_been, tap, "attached", "detached", "attached"))
        ns.remove("blue")
        if reused:
            return  # otherwise another program was quicker


def has_been(tap: Tap, *kinds: str) -> bool:
    return tap.kinds == list(kinds)


@pytest.mark.needs_kernel("5.14")  # before, nothing tells the two namespaces apart
def test_events_of_a_link_in_a_namespace_with_the_number_of_an_ended_one_are_no_reason_to_look_at_what_was_there(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: set[str] = set()
    look = HostObserver.look

    def noting(self: HostObserver, desired: Desired, names: Iterable[str]) -> Observed:
        looked.update(names := set(names))
        return look(self, desired, names)

    monkeypatch.setattr(HostObserver, "look", noting)
    for _ in range(3):
        for name in ("blue", "red"):
            ns.Netns.create(name).close()
        with Configurator(session, missing_netns="wait") as configurator:
            put(configurator, *pair("a", "b", "blue", "red"), *pair("c", "d", "green"))
            settle(configurator)
            index = seen("a", "blue")["ifindex"]
            reused = with_inode_again("blue", successor="green")
            foreign_link("o1", index, "green")
            until(configurator, configured(configurator, "c", "d"))
            settle(configurator)
            looked.clear()
            ip("link", "set", "dev", "o1", "mtu", "1300", netns="green")
            ip("link", "set", "dev", "c", "mtu", "1300", netns="green")
            until(configurator, lambda: seen("c", "green")["mtu"] == 1500)
            assert "a" not in looked
            configurator.resync()
            settle(configurator)
            assert not [*configurator.pairs.record.of("a")]
        for name in ns.names():
            ns.remove(name)
        if reused:
            return  # otherwise another program was quicker


# --- namespaces that were too noisy


@pytest.fixture
def easily_disturbed(easily_disturbed: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watches, "REST", 0.5)


def disturb(configurator: Configurator, netns: str) -> None:
    """Have a namespace send too many events, and the configurator ignore them for a while."""
    foreign("noisy", netns, peer="noisy-peer")
    quickly(*(f"link set dev noisy mtu {1000 + number % 400}" for number in range(400)), netns=netns)
    until(configurator, lambda: configurator._observer.watches.any_rests())


def test_an_interface_that_is_configured_by_another_reference_where_events_are_ignored_is_watched_later(
    easily_disturbed: None, configurator: Configurator, blue: str
) -> None:
    put(configurator, *pair("a", "b", "blue"))
    settle(configurator)
    disturb(configurator, "blue")
    put(configurator, placed("c", "d", by_file("/run/netns/blue")), interface("d", "c"))
    until(configurator, configured(configurator, "c", "d"))
    configurator.delete("a")
    configurator.delete("b")
    until(configurator, lambda: "a" not in names("blue"))
    ip("link", "set", "dev", "c", "mtu", "1300", netns="blue")
    until(configurator, lambda: seen("c", "blue")["mtu"] == 1500, 20)


def test_a_dependant_on_a_link_of_others_where_events_were_ignored_is_detached_and_attached_later(
    easily_disturbed: None, configurator: Configurator, blue: str
) -> None:
    theirs("o1", "blue")
    tap = tapped(configurator, "blue")
    disturb(configurator, "blue")
    ip("link", "del", "dev", "o1", netns="blue")
    until(configurator, lambda: tap.kinds == ["attached", "detached"], 20)
    theirs("o1", "blue")
    until(configurator, lambda: tap.kinds == ["attached", "detached", "attached"], 20)


def test_nothing_is_remembered_of_a_namespace_that_ended_while_its_events_were_ignored(
    easily_disturbed: None, configurator: Configurator, session: Session, blue: str
) -> None:
    index = theirs("o1", "blue")
    configurator.attach(Tap("o1", "blue"))
    settle(configurator)
    place = session.identity("blue")
    disturb(configurator, "blue")
    ns.remove("blue")
    ns.Netns.create("blue").close()
    until(configurator, lambda: not configurator._dependants.knows(place, index))


def is_watched(configurator: Configurator, name: str, netns: str) -> None:
    """Ask for an interface that is repaired at once, without a warning."""
    until(configurator, lambda: configured(configurator, name)() and not configurator.status(name)[0].warning)
    ip("link", "set", "dev", name, "mtu", "1300", netns=netns)
    until(configurator, lambda: seen(name, netns)["mtu"] == 1500)


@pytest.mark.needs_kernel("5.14")  # before, nothing tells the two namespaces apart
@pytest.mark.parametrize("successor", ["blue", "green"])
def test_the_events_of_a_namespace_with_the_number_of_a_noisy_one_are_not_ignored(
    easily_disturbed: None, session: Session, monkeypatch: pytest.MonkeyPatch, successor: str
) -> None:
    monkeypatch.setattr(watches, "REST", 600.0)
    for _ in range(3):
        ns.Netns.create("blue").close()
        with Configurator(session, missing_netns="wait") as configurator:
            put(configurator, *pair("a", "b", "blue"), *pair("c", "d", "green"))
            settle(configurator)
            disturb(configurator, "blue")
            reused = with_inode_again("blue", successor=successor)
            is_watched(configurator, "a" if successor == "blue" else "c", successor)
        ns.remove(successor)
        if reused:
            return  # otherwise another program was quicker


def test_a_namespace_that_has_the_name_of_a_noisy_one_has_no_warning(
    easily_disturbed: None, configurator: Configurator, blue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watches, "REST", 600.0)
    put(configurator, *pair("a", "b", "blue"))
    settle(configurator)
    disturb(configurator, "blue")
    with ns.Netns.open("blue"):
        ns.remove("blue")
        ns.Netns.create("blue").close()
        is_watched(configurator, "a", "blue")


@pytest.mark.needs_kernel("5.14")  # before, nothing tells the two namespaces apart
@pytest.mark.parametrize("rest", [0.5, 600.0])
def test_a_dependant_on_a_link_of_a_noisy_namespace_is_detached_when_another_one_has_its_number(
    easily_disturbed: None, session: Session, monkeypatch: pytest.MonkeyPatch, rest: float
) -> None:
    monkeypatch.setattr(watches, "REST", rest)
    for _ in range(3):
        ns.Netns.create("blue").close()
        with Configurator(session) as configurator:
            theirs("o1", "blue")
            tap = tapped(configurator, "blue")
            disturb(configurator, "blue")
            reused = with_inode_again("blue")
            theirs("o1", "blue")
            until(configurator, partial(has_been, tap, "attached", "detached", "attached"))
        ns.remove("blue")
        if reused:
            return  # otherwise another program was quicker


def test_a_dependant_is_detached_where_events_are_ignored_once_a_look_finds_no_link(
    easily_disturbed: None, configurator: Configurator, blue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watches, "REST", 600.0)
    put(configurator, *pair("a", "b", "blue"))
    tap = Tap("a", "blue")
    configurator.attach(tap)
    settle(configurator)
    disturb(configurator, "blue")
    quickly("link del dev b", "link add name b type veth peer name b2")  # so that it cannot be created again
    until(configurator, lambda: tap.kinds == ["attached", "detached"])


# --- between a look and a watch


def test_what_changes_between_the_last_look_of_a_pass_and_its_watch_is_seen(
    session: Session, blue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Configurator(session) as before:
        put(before, *pair("a", "b", "blue"))
        settle(before)
    watch = Watches._watch

    def late(self: Watches, refs: list[str]) -> bool:
        if "netns:blue" in refs and seen("a", "blue")["mtu"] == 1500:
            ip("link", "set", "dev", "a", "mtu", "1300", netns="blue")
        return watch(self, refs)

    monkeypatch.setattr(reconcilepass, "_ROUNDS", 1)  # as after so many in which something was done
    with Configurator(session) as configurator:
        with monkeypatch.context() as inner:
            inner.setattr(Watches, "_watch", late)
            put(configurator, *pair("a", "b", "blue"))
            configurator.poll(0)
        monkeypatch.setattr(reconcilepass, "_ROUNDS", 4)
        until(configurator, lambda: seen("a", "blue")["mtu"] == 1500, 20)


def test_a_namespace_is_watched_even_if_there_are_no_descriptors_to_ask_for_its_identity(
    configurator: Configurator, blue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    identity = Session.identity

    def exhausted(self: Session, netns: NetnsRef = "") -> tuple[int, int]:
        if netns == "netns:blue" and netns in configurator._observer.watches.cache.netns():
            raise NetlinkError("too many open files", errno=errno.EMFILE)
        return identity(self, netns)

    monkeypatch.setattr(Session, "identity", exhausted)
    put(configurator, *pair("a", "b", "blue"))
    until(configurator, configured(configurator, "a", "b"))
    settle(configurator)
    assert not configurator.status("a")[0].warning
    ip("link", "set", "dev", "a", "mtu", "1300", netns="blue")
    until(configurator, lambda: seen("a", "blue")["mtu"] == 1500, 20)


# --- a moment without descriptors


@pytest.mark.parametrize("ref", ["blue", "path:/run/netns/blue", "pid:{pid}"])
def test_a_change_of_a_link_in_a_moment_without_descriptors_detaches_nobody(
    configurator: Configurator, blue: str, spawn: Callable[[str], int], ref: str
) -> None:
    theirs("o1", "blue")
    attachment = configurator.attach(Tap("o1", ref.format(pid=spawn("blue"))))
    settle(configurator)
    link = attachment.link
    quickly("link set dev o1 mtu 1400", netns="blue")
    with descriptors_left(0):
        configurator.poll(0)
        assert attachment.link is link is not None
    settle(configurator)
    assert attachment.link is link


def test_a_dependant_waits_for_descriptors_even_if_interfaces_beside_it_come_and_go(
    configurator: Configurator, blue: str
) -> None:
    theirs("o1", "blue")
    tap = Tap("o1", "netns:blue")
    beside = pair("a", "b", "blue")
    with descriptors_left(0):
        configurator.attach(tap)
        put(configurator, *beside)
        for name in ("a", "b"):
            configurator.delete(name)
    settle(configurator)
    until(configurator, lambda: tap.kinds == ["attached"], 20)
