"""What a plan would lose for good: the operations that cannot be undone, and why. Pure: no I/O.

Deleting a link also deletes everything that other programs have added to it, and so do some changes of a link.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from vethlib.agent.config.mark import ADDRESS_PROTO
from vethlib.agent.config.model import IPV6_MIN_MTU
from vethlib.errors import InvalidValue
from vethlib.links import Address, Dependents, describe
from vethlib.text import counted, listed

from .inversion import creation
from .observed import LinkId, Observed, SeenLink
from .operations import ChangeLink, DeletePair, Operation, Plan, listed_identity

__all__ = ["Irreversible", "irreversible", "links_at_stake"]

_NOTHING = Dependents()


@dataclass(frozen=True, slots=True)
class Irreversible:
    """An operation that cannot be undone, and why."""

    operation: Operation
    why: str

    def __str__(self) -> str:
        return self.why


def links_at_stake(plan: Plan, before: Observed) -> list[SeenLink]:
    """Return the links that a plan changes or deletes, whose dependents :func:`irreversible` needs to know."""
    at_stake: dict[LinkId, SeenLink] = {}
    for operation in plan.operations:
        if isinstance(operation, ChangeLink | DeletePair):
            seen = before.by_index.get((operation.place, operation.index))
            ends = before.ends(seen) if isinstance(operation, DeletePair) else [seen]
            at_stake.update((end.id, end) for end in ends if end is not None)
    return list(at_stake.values())


def irreversible(plan: Plan, before: Observed, dependents: Mapping[LinkId, Dependents]) -> tuple[Irreversible, ...]:
    """Return the operations of `plan` that cannot be undone, each with the reason; () if the plan can be undone.

    `dependents` are the dependents of the :func:`links_at_stake`; a missing link has none.
    """
    reasons: list[Irreversible] = []
    for operation in plan.operations:
        if isinstance(operation, ChangeLink):
            seen = before.by_index[operation.place, operation.index]
            whys = list(_lost_by_change(operation, seen, before, dependents.get(seen.id, _NOTHING)))
        elif isinstance(operation, DeletePair):
            whys = list(_lost_by_deletion(operation, before, dependents))
        else:
            continue
        reasons += [Irreversible(operation, why) for why in whys]
    return tuple(reasons)


def _lost_by_change(change: ChangeLink, seen: SeenLink, before: Observed, dependents: Dependents) -> Iterator[str]:
    where = describe(seen.link.name, seen.ref)
    new = {name: value for name, (_, value) in change.changes.items()}
    down, off = new.get("up") is False, new.get("ipv6") is False
    too_small = new.get("mtu", IPV6_MIN_MTU) < IPV6_MIN_MTU <= seen.link.mtu
    labels = "name" in new and sum(address.interface.version == 4 for address in seen.addresses) > 1
    causes = [
        text
        for text, holds in (
            ("setting it down", down),
            (f"an MTU below {IPV6_MIN_MTU}", too_small),
            ("disabling IPv6", off and seen.link.ipv6),
            ("removing addresses", change.takes_addresses),
            ("renaming it", labels),
            ("moving it to or from a VRF", _changes_vrf(change, before)),
        )
        if holds
    ]
    if causes and dependents.routes:
        yield f"{where}: {listed(causes)} loses {counted(dependents.routes, 'route')} added by other programs"
    vrf = _changes_vrf(change, before)
    if dependents.neighbours and (down or vrf or "mac" in new):
        verb = "setting it down" if down else "moving it to or from a VRF" if vrf else "another MAC"
        yield f"{where}: {verb} loses {counted(dependents.neighbours, 'permanent neighbour')} added by other programs"
    if dependents.stacked and new.keys() & {"up", "mac", "mtu"}:
        yield f"{where}: {', '.join(dependents.stacked)} on top of it would not be restored"
    if (
        dependents.ipv6_off
        and "ipv6" not in new
        and any(listed_identity(each)[0].version == 6 for each in change.added)
    ):
        yield f"{where}: IPv6 is switched off on it, and its IPv6 address would switch it on"
    for address in seen.addresses:
        gone = change.removes(address) or ((down or off) and address.interface.version == 6)
        if gone and not address.permanent and not address.by_kernel:
            yield f"{where}: its address {address} expires, and would not be restored with its remaining lifetime"


def _changes_vrf(change: ChangeLink, before: Observed) -> bool:
    """Return whether a link joins or leaves a VRF: it is down for a moment (cycle_netdev, drivers/net/vrf.c)."""
    masters = (before.by_name.get((change.place, name)) for name in change.changes.get("master", ()) if name)
    return any(master is not None and master.link.kind == "vrf" for master in masters)


def _lost_by_deletion(delete: DeletePair, before: Observed, dependents: Mapping[LinkId, Dependents]) -> Iterator[str]:
    ends = before.ends(before.by_index.get((delete.place, delete.index)))
    where = describe(delete.name, delete.ref)
    if len(ends) < 2:
        yield f"{where}: its pair is deleted, and its other end was not observed"
        return
    try:
        creation(ends[0], ends[1], delete)
    except InvalidValue as error:
        yield f"{where}: its pair is deleted, and could not be created again: {error}"
    for end in ends:
        lost = list(_lost_with(end, dependents.get(end.id, _NOTHING)))
        if lost:
            yield f"{describe(end.link.name, end.ref)}: it is deleted ({delete.why}), and with it {listed(lost)}"


def _is_given_again(address: Address) -> bool:
    """Return whether an address of the agent will be the same again when its link is created again."""
    return address.proto == ADDRESS_PROTO and address.can_be_given


def _lost_with(end: SeenLink, dependents: Dependents) -> Iterator[str]:
    """Yield what is deleted with a link, and not restored when it is created again."""
    for address in end.addresses:
        if not address.by_kernel and not _is_given_again(address):
            yield f"the foreign address {address}"
    if dependents.routes:
        yield f"{counted(dependents.routes, 'route')} added by other programs"
    if dependents.neighbours:
        yield counted(dependents.neighbours, "permanent neighbour")
    yield from (f"{name} on top of it" for name in dependents.stacked)
    restored = {f"its alternative name {name!r}" for name in end.link.altnames}
    restored.add(f"its place in {end.further.get('master')}")
    yield from (each for each in dependents.fixed if each not in restored)
