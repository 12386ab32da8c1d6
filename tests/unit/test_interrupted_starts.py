"""If the start of a thread is interrupted, it is unknown whether it runs, and nothing may depend on that."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress

import pytest

from tests.starting import wait_interrupted
from tests.witness import open_fds, poll
from vethlib.agent.hooks import Hooks
from vethlib.agent.stores.etcd.store import EtcdStore
from vethlib.follow.docker.resolver import DockerResolver
from vethlib.follow.resolver import ResolverDown

Interrupt = Callable[[], None]


@pytest.fixture(params=["before", "later"])
def interrupt(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Interrupt:
    """Interrupt the start of the next thread: before it has entered its function, or later."""
    wait = threading.Event.wait

    def interrupt(event: threading.Event, timeout: float | None = None) -> bool:
        if threading.current_thread() is threading.main_thread():
            monkeypatch.setattr(threading.Event, "wait", wait)
            if request.param == "later":
                time.sleep(0.1)
        return wait_interrupted(event, timeout)

    return lambda: monkeypatch.setattr(threading.Event, "wait", interrupt)


def running(name: str) -> int:
    return sum(thread.name.startswith(name) for thread in threading.enumerate())


def test_hooks_whose_start_is_interrupted_end(interrupt: Interrupt, caplog: pytest.LogCaptureFixture) -> None:
    before = open_fds()
    interrupt()
    with pytest.raises(KeyboardInterrupt):
        Hooks(["exec:/bin/true"])
    assert poll(lambda: not running("vethlib-hooks"))
    assert poll(lambda: open_fds() == before)
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


@pytest.mark.parametrize("number", [1, 2])
def test_a_store_in_etcd_whose_start_is_interrupted_ends(
    interrupt: Interrupt, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    start = threading.Thread.start
    started: list[str] = []

    def starting(thread: threading.Thread) -> None:
        started.append(thread.name)
        if len(started) == number:
            interrupt()
        start(thread)

    before = open_fds()
    monkeypatch.setattr(threading.Thread, "start", starting)
    with pytest.raises(KeyboardInterrupt):
        EtcdStore("etcd://127.0.0.1:1", "test")
    assert poll(lambda: not running("vethlib-etcd"))
    assert poll(lambda: open_fds() == before)


def test_a_resolver_whose_start_was_interrupted_has_one_thread(interrupt: Interrupt) -> None:
    before = open_fds()
    resolver = DockerResolver("/nonexistent.sock")
    interrupt()
    with pytest.raises(KeyboardInterrupt):
        resolver("x")
    for _ in range(3):
        with suppress(ResolverDown):
            resolver("x")
    assert poll(lambda: running("vethlib-docker") == 1)
    resolver.close()
    assert poll(lambda: not running("vethlib-docker"))
    assert open_fds() == before
