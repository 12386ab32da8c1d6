"""Routes and neighbours over a link, read before a change that may cost them (``TAKES_LATE``), and restored.

1. They are kept as they were read, no matter which program added them: a foreign route or neighbour is restored with
   its own protocol and flags.
2. After a failed change, all of them are restored, and those of vethlib that were not there before are removed. After a
   successful one, only those of vethlib are, as far as the link can still have them: the other programs receive the
   events of the link, and decide themselves.
3. Each is a request of its own, so that a refused one costs no other. A route whose source is still checked for
   duplicates is restored when that is done (:mod:`vethlib.session.read.sources`).

4. Of an IPv6 route with several hops, the kernel may remove those over the link only. They are added to what is left.

Not restored are proxy entries of the neighbour table, and IPv6 routes that the kernel may add again later: those with
the protocol `ra` or `redirect`, and those with `kernel` that expire or are its own.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Iterator, Sequence
from ipaddress import IPv6Address, ip_address
from operator import attrgetter
from socket import AF_INET, AF_INET6
from typing import Final, NamedTuple, TypeAlias

from vethlib._nl.batch import Outcome
from vethlib._nl.const import RTPROT_KERNEL
from vethlib._nl.dependents.kept import delete_kept, kept_route, protocol_of, restore_hops, restore_kept
from vethlib._nl.dependents.neighbour import (
    NeighbourMessage,
    del_neighbour,
    dump_neighbours,
    new_neighbour,
    parse_neighbour,
)
from vethlib._nl.dependents.route import dump_routes_over
from vethlib.endfields.neighbours import PROTO as NEIGHBOUR_PROTO
from vethlib.endfields.routes import PROTO
from vethlib.endfields.table import NEIGHBOURS, ROUTES
from vethlib.links import describe
from vethlib.session.core.namespaces import Namespaces
from vethlib.session.core.refusal import loading, refusal
from vethlib.session.read.further import dump_over
from vethlib.session.read.target import Target

__all__ = ["LateFields"]

# It is gone already; or the link is gone, with everything.
_AS_GOOD_AS_RESTORED: Final = (0, errno.ESRCH, errno.ENOENT, errno.ENODEV)

_MOST_NAMED: Final = 8
"""Routes or neighbours that one error names."""


class _Step(NamedTuple):
    """A request in words, and for a route its body and what to send instead if it has only lost a part (EEXIST)."""

    what: str
    request: bytes
    body: bytes = b""
    rest: bytes = b""


_Done: TypeAlias = tuple[_Step, Outcome]


class LateFields:
    """The routes and neighbours that a link had before a change."""

    def __init__(self, namespaces: Namespaces, target: Target, index: int) -> None:
        self._namespaces = namespaces
        self._target = target
        self._index = index
        self._before: dict[str, Sequence[bytes]] = {}
        self._only_own = False  # of the routes, those of vethlib

    def read(self, names: Iterable[str], *, only_own: bool = False) -> None:
        """Read those of these fields that have not been read; with `only_own`, of the routes only those of vethlib."""
        for name in names:
            if name not in self._before:
                self._before[name] = self._read(name, PROTO if only_own else 0)
                self._only_own = self._only_own or (only_own and name == ROUTES)

    def read_rest(self, *, readdressed: bool) -> None:
        """Read what has not been read, before a step that may cost it, or before the change is undone.

        If addresses may have been added by then (`readdressed`), routes of the kernel may be theirs, and are left out.
        """
        self.read([NEIGHBOURS])
        if ROUTES not in self._before or self._only_own:
            own = self._before.get(ROUTES)
            left_out = {RTPROT_KERNEL} if readdressed else set()
            left_out |= set() if own is None else {PROTO}
            rest = [body for body in self._read(ROUTES, 0) if protocol_of(body) not in left_out]
            self._before[ROUTES] = [*(own or ()), *rest]
            self._only_own = False

    def restore(self, name: str) -> None:
        """Make a field what it was. Raises NetlinkError if routes or neighbours are refused, when all were tried."""
        if name not in self._before:
            return
        done = self._confirmed(name, self._carry_out(name, self._before[name]))
        failed = [(step, outcome) for step, outcome in done if outcome.errno not in _AS_GOOD_AS_RESTORED]
        if failed:
            where = describe(self._target.name, self._target.netns)
            what = ", ".join(each.what for each, _ in failed[:_MOST_NAMED])
            more = f" and {len(failed) - _MOST_NAMED} more" if len(failed) > _MOST_NAMED else ""
            raise refusal(failed[0][1], f"restore {what}{more} of {where}", self._target.netns)

    def keep_own(self, name: str) -> None:
        """Restore what vethlib had added, as far as the link can have it after the change."""
        own = [body for body in self._before.get(name, ()) if _OF[name].is_own(body)]
        if own:
            self._carry_out(name, own, keep=True)

    def _read(self, name: str, protocol: int) -> Sequence[bytes]:
        place, requests = self._target.place, _OF[name].dumps(self._index, protocol)
        return [body for request in requests for body in dump_over(self._namespaces, place, request, bytes, name)]

    def _carry_out(self, name: str, before: Sequence[bytes], *, keep: bool = False) -> Sequence[_Done]:
        done = self._attempt(name, before, keep=keep)
        if name == ROUTES and any(outcome.errno == errno.EINVAL for _, outcome in done) and self._await_sources(before):
            done = self._attempt(name, before, keep=keep)
        return done

    def _attempt(self, name: str, before: Sequence[bytes], *, keep: bool) -> list[_Done]:
        present = self._read(name, PROTO if keep else 0)
        done = self._sent([(step, step.request) for step in _OF[name].steps(self._index, before, present, keep=keep)])
        exist = [n for n, (step, outcome) in enumerate(done) if outcome.errno == errno.EEXIST and step.rest]
        for n, again in zip(exist, self._sent([(done[n][0], done[n][0].rest) for n in exist]), strict=True):
            done[n] = again
        return done

    def _sent(self, steps: Sequence[tuple[_Step, bytes]]) -> list[_Done]:
        requests = [request for _, request in steps]
        outcomes = self._namespaces.exchange(self._target.place, requests) if requests else ()
        return [(step, outcome) for (step, _), outcome in zip(steps, outcomes, strict=True)]

    def _confirmed(self, name: str, done: Sequence[_Done]) -> Sequence[_Done]:
        """Leave out what exists: EEXIST may also mean that another route with the same key does."""
        if all(outcome.errno != errno.EEXIST for _, outcome in done):
            return done
        present = {route.body for body in self._read(name, 0) if (route := kept_route(body, self._index))}
        return [(step, outcome) for step, outcome in done if outcome.errno != errno.EEXIST or step.body not in present]

    def _await_sources(self, before: Sequence[bytes]) -> bool:
        """Wait until the sources of routes have been checked for duplicates; return whether a route has any."""
        with loading:
            from vethlib.session.read.sources import until_checked  # for few routes

        routes = (kept_route(body, self._index) for body in before)
        sources = {IPv6Address(route.source) for route in routes if route is not None and len(route.source) == 16}
        if sources:
            until_checked(self._namespaces, {(self._target.place, self._index): sources})
        return bool(sources)


def _route_steps(index: int, before: Sequence[bytes], now: Sequence[bytes], *, keep: bool) -> Iterator[_Step]:
    """Yield first what deletes routes, then those without a gateway, over which the others may lead."""
    were, are = (
        {route.body: route for body in bodies if (route := kept_route(body, index))} for bodies in (before, now)
    )
    gone = [route for body, route in were.items() if body not in are]
    surplus = {route.key: route for body, route in are.items() if body not in were and route.protocol == PROTO}
    keys = {route.key for route in gone}
    for key, route in surplus.items():
        if key not in keys and not keep:
            yield _Step(f"no route {route}", delete_kept(route))
    for route in sorted(gone, key=attrgetter("has_gateway")):
        request = restore_kept(route, replace=route.key in surplus)
        yield _Step(f"the route {route}", request, route.body, restore_hops(route))


def _neighbour_steps(index: int, before: Sequence[bytes], now: Sequence[bytes], *, keep: bool) -> Iterator[_Step]:
    """Yield the removal of each that differs, because the kernel does not change a protocol to none."""
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
    """How a field is read, of one protocol or of all (0), and restored or, after a change, kept."""

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
