"""The order in which the kernel lists the addresses of a link, and the changes between two lists. Pure: no I/O.

The order determines which address of an IPv4 subnet is primary, and which of several possible addresses becomes the
source of a packet: the first.

1. IPv4 (__inet_insert_ifa, net/ipv4/devinet.c): an address whose subnet already has one is secondary to that, and is
   added at the end of the list. Any other is primary, and is added after the primary ones of its scope; those of a
   narrower scope come before it.
2. IPv4 (__inet_del_ifa): secondaries are removed with their primary; or the first of them becomes primary, and is moved
   to the end (sysctl promote_secondaries).
3. IPv6 (ipv6_link_dev_addr, net/ipv6/addrconf.c): an address is added before all others of its scope; those of a wider
   scope come before it. Removing an address removes no other.
4. A link has an IPv6 address only once, with any prefix length and peer (ipv6_chk_same_addr), and an IPv4 address once
   for each prefix length and subnet of its peer. All IPv4 addresses of a subnet have the same scope.

All lists here are in the kernel's order, with IFA_F_SECONDARY set accordingly.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import NamedTuple

from ._nl.const import IFA_F_SECONDARY
from ._values import replace
from .addresses import Address, Identity, IPInterface, identity_of

__all__ = ["Rearrangement", "added", "in_order", "in_subnets_of", "in_the_way", "listed", "rearrangement", "removed"]


class Rearrangement(NamedTuple):
    """Addresses to remove and then to add, both in the order in which this has to be done."""

    take: list[Address]
    give: list[Address]


def in_the_way(there: Iterable[Address], new: Iterable[Address]) -> list[Address]:
    """Return the addresses of a link that conflict with new ones (rule 4)."""
    new = list(new)
    if not new:
        return []
    slots: set[Hashable] = set()
    scopes: dict[tuple[int, int], int] = {}
    for one in new:
        slots.add(_slot(one))
        if one.interface.version == 4:
            scopes[_subnet(one)] = one.scope
    return [
        one
        for one in there
        if _slot(one) in slots or (one.interface.version == 4 and scopes.get(_subnet(one), one.scope) != one.scope)
    ]


def _slot(one: Address) -> Hashable:
    if one.interface.version == 6:
        return int(one.interface)
    return (int(one.interface), *_subnet(one))


def _subnet(one: Address) -> tuple[int, int]:
    length = one.interface.network.prefixlen
    return length, int(one.peer or one.interface) >> (32 - length)


def in_subnets_of(others: Iterable[Address], addresses: Iterable[Address]) -> list[Address]:
    """Return the IPv4 addresses that share a subnet with one of the others: the order decides which is primary."""
    subnets = {_subnet(other) for other in others if other.interface.version == 4}
    return [one for one in addresses if one.interface.version == 4 and _subnet(one) in subnets]


def listed(addresses: Iterable[Address]) -> list[Address]:
    """Return the list of a link with these addresses, in this order as far as possible."""
    return added([], addresses)


def added(there: Sequence[Address], new: Iterable[Address]) -> list[Address]:
    """Return the list of a link to which `new` addresses are added, in this order if possible (rules 1, 3)."""
    new = list(new)
    if not new:
        return list(there)
    (four, six), (new4, new6) = _by_family(there), _by_family(new)
    return _added4(four, new4) + _added6(six, new6)


# A tenant can have thousands of addresses, so the position of each is not searched for among all others: for each
# scope, only the position where it begins or ends is kept.


def _added4(four: list[Address], new: Sequence[Address]) -> list[Address]:
    if not new:
        return four
    primaries = [(number, one) for number, one in enumerate(four, 1) if not one.secondary]
    subnets = {_subnet(one) for _, one in primaries}
    ends = {one.scope: number for number, one in primaries}
    for one in new:
        if (subnet := _subnet(one)) in subnets:
            four.append(replace(one, flags=one.flags | IFA_F_SECONDARY))
            continue
        subnets.add(subnet)
        scope = one.scope
        at = max((end for other, end in ends.items() if other >= scope), default=0)
        four.insert(at, replace(one, flags=one.flags & ~IFA_F_SECONDARY))
        ends = {other: end + (end > at) for other, end in ends.items()} | {scope: at + 1}
    return four


def _added6(six: list[Address], new: Sequence[Address]) -> list[Address]:
    if not new:
        return six
    starts = {one.scope: number for number, one in reversed(list(enumerate(six)))}
    for one in reversed(new):
        scope = one.scope
        at = min((start for other, start in starts.items() if other >= scope), default=len(six))
        six.insert(at, one)
        starts = {other: start + (start >= at) for other, start in starts.items()} | {scope: at}
    return six


def removed(there: Sequence[Address], gone: Iterable[Address]) -> list[Address]:
    """Return the list of a link from which addresses are removed, if their secondaries stay (rule 2)."""
    identities = {one.identity for one in gone}
    if not identities:
        return list(there)
    stay = [one for one in there if one.identity not in identities]
    four, _ = _by_family(stay)
    primaries = {_subnet(one) for one in four if not one.secondary}
    orphans = {one.identity: one for one in four if _subnet(one) not in primaries}
    return added([one for one in stay if one.identity not in orphans], orphans.values())


def in_order(there: Sequence[Address], wanted: Sequence[IPInterface]) -> list[Address]:
    """Return the list `there`, with its `wanted` addresses in the order of `wanted`.

    The list is unchanged if they already are in that order, or if other addresses prevent it. The other addresses keep
    their order among themselves.
    """
    if len(wanted) < 2:
        return list(there)
    rank = {identity_of(interface): number for number, interface in enumerate(wanted)}
    four, six = _by_family(there)
    return _in_order(four, rank) + _in_order(six, rank)


def _in_order(there: list[Address], rank: Mapping[Identity, int]) -> list[Address]:
    once = _moved(there, rank)
    return once if once is there or _identities(_moved(once, rank)) == _identities(once) else there


def _moved(there: list[Address], rank: Mapping[Identity, int]) -> list[Address]:
    """Move the addresses that are out of order to the position of new addresses."""
    ours = [one for one in there if one.identity in rank]
    if len(ours) < 2:
        return there
    first = there.index(ours[0])
    ranked = sorted(ours, key=lambda one: rank[one.identity])
    mine = set(_identities(ours))
    ideal = listed([*there[:first], *ranked, *(one for one in there[first:] if one.identity not in mine)])
    order = [one for one in ideal if one.identity in mine]
    if _identities(order) == _identities(ours):
        return there
    if ours[0].interface.version == 4:
        kept = _leading(_identities(order), _identities(ours))
    else:
        kept = _leading(_identities(reversed(order)), _identities(reversed(ours)))
    moving = [one for one in order if one.identity not in kept]
    return added(removed(there, moving), moving)


def rearrangement(
    there: Sequence[Address], target: Sequence[Address], same: Callable[[Address, Address], bool] | None = None
) -> Rearrangement:
    """Return the changes that turn the list `there` into `target`, with as few addresses removed and added as possible.

    An address that stays must be the `same` in both lists (by default, have the same identity). Secondaries that can
    stay without their primary are not removed, but are among those to add, in case they were removed with it.
    """
    found = {one.identity: one for one in target}
    if same is None and _identities(there) == list(found):
        return Rearrangement([], [])

    def stays(one: Address) -> bool:
        other = found.get(one.identity)
        return other is not None and (same is None or same(one, other))

    (there4, there6), (target4, target6) = _by_family(there), _by_family(target)
    four, six = _rearrangement4(there4, target4, stays), _rearrangement6(there6, target6, stays)
    return Rearrangement(four.take + six.take, four.give + six.give)


def _rearrangement4(there: list[Address], target: list[Address], stays: Callable[[Address], bool]) -> Rearrangement:
    primaries = [one for one in target if not one.secondary]
    able = [one.identity for one in there if not one.secondary and stays(one)]
    kept: set[Identity] = set()
    for scope in {one.scope for one in primaries}:
        kept |= _leading([one.identity for one in primaries if one.scope == scope], able)
    subnets = {_subnet(one) for one in there if one.identity in kept}
    able = [one.identity for one in there if one.secondary and _subnet(one) in subnets and stays(one)]
    kept |= _leading([one.identity for one in target if one.secondary], able)

    give = [one for one in target if one.identity not in kept]
    # Secondaries first, so that none is removed with its primary.
    take = [one for one in reversed(there) if one.identity not in kept]
    take.sort(key=lambda one: not one.secondary)
    subnets = {_subnet(one) for one in take if not one.secondary and not stays(one)}
    gently = [one for one in take if not (one.secondary and _subnet(one) in subnets and stays(one))]
    remaining = removed(there, gently)
    present = set(_identities(remaining))
    missing = [one for one in give if one.identity not in present]
    if _identities(added(remaining, missing)) == _identities(target):
        return Rearrangement(gently, give)
    return Rearrangement(take, give)


def _rearrangement6(there: list[Address], target: list[Address], stays: Callable[[Address], bool]) -> Rearrangement:
    able = [one.identity for one in reversed(there) if stays(one)]
    kept: set[Identity] = set()
    for scope in {one.scope for one in target}:
        kept |= _leading([one.identity for one in reversed(target) if one.scope == scope], able)
    take = [one for one in there if one.identity not in kept]
    return Rearrangement(take, [one for one in reversed(target) if one.identity not in kept])


def _leading(wanted: Sequence[Identity], there: Sequence[Identity]) -> set[Identity]:
    """Return the beginning of `wanted` that is already in this order, so that others can be added after it."""
    position = {identity: number for number, identity in enumerate(there)}
    last, kept = -1, set()
    for identity in wanted:
        if position.get(identity, -1) <= last:
            break
        last = position[identity]
        kept.add(identity)
    return kept


def _identities(addresses: Iterable[Address]) -> list[Identity]:
    return [one.identity for one in addresses]


def _by_family(addresses: Iterable[Address]) -> tuple[list[Address], list[Address]]:
    """Return the IPv4 addresses and the IPv6 addresses."""
    four: list[Address] = []
    six: list[Address] = []
    for one in addresses:
        (four if one.interface.version == 4 else six).append(one)
    return four, six
