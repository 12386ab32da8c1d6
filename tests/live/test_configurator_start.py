"""A start with more pairs than a pass may create: they are created as planned, and other interfaces have their turn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from tests.live.applying import interface
from tests.live.configuring import configured, foreign, pair, put, settle, state_of, states, until
from tests.witness import ip, names, seen
from vethlib import Session, ns
from vethlib.agent import Interface
from vethlib.agent.reasons import ReasonCode
from vethlib.agent.reconcile import configurator as configurator_module
from vethlib.agent.reconcile.configurator import Configurator
from vethlib.agent.reconcile.observer import HostObserver
from vethlib.agent.reconcile.passes import choice, reconcilepass

AT_ONCE = 4


@pytest.fixture(autouse=True)
def a_few_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "AT_ONCE", AT_ONCE)
    monkeypatch.setattr(configurator_module, "BUDGET", 0.0)


@pytest.fixture
def configurator(session: Session) -> Iterator[Configurator]:
    with Configurator(session, ipv6="off") as configurator:
        yield configurator


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often it has looked and planned."""
    done: Counter[str] = Counter()

    def counted(where: Any, name: str) -> None:
        known: Callable[..., Any] = getattr(where, name)

        def counting(*args: Any, **named: Any) -> Any:
            done[name] += 1
            return known(*args, **named)

        monkeypatch.setattr(where, name, counting)

    for name in ("look", "look_everywhere"):
        counted(HostObserver, name)
    counted(reconcilepass, "plan")
    return done


def n(number: int) -> str:
    return f"n{number:02}"


def m(number: int) -> str:
    return f"m{number:02}"


def at(number: int) -> str:
    return f"at{number:02}"


def wanted(count: int) -> list[Interface]:
    """Pairs between home and a namespace of each."""
    return [
        one
        for number in range(count)
        for one in (interface(n(number), m(number)), interface(m(number), n(number), at(number)))
    ]


def begun(configurator: Configurator, interfaces: list[Interface]) -> None:
    """Have it create the first few of these."""
    configurator.resync(interfaces)
    configurator.poll(0)
    assert created(configurator) == AT_ONCE
    assert configurator.due() == 0


def created(configurator: Configurator) -> int:
    return len([name for name in names() if name[0] == "n"])


@pytest.mark.parametrize("parts", [3, 9])
def test_the_pairs_of_a_start_are_planned_once_and_only_the_first_few_are_looked_at_when_they_exist(
    configurator: Configurator, work: Counter[str], parts: int
) -> None:
    interfaces = wanted(AT_ONCE * parts)
    configurator.resync(interfaces)
    settle(configurator)
    assert configured(configurator, *(one.name for one in interfaces))()
    assert (work["look_everywhere"], work["look"], work["plan"]) == (1, 1, 2)


def test_what_is_still_to_be_created_is_not_watched_and_all_of_it_is_in_the_end(configurator: Configurator) -> None:
    begun(configurator, wanted(12))
    while created(configurator) < 12:
        assert configurator.load().watched <= 1 + AT_ONCE
        configurator.poll(0)
    settle(configurator)
    assert configurator.load().watched == 1 + 12
    ip("link", "set", "dev", "m11", "mtu", "1300", netns="at11")
    until(configurator, lambda: seen("m11", "at11")["mtu"] == 1500)


def test_a_configuration_that_changes_meanwhile_is_followed(configurator: Configurator) -> None:
    interfaces = wanted(12)
    begun(configurator, interfaces)
    configurator.delete("n11")
    put(configurator, replace(interfaces[20], mtu=1300), replace(interfaces[21], mtu=1300))
    put(configurator, *pair("x", "y"))
    settle(configurator)
    assert "n11" not in names()
    assert seen("n10")["mtu"] == 1300
    assert configured(configurator, "n00", "n10", "m10", "x", "y")()
    assert state_of(configurator, "m11") == f"PENDING: {ReasonCode.PEER_NOT_CONFIGURED}(n11)"
    assert len(states(configurator)) == 2 * 12 + 1


def test_what_is_put_meanwhile_and_configured_already_stays(configurator: Configurator) -> None:
    begun(configurator, wanted(16))
    ip("link", "set", "dev", "n00", "mtu", "1300")  # which is urgent, and takes what is put along
    put(configurator, *pair("x", "y"))
    until(configurator, configured(configurator, "x", "y"))
    settle(configurator)
    assert configured(configurator, "x", "y", "n00", "n15", "m15")()


def test_a_pair_that_is_created_already_and_then_changed_by_others_is_put_right(configurator: Configurator) -> None:
    begun(configurator, wanted(16))
    configurator.poll(0)
    before = created(configurator)
    assert AT_ONCE < before < 16
    for number in range(AT_ONCE, before):
        ip("link", "set", "dev", n(number), "mtu", "1300")
        ip("link", "set", "dev", m(number), "mtu", "1300", netns=at(number))
    settle(configurator)
    for number in range(AT_ONCE, before):
        assert (seen(n(number))["mtu"], seen(m(number), at(number))["mtu"]) == (1500, 1500)
    assert configured(configurator, *(one.name for one in wanted(16)))()


def test_a_name_that_others_take_meanwhile_fails_and_only_that(configurator: Configurator) -> None:
    begun(configurator, wanted(12))
    foreign("n11")
    settle(configurator)
    assert state_of(configurator, "n11").startswith("FAILED")
    assert configured(configurator, "n10", "m10")()
    ip("link", "del", "dev", "n11")
    until(configurator, configured(configurator, "n11", "m11"))


def test_a_namespace_that_ends_meanwhile_is_created_again(configurator: Configurator) -> None:
    begun(configurator, wanted(16))
    configurator.poll(0)
    number = created(configurator) - 1
    ns.remove(at(number))
    until(configurator, lambda: configured(configurator, n(number), "m15")() and n(number) in names())
    settle(configurator)
    assert seen(m(number), at(number))["operstate"] == "UP"


def test_a_resync_meanwhile_comes_afterwards(configurator: Configurator) -> None:
    interfaces = wanted(12)
    begun(configurator, interfaces)
    configurator.resync(interfaces[:16])
    settle(configurator)
    assert sorted(name for name in names() if name[0] == "n") == sorted(n(number) for number in range(8))
    assert configured(configurator, *(one.name for one in interfaces[:16]))()


def test_the_history_tells_what_was_done_for_every_interface(configurator: Configurator) -> None:
    configurator.resync(wanted(12))
    settle(configurator)
    for name in ("n00", "n11"):
        (change,) = configurator.history(name)
        assert change.state == "CONFIGURED"
        assert change.done.startswith("created ")
