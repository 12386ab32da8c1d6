"""The desired interfaces, by name, and the other interfaces that a change of one of them concerns. Pure.

Those are its peer, the interfaces whose peer it is, and those that claim the same name in the same namespace.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

from vethlib.agent.config.model import Interface
from vethlib.errors import InvalidValue

from .observed import NetnsId, Observed
from .plausibility import ConfigWarning, Plausibility
from .requirements import precedence

__all__ = ["Desired"]

K = TypeVar("K")

_MOST = 64  # interfaces that share a kernel name or a namespace, and are judged along with one of them


class Desired:
    """The configuration of an agent.

    `interfaces` has the valid ones. `refused` has the problems of the last value of a name; the last valid value, if
    there is one, stays in `interfaces`. If the configuration is `complete`, there are no other desired interfaces;
    otherwise `deleted` are the names that were deleted and may have links left.
    """

    def __init__(self) -> None:
        self.interfaces: dict[str, Interface] = {}
        self.refused: dict[str, tuple[InvalidValue, ...]] = {}
        self.complete = False
        self.deleted: set[str] = set()
        self._naming: dict[str, set[str]] = {}  # peer's name → those that name it
        self._by_ref: dict[str, set[str]] = {}
        self._plausibility = Plausibility(self.interfaces, self._naming_of, self.at, self.refused)
        self._claims: dict[tuple[NetnsId, str], set[str]] = {}
        self._claims_of: dict[str, tuple[tuple[NetnsId, str], ...]] = {}  # its kernel name and its alternative names
        self._attached: dict[tuple[NetnsId, str], set[str]] = {}  # a master → those to be attached to it
        self._master_of: dict[str, tuple[NetnsId, str]] = {}

    def put(self, interface: Interface) -> set[str]:
        """Set a desired interface; return the names of all interfaces concerned."""
        name = interface.name
        concerned = self._take_out(name)
        self.refused.pop(name, None)
        self.deleted.discard(name)
        self.interfaces[name] = interface
        _add(self._naming, interface.peer_if_name, name)
        _add(self._by_ref, interface.namespace.ref, name)
        concerned |= self._in(self._plausibility.add(interface))
        return concerned | {name, interface.peer_if_name}

    def refuse(self, name: str, problems: Iterable[InvalidValue]) -> set[str]:
        """Note that the last value of a name is invalid; return the names of all interfaces concerned."""
        is_new = name not in self.refused and name not in self.interfaces
        self.refused[name] = tuple(problems)
        return {name} | (self._naming.get(name, set()) if is_new else set())

    def delete(self, name: str) -> set[str]:
        """Remove a desired interface; return the names of all interfaces concerned."""
        self.refused.pop(name, None)
        if not self.complete:
            self.deleted.add(name)
        return self._take_out(name) | {name}

    def forget_deleted(self, names: Iterable[str]) -> None:
        """Forget that these names were deleted, because nothing of them is left."""
        self.deleted.difference_update(names)

    def unknown(self, names: Iterable[str]) -> set[str]:
        """Return those of these names that are configured, but have never had a valid value."""
        return {name for name in names if name in self.refused and name not in self.interfaces}

    def declare(self, *, complete: bool) -> None:
        """Note whether these are all desired interfaces, or whether there may be others."""
        self.complete = complete
        self.deleted.clear()

    @property
    def is_known(self) -> bool:
        """Whether the configuration was given, or at least a part of it."""
        return self.complete or bool(self.interfaces or self.refused)

    def _take_out(self, name: str) -> set[str]:
        concerned = set(self._naming.get(name, ()))
        interface = self.interfaces.pop(name, None)
        if interface is not None:
            _remove(self._naming, interface.peer_if_name, name)
            _remove(self._by_ref, interface.namespace.ref, name)
            concerned.add(interface.peer_if_name)
            concerned |= self._in(self._plausibility.remove(interface))
        return concerned | self.claim(name, None)

    def _in(self, netns: Iterable[str]) -> set[str]:
        """Return the interfaces in these named namespaces, except in those that have many."""
        return {name for each in netns if len(names := self.at(f"netns:{each}")) <= _MOST for name in names}

    def warnings(self, name: str) -> tuple[ConfigWarning, ...]:
        """Return the parts of an interface's configuration that are valid but probably mistakes."""
        return self._plausibility.of(name)

    def __contains__(self, name: str) -> bool:
        return name in self.interfaces or name in self.refused

    def names(self) -> set[str]:
        """Return the names of all interfaces, including the refused ones."""
        return self.interfaces.keys() | self.refused.keys()

    @property
    def refs(self) -> Iterable[str]:
        """Return every namespace reference in use."""
        return self._by_ref.keys()

    def _naming_of(self, name: str) -> Iterable[str]:
        return self._naming.get(name, ())

    def at(self, ref: str) -> set[str]:
        """Return the interfaces that are configured with this namespace reference."""
        return self._by_ref.get(ref, set())

    def claim(self, name: str, place: NetnsId | None) -> set[str]:
        """Note that the namespace of an interface is `place`, where it claims its kernel name and alternative names.

        If it thereby gives up other names, return the interfaces that claim those names.
        """
        interface = self.interfaces.get(name)
        self._attach(name, place, "" if interface is None else interface.master)
        claims: tuple[tuple[NetnsId, str], ...] = ()
        if place is not None and interface is not None:
            claims = ((place, interface.kernel_name), *((place, altname) for altname in interface.altnames))
        before = self._claims_of.get(name, ())
        if before == claims:
            return set()
        rivals: set[str] = set()
        for claim in before:
            _remove(self._claims, claim, name)
            if claim not in claims:
                rivals |= self._claims.get(claim, set())
        for claim in claims:
            _add(self._claims, claim, name)
        if claims:
            self._claims_of[name] = claims
        else:
            self._claims_of.pop(name, None)
        return rivals

    def claim_seen(self, names: Iterable[str], observed: Observed) -> set[str]:
        """Note where an observation has found the namespaces of these interfaces; return what :meth:`claim` does."""
        rivals: set[str] = set()
        for name in names:
            if (interface := self.interfaces.get(name)) is not None:
                rivals |= self.claim(name, observed.netns[interface.namespace.ref].place)
        return rivals

    def _attach(self, name: str, place: NetnsId | None, master: str) -> None:
        before = self._master_of.pop(name, None)
        if before is not None:
            _remove(self._attached, before, name)
        if place is not None and master:
            self._master_of[name] = place, master
            _add(self._attached, (place, master), name)

    def attached_to(self, place: NetnsId, master: str) -> set[str]:
        """Return the interfaces that are to be attached to a bridge or VRF of this name in a namespace."""
        return self._attached.get((place, master), set())

    def claimants(self, place: NetnsId, name: str) -> set[str]:
        """Return the interfaces that claim a name in a namespace; of very many, only the first in precedence."""
        claimants = self._claims.get((place, name), set())
        if len(claimants) <= _MOST:
            return claimants
        # The interface that has the name now is found by its link.
        return {min(claimants, key=lambda claimant: precedence(name, self.interfaces[claimant]))}

    def with_peers(self, names: Iterable[str]) -> set[str]:
        """Return `names` with their peers that point back or are not configured: what has to be judged together.

        Any other peer, and any interface that names one of these without being its peer, matters only for its
        configuration; when that changes, :meth:`put` and :meth:`delete` return the interfaces concerned. So a long
        chain of peers is judged link by link.
        """
        together = set(names)
        for name in list(together):
            if (interface := self.interfaces.get(name)) is not None:
                peer = self.interfaces.get(interface.peer_if_name)
                if peer is None or peer.peer_if_name == name:
                    together.add(interface.peer_if_name)
        return together

    def rivals(self, names: Iterable[str]) -> set[str]:
        """Return the other claimants of the names of each of these in its namespace; of very many, the first."""
        claims = {claim for name in names for claim in self._claims_of.get(name, ())}
        rivals: set[str] = set()
        for claim in claims:
            if len(self._claims[claim]) > 1:
                rivals |= self.claimants(*claim)
        return rivals

    def among(self, names: Iterable[str]) -> Mapping[str, Interface]:
        """Return the desired interfaces with these names."""
        return {name: self.interfaces[name] for name in names if name in self.interfaces}


def _add(sets: dict[K, set[str]], key: K, name: str) -> None:
    sets.setdefault(key, set()).add(name)


def _remove(sets: dict[K, set[str]], key: K, name: str) -> None:
    members = sets[key]
    members.discard(name)
    if not members:
        del sets[key]
