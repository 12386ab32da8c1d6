"""A network namespace follows the greenlet that has entered it. (With gevent and eventlet: test_other_runtimes.)"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any, NoReturn

import pytest

from tests.witness import open_fds
from vethlib import End, Netns, Session, Veth, ns
from vethlib.ns import greenlets
from vethlib.topology import Topology

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


def test_who_imports_it_in_a_node_leaves_the_node_nevertheless(greenlet: Any) -> None:
    home = here()
    with Topology.build("a -- b") as net, pytest.MonkeyPatch.context() as patching:
        patching.delitem(sys.modules, "greenlet")
        with net["a"]:
            patching.setitem(sys.modules, "greenlet", greenlet)
        assert here() == home
        with net["a"]:
            patching.setitem(sys.modules, "greenlet", None)
        assert here() == home
    assert greenlet.gettrace() is None


def test_an_interruption_while_tracing_begins_leaves_no_trace_and_nothing_open(
    greenlet: Any, blue: Netns, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(self: greenlets._Follower) -> None:
        begin(self)
        raise KeyboardInterrupt

    begin, before = greenlets._Follower.begin, open_fds()
    for _ in range(3):
        with monkeypatch.context() as patching:
            patching.setattr(greenlets._Follower, "begin", interrupted)
            with pytest.raises(KeyboardInterrupt), blue.entered():
                pass
        assert (greenlet.gettrace(), open_fds()) == (None, before)
    with blue.entered():
        assert greenlet.gettrace() is not None


def test_what_cannot_be_traced_is_not_entered_and_does_no_harm_later(
    monkeypatch: pytest.MonkeyPatch, blue: Netns
) -> None:
    def refuse(_: object) -> NoReturn:
        raise RuntimeError

    home = here()
    module = _module(settrace=refuse, gettrace=lambda: None, getcurrent=lambda: None)
    monkeypatch.setitem(sys.modules, "greenlet", module)
    with pytest.raises(RuntimeError):
        ns.call_in(blue.fd, here)
    with pytest.raises(RuntimeError), blue.entered():
        pass
    assert here() == home
    assert greenlets._threads.followed is None
    monkeypatch.setitem(sys.modules, "greenlet", None)
    assert ns.call_in(blue.fd, here) == blue.identity[1]


def _module(**attributes: object) -> ModuleType:
    module = ModuleType("greenlet")
    vars(module).update(attributes)
    return module


@pytest.mark.parametrize(
    "module",
    [None, _module(), _module(settrace=None), _module(getcurrent=None)],
    ids=["None", "without anything", "of which another thread has imported a part", "without tracing"],
)
def test_without_all_of_the_module_namespaces_are_entered_as_if_it_was_not_there(
    module: ModuleType | None, monkeypatch: pytest.MonkeyPatch, blue: Netns
) -> None:
    home, there = here(), blue.identity[1]
    monkeypatch.setitem(sys.modules, "greenlet", module)
    assert ns.call_in(blue.fd, here) == there
    assert ns.map_in([blue.fd, blue.fd], here) == [there, there]
    assert ns.call_in_new(here) not in (home, there)
    with ns.entered(blue), ns.entered(blue):
        assert here() == there
    with Session() as session:
        session.create(Veth(End("a", netns=blue), End("b", netns=blue)))
        assert {link.name for link in session.links(blue)} == {"lo", "a", "b"}
    with Topology.build("a -- b") as net, net["a"]:
        assert here() == net["a"].netns.identity[1]
    assert here() == home
    assert greenlets._threads.followed is None


def test_an_eventlet_that_is_kept_from_being_imported_refuses_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "eventlet", None)
    monkeypatch.setattr("vethlib.topology.live.node.are_threads_real", lambda: False)  # as gevent makes it
    with Topology.build("a -- b") as net:
        assert net["a"].submit(here).result(60) == net["a"].netns.identity[1]
