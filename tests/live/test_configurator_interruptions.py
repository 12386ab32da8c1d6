"""A configurator that is interrupted anywhere, as by a signal handler that raises."""

from __future__ import annotations

import itertools
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

import vethlib.agent.reconcile.configurator as module
from tests.live.applying import interface
from tests.live.configuring import (
    configured,
    is_state,
    pair,
    put,
    settle,
    states,
    until,
)
from tests.live.interrupting import Interrupting
from tests.live.tap import Tap
from tests.witness import ip, names, seen
from vethlib import LinkNotFound, Session, ns
from vethlib.agent import State
from vethlib.agent.reconcile.configurator import Configurator
from vethlib.agent.reconcile.events import Events
from vethlib.agent.reconcile.linkchanges import Interpreter

OWN = tuple(
    str((Path(module.__file__).parent / f"{name}.py").resolve(strict=True))
    for name in (
        "configurator",
        "occasions",
        "events",
        "passes/runner",
        "passes/plannedcreation",
        "passes/reconcilepass",
        "passes/choice",
        "reporter",
        "observer",
        "watches",
        "statuses",
        "../registry/indexes",
        "../registry/dependants",
    )
)


def interrupted_everywhere(
    configurator: Configurator, begin: Callable[[int], None], check: Callable[[int], None], step: int
) -> int:
    """Interrupt one poll at one place after the other; returns how many places there were."""
    for at in itertools.count(1, step):
        begin(at)
        interrupting = Interrupting(at, OWN)
        interrupting.run(lambda: configurator.poll(0))
        settle(configurator)
        check(at)
        if not interrupting.fired:
            return at
    raise AssertionError


def test_an_interruption_anywhere_in_a_poll_that_repairs_loses_nothing(configurator: Configurator, blue: str) -> None:
    put(configurator, *pair("a", "b", "blue"))
    settle(configurator)

    def begin(_: int) -> None:
        configurator.put(interface("b", "a"))  # ends any hold
        settle(configurator)
        with Session() as other:
            other.set("a", "blue", mtu=1300)

    def check(at: int) -> None:
        with Session() as other:
            assert other.lookup("a", "blue").mtu == 1500, at
        assert configured(configurator, "a", "b")(), (at, states(configurator))

    assert interrupted_everywhere(configurator, begin, check, 3) > 50


def test_an_interruption_anywhere_in_a_poll_that_builds_loses_nothing(configurator: Configurator) -> None:
    settle(configurator)

    def begin(_: int) -> None:
        put(configurator, *pair("a", "b"))

    def check(at: int) -> None:
        assert configured(configurator, "a", "b")(), (at, states(configurator))
        with Session() as other:
            assert {link.name for link in other.links()} == {"lo", "a", "b"}, at
        configurator.delete("a")
        configurator.delete("b")
        settle(configurator)
        assert states(configurator) == {}, at

    assert interrupted_everywhere(configurator, begin, check, 11) > 50


def test_an_interruption_anywhere_in_a_poll_that_hears_of_a_namespace_loses_nothing(session: Session) -> None:
    with Configurator(session, missing_netns="wait") as configurator:
        put(configurator, *pair("a", "b", "blue"))
        settle(configurator)

        def begin(_: int) -> None:
            ns.Netns.create("blue").close()

        def check(at: int) -> None:
            until(configurator, configured(configurator, "a", "b"))
            ns.remove("blue")
            until(configurator, is_state(configurator, State.PENDING, "a", "b"))

        assert interrupted_everywhere(configurator, begin, check, 17) > 50


# --- the registry, and the dependants of links of others


def interrupted(monkeypatch: pytest.MonkeyPatch, configurator: Configurator, kind: type, method: str) -> None:
    """Poll until this method is called, and interrupt that."""

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(kind, method, fail)
        with pytest.raises(KeyboardInterrupt):
            until(configurator, lambda: False)


@pytest.fixture
def interrupt(monkeypatch: pytest.MonkeyPatch, configurator: Configurator) -> Callable[[], None]:
    """Polls until events of links have been taken, and interrupts that before they are acted upon."""
    return lambda: interrupted(monkeypatch, configurator, Events, "_pass_on")


