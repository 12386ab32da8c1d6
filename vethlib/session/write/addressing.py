"""The messages that turn the present addresses of a link into the desired ones.

1. The addresses are read, and a :class:`Goal` has the desired ones; the messages follow from the two, whatever the
   present addresses are (:mod:`vethlib.address_order`). Afterwards, the addresses are read again and compared with the
   goal, because an errno that is not treated as an error (EEXIST, EADDRNOTAVAIL) does not prove that the goal has been
   reached.
2. Messages that may be refused come first, and those that remove addresses last; only an address that a new address is
   to replace is removed before it.
3. An address is identified in the same way as by the kernel: by local address, prefix length and peer. If a caller
   gives the first two and the link has no such address without a peer, those with a peer are meant.
4. A present address that differs from a desired one in other attributes (:class:`vethlib.NewAddress`) is removed and
   added again; lifetimes are changed in place. If a desired address has no attributes, the present address may have
   any.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from operator import attrgetter
from typing import Final, TypeVar

from vethlib._nl.addr import del_addr, new_addr, parse_addr, restore_addr
from vethlib._values import Value, replace
from vethlib.address_order import added, in_order, in_subnets_of, in_the_way, rearrangement, removed
from vethlib.addresses import Address, Identity, IPInterface, as_address, identity_of
from vethlib.endfields.table import Step

T = TypeVar("T")

__all__ = ["ROUNDS", "Goal", "as_sent", "give", "take"]

ROUNDS: Final = 3
"""Attempts at reaching a goal while another program changes addresses of the link."""

# ENXIO: the link no longer supports IPv6, as with an MTU below 1280 (inet6_addr_del, addrconf.c).
_NO_SUCH_ADDRESS: Final = (errno.EADDRNOTAVAIL, errno.ENXIO)


def take(address: Address, index: int) -> Step:
    """Return the step that removes an address."""
    interface = address.interface
    peer = b"" if address.peer is None else address.peer.packed
    request = del_addr(index, interface.packed, interface.network.prefixlen, peer)
    return Step(f"no address {address}", request, fine=_NO_SUCH_ADDRESS)


def give(address: Address, index: int, fine: tuple[int, ...] = (errno.EEXIST,)) -> Step:
    """Return the step that adds an address; one that was read is added exactly as it was."""
    interface = address.interface
    if address.message:
        request = restore_addr(parse_addr(address.message), index)
    else:
        request = new_addr(index, interface.packed, interface.network.prefixlen, address.proto)
    return Step(f"address {address}", request, fine=fine, address=interface, adds=address.identity)


class Goal(Value):
    """The desired addresses of a link.

    With `whole`, `add` are all its addresses, in this order, except the link-local address that the kernel generates
    from its MAC. Otherwise, the link is to have those of `add`, none of `gone`, and those of `order` in this order.
    Those of `again` are present, and are to be removed and added again, because that was requested or because they
    differ (rule 4). New addresses get the owner mark `proto`.
    """

    index: int
    proto: int
    whole: bool
    add: tuple[IPInterface, ...]
    gone: frozenset[Identity]
    order: tuple[IPInterface, ...]
    again: frozenset[Identity] = frozenset()

    @classmethod
    def of(
        cls,
        present: Sequence[Address],
        index: int,
        proto: int,
        *,
        whole: tuple[IPInterface, ...] | None,
        add: tuple[IPInterface, ...],
        remove: Sequence[IPInterface | Address],
        order: tuple[IPInterface, ...],
    ) -> Goal:
        """Return the goal for a request, given the addresses that the link has (`present`)."""
        if whole is not None:
            return cls(index, proto, True, whole, frozenset(), whole, _differing(present, whole))
        gone = _meant(remove, present)
        again = frozenset(identity for interface in add if (identity := identity_of(interface)) in gone)
        return cls(index, proto, False, add, frozenset(gone - again), order, again | _differing(present, add))

    def first(self, present: Sequence[Address]) -> tuple[list[Step], list[Step]]:
        """Return the steps before any other address is removed, and those after that."""
        new, unwanted = self._new(present), self._unwanted(present)
        obstacles = in_the_way(unwanted, new)
        rest = removed(present, obstacles)
        before = self._take(obstacles, rest)
        conflicting = self._conflicting(present, unwanted, new)
        before += [self._give(address, conflicting) for address in as_sent(new, attrgetter("interface.version"))]
        before += self._renewals(present, first=True)
        then = added(rest, new)
        after = rearrangement(then, replace(self, again=frozenset()).target(then))
        return before, [
            *(take(address, self.index) for address in after.take),
            *(give(address, self.index) for address in after.give),
        ]

    def takes(self, present: Sequence[Address]) -> bool:
        """Return whether :meth:`first` removes an address, even if only to add it again after others."""
        if self._unwanted(present):
            return True
        then = added(present, self._new(present))
        return bool(rearrangement(then, self.target(then)).take)

    def readds(self, present: Sequence[Address]) -> bool:
        """Return whether :meth:`first` removes an address whose IP the link is to have afterwards."""
        then = added(present, self._new(present))
        target = self.target(then)
        taken = {each.interface.ip for each in (*self._unwanted(present), *rearrangement(then, target).take)}
        had = taken.intersection(each.interface.ip for each in present)
        return any(each.interface.ip in had for each in target)

    def unmet(self, present: Sequence[Address]) -> list[Step]:
        """Return the steps that are still needed after :meth:`first`; none if the goal has been reached."""
        rest = replace(self, again=_differing(present, self.add))
        differing = [address for address in present if address.identity in rest.again]
        remaining = removed(present, differing)
        missing = rearrangement(remaining, rest.target(present))
        conflicting = rest._conflicting(present, rest._unwanted(present), rest._new(present)) if missing.give else ()
        return [
            *self._take(differing, remaining),
            *(take(address, self.index) for address in missing.take),
            *(self._give(address, conflicting) for address in missing.give),
            *rest._renewals(present),
        ]

    def target(self, present: Sequence[Address]) -> list[Address]:
        """Return the desired list of addresses."""
        return in_order(added(removed(present, self._unwanted(present)), self._new(present)), self.order)

    def _new(self, present: Iterable[Address]) -> list[Address]:
        if not self.add:
            return []
        there = {address.identity for address in present} - self.again
        missing = [interface for interface in self.add if identity_of(interface) not in there]
        return [as_address(interface, self.index, self.proto) for interface in missing]

    def _unwanted(self, present: Iterable[Address]) -> list[Address]:
        if not self.whole:
            gone = self.gone | self.again
            return [address for address in present if address.identity in gone] if gone else []
        wanted = {identity_of(interface) for interface in self.add}
        others = [address for address in present if address.identity in self.again or address.identity not in wanted]
        ips = {interface.ip for interface, _ in wanted} if any(address.comes_again for address in others) else set()
        return [
            address
            for address in others
            if address.identity in self.again or not address.comes_again or address.interface.ip in ips
        ]

    def _conflicting(
        self, present: Sequence[Address], unwanted: Iterable[Address], new: Sequence[Address]
    ) -> set[Identity]:
        """Return the new addresses that conflict with those that stay: for these, EEXIST is an error."""
        going = {address.identity for address in unwanted}
        staying = [address for address in present if address.identity not in going]
        return {address.identity for address in in_the_way(new, staying)}  # rule 4 is symmetric

    def _take(self, addresses: Sequence[Address], others: Sequence[Address]) -> list[Step]:
        """Return the steps that remove addresses, and add again those of the others that the kernel removes with them.

        If the kernel makes one of those primary instead, they are still present (rule 2 of address_order.py).
        """
        primaries = [address for address in addresses if not address.secondary]
        return [
            *(take(address, self.index) for address in _secondaries_first(addresses)),
            *(give(address, self.index) for address in in_subnets_of(primaries, others)),
        ]

    def _give(self, address: Address, conflicting: Container[Identity]) -> Step:
        return give(address, self.index, () if address.identity in conflicting else (errno.EEXIST,))

    def _renewals(self, present: Iterable[Address], *, first: bool = False) -> Iterator[Step]:
        """Yield steps that give desired addresses their lifetimes; they keep their position.

        Addresses that are to be permanent get theirs if they expire or are deprecated. At `first`, the lifetimes of all
        others start afresh.
        """
        wanted = {identity: each for each in self.add if (identity := identity_of(each)) not in self.again}
        for address in present:
            if (given := wanted.get(address.identity)) is None:
                continue
            lives_like = getattr(given, "lives_like", None)
            if lives_like is None or not getattr(given, "expires", False):
                as_wanted = not (address.expires or address.deprecated)
            else:
                as_wanted = not first and lives_like(address)
            if not as_wanted:
                yield self._renewal(address, given)

    def _renewal(self, address: Address, given: IPInterface) -> Step:
        renewed = as_address(given, self.index, self.proto or address.proto)
        if not renewed.message:
            packed, length = address.interface.packed, address.interface.network.prefixlen
            request = new_addr(self.index, packed, length, renewed.proto, replace=True)
            return Step(f"address {address}", request, address=address.interface)
        request = restore_addr(parse_addr(renewed.message), self.index, replace=True)
        undo = (restore_addr(parse_addr(address.message), self.index, replace=True),)
        return Step(f"address {address}", request, undo, address=address.interface)


def _differing(present: Iterable[Address], wanted: Iterable[IPInterface]) -> frozenset[Identity]:
    """Return the present addresses that are desired with other attributes (rule 4)."""
    met: dict[Identity, Callable[[Address], bool]] = {}
    for each in wanted:
        if (is_met_by := getattr(each, "is_met_by", None)) is not None:
            met[identity_of(each)] = is_met_by
    if not met:
        return frozenset()
    return frozenset(each.identity for each in present if each.identity in met and not met[each.identity](each))


def _meant(remove: Sequence[IPInterface | Address], present: Sequence[Address]) -> set[Identity]:
    """Return which addresses of the link a caller means (rule 3)."""
    if not remove:
        return set()
    there: dict[IPInterface, set[Identity]] = {}
    for address in present:
        there.setdefault(address.interface, set()).add(address.identity)
    meant: set[Identity] = set()
    for each in remove:
        is_exact = isinstance(each, Address)
        identity = each.identity if isinstance(each, Address) else identity_of(each)
        alike = there.get(identity[0], set())
        if identity in alike:
            meant.add(identity)
        elif not is_exact and identity[1] is None:
            meant |= alike
    return meant


def _secondaries_first(addresses: Iterable[Address]) -> list[Address]:
    return sorted(addresses, key=lambda address: not address.secondary)


def as_sent(wanted: Sequence[T], version: Callable[[T], int] = attrgetter("version")) -> Sequence[T]:
    """Return the order in which to add addresses so that they end up in the order given (address_order.py, rule 3)."""
    if len(wanted) < 2:
        return wanted
    ipv6 = [each for each in wanted if version(each) == 6]
    if len(ipv6) < 2:
        return wanted
    return [each for each in wanted if version(each) == 4] + ipv6[::-1]
