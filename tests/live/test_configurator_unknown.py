"""A resolver that fails, at any time and in any way, affects only interfaces of microservices."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.live.applying import interface
from tests.live.configuring import (
    by_label,
    configured,
    is_state,
    pair,
    placed,
    put,
    requests,
    settle,
    state_of,
    states,
    until,
)
from tests.witness import names, seen
from vethlib import InvalidValue, NetnsNotFound, Session, VethError, ns
from vethlib.agent import State
from vethlib.agent.reconcile.configurator import Configurator
from vethlib.follow import MemoryResolver, ResolverDown


class Faltering(MemoryResolver):
    """A resolver that gives this many more answers, and then raises what `fails` raises."""

    def __init__(self) -> None:
        super().__init__()
        self.left: int | None = None
        self.fails: Callable[[str], str] = _gone

    def __call__(self, label: str) -> str:
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                return self.fails(label)
        return super().__call__(label)


def _gone(_label: str) -> str:
    raise ResolverDown("the engine has gone")


Spawn = Callable[[], "subprocess.Popen[bytes]"]


@pytest.fixture
def spawn(home: ns.Netns) -> Iterator[Spawn]:
    """Starts processes with a network namespace of their own each."""
    started: list[subprocess.Popen[bytes]] = []

    def start() -> subprocess.Popen[bytes]:
        with ns.Netns.anonymous() as own, own.entered():
            started.append(subprocess.Popen(["sleep", "600"]))
        return started[-1]

    yield start
    for one in started:
        one.kill()
        one.wait()


@pytest.fixture
def resolver() -> Iterator[Faltering]:
    resolver = Faltering()
    yield resolver
    resolver.close()


@pytest.fixture
def configurator(home: ns.Netns, resolver: Faltering) -> Iterator[Configurator]:
    with Session(resolver=resolver) as session, Configurator(session) as configurator:
        yield configurator


UNCONCERNED = ("home1", "home2", "named1", "named2", "lives", "uplink2", "lives1", "lives2")


def want_all(configurator: Configurator) -> None:
    put(configurator, *pair("home1", "home2"), *pair("named1", "named2", "", "blue"))
    put(configurator, placed("dies", "uplink1", by_label("vnf1")), interface("uplink1", "dies"))
    put(configurator, placed("lives", "uplink2", by_label("vnf2")), interface("uplink2", "lives"))
    put(configurator, placed("lives1", "lives2", by_label("vnf2")), placed("lives2", "lives1", by_label("vnf3")))


def told_until(
    configurator: Configurator, condition: Callable[[], object], told: dict[str, set[State]], within: float = 30.0
) -> None:
    """As `until`, and note all the states that are told meanwhile."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < within, states(configurator)
        for name, status in configurator.poll(0.01).items():
            told.setdefault(name, set()).add(status.state if status is not None else State.PENDING)
    for name, status in settle(configurator).items():
        told.setdefault(name, set()).add(status.state if status is not None else State.PENDING)


def test_whenever_the_resolver_falls_silent_while_a_container_ends_no_other_interface_changes(
    configurator: Configurator, resolver: Faltering, spawn: Spawn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look asks for one label several times: the silence may begin at any of these questions."""
    for label in ("vnf2", "vnf3"):
        resolver.set(label, f"pid:{spawn().pid}")
    want_all(configurator)
    told: dict[str, set[State]] = {}
    for left in range(12):
        dies = spawn()
        resolver.set("vnf1", f"pid:{dies.pid}")
        until(configurator, configured(configurator, "dies", "uplink1", *UNCONCERNED))
        kept = {name: seen(name)["ifindex"] for name in ("home1", "home2", "named1", "uplink2")}
        resolver.left = left
        with requests(monkeypatch) as sent:
            dies.kill()
            told_until(configurator, is_state(configurator, State.PENDING, "dies"), told)
            # The second where another look, which a busy machine may lead to, has used up the answers.
            codes = ("microservice-not-running", "resolver-down")
            assert state_of(configurator, "dies") in [f"PENDING: {code}(microservice:vnf1)" for code in codes]
            resolver.down("the engine has gone")
            configurator.resync()
            told_until(configurator, lambda: True, told)
        assert len(sent) <= 4  # the deletion of one pair, if the kernel has not been quicker
        assert configured(configurator, *UNCONCERNED)()
        resolver.left = None
        resolver.up()
        assert {name: seen(name)["ifindex"] for name in kept} == kept
    assert {name: told[name] for name in UNCONCERNED if name in told and told[name] != {State.CONFIGURED}} == {}


def _raises(error: Exception) -> Callable[[str], str]:
    def fail(_label: str) -> str:
        raise error

    return fail


@pytest.mark.parametrize(
    "fails",
    [
        _gone,
        _raises(VethError("it does not feel like it")),
        _raises(KeyError("vnf1")),
        _raises(OSError("the disk is full")),
        _raises(RecursionError("again")),
        lambda _: "pid:none",
        lambda _: "microservice:vnf1",
        lambda _: "",
        lambda _: None,
        lambda _: 42,
    ],
    ids=[
        "down",
        "VethError",
        "KeyError",
        "OSError",
        "RecursionError",
        "no pid",
        "a label",
        "nothing",
        "None",
        "a number",
    ],
)
def test_however_the_resolver_fails_only_its_microservices_are_concerned_and_their_links_stay(
    configurator: Configurator, resolver: Faltering, spawn: Spawn, fails: Callable[[str], str]
) -> None:
    one = spawn()
    for label in ("vnf1", "vnf2", "vnf3"):
        resolver.set(label, f"pid:{one.pid}")
    want_all(configurator)
    until(configurator, configured(configurator, "dies", *UNCONCERNED))
    kept = {name: seen(name)["ifindex"] for name in names()}
    resolver.fails, resolver.left = fails, 0
    told: dict[str, set[State]] = {}
    resolver.down("")  # so that all are asked for again
    resolver.up()
    put(configurator, interface("new1", "new2"), interface("new2", "new1"))
    configurator.resync()
    told_until(configurator, configured(configurator, "new1", "new2"), told)
    for name in ("home1", "home2", "named1", "named2"):
        assert told.get(name, {State.CONFIGURED}) == {State.CONFIGURED}
    assert {name: seen(name)["ifindex"] for name in kept} == kept
    resolver.left = None
    resolver.up()
    until(configurator, configured(configurator, "dies", *UNCONCERNED))
    assert {name: seen(name)["ifindex"] for name in kept} == kept


def test_an_answer_that_is_none_never_means_home(home: ns.Netns) -> None:
    for answer in ("", None):
        resolver: Any = lambda _: answer  # noqa: B023, E731
        with Session(resolver=resolver) as session, pytest.raises(InvalidValue):
            session.links("microservice:vnf1")


def test_what_a_resolver_raises_is_an_error_of_its_label_that_names_the_cause(home: ns.Netns) -> None:
    def fail(_label: str) -> str:
        raise ZeroDivisionError("by nothing")

    with Session(resolver=fail) as session, pytest.raises(VethError) as caught:
        session.links("microservice:vnf1")
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert not isinstance(caught.value, NetnsNotFound)
