"""The leak watch: a test that leaves something in or of a network namespace behind fails, with a description of it.

Only tests that use the plugin are watched. Theory of operation:

1. There is a look before a test is set up, and one after it has been torn down; new facts are leftovers (census.py).
2. Facts that appear while a fixture of wider scope is set up belong to it. After its teardown, they are leftovers.
3. A socket or descriptor of a running topology is no leak, because it may be meant to last as long as the topology.
   Those that remain when the topology ends are leftovers, reported with the test that left them.
4. The traceback of a failed test keeps the objects of its frames alive until the next test is called
   (sys.last_traceback), and so does that of a skipped one, which is kept here. These objects are judged after the next
   watched test. Plugins may keep the traceback even longer (pytest-rerunfailures), so its frames are cleared before
   that.
5. The thread that runs the tests is moved back to its namespace as soon as a test has been called, so that whatever
   follows is done in the right namespace.
6. Processes are searched only where a test can have left any: in nodes that were entered and have ended. Their
   namespaces are kept open until then; otherwise another namespace could have the same inode number, and its processes
   would be killed.
7. Links whose peer was in a namespace that is ending are no leak, although the kernel still lists them.
8. Each leftover is reported only once, because it is part of the first look of the next test.
9. A child that a test has forked, and that goes on with the run, is not watched: what it would kill and delete belongs
   to its parent, which still uses it.
10. A child that is forked before its test, as by pytest-forked, is watched, but also tears down fixtures of its parent.
    The parent judges the leftovers of those fixtures and of their topologies.
"""

from __future__ import annotations

import gc
import os
import sys
import threading
import traceback
import warnings
from collections.abc import Generator, Iterable
from contextlib import ExitStack, suppress
from ctypes import c_int
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from vethlib import ns
from vethlib._primitives import time
from vethlib.ns.descriptor import duplicated
from vethlib.ns.programs.newer import Moment, earliest, this_moment
from vethlib.ns.reference import HasFileno
from vethlib.ns.syscalls import CLONE_NEWNET, bind
from vethlib.pytest_netns.isolation.enter import ISOLATION, Isolation
from vethlib.pytest_netns.live import LIVE, Live
from vethlib.pytest_netns.names import BASES, is_used
from vethlib.pytest_netns.options import SETTINGS, for_item

from .census import Census, here
from .found import Found, Identity
from .helpers import fork_server, resource_tracker
from .leftovers import delete_links, doomed_links, kill, names_of_nodes, remove_names, sentences

if TYPE_CHECKING:
    from vethlib.topology.live.node import Node
    from vethlib.topology.live.topology import Topology

__all__ = ["LeakWatch", "NetnsLeakWarning", "watch"]

_GRACE = 0.5  # seconds for threads and processes that are already ending
_POLL = 0.01
_NAME = "netns-leaks"
_setns = bind("setns", c_int, c_int, keep_gil=True)


class NetnsLeakWarning(pytest.PytestWarning):
    """A test left something of a network namespace behind, and ``netns_leaks`` is "warn"."""


@dataclass
class _Test:
    """The watched test: the facts that do not count as its leftovers, and the places where it could leave links."""

    begun: Moment | None
    nodes: list[Node] = field(default_factory=list)
    known: set[Found] = field(default_factory=set)
    astray: set[Found] = field(default_factory=set)


def watch(config: pytest.Config, *, begun: bool = False) -> None:
    """Start the watch in this run unless it is active. If `begun`, a test runs already, and is watched from now on.

    A run in which no test uses the plugin does not need it.
    """
    if not config.pluginmanager.has_plugin(_NAME):
        mode = config.stash[SETTINGS].leaks
        leak_watch = LeakWatch(config.stash[LIVE], mode, config.stash[ISOLATION])
        config.pluginmanager.register(leak_watch, _NAME)
        if begun and mode != "off":
            leak_watch.begin()


