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

__all__ = ["Rearrangement", "added", "in_order", "in_the_way", "listed", "rearrangement", "removed"]


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


def listed(addresses: Iterable[Address]) -> list[Address]:
    """Return the list of a link with these addresses, in this order as far as possible."""
    return added([], addresses)


def added(there: Sequence[Address], new: Iterable[Address]) -> list[Address]:
    """Return the list of a link to which `new` addresses are added, in this order if possible (rules 1, 3)."""
    new = list(new)
    if not new:
        return list(there)
    four, six = _of(there, 4), _of(there, 6)
    for one in _of(new, 4):
        four = _added4(four, one)
    for one in reversed(_of(new, 6)):
        at = next((number for number, other in enumerate(six) if other.scope >= one.scope), len(six))
        six.insert(at, one)
    return four + six


def _added4(four: list[Address], one: Address) -> list[Address]:
    subnet = _subnet(one)
    if any(_subnet(other) == subnet and not other.secondary for other in four):
        return [*four, replace(one, flags=one.flags | IFA_F_SECONDARY)]
    before = [n for n, other in enumerate(four, 1) if not other.secondary and other.scope >= one.scope]
    at = before[-1] if before else 0
    return [*four[:at], replace(one, flags=one.flags & ~IFA_F_SECONDARY), *four[at:]]


def removed(there: Sequence[Address], gone: Iterable[Address]) -> list[Address]:
    """Return the list of a link from which addresses are removed, if their secondaries stay (rule 2)."""
    identities = {one.identity for one in gone}
    if not identities:
        return list(there)
    stay = [one for one in there if one.identity not in identities]
    primaries = {_subnet(one) for one in _of(stay, 4) if not one.secondary}
    orphans = [one for one in _of(stay, 4) if _subnet(one) not in primaries]
    return added([one for one in stay if one not in orphans], orphans)


def in_order(there: Sequence[Address], wanted: Sequence[IPInterface]) -> list[Address]:
    """Return the list `there` with those of the `wanted` addresses that it has in the order of `wanted`.

    It is unchanged if they are, or if others prevent it. Others keep their order among themselves.
    """
    if len(wanted) < 2:
        return list(there)
    rank = {identity_of(interface): number for number, interface in enumerate(wanted)}
    return _in_order(_of(there, 4), rank) + _in_order(_of(there, 6), rank)


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

    four = _rearrangement4(_of(there, 4), _of(target, 4), stays)
    six = _rearrangement6(_of(there, 6), _of(target, 6), stays)
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
    missing = [one for one in give if one.identity not in {other.identity for other in remaining}]
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


def _of(addresses: Iterable[Address], version: int) -> list[Address]:
    return [one for one in addresses if one.interface.version == version]
