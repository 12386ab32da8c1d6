"""The leak watch: a test that leaves something of a network namespace behind fails, with what it left and where.

Only tests that use the plugin are watched. Theory of operation:

1. One look before a test is set up, one after it has been torn down; what is new is left over (census.py).
2. What appears while a fixture of wider scope is set up belongs to that. From when it has been torn down, it is left
   over.
3. A socket or descriptor of a topology that is up is no leak: it may be meant to last as long. When the topology ends,
   what is still there is left over, and told with the test that left it.
4. The traceback of a failed test keeps what its frames had until the next test is called (sys.last_traceback). What it
   may hold is judged after the next one that is watched.
5. Who runs the tests is brought back to where it was as soon as a test has been called, for what comes next to be
   done in the right place.
6. Processes are looked for only where a test can have left any: in nodes that were entered and have ended. Their
   namespaces are held until then. Otherwise their numbers could be those of others by now, whom we would kill.
7. Links whose other end was in a namespace that is ending are no leak, though the kernel still shows them.
8. Each leftover is told of once: the next test finds it in its first look.
"""

from __future__ import annotations

import gc
import sys
import threading
import time
from collections.abc import Generator, Iterable
from contextlib import ExitStack, suppress
from ctypes import c_int
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from .. import ns
from ..ns.descriptor import duplicated
from ..ns.reference import HasFileno
from ..ns.syscalls import CLONE_NEWNET, bind
from .census import Census, here, last_pid
from .found import Found, Identity
from .isolation import ISOLATION
from .leftovers import delete_links, doomed_links, kill, names_of_nodes, remove_names, sentences
from .live import LIVE, Live
from .names import BASES, is_used
from .options import SETTINGS, for_item

if TYPE_CHECKING:
    from ..topology.node import Node
    from ..topology.topology import Topology

__all__ = ["LeakWatch", "NetnsLeakWarning", "watch"]

_GRACE = 0.5  # seconds for threads and processes that are ending already
_POLL = 0.01
_NAME = "netns-leaks"
_setns = bind("setns", c_int, c_int, keep_gil=True)


class NetnsLeakWarning(pytest.PytestWarning):
    """A test left something of a network namespace behind, and ``netns_leaks`` is "warn"."""


@dataclass
class _Test:
    """The test that is watched: what does not count as left by it, and where it could leave links."""

    first_pid: int | None
    nodes: list[Node] = field(default_factory=list)
    known: set[Found] = field(default_factory=set)
    astray: set[Found] = field(default_factory=set)


def watch(config: pytest.Config, *, begun: bool = False) -> None:
    """Have the watch in this run, if it is not there; `begun`: in the middle of a test, which it watches from now on.

    A run of which no test uses the plugin does without.
    """
    if not config.pluginmanager.has_plugin(_NAME):
        mode = config.stash[SETTINGS].leaks
        leak_watch = LeakWatch(config.stash[LIVE], mode, shared=not config.stash[ISOLATION].namespaces)
        config.pluginmanager.register(leak_watch, _NAME)
        if begun and mode != "off":
            leak_watch.begin()


