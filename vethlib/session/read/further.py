"""The present values of the fields of links that no :class:`Link` has, read only on request."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from socket import AF_INET, AF_INET6
from typing import Any, Final, TypeAlias, TypeVar

from vethlib._nl.dependents.neighbour import dump_neighbours, parse_neighbour
from vethlib._nl.dependents.route import dump_routes_over, parse_route
from vethlib._nl.link import LinkMessage, get_link, numbers_of, parse_link
from vethlib._nl.torn import read as repeat_if_torn
from vethlib.endfields import neighbours
from vethlib.endfields.checks import GsoMaxSize, MasterName, Sysctl, sysctls_to_read
from vethlib.endfields.neighbours import Neighbour, check_neighbours, neighbour_of
from vethlib.endfields.routes import PROTO, Route, in_order, route_of
from vethlib.endfields.table import FIELDS, MASTER, NEIGHBOURS, ROUTES, SYSCTLS
from vethlib.errors import InvalidValue, VethError, is_exhaustion
from vethlib.linkref import as_indexed, as_list_of
from vethlib.links import NetnsRef
from vethlib.session.core.namespaces import Namespaces, OpenNetns
from vethlib.session.core.refusal import refusal
from vethlib.session.core.settings import read_setting
from vethlib.session.core.slabs import by_reference, slabs

from .target import read_body

__all__ = ["NO_QUESTION", "Asked", "as_asked", "dump_over", "read_further", "read_further_of"]

T = TypeVar("T")

_FEW: Final = 16  # links of a namespace whose routes and neighbours are requested individually

Asked: TypeAlias = tuple[NetnsRef, int, Mapping[str, Any]]
"""A link, by namespace reference and ifindex, and the fields to read; of `sysctls`, those that are given."""


def read_further(
    namespaces: Namespaces, place: OpenNetns, link: LinkMessage, wanted: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the present values of the fields in `wanted`. Raises NetlinkError, LinkNotFound."""
    (outcome,) = namespaces.ask_all(place, [get_link(link.ifindex)])
    if outcome.errno:
        raise refusal(outcome, f"read {link.name!r}", place.ref)
    return _values(namespaces, place, read_body(place, outcome, _itself), wanted)


def _itself(body: bytes) -> tuple[LinkMessage, bytes]:
    return parse_link(body), body


def _values(
    namespaces: Namespaces,
    place: OpenNetns,
    read: tuple[LinkMessage, bytes],
    wanted: Mapping[str, Any],
    tables: _Tables | None = None,
) -> dict[str, Any]:
    link, body = read
    fields = [FIELDS[name] for name in wanted]
    numbers = numbers_of(body, [kind for field in fields for kind in (field.number, field.along)])
    values: dict[str, Any] = {}
    for field, number, along in zip(fields, numbers[::2], numbers[1::2], strict=True):
        if field.name == MASTER:
            values[MASTER] = _master(namespaces, place, number or 0)
        elif field.along and number is not None:
            values[field.name] = GsoMaxSize(number, along)
        elif field.number:
            values[field.name] = number
        elif field.read is not None:
            values[field.name] = field.read(link)
        elif field.direct:
            values[field.name] = read_setting(namespaces, place, link.name, field.name, wanted[field.name])
        elif field.name == ROUTES:
            values[ROUTES] = tables.routes(link.ifindex) if tables else read_routes(namespaces, place, link.ifindex)
        elif field.name == NEIGHBOURS:
            given = wanted[NEIGHBOURS]
            values[NEIGHBOURS] = (
                tables.neighbours(link.ifindex, given)
                if tables
                else read_neighbours(namespaces, place, link.ifindex, given)
            )
    return values


def _master(namespaces: Namespaces, place: OpenNetns, index: int) -> MasterName:
    if index:
        (outcome,) = namespaces.ask_all(place, [get_link(index)])
        if not outcome.errno:
            master = read_body(place, outcome, parse_link)
            return MasterName(master.name, index, master.altnames)
        if outcome.errno != errno.ENODEV:  # otherwise it has just been deleted
            raise refusal(outcome, f"read the link {index}", place.ref)
    return MasterName("")


class _Tables:
    """The routes and permanent neighbours of one namespace, each read once for all its links, when they are needed."""

    def __init__(self, namespaces: Namespaces, place: OpenNetns) -> None:
        self._namespaces, self._place = namespaces, place
        self._routes: dict[int, list[Route]] | None = None
        self._neighbours: dict[int, list[Neighbour]] | None = None

    def routes(self, index: int) -> tuple[Route, ...]:
        """Return the routes of ours over a link, sorted. Raises NetlinkError."""
        if self._routes is None:
            self._routes = _by_link(_routes(self._namespaces, self._place))
        return in_order(self._routes.get(index, ()))

    def neighbours(self, index: int, wanted: Iterable[Neighbour]) -> tuple[Neighbour, ...]:
        """Return the neighbours of a link as :func:`read_neighbours` does."""
        if self._neighbours is None:
            self._neighbours = _by_link(_neighbours(self._namespaces, self._place))
        return _ours(self._neighbours.get(index, ()), wanted)


def _by_link(values: Iterable[tuple[int, T]]) -> dict[int, list[T]]:
    table: dict[int, list[T]] = {}
    for index, value in values:
        table.setdefault(index, []).append(value)
    return table


