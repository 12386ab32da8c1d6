"""What the fixtures have built and not closed yet, of all scopes, and who wants to hear of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, Protocol

import pytest

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
        self.kept: set[Topology] = set()
        self.listeners: list[Listener] = []

    def built(self, topology: Topology, nodeid: str) -> None:
        """Take up one that a fixture has built."""
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
            for topology in closing:
                self.up.remove(topology)
                if topology in self.kept:
                    topology.let_go()
                else:
                    topology.close()


LIVE: Final = pytest.StashKey[Live]()
