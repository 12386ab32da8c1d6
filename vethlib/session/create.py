"""Creating pairs where they are to live, many at a time.

How it goes:

1. Pairs are built a slab at a time. Every namespace a slab names is opened once (:mod:`.places`); nothing has been sent
   yet, so a reference that leads nowhere costs nothing to refuse.
2. One message makes a pair. It goes through a socket in the namespace of one end (home, where there is a choice); the
   other end's namespace is an fd inside the message. The kernel echoes both indexes. There is never a move: that costs
   16 ms and a renumbering.
3. What cannot be in that message follows in one datagram per namespace: addresses, alias, up, and a read of the link as
   it has become. An end cannot be up in the message that creates its peer (ENOTCONN).
4. A pair that fails on the way is deleted again, in bulk. What was made is read from the account that the exchange
   keeps, never noted down beside it, so it is known whenever an interruption comes.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from .._nl.addr import new_addr
from .._nl.batch import DONE, UNSENT, Exchange, Outcome
from .._nl.link import LinkMessage, NewEnd, create_veth, get_link, parse_link, set_link, set_up
from ..errors import BatchError, InvalidValue, LinkNotFound, NetlinkError, VethError
from ..links import End, Interface, Link, Pair, Veth, describe, spell
from .delete import delete_indexes
from .ipv6 import enable_ipv6, is_disabled
from .places import Identity, Place, Places
from .reading import find, to_link
from .refusal import copy_for, refusal

__all__ = ["Creation"]

_SLAB: Final = 64
"""Pairs built together. More per datagram gains nothing, and two namespaces each keep the fds in use below 256."""


class _Side:
    """One end of a pair being built."""

    __slots__ = ("end", "index", "link", "place")

    def __init__(self, end: End, place: Place) -> None:
        self.end = end
        self.place = place
        self.index = 0
        self.link: Link | None = None


class _Job:
    """A pair being built. `outer` is the end whose namespace the creating socket is in."""

    __slots__ = ("_exchange", "_number", "a", "b", "error", "outer", "peer", "peer_netnsid", "position", "veth")

    def __init__(self, position: int, veth: Veth, places: Places) -> None:
        self.position = position
        self.veth = veth
        self.a = _Side(veth.a, places(veth.a.netns))
        self.b = _Side(veth.b, places(veth.b.netns))
        if veth.a.name == veth.b.name and self.a.place is self.b.place:
            raise InvalidValue("name", veth.a.name, f"both ends of the pair would have this name in {self.a.place}")
        self.outer, self.peer = (self.b, self.a) if self.b.place.is_home else (self.a, self.b)
        self.peer_netnsid: int | None = None  # of the peer's namespace in the outer end's, where they differ
        self.error: VethError | None = None
        self._exchange: Exchange | None = None
        self._number = 0

    def sent_as(self, exchange: Exchange, number: int) -> None:
        """The pair is request `number` of `exchange`, whose account says what became of it."""
        self._exchange = exchange
        self._number = number

    @property
    def outcome(self) -> Outcome:
        """What became of the create request so far."""
        return UNSENT if self._exchange is None else self._exchange.outcomes[self._number]

    @property
    def made(self) -> bool:
        """Whether the pair was created."""
        return not self.outcome.errno

    def echoed_indexes(self) -> tuple[int, int]:
        """(outer, peer) as the kernel echoed them, or zeros: kernels before 6.2 do not."""
        bodies = self.outcome.bodies
        if not bodies:
            return 0, 0
        link = parse_link(bodies[0])
        return link.ifindex, link.link or 0

    def create_request(self) -> bytes:
        elsewhere = self.peer.place is not self.outer.place
        return create_veth(_new_end(self.outer.end), _new_end(self.peer.end), self.peer.place.fd if elsewhere else None)

    def refused(self, outcome: Outcome, *, says: str = "", side: _Side | None = None) -> None:
        """Take note that a step failed; the first error is the one that counts."""
        if self.error is None:
            netns = (side or self.outer).place.ref
            cls = NetlinkError if outcome.errno in (errno.EEXIST, errno.EACCES) and side is not None else None
            self.error = refusal(outcome, f"create veth {self.veth}", netns, says=says, cls=cls)
            self.error.item = self.veth

    def failed(self, error: VethError) -> None:
        """Take note of an error that befell all pairs of a namespace; it is copied."""
        if self.error is None:
            self.error = copy_for(error, self.veth, f"create veth {self.veth}")


def _new_end(end: End) -> NewEnd:
    mac = None if end.mac is None else bytes.fromhex(end.mac.replace(":", ""))
    return NewEnd(os.fsencode(end.name), mac, end.mtu, end.num_queues, end.group)


class _Made:
    """What undoing a pair takes once its slab's places are closed."""

    __slots__ = ("identity", "index", "name", "ref")

    def __init__(self, job: _Job) -> None:
        self.ref = job.outer.place.ref
        self.identity: Identity = job.outer.place.identity
        self.index = job.outer.index or job.echoed_indexes()[0]
        self.name = job.outer.end.name


