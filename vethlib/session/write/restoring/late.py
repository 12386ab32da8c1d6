"""Routes and neighbours over a link: read before a change that may remove them (``TAKES_LATE``), and restored.

1. They are kept as they were read, no matter which program added them: a foreign route or neighbour is restored with
   its own protocol and flags.
2. After a failed change, all of them are restored, and those of vethlib that were not there before are removed. After a
   successful change, only those of vethlib are restored, as far as the link can still have them: other programs receive
   the events of the link, and decide for themselves. If addresses were changed, all are restored: a link that loses its
   last IPv4 address, even for a moment, loses all IPv4 routes and neighbours, which nobody expects from a mere change
   of an address.
3. Each is a separate request, so that a refusal affects no other. A route whose source is still checked for duplicates
   is restored when that is done (:mod:`vethlib.session.read.sources`).
4. Of an IPv6 route with several hops, the kernel may remove only those over the link. They are added to what is left.
   Of an IPv4 route, it may mark them as dead (fib_sync_down_dev). Such a route is deleted and added again.
5. How many a call may read is limited for an agent, because a tenant may have added any number. If there are more, only
   routes of vethlib are read, which the kernel can select; unknown ones are neither restored nor removed. A change
   after which they would have to be restored is refused before it begins; if any other change fails, a note names the
   fields that may have lost entries.
6. With an address, the kernel also removes the routes that have it as their source, over whatever link; an IPv6 route
   only loses its source. If the link has the address again afterwards, these routes are restored, too (``ELSEWHERE``):
   the program that manages the other link does not expect to lose them.

Not restored are proxy entries of the neighbour table, next hop objects and the routes that use them (the kernel removes
the objects when a link is set down), and IPv6 routes that the kernel may add again later: those with the protocol `ra`
or `redirect`, and those with `kernel` that expire or are its own.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from ipaddress import IPv6Address, ip_address
from operator import attrgetter
from socket import AF_INET, AF_INET6
from typing import Final, NamedTuple, TypeAlias

from vethlib._nl.batch import Outcome
from vethlib._nl.const import RTPROT_KERNEL
from vethlib._nl.dependents.kept import (
    FEW_MARKS,
    KeptRoute,
    delete_kept,
    destination_of,
    has_source,
    kept_route,
    marks_of_sources,
    protocol_of,
    restore_hops,
    restore_kept,
    without_source,
)
from vethlib._nl.dependents.neighbour import (
    NeighbourMessage,
    del_neighbour,
    dump_neighbours,
    new_neighbour,
    parse_neighbour,
)
from vethlib._nl.dependents.route import dump_routes_over, parse_route
from vethlib._nl.link import LinkMessage
from vethlib.addresses import Address
from vethlib.endfields.neighbours import PROTO as NEIGHBOUR_PROTO
from vethlib.endfields.routes import PROTO
from vethlib.endfields.table import NEIGHBOURS, ROUTES
from vethlib.errors import LinkNotFound, NetlinkError, VethError
from vethlib.links import describe
from vethlib.session.core.ipv6 import read_settings
from vethlib.session.core.namespaces import Namespaces
from vethlib.session.core.refusal import loading, refusal
from vethlib.session.read.further import dump_over
from vethlib.session.read.reading import find_at, read_addresses
from vethlib.session.read.samelink import is_replaced
from vethlib.session.read.target import Target

__all__ = ["ELSEWHERE", "LateFields"]

ELSEWHERE: Final = "routes over other links"
"""Stands for the routes whose source is an address of the link (rule 6), in place of the name of a field."""

# It is already gone; or the link is gone, with everything.
_AS_GOOD_AS_RESTORED: Final = (0, errno.ESRCH, errno.ENOENT, errno.ENODEV)

_MOST_NAMED: Final = 8
"""The most routes or neighbours that one error names."""


class _Step(NamedTuple):
    """A request in words and bytes; for a route, also its body, and what to send if it has only lost some (EEXIST)."""

    what: str
    request: bytes
    body: bytes = b""
    rest: bytes = b""


_Done: TypeAlias = tuple[_Step, Outcome]


class LateFields:
    """The routes and neighbours that a link had before a change."""

    def __init__(self, namespaces: Namespaces, target: Target, link: LinkMessage) -> None:
        self._namespaces = namespaces
        self._target = target
        self._link = link
        self._index = link.ifindex
        self._before: dict[str, Sequence[bytes] | None] = {}  # None: not known (rule 5)
        self._only_own = False  # whether only the routes of vethlib were read
        self._sources: dict[int, set[bytes]] = {}  # the sources of the routes over other links, by family
        self._too_many: set[str] = set()  # fields with more entries than the call may read
        self._at_stake: set[str] = set()  # those of them that may lose unknown entries by the change

    def read(self, names: Iterable[str], *, only_own: bool = False) -> None:
        """Read these fields, unless they have been read; with `only_own`, only the routes of vethlib."""
        for name in names:
            if name not in self._before:
                before = None if only_own else self._read(name, 0)
                if before is None and (only_own or name == ROUTES):
                    before = self._read(name, PROTO)
                    self._only_own = self._only_own or name == ROUTES
                self._before[name] = before
                self._at_stake |= {name} & self._too_many

    def check_known(self, names: Iterable[str], *, own: Iterable[str] = ()) -> None:
        """Raise NetlinkError (EFBIG) if `names` have too many entries, or if those of vethlib in `own` are unknown."""
        unknown = [name for name in own if name in self._before and self._before[name] is None]
        for name in (*(name for name in names if name in self._at_stake), *unknown):
            says = (
                f"the change may cost {name}, and there are more than {self._most}, too many to restore: "
                "remove some, or change it without an agent (`vethctl apply` restores all)"
            )
            what = f"{self._target.what}: keep its {name}"
            raise refusal(Outcome(errno.EFBIG), what, self._target.netns, says=says)

    def read_elsewhere(self, addresses: Iterable[Address], *versions: int, is_costly: bool = True) -> None:
        """Read the routes over other links whose source is one of these addresses, unless this has been done.

        Unless what follows `is_costly`, nothing is at stake that was not before.
        """
        for family, version in ((AF_INET, 4), (AF_INET6, 6)):
            if version in versions and family not in self._sources:
                sources = {each.interface.ip.packed for each in addresses if each.interface.version == version}
                self._sources[family] = sources
                found = self._routes_elsewhere(family, {}) if sources else ()
                self._before[ELSEWHERE] = [*self._known(ELSEWHERE), *found]
                self._at_stake |= {ELSEWHERE} & self._too_many if is_costly else set()

    def read_rest(self, *, readdressed: bool, is_costly: bool = True) -> None:
        """Read what has not been read, before a step that may remove it, or before the change is undone.

        If addresses may have been added by then (`readdressed`), routes of the kernel may belong to them, and are left
        out. Unless what follows `is_costly`, nothing is at stake that was not before.
        """
        at_stake = set(self._at_stake)
        self.read([NEIGHBOURS])
        is_unknown = ROUTES in self._before and self._before[ROUTES] is None  # for good: some may be lost
        if (ROUTES not in self._before or self._only_own) and not is_unknown:
            self._read_other_routes(readdressed=readdressed)
        if not is_costly:
            self._at_stake = at_stake

    def _read_other_routes(self, *, readdressed: bool) -> None:
        every = self._read(ROUTES, 0)
        if every is None:
            self.read([ROUTES], only_own=True)
            self._at_stake.add(ROUTES)
            return
        own = self._before.get(ROUTES)
        left_out = {RTPROT_KERNEL} if readdressed else set()
        left_out |= set() if own is None else {PROTO}
        self._before[ROUTES] = [*(own or ()), *(body for body in every if protocol_of(body) not in left_out)]
        self._only_own = False

    def restore(self, name: str) -> None:
        """Restore a field. Raises NetlinkError if routes or neighbours are refused, after all have been tried."""
        where = describe(self._target.name, self._target.netns)
        before = self._before.get(name)
        done = () if before is None else self._confirmed(name, before, self._carry_out(name, before))
        failed = [(step, outcome) for step, outcome in done if outcome.errno not in _AS_GOOD_AS_RESTORED]
        if failed:
            what = ", ".join(each.what for each, _ in failed[:_MOST_NAMED])
            more = f" and {len(failed) - _MOST_NAMED} more" if len(failed) > _MOST_NAMED else ""
            raise refusal(failed[0][1], f"restore {what}{more} of {where}", self._target.netns)
        if name in self._at_stake:
            whose = "any" if before is None else "those of other programs"
            says = f"there were more than {self._most}, of which {whose} may be lost"
            raise refusal(Outcome(errno.EFBIG), f"restore the {name} of {where}", self._target.netns, says=says)

    def keep_own(self, name: str) -> None:
        """Restore what vethlib had added, as far as the link can have it after the change."""
        own = [body for body in self._known(name) if _OF[name].is_own(body)]
        if own:
            self._carry_out(name, own, keep=True)

    def keep_foreign(self, versions: Container[int] = (4, 6), *, waits: bool = False) -> None:
        """Restore what other programs had added, for these versions of IP, as far as the link can have it.

        With `waits`, wait until sources have been checked for duplicates; without, only for sources that need no check.
        """
        families = [family for family, version in ((AF_INET, 4), (AF_INET6, 6)) if version in versions]
        for name in (ROUTES, NEIGHBOURS):
            if lost := [each for each in self._known(name) if each[0] in families and _is_foreign(name, each)]:
                self._carry_out(name, lost, keep=True, waits=waits)

    def keep_elsewhere(self, *, waits: bool = False) -> None:
        """Restore the routes over other links whose source the link has again."""
        if elsewhere := self._known(ELSEWHERE):
            self._carry_out(ELSEWHERE, elsewhere, keep=True, waits=waits)

    def _known(self, name: str) -> Sequence[bytes]:
        return self._before.get(name) or ()

    @property
    def _most(self) -> int | None:
        return self._namespaces.most_of(self._target.place)

    def _routes_elsewhere(self, family: int, lost: Mapping[bytes, bytes]) -> list[bytes]:
        """Return the routes over other links that have one of the sources, or one of the destinations in `lost`.

        The values of `lost` are bytes that the routes to these destinations contain.
        """
        sources = self._sources[family]

        def matching(body: bytes) -> bytes:  # of a million routes, all but a few are skipped
            is_meant = has_source(body, sources) or (bool(lost) and destination_of(body) in lost)
            return body if is_meant and protocol_of(body) != RTPROT_KERNEL else b""

        marks = [] if len(lost) > FEW_MARKS else [*marks_of_sources(family, sources), *lost.values()]
        found = self._dump(dump_routes_over(family), matching, ELSEWHERE, marks)
        if found is None:
            found = self._dump(dump_routes_over(family, 0, PROTO), matching, ELSEWHERE, marks) or ()
        routes = ((body, parse_route(body)) for body in found if body)
        return [
            body
            for body, route in routes
            if route.family == family and self._index not in (route.ifindex, *route.next_hops)
        ]

    def _present_elsewhere(self, before: Sequence[bytes]) -> Sequence[bytes]:
        # A default route has no destination to look for; the beginning of its message, up to its type, serves instead.
        destinations = ((destination_of(body), body) for body in before if body[0] == AF_INET6)
        lost = {destination: destination or body[:8] for destination, body in destinations}
        return [
            body
            for family in self._sources
            if any(each[0] == family for each in before)
            for body in self._routes_elsewhere(family, lost if family == AF_INET6 else {})
        ]

    def _read(self, name: str, protocol: int) -> Sequence[bytes] | None:
        """Return the routes or neighbours of the link, of one protocol or of all (0); None: there are too many."""
        read: list[bytes] = []
        for request in _OF[name].dumps(self._index, protocol):
            part = self._dump(request, bytes, name)
            if part is None:
                return None
            read += part
        return read

    def _dump(
        self, request: bytes, parse: Callable[[bytes], bytes], name: str, marks: Sequence[bytes] = ()
    ) -> Sequence[bytes] | None:
        try:
            return dump_over(self._namespaces, self._target.place, request, parse, name, marks)
        except NetlinkError as error:
            if error.errno != errno.EFBIG:
                raise
            self._too_many.add(name)
            return None

    def _carry_out(
        self, name: str, before: Sequence[bytes], *, keep: bool = False, waits: bool = True
    ) -> Sequence[_Done]:
        done = self._attempt(name, before, keep=keep)
        if name != NEIGHBOURS and any(outcome.errno == errno.EINVAL for _, outcome in done):
            sources = self._ipv6_sources(before)
            if self._await(sources if waits else self._not_checked(sources)):
                done = self._attempt(name, before, keep=keep)
        return done

    def _attempt(self, name: str, before: Sequence[bytes], *, keep: bool) -> list[_Done]:
        if name == ELSEWHERE:
            steps = _steps_elsewhere(before, self._present_elsewhere(before))
        else:
            # Entries that are present but unknown are not removed, and restoring entries that are present fails with
            # EEXIST.
            is_own = all(map(_OF[name].is_own, before))
            present = self._read(name, PROTO if is_own else 0) or ()
            steps = _OF[name].steps(self._index, before, present, keep=keep)
        done = self._sent([(step, step.request) for step in steps])
        exist = [n for n, (step, outcome) in enumerate(done) if outcome.errno == errno.EEXIST and step.rest]
        for n, again in zip(exist, self._sent([(done[n][0], done[n][0].rest) for n in exist]), strict=True):
            done[n] = again
        return done

    def _sent(self, steps: Sequence[tuple[_Step, bytes]]) -> list[_Done]:
        requests = [request for _, request in steps]
        outcomes = self._namespaces.exchange(self._target.place, requests) if requests else ()
        return [(step, outcome) for (step, _), outcome in zip(steps, outcomes, strict=True)]

    def _confirmed(self, name: str, before: Sequence[bytes], done: Sequence[_Done]) -> Sequence[_Done]:
        """Leave out the entries that exist: EEXIST may also mean that another route with the same key does."""
        if all(outcome.errno != errno.EEXIST for _, outcome in done):
            return done
        bodies = self._present_elsewhere(before) if name == ELSEWHERE else self._read(name, 0)
        if name in self._too_many:
            bodies = before
        index = 0 if name == ELSEWHERE else self._index
        present = {route.body for body in bodies or () if (route := kept_route(body, index))}
        return [(step, outcome) for step, outcome in done if outcome.errno != errno.EEXIST or step.body not in present]

    def _ipv6_sources(self, before: Sequence[bytes]) -> set[IPv6Address]:
        routes = (kept_route(body, 0) for body in before)
        return {IPv6Address(route.source) for route in routes if route is not None and len(route.source) == 16}

    def _not_checked(self, sources: set[IPv6Address]) -> set[IPv6Address]:
        """Return those of these addresses of the link that the kernel does not check: they are usable in a moment."""
        if not sources:
            return sources
        try:
            name = find_at(self._namespaces, self._target, self._index).name
            is_off = read_settings(self._target.place, name).accept_dad <= 0
        except VethError:
            is_off = False
        present = read_addresses(self._namespaces, self._target.place, self._index)
        return sources.intersection(each.interface.ip for each in present if is_off or each.nodad)

    def _await(self, sources: set[IPv6Address]) -> bool:
        """Wait until the sources of routes have been checked; return whether routes can be sent again after that."""
        with loading:
            from vethlib.session.read.sources import until_checked  # for few routes

        if not sources:
            return False
        until_checked(self._namespaces, {(self._target.place, self._index): sources})
        try:
            return not is_replaced(self._link, find_at(self._namespaces, self._target, self._index))
        except LinkNotFound:
            return True  # gone, with its routes


def _route_steps(index: int, before: Sequence[bytes], now: Sequence[bytes], *, keep: bool) -> Iterator[_Step]:
    """Yield first the deletions, then the routes without a gateway, over which the others may lead."""
    were, are = (
        {route.body: route for body in bodies if (route := kept_route(body, index))} for bodies in (before, now)
    )
    # Adding a route that exists revives none of its hops, and a new route shares those of an equal one, dead or not
    # (fib_find_info). So all routes with dead hops are deleted before any is added.
    died = set() if keep else {body for body in were.keys() & are.keys() if are[body].is_dead > were[body].is_dead}
    for body in died:
        yield _Step(f"no route {were[body]}", delete_kept(were[body]))
    gone = [route for body, route in were.items() if body not in are or body in died]
    surplus = {route.key: route for body, route in are.items() if body not in were and route.protocol == PROTO}
    keys = {route.key for route in gone}
    for key, route in surplus.items():
        if key not in keys and not keep:
            yield _Step(f"no route {route}", delete_kept(route))
    for route in sorted(gone, key=attrgetter("has_gateway")):
        in_place = route.key in surplus and not (keep and route.protocol != PROTO)
        request = restore_kept(route, replace=in_place or _has_lost_its_source(route, are))
        yield _Step(f"the route {route}", request, route.body, restore_hops(route))


def _steps_elsewhere(before: Sequence[bytes], now: Sequence[bytes]) -> Iterator[_Step]:
    are = {route.body: route for body in now if (route := kept_route(body, 0))}
    gone = [route for body in before if (route := kept_route(body, 0)) and route.body not in are]
    for route in sorted(gone, key=attrgetter("has_gateway")):
        yield _Step(f"the route {route}", restore_kept(route, replace=_has_lost_its_source(route, are)), route.body)


def _has_lost_its_source(route: KeptRoute, present: Container[bytes]) -> bool:
    return len(route.source) == len(IPv6Address(0).packed) and without_source(route) in present


def _is_foreign(name: str, body: bytes) -> bool:
    """Return whether another program has added this entry. The kernel restores its own routes with their addresses."""
    return not _OF[name].is_own(body) and not (name == ROUTES and protocol_of(body) == RTPROT_KERNEL)


def _neighbour_steps(index: int, before: Sequence[bytes], now: Sequence[bytes], *, keep: bool) -> Iterator[_Step]:
    """Yield the removal of each neighbour that differs first, because the kernel does not reset a protocol to none."""
    were, are = ({each.address: each for each in _configured(index, bodies)} for bodies in (before, now))
    for address, present in () if keep else are.items():
        if present != were.get(address) and (address in were or present.protocol == NEIGHBOUR_PROTO):
            yield _Step(f"no neighbour {ip_address(address)}", del_neighbour(index, address))
    for address, each in were.items():
        if address not in are if keep else each != are.get(address):
            request = new_neighbour(index, address, each.mac, each.protocol, each.state, each.flags)
            yield _Step(f"the neighbour {ip_address(address)}", request)


def _configured(index: int, bodies: Iterable[bytes]) -> Iterator[NeighbourMessage]:
    return (each for each in map(parse_neighbour, bodies) if each.ifindex == index and each.is_configured)


class _Kind(NamedTuple):
    """How a field is read (for one protocol, or for all: 0), and restored or, after a change, kept."""

    dumps: Callable[[int, int], Iterable[bytes]]
    is_own: Callable[[bytes], bool]
    steps: Callable[..., Iterator[_Step]]


_OF: Final = {
    ROUTES: _Kind(
        lambda index, protocol: [dump_routes_over(family, index, protocol) for family in (AF_INET, AF_INET6)],
        lambda body: protocol_of(body) == PROTO,
        _route_steps,
    ),
    NEIGHBOURS: _Kind(
        lambda index, _: [dump_neighbours(index)],
        lambda body: parse_neighbour(body).protocol == NEIGHBOUR_PROTO,
        _neighbour_steps,
    ),
}
