"""The interfaces that are wanted, by name, and who else is concerned when one of them changes. Pure.

Everything is kept by an interface's name. What concerns others than itself: the peer it names, those that name it as
theirs, and those that want the same kernel name in the same namespace.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar

from vethlib.errors import InvalidValue

from .model import Interface
from .observed import Place

__all__ = ["Desired"]

K = TypeVar("K")


class Desired:
    """What an agent has been told so far.

    `refused` has what is wrong with the last value of a name, while the last good one, if there was any, stays in
    `interfaces`.
    """

    def __init__(self) -> None:
        self.interfaces: dict[str, Interface] = {}
        self.refused: dict[str, tuple[InvalidValue, ...]] = {}
        self._naming: dict[str, set[str]] = {}  # peer's name → those that name it
        self._by_ref: dict[str, set[str]] = {}
        self._claims: dict[tuple[Place, str], set[str]] = {}
        self._claim_of: dict[str, tuple[Place, str]] = {}

    def put(self, interface: Interface) -> set[str]:
        """Want it so from now on; returns whom that concerns."""
        name = interface.name
        concerned = self._take_out(name)
        self.refused.pop(name, None)
        self.interfaces[name] = interface
        _add(self._naming, interface.peer_if_name, name)
        _add(self._by_ref, interface.namespace.ref, name)
        return concerned | {name, interface.peer_if_name}

    def refuse(self, name: str, problems: Iterable[InvalidValue]) -> set[str]:
        """The last value of it is bad; what was there before stays in force. Returns whom that concerns."""
        self.refused[name] = tuple(problems)
        return {name}

    def delete(self, name: str) -> set[str]:
        """Want it no more; returns whom that concerns."""
        self.refused.pop(name, None)
        return self._take_out(name) | {name}

    def _take_out(self, name: str) -> set[str]:
        concerned = set(self._naming.get(name, ()))
        interface = self.interfaces.pop(name, None)
        if interface is not None:
            _remove(self._naming, interface.peer_if_name, name)
            _remove(self._by_ref, interface.namespace.ref, name)
            concerned.add(interface.peer_if_name)
        return concerned | self.claim(name, None)

    def __contains__(self, name: str) -> bool:
        return name in self.interfaces or name in self.refused

    def names(self) -> set[str]:
        """All of them, the refused ones too."""
        return self.interfaces.keys() | self.refused.keys()

    @property
    def refs(self) -> Iterable[str]:
        """Every namespace reference in use."""
        return self._by_ref.keys()

    def at(self, ref: str) -> set[str]:
        """The interfaces whose namespace is spelt so."""
        return self._by_ref.get(ref, set())

    def claim(self, name: str, place: Place | None) -> set[str]:
        """The namespace of `name` turned out to be `place`, where it wants its kernel name for itself.

        Returns who else wants the name that it gives up with this, if it gives one up.
        """
        interface = self.interfaces.get(name)
        wanted = None if place is None or interface is None else (place, interface.kernel_name)
        before = self._claim_of.get(name)
        if before == wanted:
            return set()
        rivals: set[str] = set()
        if before is not None:
            del self._claim_of[name]
            _remove(self._claims, before, name)
            rivals = self._claims.get(before, set()).copy()
        if wanted is not None:
            self._claim_of[name] = wanted
            _add(self._claims, wanted, name)
        return rivals

    def claimants(self, place: Place, kernel_name: str) -> set[str]:
        """Who wants that kernel name in that namespace."""
        return self._claims.get((place, kernel_name), set())

    def with_peers(self, names: Iterable[str]) -> set[str]:
        """`names`, those that name them as peers, and all that these name: what has to be judged together."""
        wanted = set(names)
        for name in list(wanted):
            wanted |= self._naming.get(name, set())
        return wanted | set(self._peers_of(wanted))

    def _peers_of(self, names: set[str]) -> Iterator[str]:
        seen, ahead = set(names), list(names)
        while ahead:
            interface = self.interfaces.get(ahead.pop())
            if interface is not None and interface.peer_if_name not in seen:
                seen.add(interface.peer_if_name)
                ahead.append(interface.peer_if_name)
                yield interface.peer_if_name

    def rivals(self, names: Iterable[str]) -> set[str]:
        """Who else wants the kernel name of one of these, where it wants it."""
        found: set[str] = set()
        for name in names:
            claim = self._claim_of.get(name)
            if claim is not None and len(self._claims[claim]) > 1:
                found |= self._claims[claim]
        return found

    def among(self, names: Iterable[str]) -> Mapping[str, Interface]:
        """The interfaces of these names that are wanted."""
        return {name: self.interfaces[name] for name in names if name in self.interfaces}


def _add(sets: dict[K, set[str]], key: K, name: str) -> None:
    sets.setdefault(key, set()).add(name)


def _remove(sets: dict[K, set[str]], key: K, name: str) -> None:
    members = sets[key]
    members.discard(name)
    if not members:
        del sets[key]
