"""The topologies that fixtures of all scopes have built and not closed yet, and their listeners."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final, Protocol

import pytest

if TYPE_CHECKING:
    from vethlib.topology import Topology

__all__ = ["LIVE", "Listener", "Live"]


class Listener(Protocol):
    """Is notified when topologies begin and end, because captures begin and end with them."""

    def built(self, topology: Topology, nodeid: str) -> None:
        """Note that a topology is up; `nodeid` is the id of its test, class, module or session."""

    def closing(self, topologies: list[Topology]) -> None:
        """Note that these topologies are about to be closed."""


class Live:
    """The running topologies, in the order in which they were built. Single nodes and pairs are topologies, too.

    `kept` has those that another process also keeps: their programs continue when they are closed. `inherited` has
    those that the parent of this process has built and still uses: closing them here closes only copies.
    """

    def __init__(self) -> None:
        self.up: list[Topology] = []
        self.beginning: list[str] = []  # the fixtures that are being set up, each requested by the previous fixture
        self._fixtures: dict[Topology, frozenset[str]] = {}
        self._of_item: set[Topology] = set()  # the topologies that were built during the present test
        self.kept: set[Topology] = set()
        self.inherited: set[Topology] = set()
        self.listeners: list[Listener] = []
        self._process = os.getpid()
        self._runner: int | None = None  # the process that runs the present test

    @property
    def in_child(self) -> bool:
        """Whether a test has forked this process: its fixtures are those of the parent, which still runs the test.

        Children that are forked before a test begins, as by pytest-forked, run it themselves, with what they inherit.
        """
        return self._runner not in (None, os.getpid())

    def begin(self) -> None:
        """Note that another test begins."""
        self._of_item.clear()
        if not self.in_child:
            self._runner = os.getpid()
            if self._process != self._runner:
                self._process = self._runner
                self.inherited = set(self.up)

    def end(self) -> None:
        """Note that the test and its teardown have ended."""
        if not self.in_child:
            self._runner = None

    def used_by(self, item: pytest.Item) -> list[Topology]:
        """Return the running topologies of a test: its own, and those of wider scopes whose fixtures it uses."""
        # The request also has the fixtures that were requested by getfixturevalue. An interrupted test has lost it.
        used = getattr(getattr(item, "_request", None) or item, "fixturenames", ())
        return [
            topology
            for topology in self.up
            if (topology in self._of_item or not self._fixtures[topology].isdisjoint(used)) and not topology.closed
        ]

    def built(self, topology: Topology, nodeid: str, base: str) -> None:
        """Add a topology that a fixture has built; `base` is the fixture on which all others of its scope depend."""
        self._fixtures[topology] = frozenset((base, *self.beginning))
        self._of_item.add(topology)
        self.up.append(topology)
        for listener in self.listeners:
            listener.built(topology, nodeid)

    def close(self, topologies: Iterable[Topology]) -> None:
        """Close topologies, all at once; in a child, only its copies."""
        closing = list(topologies)
        try:
            for listener in self.listeners:
                listener.closing(closing)
        finally:
            with ExitStack() as ending:
                for topology in closing:
                    self.up.remove(topology)
                    del self._fixtures[topology]
                    self._of_item.discard(topology)
                    is_kept = topology in self.kept and not self.in_child
                    ending.callback(topology.let_go if is_kept else topology.close)


LIVE: Final = pytest.StashKey[Live]()
