"""Routes that have to wait for their source: an IPv6 address of the link that the kernel still checks. Pure.

The kernel refuses such a route until it has checked the address for duplicates, one to two seconds after the link has a
carrier. A session waits for that; an agent would keep all other interfaces waiting, so it leaves these routes out of an
operation. They are added by the look that follows when the kernel reports that the address can be used.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace
from ipaddress import IPv6Address
from typing import TYPE_CHECKING

from vethlib._values import replace as replace_value
from vethlib.agent.config.model import Interface
from vethlib.agent.planning.operations import ChangeLink, CreatePair
from vethlib.agent.reasons import Reason, source_tentative
from vethlib.endfields.table import ROUTES

if TYPE_CHECKING:
    from vethlib.endfields.routes import Route

__all__ = ["create_without_waiting_routes", "without_waiting_routes"]


def create_without_waiting_routes(operation: CreatePair) -> CreatePair:
    """Return the creation without the routes of each end that have to wait."""
    veth = operation.veth
    ends = {}
    for side, interface in (("a", operation.a), ("b", operation.b)):
        end = getattr(veth, side)
        if end.routes and (waiting := _waiting(end.routes, _checked(interface))):
            ends[side] = replace_value(end, routes=[route for route in end.routes if route not in waiting])
    return replace(operation, veth=replace_value(veth, **ends)) if ends else operation


def without_waiting_routes(operation: ChangeLink) -> tuple[ChangeLink, Reason | None]:
    """Return the change without the routes that have to wait, and the reason if there are some."""
    if operation.seen is None or operation.restored is not None or ROUTES not in operation.changes:
        return operation, None
    present, wanted = operation.changes[ROUTES]
    there = set(present or ())
    seen = operation.seen.addresses
    tentative = {address.interface.ip for address in seen if not address.usable}
    usable = {address.interface.ip for address in seen} - tentative
    waiting = _waiting(
        (route for route in wanted if route not in there), tentative | (_checked(operation.interface) - usable)
    )
    if not waiting:
        return operation, None
    changes = dict(operation.changes)
    rest = tuple(route for route in wanted if route not in waiting)
    if rest == present:
        del changes[ROUTES]
    else:
        changes[ROUTES] = present, rest
    return replace(operation, changes=changes), source_tentative(waiting[0], waiting[0].source)


def _checked(interface: Interface) -> set[object]:
    """Return the IPv6 addresses of an interface that the kernel checks when they are added."""
    given = () if interface.link_only else interface.addresses
    return {address.ip for address in given if address.version == 6 and not getattr(address, "nodad", False)}


def _waiting(routes: Iterable[Route], unusable: Collection[object]) -> list[Route]:
    return [route for route in routes if isinstance(route.source, IPv6Address) and route.source in unusable]
