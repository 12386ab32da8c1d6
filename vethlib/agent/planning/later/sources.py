"""Routes that have to wait for their source: an IPv6 address of the link that the kernel still checks. Pure.

The kernel refuses such a route until it has checked the address for duplicates, one to two seconds after the link has a
carrier. A session waits for that; an agent would keep all other interfaces waiting, so it leaves these routes out of an
operation. They are added by the observation that follows when the kernel reports that the address can be used.

An address that can be used is checked again if the operation itself removes and adds it: to replace it, to put it in
order, or because the link joins or leaves a VRF, which sets it down for a moment. So routes that exist wait, too, if
that is their source.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from vethlib._values import replace as replace_value
from vethlib.address_order import added, in_order, rearrangement
from vethlib.addresses import IPAddress, as_address
from vethlib.agent.config.mark import ADDRESS_PROTO
from vethlib.agent.config.model import Interface
from vethlib.agent.planning.observed import Observed, SeenLink
from vethlib.agent.planning.operations import ChangeLink, CreatePair
from vethlib.agent.reasons import Reason, source_tentative
from vethlib.endfields.table import MASTER, ROUTES
from vethlib.links import Address

if TYPE_CHECKING:
    from vethlib.endfields.routes import Route

__all__ = ["create_without_waiting_routes", "without_waiting_routes"]


def create_without_waiting_routes(operation: CreatePair) -> CreatePair:
    """Return the creation without the routes of each end that have to wait."""
    veth = operation.veth
    ends = {}
    for side, interface in (("a", operation.a), ("b", operation.b)):
        end = getattr(veth, side)
        if end.routes and (unusable := _checked(interface)):
            routes = [route for route in end.routes if route.source not in unusable]
            if len(routes) < len(end.routes):
                ends[side] = replace_value(end, routes=routes)
    return replace(operation, veth=replace_value(veth, **ends)) if ends else operation


def without_waiting_routes(operation: ChangeLink, observed: Observed) -> tuple[ChangeLink, Reason | None]:
    """Return the change without the routes that have to wait, and the reason if there are some."""
    seen = operation.seen
    if seen is None or operation.restored is not None:
        return operation, None
    again = _checked_again(operation, seen, observed)
    if not again and ROUTES not in operation.changes:
        return operation, None
    there = seen.further.get(ROUTES) or ()
    present, wanted = operation.changes.get(ROUTES, (there, there))
    waiting, rest = _split(wanted, set(present or ()), again, _unusable(operation, seen))
    if not waiting:
        return operation, None
    changes = dict(operation.changes)
    if rest == present:
        changes.pop(ROUTES, None)
    else:
        changes[ROUTES] = present, rest
    return replace(operation, changes=changes), source_tentative(waiting[0], waiting[0].source)


def _split(
    wanted: Iterable[Route], present: set[Route], again: set[IPAddress], unusable: set[IPAddress]
) -> tuple[list[Route], tuple[Route, ...]]:
    """Return the routes that have to wait, and the others."""
    waiting: list[Route] = []
    rest: list[Route] = []
    for route in wanted:
        source = route.source
        waits = source in again or (source in unusable and route not in present)
        (waiting if waits else rest).append(route)
    return waiting, tuple(rest)


def _unusable(operation: ChangeLink, seen: SeenLink) -> set[IPAddress]:
    """Return the IPv6 addresses that cannot be used yet, or that the link does not have yet."""
    ips = {address.interface.ip: address.usable for address in _ipv6(seen.addresses)}
    usable = {ip for ip, can_be_used in ips.items() if can_be_used}
    return (ips.keys() | _checked(operation.interface)) - usable


def _checked_again(operation: ChangeLink, seen: SeenLink, observed: Observed) -> set[IPAddress]:
    """Return the IPv6 addresses of the link that the operation causes to be checked again."""
    present = _ipv6(seen.addresses)
    if _may_change_vrf(operation, observed):
        return {address.interface.ip for address in present if not address.nodad}
    if not (operation.added or operation.order):
        return set()
    replaced = {each.interface.ip if isinstance(each, Address) else each.ip for each in operation.added}
    given = (replaced | _moved(operation, seen)) & _checked(operation.interface)
    return {address.interface.ip for address in present} & given


def _may_change_vrf(operation: ChangeLink, observed: Observed) -> bool:
    """Return whether a link joins or leaves a VRF. An observation does not include the former master of each link."""
    if MASTER not in operation.changes:
        return False
    masters = (observed.by_name.get((operation.place, name)) for name in operation.changes[MASTER] if name)
    return any(master is None or master.link.kind == "vrf" for master in masters)


def _moved(operation: ChangeLink, seen: SeenLink) -> set[IPAddress]:
    """Return the IPv6 addresses that are removed and added to put the addresses in order."""
    if not operation.order:
        return set()
    new = [
        as_address(each, operation.index, ADDRESS_PROTO) for each in operation.added if not isinstance(each, Address)
    ]
    stay = [address for address in _ipv6(seen.addresses) if not operation.removes(address)]
    then = added(stay, _ipv6(new))
    return {address.interface.ip for address in rearrangement(then, in_order(then, operation.order)).take}


def _ipv6(addresses: Iterable[Address]) -> list[Address]:
    return [address for address in addresses if address.interface.version == 6]


def _checked(interface: Interface) -> set[IPAddress]:
    """Return the IPv6 addresses of an interface that the kernel checks when they are added."""
    given = () if interface.link_only else interface.addresses
    return {address.ip for address in given if address.version == 6 and not getattr(address, "nodad", False)}