def unmanaged(configurator: Configurator) -> set[tuple[str, int]]:
    """The links that are not managed, as the registry has them; each is found by its name."""
    entries = {(entry.name, entry.index) for entry in configurator.indexes.entries() if not entry.managed}
    assert entries == {(name, configurator.indexes.index(name)) for name, _ in entries}
    return entries


def shown() -> set[tuple[str, int]]:
    return {(link["ifname"], link["ifindex"]) for link in ip("link")}


def test_links_that_changed_when_a_poll_was_interrupted_are_in_the_registry(
    configurator: Configurator, interrupt: Callable[[], None]
) -> None:
    settle(configurator)
    ip("link", "add", "v1", "type", "veth", "peer", "name", "v2")
    interrupt()
    settle(configurator)
    assert unmanaged(configurator) == shown()
    ip("link", "set", "dev", "v1", "name", "w1")
    interrupt()
    settle(configurator)
    assert unmanaged(configurator) == shown()
    ip("link", "del", "dev", "w1")
    interrupt()
    settle(configurator)
    assert unmanaged(configurator) == shown()
    with pytest.raises(LinkNotFound):
        configurator.indexes.index("w1")


@pytest.mark.parametrize("netns", ["", "blue"])
def test_a_dependant_follows_its_link_if_the_poll_that_hears_of_it_is_interrupted(
    configurator: Configurator, interrupt: Callable[[], None], blue: str, netns: str
) -> None:
    tap = Tap("o1", netns)
    configurator.attach(tap)
    settle(configurator)
    for _ in range(2):
        tap.calls.clear()
        ip("link", "add", "o1", "up", "type", "veth", "peer", "name", "o2", netns=netns)
        interrupt()
        settle(configurator)
        assert tap.kinds == ["attached"]
        ip("link", "del", "dev", "o1", netns=netns)
        interrupt()
        settle(configurator)
        assert tap.kinds == ["attached", "detached"]


def as_if_reused(configurator: Configurator, before: tuple[int, int], now: tuple[int, int]) -> None:
    """As if a namespace had got the inode number of the one that was there before."""
    watches = configurator._observer.watches
    for ref in watches.refs[before]:
        watches._led_to[ref] = now
    watches.refs[now] = watches.refs.pop(before)


def test_the_next_namespace_is_watched_if_the_poll_that_hears_of_the_end_of_the_last_is_interrupted(
    session: Session, blue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Configurator(session, missing_netns="wait") as configurator:
        put(configurator, *pair("a", "b", blue))
        settle(configurator)
        before = session.identity(blue)
        ns.remove(blue)
        interrupted(monkeypatch, configurator, Interpreter, "interpret")
        ns.Netns.create(blue).close()
        as_if_reused(configurator, before, session.identity(blue))
        until(configurator, lambda: configured(configurator, "a", "b")() and names() == {"b"})
        settle(configurator)
        ip("link", "set", "dev", "a", "mtu", "1400", netns=blue)
        until(configurator, lambda: seen("a", blue)["mtu"] == 1500)


def test_an_interruption_anywhere_in_a_poll_that_hears_of_links_of_others_loses_none(
    configurator: Configurator, blue: str
) -> None:
    taps = [Tap("o1", netns) for netns in ("", "blue")]
    attachments = [configurator.attach(tap) for tap in taps]
    put(configurator, *pair("a", "b", "blue"))
    settle(configurator)
    home = {"up": False}

    def begin(_: int) -> None:
        home["up"] = not home["up"]
        for netns in ("", "blue"):
            if home["up"]:
                ip("link", "add", "o1", "up", "type", "veth", "peer", "name", "o2", netns=netns)
            else:
                ip("link", "del", "dev", "o1", netns=netns)

    def check(at: int) -> None:
        assert unmanaged(configurator) == {(name, index) for name, index in shown() if name != "b"}, at
        assert [attachment.link is not None for attachment in attachments] == [home["up"], home["up"]], at
        assert configured(configurator, "a", "b")(), (at, states(configurator))

    assert interrupted_everywhere(configurator, begin, check, 5) > 50


def test_a_signal_that_raises_interrupts_a_wait_and_leaves_it_usable(configurator: Configurator) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    settle(configurator)
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.03)
        with pytest.raises(KeyboardInterrupt):
            configurator.poll(None)
    finally:
        signal.signal(signal.SIGALRM, before)
    put(configurator, *pair("a", "b"))
    settle(configurator)
    assert names() == {"a", "b"}
