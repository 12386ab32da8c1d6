"""The topologies that fixtures of all scopes have built and not closed yet, and their listeners."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final, Protocol

import pytest

from .names import base_of

if TYPE_CHECKING:
    from vethlib.topology import Topology

__all__ = ["LIVE", "Listener", "Live"]


class Listener(Protocol):
    """Receive notice when topologies begin and end, because captures begin and end with them."""

    def built(self, topology: Topology, nodeid: str) -> None:
        """Note that a topology is up; `nodeid` is the id of its test, class, module or session."""

    def closing(self, topologies: list[Topology]) -> None:
        """Note that these topologies are about to be closed."""


class Live:
    """The running topologies, in the order in which they were built. Single nodes and pairs are topologies, too.

    `kept` has those that another process keeps, too: their programs continue when they are closed.
    """

    def __init__(self) -> None:
        self.up: list[Topology] = []
        self._bases: dict[Topology, str] = {}
        self.kept: set[Topology] = set()
        self.listeners: list[Listener] = []

    def used_by(self, item: pytest.Item) -> list[Topology]:
        """Return the running topologies of a test: its own, and those of wider scopes whose fixtures it uses."""
        bases = {base_of("function"), *getattr(item, "fixturenames", ())}
        return [topology for topology in self.up if self._bases[topology] in bases and not topology.closed]

    def built(self, topology: Topology, nodeid: str, base: str) -> None:
        """Add a topology that a fixture has built; `base` is the fixture on which all others of its scope depend."""
        self._bases[topology] = base
        self.up.append(topology)
        for listener in self.listeners:
            listener.built(topology, nodeid)

    def close(self, topologies: Iterable[Topology]) -> None:
        """Close topologies, all at once."""
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