class LeakWatch:
    """The hooks that look before and after each test that uses the plugin."""

    def __init__(self, live: Live, mode: str, isolation: Isolation) -> None:
        self._live = live
        self._mode = mode  # that of the test: fail, warn, off
        on_host = not isolation.namespaces
        self._census = Census(shares_links=on_host or isolation.shares_links, shares_names=on_host)
        self._topologies: dict[Topology, Moment | None] = {}  # each with a moment before it was built
        self._kept: set[Identity] = set()
        self._test: _Test | None = None
        self._is_clean = False  # whether the last test was watched and left nothing
        self._owned: dict[tuple[int, pytest.FixtureDef[Any]], set[Found]] = {}  # by process and fixture
        self._orphans: dict[Found, str] = {}  # facts of fixtures that have ended, with the names of the fixtures
        self._holding: dict[Found, str] = {}  # facts that keep a running topology alive, with their origins
        self._suspended: dict[Found, str] = {}  # facts that a traceback may keep alive, with its test
        self._errors: list[BaseException] = []  # those of the present test
        self._old_errors: list[BaseException] = []  # those of the previous test that was watched

    def pytest_unconfigure(self) -> None:
        """Release the home namespace."""
        self._census.close()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Generator[None, object, object]:
        """Look before anything is set up for the test."""
        quick, self._is_clean = self._is_clean, False
        self._test = None
        if self._live.in_child:
            return (yield)
        self._mode = for_item(item).leaks
        if self._mode != "off" and is_used(item):
            self.begin(quick=quick)
        return (yield)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[Any]) -> Generator[None, object, object]:
        """Assign new facts to a fixture of wider scope."""
        if self._test is None and self._mode != "off" and fixturedef.argname in BASES and not self._live.in_child:
            self.begin()  # requested through getfixturevalue, which was unknown until now
        if self._test is None or fixturedef.scope == "function":
            return (yield)
        before = self._look()
        try:
            return (yield)
        finally:
            nodes = [node for topology in self._note_topologies() for node in topology.values()]
            self._test.nodes.extend(nodes)
            now = self._look()
            new = _without_known_links(now - before, before, now)
            held = self._held(new)
            self._holding |= dict.fromkeys(held, f"the fixture {fixturedef.argname}")
            self._test.known |= new - held
            # The initial links of nodes belong to the nodes, which may exist longer than the fixture.
            built = {node.netns.identity for node in nodes}
            owned = {fact for fact in new - held if fact.kind != "link" or fact.netns not in built}
            if owned:
                self._owned.setdefault((os.getpid(), fixturedef), set()).update(owned)

    def pytest_fixture_post_finalizer(self, fixturedef: pytest.FixtureDef[Any]) -> None:
        """Note that the facts of a fixture no longer have an owner, unless the parent has set it up (10)."""
        owned = self._owned.pop((os.getpid(), fixturedef), ())
        self._orphans |= dict.fromkeys(owned, f"the fixture {fixturedef.argname}")

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_call(self) -> Generator[None, object, object]:
        """Move the thread back to its namespace before the call."""
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
        """Look after the teardown, and report leftovers."""
        if self._live.in_child:
            self._test = None
            return (yield)
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

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(
        self, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Remember the exception of a failed test, whose traceback keeps the objects of its frames alive."""
        if self._test is not None and call.excinfo is not None:
            self._errors.append(call.excinfo.value)
        return (yield)

    def begin(self, *, quick: bool = False) -> None:
        """Watch the test that is running now."""
        self._test = test = _Test(this_moment())
        self._old_errors, self._errors = self._errors, []
        self._note_topologies()
        test.nodes = [node for topology in self._topologies for node in topology.values()]
        facts = self._census.look(test.nodes, quick=quick)
        test.known = facts - self._held(facts) - self._suspended.keys()

    def _note_topologies(self) -> list[Topology]:
        """Add new topologies, and return them."""
        new = [topology for topology in self._live.up if topology not in self._topologies]
        self._topologies |= dict.fromkeys(new, self._test.begun if self._test else None)
        return new

    def _look(self) -> set[Found]:
        return self._census.look(self._test.nodes if self._test else ())

    def _held(self, facts: Iterable[Found]) -> set[Found]:
        """Return the facts that keep a running topology alive (3)."""
        held = [fact for fact in facts if fact.holds]
        if not held:
            return set()
        up = {node.netns.identity for topology in self._topologies for node in topology.values() if not node.closed}
        return {fact for fact in held if fact.netns in up or fact.netns in self._kept}

    def _pin(self, pins: ExitStack) -> list[Node]:
        """Keep open the namespaces of nodes in which there may be processes (6); return these nodes."""
        pinned = []
        for topology in self._topologies:
            for node in topology.values():
                if node.was_entered and not node.closed:
                    with suppress(OSError):  # the test may have closed the descriptor
                        pins.enter_context(duplicated(node.netns.fd))
                        pinned.append(node)
        return pinned

    def _finish(self, item: pytest.Item, pinned: list[Node], pins: ExitStack) -> str:
        """Judge the facts, remove leftovers, and return the message."""
        ended = {topology: begun for topology, begun in self._topologies.items() if topology.closed}
        if self._test is None and not ended and not self._orphans:
            return ""
        try:
            others = self._live.kept | self._live.inherited
            kept = {node for topology in ended if topology in others for node in topology.values()}
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

    def _kill(self, nodes: Iterable[Node], begun: Iterable[Moment | None]) -> list[Found]:
        """Kill the processes left in nodes that have ended, and return those that are leftovers of a test."""
        inside = {node.netns.identity for node in nodes}
        if not inside:
            return []
        since, deadline = earliest(begun), time.monotonic() + _GRACE
        server, tracker = fork_server(), resource_tracker()
        while found := self._census.processes(inside, since):
            kill(fact for fact in found if fact.number == server)
            facts = {fact for fact in found if fact.number not in (server, tracker)}
            if not facts:
                return []
            if time.monotonic() > deadline:
                return kill(facts)
            time.sleep(_POLL)
        return []

    def _left(self, item: pytest.Item) -> dict[Found, str]:
        """Return the leftovers, each with its origin, "" for the test itself."""
        if self._test is None:  # the previous test that was watched is the last one
            self._old_errors, self._errors = [*self._old_errors, *self._errors], []
        if self._suspended or self._holding:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ResourceWarning)  # it would be a warning of the present test
                _clear_frames(self._old_errors)
        self._old_errors = []
        facts = self._settled()
        new = self._new(facts)
        if self._test is not None:
            if any(fact.number == threading.get_native_id() for fact in new if fact.kind == "thread"):
                _bring_back(self._census.home)  # a fixture left it elsewhere
            new |= self._test.astray
        if links := {fact for fact in new if fact.kind == "link"}:
            new -= self._doomed(links, facts)
        left = {}
        for fact in new:
            origin = self._orphans.get(fact) or self._suspended.get(fact) or self._holding.get(fact, "")
            left[fact] = "" if origin == item.nodeid else origin
        if self._test is not None:
            self._suspended = {}  # each has been judged, or has ended
        if self._errors or getattr(sys, "last_traceback", None) is not None:  # (4)
            self._suspended = {fact: left.pop(fact) or item.nodeid for fact in new if fact.holds}
        self._holding = {fact: self._holding.get(fact, item.nodeid) for fact in self._held(facts)}
        return left

    def _settled(self) -> set[Found]:
        """Take a look, after giving threads and descriptors that are about to end the time to do so."""
        facts = self._look()
        if not any(fact.holds or fact.kind == "thread" for fact in self._new(facts)):
            return facts
        gc.collect()  # objects in reference cycles are no leaks
        deadline = time.monotonic() + _GRACE
        while True:
            facts = self._look()
            new = self._new(facts)
            ending = any(fact.kind == "thread" or (fact.holds and threading.active_count() > 1) for fact in new)
            if not ending or time.monotonic() > deadline:
                return facts
            time.sleep(_POLL)

    def _new(self, facts: set[Found]) -> set[Found]:
        if self._test is not None:
            known = self._test.known - self._orphans.keys()
            return _without_known_links(facts - known - self._held(facts), known, facts)
        # A test that is not watched may leave anything, but facts of other owners may have become leftovers when it
        # ended.
        return (facts & (self._orphans.keys() | self._holding.keys())) - self._held(facts)

    def _places(self) -> dict[Identity | None, int]:
        up = [node for topology in self._topologies for node in topology.values() if not node.closed]
        return {None: self._census.home.fd} | {node.netns.identity: node.netns.fd for node in up}

    def _doomed(self, links: set[Found], facts: set[Found]) -> set[Found]:
        """Return the links that end with a namespace (7)."""
        up = [node.netns for topology in self._topologies for node in topology.values() if not node.closed]
        with ExitStack() as opened:
            held = [opened.enter_context(descriptor) for descriptor in self._census.holders(facts)]
            return doomed_links(links, self._places(), [self._census.home, *up, *held])

    def _tidy(self, left: Iterable[Found]) -> None:
        delete_links([fact for fact in left if fact.kind == "link"], self._places())
        remove_names(fact for fact in left if fact.kind == "name")


def _without_known_links(new: set[Found], before: Iterable[Found], now: Iterable[Found]) -> set[Found]:
    """Return the new facts without links that were renamed, or that replace one of the same name."""
    if not any(fact.kind == "link" for fact in new):
        return new
    present = {(fact.netns, fact.number) for fact in now if fact.kind == "link"}
    known = {(fact.netns, fact.number): fact.text for fact in before if fact.kind == "link"}
    gone = {(netns, name) for (netns, number), name in known.items() if (netns, number) not in present}
    return {
        fact
        for fact in new
        if fact.kind != "link" or ((fact.netns, fact.number) not in known and (fact.netns, fact.text) not in gone)
    }


def _clear_frames(errors: Iterable[BaseException]) -> None:
    """Clear the local variables of the frames in the tracebacks of these errors (4)."""
    waiting, seen = list(errors), set()
    while waiting:
        error = waiting.pop()
        if id(error) not in seen:
            seen.add(id(error))
            traceback.clear_frames(error.__traceback__)
            for frame, _ in traceback.walk_tb(error.__traceback__):
                _ = frame.f_locals  # before Python 3.13, an earlier access has left a copy, which this updates
            waiting += [cause for cause in (error.__cause__, error.__context__) if cause is not None]
            waiting += getattr(error, "exceptions", ())


def _bring_back(to: HasFileno) -> set[Found]:
    """Move the thread back to its namespace if it is elsewhere, and return where it was."""
    was = here()
    if was == ns.identity(to.fileno()):
        return set()
    _setns(to.fileno(), CLONE_NEWNET)
    return {Found("thread", was, threading.get_native_id())}
