"""What the fixtures have built and not closed yet, of all scopes, and who wants to hear of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, Protocol

import pytest

if TYPE_CHECKING:
    from ..topology import Topology

__all__ = ["LIVE", "Listener", "Live"]


class Listener(Protocol):
    """Who wants to hear of topologies: captures begin and end with them, and those of a failed test may be kept."""

    def built(self, topology: Topology) -> None:
        """A topology is up."""

    def closing(self, topologies: list[Topology]) -> set[Topology]:
        """These are about to be closed, except those that are returned: they are somebody else's from now on."""


class Live:
    """The topologies that are up, in the order they were built. A single node and a pair are topologies, too.

    `kept` has those that fixtures have let go of without closing them.
    """

    def __init__(self) -> None:
        self.up: list[Topology] = []
        self.kept: set[Topology] = set()
        self.listeners: list[Listener] = []

    def built(self, topology: Topology) -> None:
        """Take up one that a fixture has built."""
        self.up.append(topology)
        for listener in self.listeners:
            listener.built(topology)

    def close(self, topologies: Iterable[Topology]) -> None:
        """Close these, all at once."""
        closing = list(topologies)
        for listener in self.listeners:
            self.kept |= listener.closing(closing)
        for topology in closing:
            self.up.remove(topology)
            if topology not in self.kept:
                topology.close()


LIVE: Final = pytest.StashKey[Live]()
