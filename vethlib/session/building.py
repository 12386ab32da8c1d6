"""Building a slab of pairs where they are to live: what is sent for it, and in which order.

1. Every namespace the slab names is opened once (:mod:`.places`), and its messages are encoded. Nothing has been sent
   yet, so a reference that leads nowhere costs nothing to refuse.
2. One message makes a pair. It goes through a socket in the namespace of one end (home, where there is a choice); the
   other end's namespace is an fd inside the message. The kernel echoes both indexes. There is never a move: that costs
   16 ms and a renumbering.
3. What cannot be in that message follows in one datagram per namespace: addresses, alias, up. An end cannot be up in
   the message that creates its peer (ENOTCONN). The second end of a pair to come up wakes a kernel thread, which has
   80 µs of work with the two and holds RTNL all the while (linkwatch_event, net/core/link_watch.c).
4. Last, every end is read. Sooner, the read would wait for that thread; and where the peer is not up yet, it would make
   the kernel do at once, and in vain, what it has put off for the link (linkwatch_sync_dev in rtnl_getlink, 70 µs).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Sequence

from .._nl.addr import new_addr
from .._nl.batch import DONE, UNSENT, Exchange, Outcome
from .._nl.link import LinkMessage, NewEnd, create_veth, get_link, parse_link, set_link, set_up
from ..errors import InvalidValue, NetlinkError, VethError
from ..links import End, Interface, Link, Veth, describe, spell
from .ipv6 import enable_ipv6, is_disabled
from .places import Place, Places
from .reading import find, to_link
from .refusal import copy_for, refusal

__all__ = ["Job", "Slab"]


class _Side:
    """One end of a pair being built."""

    __slots__ = ("end", "index", "link", "place")

    def __init__(self, end: End, place: Place) -> None:
        self.end = end
        self.place = place
        self.index = 0
        self.link: Link | None = None

    @property
    def wants_more(self) -> bool:
        """Whether there is something that cannot be in the creating message."""
        end = self.end
        return end.up or end.alias is not None or bool(end.addresses)


class Job:
    """A pair being built. `outer` is the end whose namespace the creating socket is in."""

    __slots__ = ("_echo", "_exchange", "_number", "a", "b", "error", "outer", "peer", "position", "request", "veth")

    def __init__(self, position: int, veth: Veth, places: Places) -> None:
        self.position = position
        self.veth = veth
        self.a = _Side(veth.a, places(veth.a.netns))
        self.b = _Side(veth.b, places(veth.b.netns))
        if veth.a.name == veth.b.name and self.a.place is self.b.place:
            raise InvalidValue("name", veth.a.name, f"both ends of the pair would have this name in {self.a.place}")
        self.outer, self.peer = (self.b, self.a) if self.b.place.is_home else (self.a, self.b)
        elsewhere = self.peer.place.fd if self.peer.place is not self.outer.place else None
        self.request = create_veth(_new_end(self.outer.end), _new_end(self.peer.end), elsewhere)
        self.error: VethError | None = None
        self._exchange: Exchange | None = None
        self._number = 0
        self._echo: LinkMessage | None = None

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

    @property
    def echo(self) -> LinkMessage | None:
        """The outer end as the kernel echoed it, its peer's ifindex in `link`; kernels before 6.2 do not."""
        if self._echo is None and (bodies := self.outcome.bodies):
            self._echo = parse_link(bodies[0])
        return self._echo

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


_Ends = list[tuple[Job, _Side]]


class Slab:
    """Pairs built together, in namespaces that are open meanwhile."""

    __slots__ = ("_places", "jobs")

    def __init__(self, places: Places) -> None:
        self._places = places
        self.jobs: list[Job] = []

    @property
    def has_errors(self) -> bool:
        """Whether a pair has failed so far."""
        return any(job.error is not None for job in self.jobs)

    def create(self) -> None:
        """Send the creating messages, and learn both ifindexes of each pair that is there now."""
        _send_creates(self._places, self.jobs)

    def finish(self) -> None:
        """Everything after the creation, for each pair that is there."""
        to_configure: dict[Place, _Ends] = {}
        to_read: dict[Place, _Ends] = {}
        for job in self.jobs:
            if job.made and job.error is None:
                for side in (job.outer, job.peer):
                    if side.wants_more:
                        to_configure.setdefault(side.place, []).append((job, side))
                    elif side is job.outer and job.echo is not None:
                        side.link = to_link(job.echo, side.end.netns, ())
                        continue
                    to_read.setdefault(side.place, []).append((job, side))
        self._places.open_sockets(to_read)
        for place, ends in to_configure.items():
            _try(_configure, self._places, place, ends)
        for place, ends in to_read.items():
            _try(_read, self._places, place, ends)