class LeakWatch:
    """The hooks. `shared` says that others than this process work in its home namespace, too."""

    def __init__(self, live: Live, mode: str, *, shared: bool) -> None:
        self._live = live
        self._mode = mode  # of the test: fail, warn, off
        self._census = Census(shared=shared)
        self._topologies: dict[Topology, int | None] = {}  # with the last process id from before each was built
        self._kept: set[Identity] = set()
        self._test: _Test | None = None
        self._is_clean = False  # the last test was watched, and left nothing
        self._owned: dict[pytest.FixtureDef[Any], set[Found]] = {}
        self._orphans: dict[Found, str] = {}  # of fixtures that have ended, with their names
        self._holding: dict[Found, str] = {}  # what holds a topology that is up, with who made it
        self._suspended: dict[Found, str] = {}  # what a traceback may hold, with its test

    def pytest_unconfigure(self) -> None:
        """Let go of home."""
        self._census.close()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Generator[None, object, object]:
        """Look before anything is set up for the test."""
        quick, self._is_clean = self._is_clean, False
        self._test = None
        self._mode = for_item(item).leaks
        if self._mode != "off" and is_used(item):
            self.begin(quick=quick)
        return (yield)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[Any]) -> Generator[None, object, object]:
        """See what a fixture of wider scope brings about."""
        if self._test is None and self._mode != "off" and fixturedef.argname in BASES:
            self.begin()  # asked for by getfixturevalue: nobody could know
        if self._test is None or fixturedef.scope == "function":
            return (yield)
        before = self._look()
        try:
            return (yield)
        finally:
            nodes = [node for topology in self._note_topologies() for node in topology.values()]
            self._test.nodes.extend(nodes)
            new = self._look() - before
            held = self._held(new)
            self._holding |= dict.fromkeys(held, f"the fixture {fixturedef.argname}")
            self._test.known |= new - held
            # What nodes have from the start belongs to them, which may last longer than the fixture does.
            built = {node.netns.identity for node in nodes}
            owned = {one for one in new - held if one.kind != "link" or one.netns not in built}
            if owned:
                self._owned.setdefault(fixturedef, set()).update(owned)

    def pytest_fixture_post_finalizer(self, fixturedef: pytest.FixtureDef[Any]) -> None:
        """From here on nobody owns what the fixture brought about."""
        self._orphans |= dict.fromkeys(self._owned.pop(fixturedef, ()), f"the fixture {fixturedef.argname}")

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_call(self) -> Generator[None, object, object]:
        """Bring the thread back to where it was before the call."""
        if self._test is None:
            return (yield)
        before = None if here() == self._census.home.identity else ns.current()
        try:
            return (yield)
        finally:
            self._test.astray |= _bring_back(self._census.home if before is None else before)
            if before is not None:
                before.close()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Generator[None, object, object]:
        """Look when all is torn down, and say what was left."""
        self._note_topologies()
        with ExitStack() as pins:
            pinned = self._pin(pins)
            try:
                result = yield
            except BaseException:
                if message := self._finish(item, pinned, pins):
                    item.add_report_section("teardown", "netns leaks", message)
                raise
            message = self._finish(item, pinned, pins)
        if message and self._mode == "warn":
            item.warn(NetnsLeakWarning(message))
        elif message:
            pytest.fail(message, pytrace=False)
        return result

    def begin(self, *, quick: bool = False) -> None:
        """Watch the test that is run now."""
        self._test = test = _Test(last_pid())
        self._note_topologies()
        test.nodes = [node for topology in self._topologies for node in topology.values()]
        found = self._census.look(test.nodes, quick=quick)
        test.known = found - self._held(found) - self._suspended.keys()

    def _note_topologies(self) -> list[Topology]:
        """Take up those that are new to us, and return them."""
        new = [topology for topology in self._live.up if topology not in self._topologies]
        self._topologies |= dict.fromkeys(new, self._test.first_pid if self._test else None)
        return new

    def _look(self) -> set[Found]:
        return self._census.look(self._test.nodes if self._test else ())

    def _held(self, found: Iterable[Found]) -> set[Found]:
        """What of it holds a topology that is up (3)."""
        held = [one for one in found if one.holds]
        if not held:
            return set()
        up = {node.netns.identity for topology in self._topologies for node in topology.values() if not node.closed}
        return {one for one in held if one.netns in up or one.netns in self._kept}

    def _pin(self, pins: ExitStack) -> list[Node]:
        """Hold the namespaces of nodes where processes may be (6); returns these nodes."""
        pinned = []
        for topology in self._topologies:
            for node in topology.values():
                if node.was_entered and not node.closed:
                    with suppress(OSError):  # a test can close any descriptor
                        pins.enter_context(duplicated(node.netns.fd))
                        pinned.append(node)
        return pinned

    def _finish(self, item: pytest.Item, pinned: list[Node], pins: ExitStack) -> str:
        """Judge, tidy up, and return what is to be told."""
        ended = {topology: pid for topology, pid in self._topologies.items() if topology.closed}
        if self._test is None and not ended and not self._orphans:
            return ""
        try:
            kept = {node for topology in ended if topology in self._live.kept for node in topology.values()}
            killed = self._kill([node for node in pinned if node.closed and node not in kept], ended.values())
            pins.close()
            self._kept |= {node.netns.identity for node in kept}
            for topology in ended:
                del self._topologies[topology]
            left = self._left(item)
            if not (left or killed or self._suspended):
                self._is_clean = self._test is not None
                return ""
            if self._mode == "off" or not (left or killed):
                return ""
            names = names_of_nodes(node for topology in ended for node in topology.values())
            lines = sentences(left | dict.fromkeys(killed, ""), names)
            if self._mode == "fail":
                self._tidy(left)
            return "left behind: " + "\n  and ".join(lines)
        finally:
            self._test = None
            self._orphans.clear()

    def _kill(self, nodes: Iterable[Node], first_pids: Iterable[int | None]) -> list[Found]:
        """Kill the processes left in nodes that have ended."""
        inside = {node.netns.identity for node in nodes}
        if not inside:
            return []
        firsts = [-1 if pid is None else pid for pid in first_pids]
        since = min(firsts, default=-1)
        deadline = time.monotonic() + _GRACE
        while found := self._census.processes(inside, None if since < 0 else since):
            if time.monotonic() > deadline:
                return kill(found)
            time.sleep(_POLL)
        return []

    def _left(self, item: pytest.Item) -> dict[Found, str]:
        """What is left over, each with where it comes from, "" for the test itself."""
        found = self._settled()
        new = self._new(found)
        if self._test is not None:
            if any(one.number == threading.get_native_id() for one in new if one.kind == "thread"):
                _bring_back(self._census.home)  # from where a fixture left it
            new |= self._test.astray
        if links := {one for one in new if one.kind == "link"}:
            new -= self._doomed(links, found)
        left = {}
        for one in new:
            origin = self._orphans.get(one) or self._suspended.get(one) or self._holding.get(one, "")
            left[one] = "" if origin == item.nodeid else origin
        if self._test is not None:
            self._suspended = {}  # each was judged, or is gone
        if getattr(sys, "last_traceback", None) is not None:  # (4)
            self._suspended = {one: left.pop(one) or item.nodeid for one in new if one.holds}
        self._holding = {one: self._holding.get(one, item.nodeid) for one in self._held(found)}
        return left

    def _settled(self) -> set[Found]:
        """A look, after those who are about to let go have had the time to."""
        found = self._look()
        if not any(one.holds or one.kind == "thread" for one in self._new(found)):
            return found
        gc.collect()  # what only a reference cycle keeps is nobody's any more
        deadline = time.monotonic() + _GRACE
        while True:
            found = self._look()
            new = self._new(found)
            ending = any(one.kind == "thread" or (one.holds and threading.active_count() > 1) for one in new)
            if not ending or time.monotonic() > deadline:
                return found
            time.sleep(_POLL)

    def _new(self, found: set[Found]) -> set[Found]:
        if self._test is not None:
            return found - (self._test.known - self._orphans.keys()) - self._held(found)
        # A test that is not watched may leave what it likes, but others' things may have become leftovers with its end.
        return (found & (self._orphans.keys() | self._holding.keys())) - self._held(found)

    def _places(self) -> dict[Identity | None, int]:
        up = [node for topology in self._topologies for node in topology.values() if not node.closed]
        return {None: self._census.home.fd} | {node.netns.identity: node.netns.fd for node in up}

    def _doomed(self, links: set[Found], found: set[Found]) -> set[Found]:
        """Those of the links that end with a namespace (7)."""
        up = [node.netns for topology in self._topologies for node in topology.values() if not node.closed]
        with ExitStack() as opened:
            held = [opened.enter_context(one) for one in self._census.holders(found)]
            return doomed_links(links, self._places(), [self._census.home, *up, *held])

    def _tidy(self, left: Iterable[Found]) -> None:
        delete_links([one for one in left if one.kind == "link"], self._places())
        remove_names(one for one in left if one.kind == "name")


def _bring_back(to: HasFileno) -> set[Found]:
    """Return to where the thread belongs, if it is elsewhere, and say where that was."""
    was = here()
    if was == ns.identity(to.fileno()):
        return set()
    _setns(to.fileno(), CLONE_NEWNET)
    return {Found("thread", was, threading.get_native_id())}
