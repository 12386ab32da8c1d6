"""Read, on request, the present values of those fields of links that a :class:`Link` does not have."""

from __future__ import annotations

import errno
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from socket import AF_INET, AF_INET6
from typing import Any, Final, TypeAlias, TypeVar

from vethlib._nl.batch import Outcome
from vethlib._nl.dependents.neighbour import dump_neighbours, parse_neighbour
from vethlib._nl.dependents.port import port_settings
from vethlib._nl.dependents.route import dump_routes_over, parse_route
from vethlib._nl.link import LinkMessage, get_link, numbers_of, parse_link
from vethlib._nl.torn import read as repeat_if_torn
from vethlib.endfields.checks import GsoMaxSize, MasterName, Sysctl, sysctls_to_read
from vethlib.endfields.neighbours import PROTO as NEIGHBOUR_PROTO
from vethlib.endfields.neighbours import Neighbour, check_neighbours, neighbour_of
from vethlib.endfields.routes import PROTO, Route, in_order, link_of, route_of
from vethlib.endfields.table import FIELDS, MASTER, NEIGHBOURS, ROUTES, SYSCTLS
from vethlib.errors import InvalidValue, LinkNotFound, NetlinkError, VethError, is_exhaustion
from vethlib.linkref import as_indexed, as_list_of
from vethlib.links import NetnsRef
from vethlib.session.core.namespaces import Namespaces, OpenNetns
from vethlib.session.core.present_name import read_by_name
from vethlib.session.core.refusal import refusal
from vethlib.session.core.settings import read_given, read_setting
from vethlib.session.core.slabs import by_reference, slabs

from .target import read_body

__all__ = ["NO_QUESTION", "Asked", "as_asked", "dump_over", "read_further", "read_further_of"]

T = TypeVar("T")

_FEW: Final = 16  # links of a namespace whose routes and neighbours are requested individually

Asked: TypeAlias = tuple[NetnsRef, int, Mapping[str, Any]]
"""A link, by namespace reference and ifindex, and the fields to read; of the `sysctls`, those that are given.

None means those that differ from those of a new link.
"""


