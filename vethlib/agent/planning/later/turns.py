"""Routes that depend on another operation of the same plan. Pure.

The operations are carried out link by link, each with its routes. In one namespace, however, routes over different
links concern each other, whatever the order of the links:

1. The kernel refuses a route if there is one with its destination, metric and table. So a route that is removed from a
   link is removed before everything else if another operation adds such a route.
2. It also refuses a route whose source is not an address of any link. So the routes of a link are changed after
   everything else if one of them has a source that another operation adds, or removes: the kernel then removes the
   route. The same is true if one has the destination of the route that the kernel removes along with an address.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from vethlib import links
from vethlib.addresses import IPAddress
from vethlib.agent.planning.observed import NetnsId
from vethlib.agent.planning.operations import ChangeLink, CreatePair, DeletePair, Operation
from vethlib.endfields.table import ROUTES
from vethlib.links import Address

if TYPE_CHECKING:
    from vethlib.endfields.routes import IPNetwork, Route

__all__ = ["Turns", "turns"]


@dataclass(frozen=True, slots=True)
class Turns:
    """Routes by the ``id`` of their operation: `first` are those to remove before everything else.

    The operations of `last` change the routes of their links after everything else.
    """

    first: Mapping[int, tuple[Route, ...]] = field(default_factory=dict)
    last: frozenset[int] = frozenset()


_NONE: Final = Turns()


class _Link(NamedTuple):
    """What an operation does to one link, in the namespace with this reference."""

    operation: Operation
    ref: str
    removed: tuple[Route, ...]
    routes: tuple[Route, ...]  # the routes that it is to have
    added: tuple[Route, ...]
    sources: Set[IPAddress]  # addresses that are added or removed
    addresses_removed: tuple[links.Interface, ...]
    addresses_added: tuple[links.Interface, ...]


def turns(operations: Iterable[Operation], find: Callable[[str], NetnsId]) -> Turns:
    """Return which routes of these operations are not changed together with their links.

    `find` returns where a reference leads to, if the operations do not have that.
    """
    operations = tuple(operations)
    if not any(map(_has_routes, operations)):
        return _NONE
    places = {each.ref: each.place for each in operations if isinstance(each, ChangeLink | DeletePair)}

    def place_of(ref: str) -> NetnsId:
        if ref not in places:
            places[ref] = find(ref)
        return places[ref]

    concerned = [link for operation in operations for link in _links(operation)]
    added, sources, freed = _Where(place_of), _Where(place_of), _Where(place_of)
    for number, link in enumerate(concerned):
        added.note(number, link, (_key(route) for route in link.added))
        sources.note(number, link, link.sources)
        freed.note(number, link, (address.network for address in link.addresses_removed))
    first: dict[int, tuple[Route, ...]] = {}
    last: set[int] = set()
    for number, link in enumerate(concerned):
        if early := tuple(route for route in link.removed if added.elsewhere(number, link, _key(route))):
            first[id(link.operation)] = early
        own = {address.ip for address in link.addresses_added}
        for route in link.routes:
            source = route.source
            if source is not None and source not in own and sources.elsewhere(number, link, source):
                last.add(id(link.operation))
        if any(freed.elsewhere(number, link, route.network) for route in link.added):
            last.add(id(link.operation))
    return Turns(first, frozenset(last))


class _Where:
    """Which links have which values, and in which namespaces. All are noted before anything is asked."""

    def __init__(self, place_of: Callable[[str], NetnsId]) -> None:
        self._place_of = place_of
        self._noted: dict[object, dict[str, set[int]]] = {}  # by the reference of the namespace
        self._by_place: dict[object, dict[NetnsId, set[int]]] = {}

    def note(self, number: int, link: _Link, values: Iterable[object]) -> None:
        for value in values:
            self._noted.setdefault(value, {}).setdefault(link.ref, set()).add(number)

    def elsewhere(self, number: int, link: _Link, value: object) -> bool:
        """Return whether another link in the same namespace has a value."""
        noted = self._noted.get(value, {})
        if not noted or noted == {link.ref: {number}}:
            return False
        if value not in self._by_place:
            by_place = self._by_place[value] = {}
            for ref, numbers in noted.items():
                by_place.setdefault(self._place_of(ref), set()).update(numbers)
        return not self._by_place[value].get(self._place_of(link.ref), set()) <= {number}


def _has_routes(operation: Operation) -> bool:
    if isinstance(operation, CreatePair):
        return bool(operation.veth.a.routes or operation.veth.b.routes)
    return isinstance(operation, ChangeLink) and ROUTES in operation.changes


def _links(operation: Operation) -> Iterator[_Link]:
    if isinstance(operation, CreatePair):
        for interface, end in ((operation.a, operation.veth.a), (operation.b, operation.veth.b)):
            routes = tuple(end.routes or ())
            addresses = tuple(end.interfaces)
            sources = {address.ip for address in addresses}
            yield _Link(operation, interface.namespace.ref, (), routes, routes, sources, (), addresses)
    elif isinstance(operation, ChangeLink):
        old, new = operation.changes.get(ROUTES, ((), ()))
        there, wanted = set(old or ()), set(new)
        yield _Link(
            operation,
            operation.ref,
            tuple(route for route in old or () if route not in wanted),
            tuple(new),
            tuple(route for route in new if route not in there),
            _sources(operation),
            tuple(map(_interface, operation.removed)),
            tuple(map(_interface, operation.added)),
        )


def _sources(change: ChangeLink) -> set[IPAddress]:
    seen = () if change.seen is None or not change.takes_addresses else change.seen.addresses
    return {_interface(each).ip for each in (*change.added, *change.removed, *seen)}


def _interface(listed: links.Interface | Address) -> links.Interface:
    return listed.interface if isinstance(listed, Address) else listed


def _key(route: Route) -> tuple[IPNetwork, int | None, int]:
    return route.network, route.metric, route.table
