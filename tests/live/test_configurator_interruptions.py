"""A configurator that is interrupted anywhere, as by a signal handler that raises."""

from __future__ import annotations

import itertools
import signal
from collections.abc import Callable, Iterator
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
from tests.witness import names
from vethlib import Session, ns
from vethlib.agent import State
from vethlib.agent.reconcile.configurator import Configurator


@pytest.fixture
def configurator(session: Session) -> Iterator[Configurator]:
    with Configurator(session) as configurator:
        yield configurator


OWN = tuple(
    str(Path(module.__file__).parent / f"{name}.py")
    for name in (
        "configurator",
        "occasions",
        "events",
        "reconcilepass",
        "choice",
        "reporter",
        "observer",
        "watches",
        "statuses",
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
