"""What the fixtures have built and not closed yet, of all scopes, and who wants to hear of it."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final, Protocol

import pytest

from .names import base_of

if TYPE_CHECKING:
    from ..topology import Topology

__all__ = ["LIVE", "Listener", "Live"]


class Listener(Protocol):
    """Who wants to hear of topologies: captures begin and end with them."""

    def built(self, topology: Topology, nodeid: str) -> None:
        """A topology is up, for the test, class, module or session with this id."""

    def closing(self, topologies: list[Topology]) -> None:
        """These are about to be closed."""


class Live:
    """The topologies that are up, in the order they were built. A single node and a pair are topologies, too.

    `kept` has those that another process holds as well: what runs in them goes on when they are closed.
    """

    def __init__(self) -> None:
        self.up: list[Topology] = []
        self._bases: dict[Topology, str] = {}
        self.kept: set[Topology] = set()
        self.listeners: list[Listener] = []

    def used_by(self, item: pytest.Item) -> list[Topology]:
        """Those that are up and a test has a part in: its own, and of a wider scope if it has a fixture of that."""
        bases = {base_of("function"), *getattr(item, "fixturenames", ())}
        return [one for one in self.up if self._bases[one] in bases and not one.closed]

    def built(self, topology: Topology, nodeid: str, base: str) -> None:
        """Take up one that a fixture has built; `base` is the fixture of its scope that all others stand on."""
        self._bases[topology] = base
        self.up.append(topology)
        for listener in self.listeners:
            listener.built(topology, nodeid)

    def close(self, topologies: Iterable[Topology]) -> None:
        """Close these, all at once."""
        closing = list(topologies)
        try:
            for listener in self.listeners:
                listener.closing(closing)
        finally:
            with ExitStack() as ending:
                for topology in closing:
                    self.up.remove(topology)
                    del self._bases[topology]
                    ending.callback(topology.let_go if topology in self.kept else topology.close)


LIVE: Final = pytest.StashKey[Live]()
