"""What an interface needs before its pair can be: a partner that points back, and both namespaces."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from vethlib.links import describe

from .model import Interface
from .observed import Observed, Place, SeenNetns

__all__ = ["Wanted", "mutual_pairs", "name_conflicts", "unmet", "with_netns"]


@dataclass(frozen=True, slots=True)
class Wanted:
    """An interface and the namespace it belongs into."""

    interface: Interface
    netns: SeenNetns

    @property
    def name(self) -> str:
        """The interface's name."""
        return self.interface.name

    @property
    def peer_name(self) -> str:
        """The name of the interface at the other end."""
        return self.interface.peer_if_name

    @property
    def place(self) -> Place | None:
        """Its namespace; None while that is not there."""
        return self.netns.place

    def __str__(self) -> str:
        return describe(self.interface.kernel_name, self.interface.namespace.ref)


def with_netns(desired: Mapping[str, Interface], observed: Observed) -> dict[str, Wanted]:
    """The desired interfaces by name, sorted, each with what its namespace reference leads to."""
    wanted: dict[str, Wanted] = {}
    for name in sorted(desired):
        ref = desired[name].namespace.ref
        netns = observed.netns.get(ref) or SeenNetns(ref, None, f"{ref or 'home'} was not looked up")
        wanted[name] = Wanted(desired[name], netns)
    return wanted


def unmet(one: Wanted, wanted: Mapping[str, Wanted]) -> str:
    """Everything `one` still waits for, in words; "" if its pair can be built."""
    reasons: list[str] = []
    peer = wanted.get(one.peer_name)
    if peer is None:
        reasons.append(f"peer {one.peer_name} is not configured")
    elif peer.peer_name != one.name:
        reasons.append(f"peer {peer.name} points at {peer.peer_name}, not here")
    if one.place is None:
        reasons.append(_absence(one.netns))
    # A namespace that both wait for is told once.
    if peer is not None and peer.peer_name == one.name and peer.place is None and peer.netns != one.netns:
        reasons.append(f"peer {peer.name}: {_absence(peer.netns)}")
    return "; ".join(reasons)


def _absence(netns: SeenNetns) -> str:
    return netns.reason or f"{netns.ref} does not exist"


def mutual_pairs(wanted: Mapping[str, Wanted]) -> Iterator[tuple[Wanted, Wanted]]:
    """Every two interfaces that point at each other, once, whether their namespaces are there or not."""
    for one in wanted.values():
        peer = wanted.get(one.peer_name)
        if peer is not None and peer.peer_name == one.name and one.name < peer.name:
            yield one, peer


def name_conflicts(wanted: Mapping[str, Wanted]) -> dict[str, str]:
    """Who cannot have its kernel name, with the reason.

    An interface that is PENDING holds on to its name: else another would lose its link whenever the first one's
    last requirement arrives.
    """
    holders: dict[tuple[Place, str], Wanted] = {}
    refused: dict[str, str] = {}
    for one in wanted.values():
        if one.place is None:
            continue
        first = holders.setdefault((one.place, one.interface.kernel_name), one)
        if first is not one:
            refused[one.name] = f"{one} is wanted by {first.name} too, which comes first"
    return refused
