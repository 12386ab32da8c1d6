"""The work for one interface does not depend on the number of others: counted in calls, not seconds."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator

import pytest

from tests.live.applying import interface
from tests.live.configuring import configured, pair, readable, settle, until
from vethlib import Link, Session, ns
from vethlib.agent import Interface
from vethlib.agent.planning.observed import NetnsId
from vethlib.agent.reconcile.configurator import Configurator
from vethlib.agent.reconcile.watches import Watches
from vethlib.errors import LinkNotFound

FEW, MANY = 4, 150  # pairs
MARGIN = 2.5  # an event may come in time for the pass that looks for it, or lead to another one


def near(number: int) -> Interface:
    return interface(f"h{number}", f"b{number}", mtu=1400)


def far(number: int) -> Interface:
    return interface(f"b{number}", f"h{number}", f"at{number}", host_if_name="eth0")


@pytest.fixture
def other(session: Session) -> Iterator[Session]:
    """Another program, whose session has no cache."""
    with Session() as other:
        yield other


def exists(session: Session, name: str) -> bool:
    try:
        session.index(name)
    except LinkNotFound:
        return False
    return True


class Calls:
    """Counts the calls of functions, in Python and in C, while it is entered."""

    def __init__(self) -> None:
        self.count = 0

    def __enter__(self) -> Calls:
        sys.setprofile(self._note)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def _note(self, _frame: object, event: str, _argument: object) -> None:
        if event in ("call", "c_call"):
            self.count += 1


def calls_of(configurator: Configurator, until_done: Callable[[], bool]) -> int:
    """Poll until it is done and nothing is left to do; return the calls that took."""
    calls = Calls()
    until(configurator, lambda: _polled(configurator, calls) and until_done())
    settle(configurator)
    return calls.count


def _polled(configurator: Configurator, calls: Calls) -> bool:
    with calls:
        configurator.poll(0)
    return not configurator.behind


def at(size: int, configurator: Configurator) -> None:
    """Have it keep this many pairs, and be at rest."""
    configurator.resync([one for number in range(size) for one in (near(number), far(number))])
    until(configurator, configured(configurator, *(f"h{number}" for number in range(size))))
    # The kernel tells of a carrier up to a second later (linkwatch), and later still on a busy machine.
    quiet = time.monotonic() + 2
    while time.monotonic() < quiet:
        if readable(configurator) or configurator.due() == 0:
            settle(configurator)
            quiet = time.monotonic() + 2
        time.sleep(0.05)


def put_one(configurator: Configurator, _other: Session) -> int:
    configurator.put(interface("x1", "x2", "at0"))
    settle(configurator)
    configurator.put(interface("x2", "x1"))
    return calls_of(configurator, configured(configurator, "x1", "x2"))


def remove_one(configurator: Configurator, other: Session) -> int:
    configurator.delete("b1")
    configurator.delete("h1")
    return calls_of(configurator, lambda: not exists(other, "h1"))


def after_one_was_removed(configurator: Configurator, other: Session) -> int:
    """A namespace that it does not need any more is not asked about again and again."""
    a, b = pair("x1", "x2", "at0")
    for one in (a, b):
        configurator.put(one)
    until(configurator, configured(configurator, "x1", "x2"))
    for one in (a, b):
        configurator.delete(one.name)
    until(configurator, lambda: not exists(other, "x2"))
    settle(configurator)
    return drift(configurator, other)


def drift(configurator: Configurator, other: Session) -> int:
    other.set("h2", mtu=1300)
    return calls_of(configurator, lambda: other.lookup("h2").mtu == 1400)


def deleted(configurator: Configurator, other: Session) -> int:
    other.delete("h2")
    return calls_of(configurator, lambda: exists(other, "h2"))


def lost(configurator: Configurator, other: Session) -> int:
    index = other.index("h3")
    ns.remove("at3")
    return calls_of(configurator, lambda: exists(other, "h3") and other.index("h3") != index)


class Attached:
    """A dependant on the link of a container, which has the same name in each."""

    def __init__(self, netns: str) -> None:
        self.host_if_name, self.netns = "eth0", netns

    def attached(self, link: Link) -> None:
        pass

    def detached(self, link: Link) -> None:
        pass


@pytest.mark.slow
@pytest.mark.parametrize("happens", [put_one, remove_one, after_one_was_removed, drift, deleted, lost])
def test_the_work_for_one_interface_does_not_grow_with_the_others(
    session: Session, other: Session, happens: Callable[[Configurator, Session], int]
) -> None:
    def counted(size: int) -> int:
        with Configurator(session, ipv6="off") as configurator:  # whose work comes whenever the kernel gets to it
            at(size, configurator)
            return happens(configurator, other)

    few = counted(FEW)
    # An event that the kernel reports late leads to one more pass, which is not growth: the least of three counts.
    many: list[int] = []
    while len(many) < 3 and (not many or many[-1] > MARGIN * few):
        many.append(counted(MANY))
    assert min(many) <= MARGIN * few, (few, many)


@pytest.mark.slow
def test_the_work_for_one_dependant_does_not_grow_with_the_others(
    session: Session, other: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    ask = Watches.known_to_lead_to

    def noted(watches: Watches, ref: str) -> NetnsId | None:
        asked.append(ref)
        return ask(watches, ref)

    monkeypatch.setattr(Watches, "known_to_lead_to", noted)
    with Configurator(session, ipv6="off") as configurator:
        at(MANY, configurator)
        calls = Calls()
        counts = []
        for number in range(MANY):
            with calls:
                configurator.attach(Attached(f"at{number}"))
            counts.append(calls.count)
        few, many = counts[FEW], counts[-1] - counts[-2 - FEW]
        assert many <= MARGIN * few
        for happens in (drift, deleted, lost):
            asked.clear()
            happens(configurator, other)
            assert len(asked) < MANY, "those are asked about that have nothing to do with it"