def _by_outer_place(jobs: Iterable[Job]) -> dict[Place, list[Job]]:
    groups: dict[Place, list[Job]] = {}
    for job in jobs:
        groups.setdefault(job.outer.place, []).append(job)
    return groups


def _send_creates(places: Places, jobs: Sequence[Job]) -> None:
    groups = _by_outer_place(jobs)
    places.open_sockets(groups)
    for place, group in groups.items():
        try:
            exchange = places.begin(place, [job.request for job in group])
            for number, job in enumerate(group):
                job.sent_as(exchange, number)
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


def _take_indexes(places: Places, job: Job) -> None:
    if (echo := job.echo) is not None:
        job.outer.index, job.peer.index = echo.ifindex, echo.link or 0
    for side in (job.outer, job.peer):
        if not side.index:
            try:
                side.index = find(places, side.place, side.end.name, side.place.ref, "read what was made").ifindex
            except VethError as error:
                job.failed(error)


def _explain_create(places: Places, job: Job, outcome: Outcome) -> None:
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


def _try(work: Callable[[Places, Place, _Ends], None], places: Places, place: Place, ends: _Ends) -> None:
    """What goes wrong in a namespace befalls all the ends that are to be there."""
    try:
        work(places, place, ends)
    except VethError as error:
        for job, _ in ends:
            job.failed(error)


def _configure(places: Places, place: Place, ends: _Ends) -> None:
    requests: list[bytes] = []
    steps: list[tuple[Job, _Side, str | Interface]] = []
    for job, side in ends:
        end, index = side.end, side.index
        for interface in end.interfaces:
            requests.append(_address_request(index, interface, end.address_proto))
            steps.append((job, side, interface))
        if end.alias is not None:
            requests.append(set_link(index, alias=os.fsencode(end.alias)))
            steps.append((job, side, "set its alias"))
        if end.up:
            requests.append(set_up(index))
            steps.append((job, side, "bring it up"))
    without_ipv6: list[tuple[Job, _Side, Interface]] = []
    for (job, side, step), outcome in zip(steps, places.exchange(place, requests), strict=True):
        if outcome is DONE:
            continue
        if not isinstance(step, str) and is_disabled(outcome, step):
            without_ipv6.append((job, side, step))
        else:
            job.refused(outcome, says=_step_text(outcome, side, step), side=side)
    if without_ipv6:
        _add_with_ipv6_enabled(places, place, without_ipv6)


def _read(places: Places, place: Place, ends: _Ends) -> None:
    outcomes = places.ask_all(place, [get_link(side.index) for _, side in ends])
    for (job, side), outcome in zip(ends, outcomes, strict=True):
        if outcome.errno:
            job.refused(outcome, says=_step_text(outcome, side, "read it"), side=side)
        else:
            message = parse_link(outcome.bodies[0])
            places.known.learn(place.identity, message)
            side.link = to_link(message, side.end.netns, side.end.interfaces)


def _address_request(index: int, interface: Interface, proto: int) -> bytes:
    """RTM_NEWADDR for an ``ipaddress`` interface."""
    return new_addr(index, interface.packed, interface.network.prefixlen, proto)


def _add_with_ipv6_enabled(places: Places, place: Place, wanted: Sequence[tuple[Job, _Side, Interface]]) -> None:
    enable_ipv6(place, {side.end.name for _, side, _ in wanted})
    requests = [_address_request(side.index, one, side.end.address_proto) for _, side, one in wanted]
    for (job, side, one), outcome in zip(wanted, places.exchange(place, requests), strict=True):
        if outcome.errno:
            job.refused(outcome, says=_step_text(outcome, side, one), side=side)


def _step_text(outcome: Outcome, side: _Side, step: str | Interface) -> str:
    name = describe(side.end.name, side.end.netns)
    what = step if isinstance(step, str) else f"give it {step}"
    return f"{name} was created, but the kernel refused to {what}: {os.strerror(outcome.errno)}"