def read_further(
    namespaces: Namespaces, place: OpenNetns, link: LinkMessage, wanted: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the present values of the fields in `wanted`; for the master, also the settings of the bridge port.

    Raises NetlinkError, LinkNotFound.
    """
    outcome = namespaces.ask(place, get_link(link.ifindex))
    if outcome.errno:
        raise refusal(outcome, f"read {link.name!r}", place.ref)
    values = _values(namespaces, place, read_body(place, outcome, _itself), wanted)
    if values.get(MASTER):
        values[MASTER].port = read_body(place, outcome, port_settings)
    return values


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
    tables = tables or _Tables(namespaces, place, link.ifindex)
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
        elif field.name == SYSCTLS and wanted[SYSCTLS] is None:
            values[SYSCTLS] = read_by_name(namespaces, place, link, partial(read_given, place))
        elif field.direct:
            read_it = partial(_setting, namespaces, place, field.name, wanted[field.name])
            values[field.name] = read_by_name(namespaces, place, link, read_it)
        elif field.name == ROUTES:
            values[ROUTES] = tables.routes(link.ifindex, wanted[ROUTES] or ())
        elif field.name == NEIGHBOURS:
            values[NEIGHBOURS] = tables.neighbours(link.ifindex, wanted[NEIGHBOURS])
    return values


def _setting(namespaces: Namespaces, place: OpenNetns, field: str, wanted: Any, name: str) -> Any:
    return read_setting(namespaces, place, name, field, wanted)


def _master(namespaces: Namespaces, place: OpenNetns, index: int) -> MasterName:
    """Return the master of a link, given its ifindex."""
    if index:
        outcome = namespaces.ask(place, get_link(index))
        if not outcome.errno:
            master = read_body(place, outcome, parse_link)
            return MasterName(master.name, index, master.altnames)
        if outcome.errno != errno.ENODEV:  # otherwise it has just been deleted
            raise refusal(outcome, f"read the link {index}", place.ref)
    return MasterName("")


class _Tables:
    """The routes and permanent neighbours over link `index`, or over all links of a namespace, read when needed."""

    def __init__(self, namespaces: Namespaces, place: OpenNetns, index: int = 0) -> None:
        self._namespaces, self._place, self._index = namespaces, place, index
        self._routes: tuple[Mapping[int, list[Route]], NetlinkError | None] | None = None
        self._neighbours: tuple[Mapping[int, list[Neighbour]], NetlinkError | None] | None = None

    def routes(self, index: int, wanted: Iterable[Route]) -> tuple[Route, ...]:
        """Return the routes of vethlib over a link, sorted. Raises NetlinkError.

        If a tenant has added more than the call may read, only some are returned, but with a surplus over those
        `wanted`.
        """
        if self._routes is None:
            self._routes = _routes(self._namespaces, self._place, self._index)
        found, error = self._routes
        present = in_order(found.get(index, ()))
        _check_surplus(self._namespaces, present, wanted, error)
        return present

    def neighbours(self, index: int, wanted: Iterable[Neighbour]) -> tuple[Neighbour, ...]:
        """Return the neighbours of vethlib over a link, and others with the addresses of those `wanted`, sorted.

        Raises NetlinkError. If there are more than the call may read, the same holds as for routes.
        """
        if self._neighbours is None:
            self._neighbours = _neighbours(self._namespaces, self._place, self._index)
        found, error = self._neighbours
        present = _ours(found.get(index, ()), wanted)
        _check_surplus(self._namespaces, present, wanted, error)
        return present


def dump_over(
    namespaces: Namespaces,
    place: OpenNetns,
    request: bytes,
    parse: Callable[[bytes], T],
    field: str,
    marks: Sequence[bytes] = (),
) -> Sequence[T]:
    """Return the routes or neighbours that a dump has. Raises NetlinkError; EFBIG: more than the call may read.

    The result is empty if the link is gone, or if the kernel has no IPv6. With `marks`, only those with any of these
    bytes are needed. The dump does not reduce what the call may read afterwards, so that whether one table can be read
    does not depend on the size of the others.
    """
    entries, error = _dump_some(namespaces, place, request, parse, field, counted=False, marks=marks)
    if error is not None:
        raise error
    return entries


def _dump_some(
    namespaces: Namespaces,
    place: OpenNetns,
    request: bytes,
    parse: Callable[[bytes], T],
    field: str,
    *,
    counted: bool = True,
    marks: Sequence[bytes] = (),
) -> tuple[Sequence[T], NetlinkError | None]:
    """Return what :func:`dump_over` does; if that is more than the call may read, a part of it, and the error."""
    dump = partial(namespaces.dump_limited, place, request, parse, counted=counted, marks=marks)
    outcome = repeat_if_torn(dump, patience=namespaces.patience)
    if outcome.errno in (errno.ENODEV, errno.EAFNOSUPPORT, errno.EOPNOTSUPP):
        return (), None
    if outcome.errno == errno.EFBIG:
        says = "other programs have added too many in its namespace: reading them would delay all other interfaces"
        return outcome.bodies, refusal(Outcome(errno.EFBIG), f"list the {field}", place.ref, says=says)
    if outcome.errno:
        raise refusal(outcome, f"list the {field}", place.ref)
    return outcome.bodies, None


def _check_surplus(
    namespaces: Namespaces, read: Collection[object], wanted: Iterable[object], error: NetlinkError | None
) -> None:
    """Raise the error that kept some entries from being read, unless the others already include a surplus.

    As long as there is a surplus, it has to be removed, and it does not matter what else exists.
    """
    surplus = namespaces.surplus
    if error is not None and (surplus is None or len(read) < len(list(wanted)) + surplus):
        raise error


def _routes(
    namespaces: Namespaces, place: OpenNetns, index: int
) -> tuple[Mapping[int, list[Route]], NetlinkError | None]:
    """Return the routes of vethlib over link `index`, or over all links (0), by ifindex, and why some were not read."""
    found: dict[int, list[Route]] = {}
    for family in (AF_INET, AF_INET6):
        request = dump_routes_over(family, index, PROTO)
        messages, error = _dump_some(namespaces, place, request, parse_route, ROUTES)
        # Kernels before 4.20 do not filter, and those without IPv6 answer with the IPv4 routes once more.
        for message in messages:
            is_own = message.family == family and message.protocol == PROTO
            if is_own and (route := route_of(message)) is not None:
                found.setdefault(link_of(message), []).append(route)
        if error is not None:
            return found, error
    return found, None


def _neighbours(
    namespaces: Namespaces, place: OpenNetns, index: int
) -> tuple[Mapping[int, list[Neighbour]], NetlinkError | None]:
    """Return the permanent neighbours over link `index`, or over all links (0), as :func:`_routes` does."""
    found: dict[int, list[Neighbour]] = {}
    messages, error = _dump_some(namespaces, place, dump_neighbours(index), parse_neighbour, NEIGHBOURS)
    for message in messages:
        if (neighbour := neighbour_of(message)) is not None:
            found.setdefault(message.ifindex, []).append(neighbour)
    return found, error


def _ours(found: Iterable[Neighbour], wanted: Iterable[Neighbour]) -> tuple[Neighbour, ...]:
    addresses = {each.address for each in wanted}
    return check_neighbours(each for each in found if each.proto == NEIGHBOUR_PROTO or each.address in addresses)


NO_QUESTION: Final = 'give (reference, ifindex, fields to read), as in ("ns1", 7, {"routes": ()})'


def as_asked(item: object) -> Asked:
    """Return a question, its sysctls in the form in which they are read. Raises InvalidValue."""
    if not isinstance(item, tuple | list) or len(item) != 3 or not isinstance(item[2], Mapping):
        raise InvalidValue("asked", item, NO_QUESTION)
    ref, index, _ = as_indexed(tuple(item[:2]))
    wanted: dict[str, Any] = dict(item[2])
    for name in wanted:
        if name not in FIELDS:
            raise InvalidValue("asked", name, f"the fields to read are {', '.join(FIELDS)}")
    settings = wanted.get(SYSCTLS, ())
    are_checked = isinstance(settings, tuple) and all(isinstance(each, Sysctl) for each in settings)
    if settings is not None and not are_checked:
        wanted[SYSCTLS] = sysctls_to_read(settings)
    if NEIGHBOURS in wanted:
        hint = "give Neighbours: their addresses are looked up, no matter which program added them"
        wanted[NEIGHBOURS] = as_list_of(Neighbour, wanted[NEIGHBOURS], NEIGHBOURS, hint)
    return ref, index, wanted


def read_further_of(
    open_namespaces: Callable[[], Namespaces], items: Iterable[Asked], surplus: int | None = None
) -> list[dict[str, Any] | VethError | None]:
    """Return the present values for each link, or why they cannot be read; None for a link that is missing.

    `surplus` limits what is read of one namespace: see :meth:`Namespaces.limit`.
    """
    asked = list(items)
    results: list[dict[str, Any] | VethError | None] = [None] * len(asked)
    for slab in slabs(by_reference(ref for ref, _, _ in asked)):
        with open_namespaces() as namespaces:
            for numbers in slab:
                try:
                    place = namespaces(asked[numbers[0]][0])
                    namespaces.surplus = surplus
                    namespaces.limit(surplus, {place: sum(_count(asked[number][2]) for number in numbers)})
                    _read_in(namespaces, place, asked, numbers, results)
                except VethError as error:
                    slab.short = slab.short or is_exhaustion(error)
                    for number in numbers:
                        results[number] = error
    return results


def _count(wanted: Mapping[str, Any]) -> int:
    return sum(len(wanted.get(name) or ()) for name in (ROUTES, NEIGHBOURS))


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
        except LinkNotFound:
            pass  # it was deleted meanwhile
        except VethError as error:
            results[number] = error
