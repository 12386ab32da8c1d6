"""Time-outs that no system call accepts: too long for its type, unlimited, or not a number."""

from __future__ import annotations

import math
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.live.configuring import configured, pair, put, settle, until
from tests.refusing import raises
from tests.witness import ip
from vethlib import IfIndexCache, InvalidValue, Session, ns
from vethlib.agent import Configurator, Hooks
from vethlib.follow.docker.resolver import DockerResolver
from vethlib.monitor import Monitor
from vethlib.topology import Topology

LONG = [3_000_000, 2**31, 2**63, 1e12, 1e300, 10**400, math.inf]
NONE: list[Any] = [math.nan, "1", b"1", [], 1j]


def _cache(session: Session) -> IfIndexCache:
    cache = IfIndexCache(session)
    cache.watch("")
    return cache


POLLED: dict[str, Callable[[Session], Any]] = {
    "IfIndexCache": _cache,
    "Monitor": Monitor,
    "Configurator": lambda session: Configurator(session, records=""),
}


@contextmanager
def polled(kind: str, session: Session) -> Iterator[Any]:
    """An object that has nothing left to do, in a namespace with a pair."""
    with POLLED[kind](session) as it:
        if isinstance(it, Configurator):
            put(it, *pair("veth1", "veth2"))
            until(it, configured(it, "veth1", "veth2"))
            settle(it)
        else:
            ip("link", "add", "veth1", "type", "veth", "peer", "name", "veth2")
            it.poll(0)
        yield it


@pytest.mark.parametrize("timeout", LONG, ids=lambda value: f"{str(value)[:9]}")
@pytest.mark.parametrize("kind", POLLED)
def test_however_long_it_may_wait_it_returns_with_the_next_event(session: Session, kind: str, timeout: float) -> None:
    with polled(kind, session) as it:
        events = it.poll(0)
        timer = threading.Timer(0.1, lambda: ip("link", "del", "veth1"))
        timer.start()
        try:
            while not events:
                events = it.poll(timeout)
        finally:
            timer.join()
        assert events


@pytest.mark.parametrize("timeout", NONE, ids=str)
@pytest.mark.parametrize("kind", POLLED)
def test_what_is_no_time_is_refused_and_changes_nothing(session: Session, kind: str, timeout: Any) -> None:
    with polled(kind, session) as it:
        with raises(InvalidValue, field="timeout"):
            it.poll(timeout)
        assert not isinstance(it, Configurator) or it.due() != 0
        ip("link", "del", "veth1")
        assert it.poll(None)


@pytest.mark.parametrize("timeout", [-1, -1e300, -math.inf, -(10**400)], ids=lambda value: f"{str(value)[:9]}")
@pytest.mark.parametrize("kind", POLLED)
def test_a_time_that_is_over_already_is_no_wait(session: Session, kind: str, timeout: float) -> None:
    with polled(kind, session) as it:
        while it.poll(timeout):
            pass


def test_hooks_drain_for_any_time() -> None:
    hooks = Hooks([f"exec:{sys.executable}"])
    try:
        for timeout in LONG:
            assert hooks.drain(timeout)
        for bad in NONE:
            with raises(InvalidValue, field="timeout"):
                hooks.drain(bad)
    finally:
        hooks.close()


@pytest.mark.parametrize("patience", LONG, ids=lambda value: f"{str(value)[:9]}")
def test_a_resolver_may_have_any_patience(home: ns.Netns, tmp_path: Any, patience: float) -> None:
    resolver = DockerResolver(f"unix://{tmp_path}/none.sock", patience=patience)
    try:
        with pytest.raises(Exception) as caught:
            resolver("vnf1")
        assert getattr(caught.value, "code", "") not in ("", "unanswered")
    finally:
        resolver.close()


@pytest.mark.parametrize("timeout", NONE, ids=str)
def test_a_node_waits_for_no_time_that_is_none(home: ns.Netns, timeout: Any) -> None:
    with Topology.build("a -- b") as net:
        for wait in (
            lambda: net["a"].wait_for(lambda: False, timeout=timeout),
            lambda: net["a"].wait_listening(1, timeout=timeout),
            lambda: net["a"].ping(net["b"], timeout=timeout),
        ):
            with raises(InvalidValue, field="timeout"):
                wait()


@pytest.mark.parametrize("timeout", LONG, ids=lambda value: f"{str(value)[:9]}")
def test_a_node_waits_for_any_time(home: ns.Netns, timeout: float) -> None:
    with Topology.build("a -- b") as net:
        results = iter([False, True])
        assert net["a"].wait_for(lambda: next(results), timeout=timeout)
        assert net["a"].ping(net["b"], timeout=timeout).received == 1