class Creation:
    """One call that creates pairs; see Session.create_many for what it promises."""

    def __init__(self, open_places: Callable[[], Places], veths: Sequence[Veth], *, keep_going: bool) -> None:
        self._open_places = open_places
        self._veths = veths
        self._keep_going = keep_going
        self._pairs: list[Pair | None] = [None] * len(veths)
        self._made: dict[int, _Made] = {}
        self._under_way: Sequence[_Job] = ()
        self._failed: dict[int, VethError] = {}

    def run(self, progress: Callable[[int, int], object] | None) -> list[Pair]:
        """Create them all, slab by slab."""
        try:
            for start in range(0, len(self._veths), _SLAB):
                slab = self._veths[start : start + _SLAB]
                with self._open_places() as places:
                    self._build(places, start, slab)
                if self._failed and not self._keep_going:
                    raise self._first_failure()
                if progress is not None:
                    progress(start + len(slab), len(self._veths))
        except BaseException as error:
            self.undo(error)
            raise
        if self._failed:
            errors = [error for _, error in sorted(self._failed.items())]
            raise BatchError(f"{len(errors)} of {len(self._veths)} pairs could not be created", errors)
        return [pair for pair in self._pairs if pair is not None]

    def _first_failure(self) -> VethError:
        first = self._failed[min(self._failed)]
        if len(self._failed) > 1:
            first.add_note(f"{len(self._failed) - 1} more of the pairs sent with it failed too")
        return first

    def _build(self, places: Places, start: int, veths: Sequence[Veth]) -> None:
        jobs = self._resolve(places, start, veths)
        if self._failed and not self._keep_going:
            return
        self._under_way = jobs
        _send_creates(places, jobs)
        made = [job for job in jobs if job.made]
        if self._keep_going or len(made) == len(jobs):
            _finish(places, [job for job in made if job.error is None])
        self._collect(places, jobs)

    def _resolve(self, places: Places, start: int, veths: Sequence[Veth]) -> list[_Job]:
        jobs: list[_Job] = []
        for position, veth in enumerate(veths, start):
            try:
                jobs.append(_Job(position, veth, places))
            except VethError as error:
                error.item = veth
                self._failed[position] = error
        return jobs

    def _collect(self, places: Places, jobs: Sequence[_Job]) -> None:
        for job in jobs:
            if job.error is not None:
                self._failed[job.position] = job.error
            elif job.a.link is not None and job.b.link is not None:
                self._pairs[job.position] = Pair(job.a.link, job.b.link)
        half_made = [job for job in jobs if job.made and job.error is not None] if self._keep_going else []
        for place, group in _by_outer_place(half_made):
            _delete_made(places, place, [_Made(job) for job in group])
        self._made.update((job.position, _Made(job)) for job in jobs if job.made and job not in half_made)
        self._under_way = ()

    def undo(self, cause: BaseException) -> None:
        """Delete what was made. A failure of that is noted on `cause`, which is what the caller is to hear of."""
        under_way = {job.position: _Made(job) for job in self._under_way if job.made}
        groups: dict[Identity, list[_Made]] = {}
        for made in (self._made | under_way).values():
            groups.setdefault(made.identity, []).append(made)
        for identity, group in groups.items():
            try:
                with self._open_places() as places:
                    place = places(group[0].ref)
                    # Another namespace under the same name now: ours is gone, and its pairs with it.
                    if place.identity == identity:
                        _delete_made(places, place, group)
            except VethError as error:
                cause.add_note(f"{len(group)} pairs in {spell(group[0].ref)} stay behind: {error}")


def _delete_made(places: Places, place: Place, group: Sequence[_Made]) -> None:
    indexes = [made.index for made in group if made.index]
    for made in group:
        if not made.index:
            # Interrupted before an index that was not echoed was looked up.
            try:
                indexes.append(find(places, place, made.name, made.ref, "undo").ifindex)
            except LinkNotFound:
                pass
    if indexes:
        delete_indexes(places, place, indexes)


def _by_outer_place(jobs: Iterable[_Job]) -> list[tuple[Place, list[_Job]]]:
    groups: dict[Identity, list[_Job]] = {}
    for job in jobs:
        groups.setdefault(job.outer.place.identity, []).append(job)
    return [(group[0].outer.place, group) for group in groups.values()]


def _reached(places: Places, groups: Sequence[tuple[Place, list[_Job]]]) -> list[tuple[Place, list[_Job]]]:
    """Those of the groups whose namespace has a socket now; in the others, every job failed."""
    try:
        places.open_sockets(place for place, _ in groups)
    except VethError:
        # Somewhere. One by one says where, and leaves the others unharmed.
        return [(place, jobs) for place, jobs in groups if _is_reached(places, place, jobs)]
    return list(groups)


def _is_reached(places: Places, place: Place, jobs: Iterable[_Job]) -> bool:
    try:
        places.socket(place)
    except VethError as error:
        for job in jobs:
            job.failed(error)
        return False
    return True