def dump_over(
    namespaces: Namespaces, place: OpenNetns, request: bytes, parse: Callable[[bytes], T], field: str
) -> Sequence[T]:
    """Return the routes or neighbours that a dump has. Raises NetlinkError.

    There are none if the link is gone, or if the kernel has no IPv6.
    """
    dump = partial(namespaces.dump, place, request, parse, 1)
    outcome = repeat_if_torn(dump, patience=namespaces.patience)
    if outcome.errno in (errno.ENODEV, errno.EAFNOSUPPORT, errno.EOPNOTSUPP):
        return ()
    if outcome.errno:
        raise refusal(outcome, f"list the {field}", place.ref)
    return outcome.bodies


def read_routes(namespaces: Namespaces, place: OpenNetns, index: int) -> tuple[Route, ...]:
    """Return the routes of ours over a link, sorted. Raises NetlinkError."""
    return in_order(route for over, route in _routes(namespaces, place, index) if over == index)


def _routes(namespaces: Namespaces, place: OpenNetns, index: int = 0) -> Iterator[tuple[int, Route]]:
    """Yield the routes of ours over link `index`, or over all links, each with the ifindex of its link."""
    for family in (AF_INET, AF_INET6):
        messages = dump_over(namespaces, place, dump_routes_over(family, index, PROTO), parse_route, ROUTES)
        version = 4 if family == AF_INET else 6
        # Kernels before 4.20 do not filter, and those without IPv6 answer with the routes of IPv4 once more.
        for message in messages:
            if message.family == family and message.protocol == PROTO:
                route = route_of(message, version)
                if route is not None:
                    yield message.ifindex, route


def read_neighbours(
    namespaces: Namespaces, place: OpenNetns, index: int, wanted: Iterable[Neighbour] = ()
) -> tuple[Neighbour, ...]:
    """Return the neighbours of ours over a link, and others at the addresses of those `wanted`, sorted.

    Raises NetlinkError.
    """
    return _ours((each for over, each in _neighbours(namespaces, place, index) if over == index), wanted)


def _neighbours(namespaces: Namespaces, place: OpenNetns, index: int = 0) -> Iterator[tuple[int, Neighbour]]:
    """Yield the permanent neighbours over link `index`, or over all links, each with the ifindex of its link."""
    for message in dump_over(namespaces, place, dump_neighbours(index), parse_neighbour, NEIGHBOURS):
        if (neighbour := neighbour_of(message)) is not None:
            yield message.ifindex, neighbour


def _ours(found: Iterable[Neighbour], wanted: Iterable[Neighbour]) -> tuple[Neighbour, ...]:
    addresses = {each.address for each in wanted}
    return check_neighbours(each for each in found if each.proto == neighbours.PROTO or each.address in addresses)


NO_QUESTION: Final = 'give (reference, ifindex, fields to read), as in ("ns1", 7, {"routes": ()})'


def as_asked(item: object) -> Asked:
    """Return a question with its sysctls as they are read. Raises InvalidValue."""
    if not isinstance(item, tuple | list) or len(item) != 3 or not isinstance(item[2], Mapping):
        raise InvalidValue("asked", item, NO_QUESTION)
    ref, index = as_indexed(tuple(item[:2]))
    wanted: dict[str, Any] = dict(item[2])
    for name in wanted:
        if name not in FIELDS:
            raise InvalidValue("asked", name, f"the fields to read are {', '.join(FIELDS)}")
    settings = wanted.get(SYSCTLS, ())
    if not isinstance(settings, tuple) or not all(isinstance(each, Sysctl) for each in settings):
        wanted[SYSCTLS] = sysctls_to_read(settings)
    if NEIGHBOURS in wanted:
        hint = "give Neighbours: their addresses are looked up, no matter which program added them"
        wanted[NEIGHBOURS] = as_list_of(Neighbour, wanted[NEIGHBOURS], NEIGHBOURS, hint)
    return ref, index, wanted


def read_further_of(
    open_namespaces: Callable[[], Namespaces], items: Iterable[Asked]
) -> list[dict[str, Any] | VethError | None]:
    """Return the present values for each link, or why they cannot be read; None for a link that is missing."""
    asked = list(items)
    results: list[dict[str, Any] | VethError | None] = [None] * len(asked)
    for slab in slabs(by_reference(ref for ref, _, _ in asked)):
        with open_namespaces() as namespaces:
            for numbers in slab:
                try:
                    _read_in(namespaces, namespaces(asked[numbers[0]][0]), asked, numbers, results)
                except VethError as error:
                    slab.short = slab.short or is_exhaustion(error)
                    for number in numbers:
                        results[number] = error
    return results


def _read_in(
    namespaces: Namespaces,
    place: OpenNetns,
    asked: Sequence[Asked],
    numbers: Sequence[int],
    results: list[dict[str, Any] | VethError | None],
) -> None:
    # The kernel goes through all routes of the namespace for each link.
    tables = _Tables(namespaces, place) if len(numbers) > _FEW else None
    outcomes = namespaces.ask_all(place, [get_link(asked[number][1]) for number in numbers])
    for number, outcome in zip(numbers, outcomes, strict=True):
        _, index, wanted = asked[number]
        try:
            if not outcome.errno:
                results[number] = _values(namespaces, place, read_body(place, outcome, _itself), wanted, tables)
            elif outcome.errno != errno.ENODEV:
                results[number] = refusal(outcome, f"read the link {index}", place.ref)
        except VethError as error:
            results[number] = error
