"""What an interface needs before its pair can exist: a peer that points back, both namespaces, and its kernel name."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping

from vethlib.agent.config.model import Interface
from vethlib.agent.reasons import (
    Reason,
    ReasonCode,
    master_not_found,
    name_claimed,
    of_peer,
    peer_invalid,
    peer_not_configured,
    peer_points_elsewhere,
)
from vethlib.links import describe

from .observed import NetnsId, Observed, SeenNetns

__all__ = [
    "DesiredEnd",
    "missing_master",
    "missing_peer",
    "mutual_pairs",
    "name_conflicts",
    "precedence",
    "unmet",
    "with_netns",
]


class DesiredEnd:
    """A desired interface and the namespace that it belongs to.

    `place` is the identity of the namespace, None while it does not exist.
    """

    __slots__ = ("interface", "kernel_name", "name", "netns", "peer_name", "place")

    def __init__(self, interface: Interface, netns: SeenNetns) -> None:
        self.interface = interface
        self.name = interface.name
        self.peer_name = interface.peer_if_name
        self.kernel_name = interface.kernel_name
        self.netns = netns
        self.place: NetnsId | None = netns.place

    @property
    def names(self) -> tuple[str, ...]:
        """The names that its link has: its kernel name, and its configured alternative names."""
        return (self.kernel_name, *self.interface.altnames)

    def __str__(self) -> str:
        return describe(self.kernel_name, self.interface.namespace.ref)


def with_netns(desired: Mapping[str, Interface], observed: Observed) -> dict[str, DesiredEnd]:
    """Return the desired interfaces by name, sorted, each with the namespace that its reference leads to."""
    ends: dict[str, DesiredEnd] = {}
    for name in sorted(desired):
        ref = desired[name].namespace.ref
        netns = observed.netns.get(ref) or SeenNetns(
            ref, None, f"{ref or 'home'} was not looked up", code=ReasonCode.NETNS_UNKNOWN
        )
        ends[name] = DesiredEnd(desired[name], netns)
    return ends


def missing_master(end: DesiredEnd, observed: Observed) -> Reason | None:
    """Return why `end` has to wait for its master; None if it needs no master, or the master exists."""
    master = end.interface.master
    if not master or end.place is None:
        return None
    return None if (end.place, master) in observed.by_name else master_not_found(str(end), master)


def unmet(
    end: DesiredEnd,
    desired: Mapping[str, DesiredEnd],
    configured: Mapping[str, Interface],
    observed: Observed | None = None,
    invalid: Container[str] = (),
) -> list[Reason]:
    """Return everything that `end` still waits for; nothing if its pair can be built.

    `configured` has all interfaces, `desired` at least the peers that point back. Masters are looked for if the host
    was `observed`. `invalid` are the names whose values are not valid.
    """
    reasons: list[Reason] = []
    peer, points_at = desired.get(end.peer_name), end.name
    if end.peer_name in configured:
        points_at = configured[end.peer_name].peer_if_name
    if points_at != end.name:
        reasons.append(peer_points_elsewhere(end.peer_name, points_at))
    elif peer is None:
        reasons.append(missing_peer(end.peer_name, configured, invalid))
    if end.place is None:
        reasons.append(end.netns.absence())
    # A namespace that both wait for is listed once.
    if peer is not None and points_at == end.name and peer.place is None and peer.netns != end.netns:
        reasons.append(of_peer(peer.name, peer.netns.absence()))
    if observed is not None:
        if (reason := missing_master(end, observed)) is not None:
            reasons.append(reason)
        if peer is not None and points_at == end.name and (reason := missing_master(peer, observed)) is not None:
            reasons.append(of_peer(peer.name, reason))
    return reasons


def missing_peer(name: str, configured: Container[str], invalid: Container[str]) -> Reason:
    """Return why there is no peer of this name."""
    return peer_invalid(name) if name in invalid and name not in configured else peer_not_configured(name)


def mutual_pairs(desired: Mapping[str, DesiredEnd]) -> Iterator[tuple[DesiredEnd, DesiredEnd]]:
    """Yield every two interfaces that point at each other, once, whether or not their namespaces exist."""
    for end in desired.values():
        peer = desired.get(end.peer_name)
        if peer is not None and peer.peer_name == end.name and end.name < peer.name:
            yield end, peer


def precedence(name: str, interface: Interface) -> tuple[bool, bool, str]:
    """Return the sort key of interfaces that claim one name in one namespace: the first gets it."""
    return interface.kernel_name != name, interface.name != name, interface.name


def name_conflicts(desired: Mapping[str, DesiredEnd]) -> dict[str, Reason]:
    """Return the interfaces that cannot have a name of theirs, each with the reason.

    The interface whose own name it is takes precedence: a value cannot take the link of another interface by
    setting its name as host_if_name. Among all others, the first in order does. An alternative name is a claim, too,
    which yields to every kernel name.

    A PENDING interface keeps its claim: otherwise another one would lose its link as soon as the first has everything
    that it needs.
    """
    holders: dict[tuple[NetnsId, str], DesiredEnd] = {}
    for end in desired.values():
        if end.place is None:
            continue
        claim = end.place, end.kernel_name
        if claim not in holders or end.name == end.kernel_name:
            holders[claim] = end
    for end in desired.values():
        for name in end.interface.altnames:
            if end.place is not None:
                holders.setdefault((end.place, name), end)
    refused: dict[str, Reason] = {}
    for end in desired.values():
        if end.place is None:
            continue
        for name in end.names:
            holder = holders[end.place, name]
            if holder is not end:
                refused[end.name] = name_claimed(describe(name, end.interface.namespace.ref), holder.name)
                break
    return refused
