"""What a plan would lose for good: the operations that cannot be undone, and why. Pure: no I/O.

Deleting a link also deletes everything that other programs have added to it, and so do some changes of a link.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from vethlib.addresses import IPAddress
from vethlib.agent.config.mark import ADDRESS_PROTO
from vethlib.agent.config.model import IPV6_MIN_MTU
from vethlib.agent.planning.observed import LinkId, NetnsId, Observed, SeenLink
from vethlib.agent.planning.operations import ChangeLink, CreatePair, DeletePair, Operation, Plan, listed_identity
from vethlib.endfields.checks import STABLE_SECRET, Sysctl
from vethlib.endfields.table import ROUTES, SYSCTLS
from vethlib.errors import InvalidValue
from vethlib.links import Address, Dependents, describe
from vethlib.text import counted, listed

from .recreation import creation

__all__ = ["Irreversible", "irreversible", "links_at_stake", "links_losing_settings", "links_to_delete"]

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


def links_to_delete(plan: Plan, before: Observed) -> list[SeenLink]:
    """Return both ends of the pairs that a plan deletes, as far as they were observed."""
    deletes = (each for each in plan.operations if isinstance(each, DeletePair))
    return [end for each in deletes for end in before.ends(before.by_index.get((each.place, each.index)))]


def links_losing_settings(plan: Plan, before: Observed) -> list[SeenLink]:
    """Return the links whose settings in /proc/sys/net the kernel forgets, or sets along, when a plan is executed.

    To be restored, they must have been observed, too.
    """
    changing = {
        (each.place, each.index)
        for each in plan.operations
        if isinstance(each, ChangeLink) and _changes_settings(each, before.by_index[each.place, each.index])
    }
    deleted = {end.id for end in links_to_delete(plan, before)}
    return [seen for seen in links_at_stake(plan, before) if seen.id in deleted or seen.id in changing]


def irreversible(plan: Plan, before: Observed, dependents: Mapping[LinkId, Dependents]) -> tuple[Irreversible, ...]:
    """Return the operations of `plan` that cannot be undone, each with the reason; () if the plan can be undone.

    `dependents` are the dependents of the :func:`links_at_stake`; a missing link has none.
    """
    sources = _Sources(plan, before)
    reasons: list[Irreversible] = []
    for operation in plan.operations:
        if isinstance(operation, ChangeLink):
            seen = before.by_index[operation.place, operation.index]
            known = dependents.get(seen.id, _NOTHING)
            whys = [*_lost_by_change(operation, seen, before, known), *sources.lost(seen, known)]
        elif isinstance(operation, DeletePair):
            whys = list(_lost_by_deletion(operation, before, dependents))
            for end in before.ends(before.by_index.get((operation.place, operation.index))):
                whys += sources.lost(end, dependents.get(end.id, _NOTHING))
        else:
            continue
        reasons += [Irreversible(operation, why) for why in whys]
    return tuple(reasons)


class _Sources:
    """The addresses of every namespace that are there all the time, and so remain the source of routes over any link.

    The routes of a link that the plan itself changes are restored with it, as soon as their source is there again.
    """

    def __init__(self, plan: Plan, before: Observed) -> None:
        operations = [each for each in plan.operations if isinstance(each, ChangeLink)]
        self._routes = {
            (each.place, each.index): each.changes[ROUTES][1] for each in operations if ROUTES in each.changes
        }
        changes: dict[LinkId, list[ChangeLink]] = {}
        for change in operations:
            changes.setdefault((change.place, change.index), []).append(change)
        self._deleted = {end.id for end in links_to_delete(plan, before)}
        self._return: set[tuple[NetnsId | None, IPAddress]] = {
            (each.place, listed_identity(added)[0].ip) for each in operations for added in each.added
        }
        for create in plan.operations:
            if isinstance(create, CreatePair):
                for interface, end in ((create.a, create.veth.a), (create.b, create.veth.b)):
                    place = before.netns[interface.namespace.ref].place
                    self._return |= {(place, address.ip) for address in end.interfaces}
        self._stay: set[tuple[NetnsId, IPAddress]] = set()
        for seen in before.links:
            if seen.id not in self._deleted:
                self._stay |= {
                    (seen.place, address.interface.ip)
                    for address in seen.addresses
                    if not any(change.costs_source(address) for change in changes.get(seen.id, ()))
                }

    def lost(self, seen: SeenLink, dependents: Dependents) -> Iterator[str]:
        """Yield what a link costs routes over other links whose source is one of its addresses."""
        for source, over, own, number in dependents.sourced:
            if (seen.place, source) in self._stay or (own and self._restores((seen.place, over), source)):
                continue
            lost = counted(number, "route") if source.version == 4 else f"the source of {counted(number, 'route')}"
            yield f"{describe(seen.link.name, seen.ref)}: without its address {source}, other links lose {lost}"

    def _restores(self, link: LinkId, source: IPAddress) -> bool:
        if link in self._deleted:
            return True
        if link not in self._routes:
            return False
        return (link[0], source) in self._return or all(route.source != source for route in self._routes[link])


def _lost_by_change(change: ChangeLink, seen: SeenLink, before: Observed, dependents: Dependents) -> Iterator[str]:
    yield from _dependents_lost(change, seen, before, dependents)
    where = describe(seen.link.name, seen.ref)
    new = {name: value for name, (_, value) in change.changes.items()}
    loses_addresses = new.get("up") is False or new.get("ipv6") is False
    if (
        dependents.ipv6_off
        and "ipv6" not in new
        and any(listed_identity(each)[0].version == 6 for each in change.added)
    ):
        yield f"{where}: IPv6 is switched off on it, and its IPv6 address would switch it on"
    # Below the minimum of IPv6, a link has no settings of it, and loses them again with the larger MTU.
    if seen.link.mtu >= IPV6_MIN_MTU and _sets_first_secret(change):
        yield f"{where}: it has no {STABLE_SECRET} yet, and the kernel cannot clear it again"
    for address in seen.addresses:
        gone = change.removes(address) or (loses_addresses and address.interface.version == 6)
        if gone and not address.permanent and not address.by_kernel:
            yield f"{where}: its address {address} expires, and would not be restored with its remaining lifetime"


def _dependents_lost(change: ChangeLink, seen: SeenLink, before: Observed, dependents: Dependents) -> Iterator[str]:
    """Describe the dependents that a link loses by a change."""
    where = describe(seen.link.name, seen.ref)
    new = {name: value for name, (_, value) in change.changes.items()}
    down, too_small, vrf = new.get("up") is False, _loses_ipv6(change, seen), _changes_vrf(change, before)
    labels = "name" in new and sum(address.interface.version == 4 for address in seen.addresses) > 1
    causes = [
        text
        for text, holds in (
            ("setting it down", down),
            (f"an MTU below {IPV6_MIN_MTU}", too_small),
            ("disabling IPv6", new.get("ipv6") is False and seen.link.ipv6),
            ("removing addresses", change.takes_addresses),
            ("renaming it", labels),
            ("moving it to or from a VRF", vrf),
        )
        if holds
    ]
    if causes and dependents.routes:
        yield f"{where}: {listed(causes)} loses {counted(dependents.routes, 'route')} added by other programs"
    if too_small and dependents.ipv6_token:
        yield f"{where}: an MTU below {IPV6_MIN_MTU} loses its IPv6 token {dependents.ipv6_token}"
    if dependents.neighbours and (down or vrf or "mac" in new):
        verb = "setting it down" if down else "moving it to or from a VRF" if vrf else "another MAC"
        yield f"{where}: {verb} loses {counted(dependents.neighbours, 'permanent neighbour')} added by other programs"
    if dependents.ipv4_neighbours and not (down or vrf) and _takes_last_ipv4(change, seen):
        many = counted(dependents.ipv4_neighbours, "permanent neighbour")
        yield f"{where}: removing its last IPv4 address loses {many} added by other programs"
    if dependents.stacked and new.keys() & {"up", "mac", "mtu"}:
        yield f"{where}: {', '.join(dependents.stacked)} on top of it would not be restored"


def _takes_last_ipv4(change: ChangeLink, seen: SeenLink) -> bool:
    """Return whether a link is left without an IPv4 address: the kernel disables IPv4 on it (fib_disable_ip)."""
    had = [address for address in seen.addresses if address.interface.version == 4]
    added = any(listed_identity(each)[0].version == 4 for each in change.added)
    return bool(had) and not added and all(map(change.removes, had))


def _changes_settings(change: ChangeLink, seen: SeenLink) -> bool:
    _, sysctls = change.changes.get(SYSCTLS, ((), ()))
    return _loses_ipv6(change, seen) or STABLE_SECRET in dict(sysctls)  # setting the secret sets addr_gen_mode


def _loses_ipv6(change: ChangeLink, seen: SeenLink) -> bool:
    """Return whether a change gives a link an MTU that is too small for IPv6."""
    _, mtu = change.changes.get("mtu", (0, IPV6_MIN_MTU))
    return bool(mtu < IPV6_MIN_MTU <= seen.link.mtu)


def _sets_first_secret(change: ChangeLink) -> bool:
    old, new = change.changes.get(SYSCTLS, ((), ()))
    return Sysctl(STABLE_SECRET, "") in (old or ()) and STABLE_SECRET in dict(new)


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
    if dependents.ipv6_token:
        yield f"its IPv6 token {dependents.ipv6_token}"
