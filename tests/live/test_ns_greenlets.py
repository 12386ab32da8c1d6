"""A network namespace goes with the greenlet that has entered it. (With gevent and eventlet: test_other_runtimes.)"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from vethlib import Netns, ns

HERE = "/proc/thread-self/ns/net"


@pytest.fixture
def greenlet() -> Iterator[Any]:
    """The module, for this test alone: with it, entering a namespace does more."""
    was_there = "greenlet" in sys.modules
    module = pytest.importorskip("greenlet")
    assert module.gettrace() is None
    yield module
    assert module.gettrace() is None, "switches are still looked at"
    if not was_there:
        for name in [name for name in sys.modules if name.partition(".")[0] == "greenlet"]:
            del sys.modules[name]


def here() -> int:
    return os.stat(HERE).st_ino


@pytest.fixture
def blue() -> Iterator[Netns]:
    with Netns.anonymous() as made:
        yield made


def test_others_are_at_home_while_one_waits_in_a_block(greenlet: Any, blue: Netns) -> None:
    home, main = here(), greenlet.getcurrent()

    def wait() -> int:
        with blue.entered():
            main.switch(here())
            return here()

    waiting = greenlet.greenlet(wait)
    assert waiting.switch() == blue.identity[1]
    assert here() == home
    assert waiting.switch() == blue.identity[1]
    assert here() == home


def test_each_is_in_a_namespace_of_its_own(greenlet: Any, blue: Netns) -> None:
    home, main = here(), greenlet.getcurrent()
    with Netns.anonymous() as red:

        def wait(netns: Netns) -> None:
            with netns.entered():
                for _ in range(3):
                    main.switch(here())

        waiting = {netns: greenlet.greenlet(wait) for netns in (blue, red)}
        for turn in range(3):
            for netns, one in waiting.items():
                assert (one.switch(netns) if turn == 0 else one.switch()) == netns.identity[1]
                assert here() == home
        for one in waiting.values():
            one.switch()
    assert here() == home


def test_one_that_is_ended_in_a_block_leaves_it(greenlet: Any, blue: Netns) -> None:
    home, main = here(), greenlet.getcurrent()

    def wait() -> None:
        with blue.entered():
            main.switch()

    waiting = greenlet.greenlet(wait)
    waiting.switch()
    waiting.throw()
    assert (waiting.dead, here()) == (True, home)


def test_a_call_that_switches_comes_back_to_where_it_was(greenlet: Any, blue: Netns) -> None:
    home, main = here(), greenlet.getcurrent()
    calling = greenlet.greenlet(lambda: ns.call_in(blue.fd, lambda: (main.switch(here()), here())[1]))
    assert calling.switch() == blue.identity[1]
    assert here() == home
    assert calling.switch() == blue.identity[1]


def test_who_looked_at_switches_before_still_does(greenlet: Any, blue: Netns) -> None:
    seen: list[str] = []
    greenlet.settrace(lambda event, _: seen.append(event))
    try:
        main = greenlet.getcurrent()
        with blue.entered():
            other = greenlet.greenlet(lambda: main.switch(here()))
            assert other.switch() != blue.identity[1]
            assert here() == blue.identity[1]
        assert seen.count("switch") == 2
    finally:
        greenlet.settrace(None)
