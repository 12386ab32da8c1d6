"""A portion of what has to be removed from a link: the rest waits for its next observation. Pure.

A tenant can give its link any number of routes, neighbours and addresses with the agent's marks. They are not
configured, so they are removed, but removing them all at once would keep all other interfaces waiting for seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from typing import Any, Final

from vethlib.addresses import IPAddress
from vethlib.agent.planning.operations import ChangeLink, RemoveSurplus
from vethlib.agent.reasons import Reason, surplus_left
from vethlib.endfields.table import NEIGHBOURS, ROUTES
from vethlib.links import Address, IPInterface

__all__ = ["AT_ONCE", "SURPLUS", "count_values", "portion"]

AT_ONCE: Final = 512
"""Surplus routes, neighbours or addresses that one operation removes: 10 to 30 ms."""

SURPLUS: Final = AT_ONCE + 1
"""The least number of surplus routes or neighbours to read from a link: with that many, some are removed first."""

_SEVERAL: Final = (ROUTES, NEIGHBOURS)


def count_values(fields: Mapping[str, Any]) -> int:
    """Return how many routes and neighbours these values of fields have."""
    return sum(len(fields.get(field) or ()) for field in _SEVERAL)


def portion(change: ChangeLink) -> tuple[ChangeLink, RemoveSurplus | None, Reason | None]:
    """Return the part of a change that is made now, what else is removed first, and the reason if something is left."""
    changes = dict(change.changes)
    surplus: dict[str, tuple[Any, ...]] = {}
    reason = None
    for field in _SEVERAL:
        if field in changes and len(changes[field][0] or ()) > AT_ONCE:
            some = tuple(islice(_surplus(field, *changes[field]), AT_ONCE + 1))
            if len(some) > AT_ONCE:
                surplus[field] = some[:AT_ONCE]
                reason = surplus_left(field, AT_ONCE)
                del changes[field]  # the link gets those that are missing when no others are left
    if surplus:
        change = replace(change, changes=changes)
    if len(change.removed) > AT_ONCE:
        reason = surplus_left("addresses", AT_ONCE)
        change = replace(change, removed=_some_addresses(change))
    return change, _removal(change, surplus) if surplus else None, reason


def _surplus(field: str, present: Iterable[Any], wanted: Iterable[Any]) -> Iterator[Any]:
    if field == NEIGHBOURS:  # one with a wanted address is replaced
        addresses = {each.address for each in wanted}
        return (each for each in present if each.address not in addresses)
    kept = set(wanted)
    return (each for each in present if each not in kept)


def _some_addresses(change: ChangeLink) -> tuple[Any, ...]:
    """Return a portion of the addresses to remove, including all that conflict with new ones."""
    added = set(map(_ip, change.added))
    in_the_way = [each for each in change.removed if _ip(each) in added]
    return (*in_the_way, *islice((each for each in change.removed if _ip(each) not in added), AT_ONCE))


def _ip(listed: IPInterface | Address) -> IPAddress:
    return listed.interface.ip if isinstance(listed, Address) else listed.ip


def _removal(change: ChangeLink, surplus: dict[str, tuple[Any, ...]]) -> RemoveSurplus:
    return RemoveSurplus(
        change.interface,
        change.ref,
        change.place,
        change.index,
        change.name,
        surplus,
        seen=change.seen,
        mark=change.mark,
    )