def _send_creates(places: Places, jobs: Sequence[_Job]) -> None:
    for place, group in _reached(places, _by_outer_place(jobs)):
        exchange = places.begin(place, [job.create_request() for job in group])
        for number, job in enumerate(group):
            job.sent_as(exchange, number)
        try:
            places.run(place, exchange)
        except VethError as error:
            for job in group:
                if not job.made:
                    job.failed(error)
        for job in group:
            if job.outcome.errno:
                _explain_create(places, job, job.outcome)
            else:
                _take_indexes(places, job)


def _take_indexes(places: Places, job: _Job) -> None:
    """Both ifindexes and the netnsid from the echo, or from a look at both ends: kernels before 6.2 do not echo."""
    try:
        outer = parse_link(job.outcome.bodies[0]) if job.outcome.bodies else _seen(places, job.outer)
        job.outer.index, job.peer_netnsid = outer.ifindex, outer.link_netnsid
        job.peer.index = outer.link or _seen(places, job.peer).ifindex
    except VethError as error:
        job.failed(error)


def _seen(places: Places, side: _Side) -> LinkMessage:
    return find(places, side.place, side.end.name, side.place.ref, "read what was made")


def _explain_create(places: Places, job: _Job, outcome: Outcome) -> None:
    """The kernel says EEXIST, but not which end's name is taken: look."""
    says = ""
    if outcome.errno == errno.EEXIST:
        taken = [side for side in (job.a, job.b) if _is_taken(places, side)]
        where = " and ".join(f"{side.end.name!r} already exists in {spell(side.end.netns)}" for side in taken)
        says = where or "a link of one of these names already exists"
    elif outcome.errno == errno.EOPNOTSUPP:
        says = "this kernel has no veth (try: modprobe veth)"
    job.refused(outcome, says=says)


def _is_taken(places: Places, side: _Side) -> bool:
    try:
        find(places, side.place, side.end.name, side.place.ref, "")
    except VethError:
        return False
    return True


def _finish(places: Places, jobs: Sequence[_Job]) -> None:
    """Addresses, alias and up for every end, and a read of what it has become: one datagram per namespace."""
    by_place: dict[Place, list[tuple[_Job, _Side]]] = {}
    for job in jobs:
        for side in (job.outer, job.peer):
            by_place.setdefault(side.place, []).append((job, side))
    groups = [(place, [job for job, _ in ends]) for place, ends in by_place.items()]
    for place, place_jobs in _reached(places, groups):
        try:
            _finish_in(places, place, by_place[place])
        except VethError as error:
            for job in place_jobs:
                job.failed(error)


def _finish_in(places: Places, place: Place, ends: Sequence[tuple[_Job, _Side]]) -> None:
    requests: list[bytes] = []
    steps: list[tuple[_Job, _Side, str | Interface]] = []
    for job, side in ends:
        end, index = side.end, side.index
        for interface in end.interfaces:
            requests.append(address_request(index, interface, end.address_proto))
            steps.append((job, side, interface))
        if end.alias is not None:
            requests.append(set_link(index, alias=os.fsencode(end.alias)))
            steps.append((job, side, "set its alias"))
        if end.up:
            requests.append(set_up(index))
            steps.append((job, side, "bring it up"))
    requests += [get_link(side.index) for _, side in ends]
    outcomes = places.exchange(place, requests)
    without_ipv6: list[tuple[_Job, _Side, Interface]] = []
    for (job, side, step), outcome in zip(steps, outcomes, strict=False):
        if outcome is DONE:
            continue
        if not isinstance(step, str) and is_disabled(outcome, step):
            without_ipv6.append((job, side, step))
        else:
            job.refused(outcome, says=_step_text(outcome, side, step), side=side)
    for (job, side), outcome in zip(ends, outcomes[len(steps) :], strict=True):
        if outcome.errno:
            job.refused(outcome, says=_step_text(outcome, side, "read it"), side=side)
        else:
            message = parse_link(outcome.bodies[0])
            places.known.learn(place.identity, message)
            side.link = to_link(message, side.end.netns, side.end.interfaces)
    if without_ipv6:
        _add_with_ipv6_enabled(places, place, without_ipv6)


def address_request(index: int, interface: Interface, proto: int) -> bytes:
    """RTM_NEWADDR for an ``ipaddress`` interface."""
    return new_addr(index, interface.packed, interface.network.prefixlen, proto)


def _add_with_ipv6_enabled(places: Places, place: Place, wanted: Sequence[tuple[_Job, _Side, Interface]]) -> None:
    enable_ipv6(place, {side.end.name for _, side, _ in wanted})
    requests = [address_request(side.index, one, side.end.address_proto) for _, side, one in wanted]
    for (job, side, one), outcome in zip(wanted, places.exchange(place, requests), strict=True):
        if outcome.errno:
            job.refused(outcome, says=_step_text(outcome, side, one), side=side)


def _step_text(outcome: Outcome, side: _Side, step: str | Interface) -> str:
    name = describe(side.end.name, side.end.netns)
    what = step if isinstance(step, str) else f"give it {step}"
    return f"{name} was created, but the kernel refused to {what}: {os.strerror(outcome.errno)}"
