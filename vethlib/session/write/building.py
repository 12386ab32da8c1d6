"""Building a slab of pairs, each end directly in its namespace: the messages, and their order.

1. Every namespace of the slab is opened once (:mod:`.namespaces`), and the messages are encoded. Nothing has been sent
   yet, so a reference that leads nowhere has no consequences.
2. One message creates a pair. It is sent through a socket in the namespace of one end (home, if possible); the
   namespace of the other end is an fd inside the message. The kernel echoes both ifindexes. A link is never moved,
   which would cost 16 ms and possibly another ifindex.
3. The rest follows: first whether an end has IPv6, which is no message (:mod:`..core.ipv6`), then in one datagram per
   namespace: addresses, alias, up. An end cannot be up in the message that creates
   its peer (ENOTCONN). The second end that is set up wakes a kernel thread, which works on the two for 80 µs while it
   holds the RTNL lock (linkwatch_event, net/core/link_watch.c).
4. Routes may have to wait until the kernel has checked their sources, which are addresses of their end, or until IPv6
   has been enabled. They are sent again, when everything else was sent (:mod:`..read.sources`): if there are several
   slabs, when the last one was, so that all of them wait together.
5. Last, every end is read. Earlier, the request would wait for that thread; and if the peer is not up yet, it would
   make the kernel do deferred work on the link at once and in vain (linkwatch_sync_dev in rtnl_getlink, 70 µs).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from ipaddress import IPv6Address
from typing import Any, Final, NamedTuple

from vethlib._nl.addr import new_addr, parse_addr, restore_addr
from vethlib._nl.batch import DONE, Outcome
from vethlib._nl.link import LinkMessage, get_link, parse_link, set_link, set_up
from vethlib.addresses import PLAIN, as_address, plain_of
from vethlib.endfields.checks import MasterName
from vethlib.endfields.table import FIELDS, MASTER
from vethlib.errors import VethError
from vethlib.links import IPInterface, Link, describe, spell
from vethlib.session.core.ipv6 import enable_ipv6, is_disabled, switch_ipv6
from vethlib.session.core.namespaces import Birth, Identity, Namespaces, OpenNetns
from vethlib.session.core.refusal import loading
from vethlib.session.core.settings import write_settings
from vethlib.session.read.dying import Patience, are_dying, holders
from vethlib.session.read.reading import find, to_link

from .addressing import as_sent
from .freenames import FreeNames
from .ids import assign_ids, note_id
from .job import Job, Side
from .masters import find_masters, no_master

__all__ = ["Slab"]

_TRIES: Final = 16
"""Attempts at creating a pair whose names were free for a moment: other programs may take them, too."""


_Ends = list[tuple[Job, Side]]


class Slab:
    """Pairs that are built together, in namespaces that are open meanwhile."""

    __slots__ = ("_births", "_names", "_namespaces", "_reads", "_refused", "_with_births", "jobs")

    def __init__(
        self, namespaces: Namespaces, names: FreeNames, *, reads: bool = True, with_births: bool = True
    ) -> None:
        self._namespaces = namespaces
        self._names = names
        self._reads = reads
        self._with_births = with_births
        self.jobs: list[Job] = []
        self._refused: list[_Refused] = []  # late steps
        self._births: list[tuple[Job, Side, Birth]] = []  # of pairs that were put off

    @property
    def has_errors(self) -> bool:
        """Whether a pair has failed so far."""
        return any(job.error is not None for job in self.jobs)

    def create(self, patience: Patience, *, keep_going: bool) -> None:
        """Send the creating messages, and learn both ifindexes of each new pair.

        A pair whose names are taken by links that are about to vanish is tried again, as long as `patience` lasts.
        """
        self._reach()
        for job in self.jobs:
            if job.open and job.error is None:
                self._name(job, job.open)
        if self.has_errors and not keep_going:
            return
        jobs = [job for job in self.jobs if job.error is None]
        for attempt in range(_TRIES):
            _send_creates(self._namespaces, jobs)
            blocked = [job for job in self.jobs if job.error is None and job.outcome.errno == errno.EEXIST]
            if not blocked or (self.has_errors and not keep_going):
                break
            if jobs := self._named_again([job for job in blocked if job.open], attempt):
                continue
            try:
                jobs = patience.freed(self._namespaces, [(job, job.names) for job in blocked])
            except VethError:
                break  # the links that have the names cannot be read
            if not jobs:
                break
        for job in self.jobs:
            if job.error is None and job.outcome.errno:
                _explain_create(self._namespaces, job, job.outcome)

    def _named_again(self, jobs: Sequence[Job], attempt: int) -> list[Job]:
        """Choose other names for ends whose names others have taken since; return the pairs that have some."""
        again: dict[Job, list[Side]] = {}
        for job in jobs:
            try:
                taken = holders(self._namespaces, [(side.place, side.name) for side in job.open])
            except VethError as error:
                job.failed(error)
                continue
            if sides := [side for side in job.open if (side.place, side.name) in taken]:
                again[job] = sides
        looked: set[tuple[OpenNetns, str]] = set()
        for job, sides in again.items():
            for side in sides:
                if (key := (side.place, side.end.name)) not in looked:
                    looked.add(key)
                    self._names.look_again(self._namespaces, *key, attempt)
            self._name(job, sides)
        return [job for job in again if job.error is None]

    def _name(self, job: Job, sides: Iterable[Side]) -> None:
        """Choose free names for these ends of a pair."""
        for side in sides:
            try:
                name = self._names.choose(self._namespaces, side.place, side.end.name)
            except VethError as error:
                job.failed(error)
                return
            if name is None:
                says = f"every name {side.end.name!r} is taken in {spell(side.end.netns)}"
                job.refused(Outcome(errno.EEXIST, "", ()), says=says)
                return
            side.name = name
        job.encode()

    def _reach(self) -> None:
        """Open what is needed in each namespace, so that no pair is started that cannot be finished or read."""
        everywhere = self._reads or self._with_births
        needed = [
            (job, side)
            for job in self.jobs
            for side in (job.a, job.b)
            if everywhere or side is job.outer or side.wants_more or side in job.open or not job.has_known_queues
        ]
        self._namespaces.open_sockets(side.place for _, side in needed)
        for job, side in needed:
            try:
                self._namespaces.socket(side.place)
                _ = side.place.cookie  # so that it is known when the socket is closed: undoing needs it
            except VethError as error:
                job.failed(error)

    def finish(self, *, put_off: bool = False) -> Slab | None:
        """Configure and read each pair that was created.

        With `put_off`, return the pairs with routes that wait for their sources, to be resumed later.
        """
        self._write_settings()
        to_configure: dict[OpenNetns, _Ends] = {}
        for job in self.jobs:
            if job.made and job.error is None:
                for side in (job.outer, job.peer):
                    if side.wants_more:
                        to_configure.setdefault(side.place, []).append((job, side))
        for place, ends in to_configure.items():
            _try(partial(_configure, self._refused), self._namespaces, place, ends)
        rest = self._split() if put_off and self._refused else None
        self._complete(self.jobs if rest is None else [job for job in self.jobs if job not in rest.jobs])
        return rest

    def _split(self) -> Slab | None:
        """Return a slab of the pairs that have to wait, if there are any."""
        waiting = {each.job for each in self._refused if _awaited_source(each) is not None}
        if not waiting:
            return None
        rest = Slab(self._namespaces, self._names, reads=self._reads, with_births=self._with_births)
        rest.jobs = [job for job in self.jobs if job in waiting]
        rest._refused = [each for each in self._refused if each.job in waiting]
        rest._births = [(job, side, side.place.birth) for job in rest.jobs for side in (job.outer, job.peer)]
        self._refused = [each for each in self._refused if each.job not in waiting]
        return rest

    def resume(self, namespaces: Namespaces) -> None:
        """Finish pairs that were put off, whose namespaces were closed meanwhile."""
        self._namespaces = namespaces
        for job, side, birth in self._births:
            try:
                place = namespaces.reopened(side.place.ref, birth)
            except VethError as error:
                job.failed(error)
                continue
            if place is None:
                says = f"{describe(side.name, side.end.netns)} was created, but its namespace is another one by now"
                job.refused(Outcome(errno.ENODEV, "", ()), says=says, side=side)
            else:
                side.place = place
        self._complete(self.jobs)

    def _complete(self, jobs: Iterable[Job]) -> None:
        """Send again what was refused, and read these pairs."""
        if self._refused:
            _send_when_checked(self._namespaces, self._refused)
        to_read: dict[OpenNetns, _Ends] = {}
        for job in jobs:
            if job.made and job.error is None:
                for side in (job.outer, job.peer):
                    side.link = self._known(job, side)
                    if side.link is None:
                        to_read.setdefault(side.place, []).append((job, side))
        read: list[tuple[Identity, LinkMessage]] = []
        for place, ends in to_read.items():
            _try(partial(_read, read), self._namespaces, place, ends)
        self._namespaces.caches.learn(read)

    def _known(self, job: Job, side: Side) -> Link | None:
        """Return an end that need not be read."""
        if not self._reads:
            return job.unread(side)
        echo = job.echo if side is job.outer and not side.wants_more else None
        return None if echo is None else to_link(echo, side.end.netns)

    def _write_settings(self) -> None:
        """Write what is no message: whether an end has IPv6, its sysctls, and what it leaves to a network card."""
        ipv6: dict[OpenNetns, dict[str, bool]] = {}
        direct: dict[OpenNetns, dict[str, Mapping[str, Any]]] = {}
        for job in self.jobs:
            if job.made and job.error is None:
                for side in (job.outer, job.peer):
                    if side.end.ipv6 is not None:
                        ipv6.setdefault(side.place, {})[side.name] = side.end.ipv6
                    if side.end.has_direct:
                        direct.setdefault(side.place, {})[side.name] = side.end.further
        failed: dict[tuple[OpenNetns, str], VethError] = {**(switch_ipv6(ipv6) if ipv6 else {})}
        if direct:
            failed |= write_settings(self._namespaces, direct)
        for job in self.jobs if failed else ():
            for side in (job.outer, job.peer):
                if (error := failed.get((side.place, side.name))) is not None:
                    job.failed(error)


def _by_outer_place(jobs: Iterable[Job]) -> dict[OpenNetns, list[Job]]:
    groups: dict[OpenNetns, list[Job]] = {}
    for job in jobs:
        groups.setdefault(job.outer.place, []).append(job)
    return groups


def _send_creates(namespaces: Namespaces, jobs: Sequence[Job]) -> None:
    groups = _by_outer_place(jobs)
    for place, group in groups.items():
        try:
            assign_ids(namespaces, place, (job.peer.place for job in group))
            exchange = namespaces.begin(place, [job.request for job in group])
            for number, job in enumerate(group):
                job.sent_as(exchange, number)
            namespaces.run(place, exchange)
        except VethError as error:
            for job in group:
                if not job.made:
                    job.failed(error)
        for job in group:
            if not job.outcome.errno:
                _take_indexes(namespaces, job)
            elif job.outcome.errno != errno.EEXIST:
                _explain_create(namespaces, job, job.outcome)


def _take_indexes(namespaces: Namespaces, job: Job) -> None:
    try:
        outer = job.echo or find(namespaces, job.outer.made)
        job.outer.index, job.peer.index = outer.ifindex, outer.link or 0
        note_id(job.outer.place, outer.link_netnsid)
        if not job.peer.index:  # before Linux 5.2, if both ends have one ifindex
            job.peer.index = find(namespaces, job.peer.made).ifindex
    except VethError as error:
        job.failed(error)


def _explain_create(namespaces: Namespaces, job: Job, outcome: Outcome) -> None:
    """Note the error of a pair. EEXIST does not say which end's name is taken, so the links are looked up."""
    says, dying = "", False
    if outcome.errno == errno.EEXIST:
        try:
            links = holders(namespaces, job.names)
            dying = are_dying(namespaces, links)
        except VethError:
            links = {}
        taken = [side for side in (job.a, job.b) if (side.place, side.name) in links]
        where = " and ".join(f"{side.name!r} already exists in {spell(side.end.netns)}" for side in taken)
        says = where or "a link of one of these names already exists"
        if dying:
            says += ", and is about to vanish with the namespace of its other end: try again, or wait for that (wait=)"
    elif outcome.errno == errno.EOPNOTSUPP:
        says = "this kernel has no veth (try: modprobe veth)"
    job.refused(outcome, says=says, dying=dying)


def _try(
    work: Callable[[Namespaces, OpenNetns, _Ends], None], namespaces: Namespaces, place: OpenNetns, ends: _Ends
) -> None:
    """Do `work` for the ends in a namespace; an error concerns all of them."""
    try:
        work(namespaces, place, ends)
    except VethError as error:
        for job, _ in ends:
            job.failed(error)


def _find_masters(namespaces: Namespaces, place: OpenNetns, ends: _Ends) -> dict[str, MasterName | Outcome]:
    """Find the masters of the ends in a namespace, if they have any, and note which ends cannot have theirs."""
    names = [side.end.master for _, side in ends if side.end.master]
    masters = find_masters(namespaces, place, names) if names else {}
    for job, side in ends if masters else ():
        if isinstance(found := masters[side.end.master], Outcome):
            error = no_master(found, side.end.master, side.end.netns, f"create veth {job.veth}")
            error.item = job.veth
            job.failed(error)
    return masters


class _Sent(NamedTuple):
    """What a message does, for an error."""

    field: str
    what: object

    def __str__(self) -> str:
        return f"set its {self.what}" if isinstance(self.what, str) else f"set its {self.field[:-1]} {self.what}"


_Steps = list[tuple[_Sent, bytes]]
_NO_STEPS: Final[tuple[_Steps, _Steps, _Steps]] = ([], [], [])
_sent = partial(tuple.__new__, _Sent)  # as in _nl/link.py


def _field_steps(index: int, further: Mapping[str, Any]) -> tuple[_Steps, _Steps, _Steps]:
    """Return the messages of the further fields of an end: those that are sent first, as usual, and last."""
    early: _Steps = []
    usual: _Steps = []
    late: _Steps = []
    for name, value in further.items():
        field = FIELDS[name]
        steps = early if field.early else late if field.late else usual
        for what, request in field.creation(index, value):
            steps.append((_sent((name, what)), request))
    return early, usual, late


class _Refused(NamedTuple):
    """A late step that was refused, and may succeed later."""

    job: Job
    side: Side
    sent: _Sent
    request: bytes
    outcome: Outcome


def _configure(refused: list[_Refused], namespaces: Namespaces, place: OpenNetns, ends: _Ends) -> None:
    """Configure ends; the late steps that were refused are appended to `refused`."""
    requests: list[bytes] = []
    steps: list[tuple[Job, Side, str | _Sent | IPInterface]] = []
    masters = _find_masters(namespaces, place, ends)
    for job, side in ends:
        if job.error is not None:
            continue
        end, index = side.end, side.index
        further = end.further
        if further and masters:
            further = {**further, MASTER: masters[further.get(MASTER, "")]}
        early, usual, late = _field_steps(index, further) if further else _NO_STEPS
        for sent, request in early:
            requests.append(request)
            steps.append((job, side, sent))
        for interface in as_sent(end.interfaces):
            requests.append(_address_request(index, interface, end.address_proto))
            steps.append((job, side, interface))
        if end.alias is not None:
            requests.append(set_link(index, alias=os.fsencode(end.alias)))
            steps.append((job, side, "set its alias"))
        for sent, request in usual:
            requests.append(request)
            steps.append((job, side, sent))
        if end.up:
            requests.append(set_up(index))
            steps.append((job, side, "bring it up"))
        for sent, request in late:
            requests.append(request)
            steps.append((job, side, sent))
    without_ipv6: list[tuple[Job, Side, IPInterface]] = []
    late_refused: list[_Refused] = []
    for number, outcome in enumerate(namespaces.change(place, requests)):
        if outcome is DONE:
            continue
        job, side, step = steps[number]
        if isinstance(step, _Sent) and FIELDS[step.field].late:
            late_refused.append(_Refused(job, side, step, requests[number], outcome))
        elif not isinstance(step, str | _Sent) and is_disabled(outcome, step):
            without_ipv6.append((job, side, step))
        else:
            job.refused(outcome, says=_step_text(outcome, side, step), side=side)
    if without_ipv6:
        _add_with_ipv6_enabled(namespaces, place, without_ipv6)
        enabled = {side for _, side, _ in without_ipv6}
        again = [each for each in late_refused if each.side in enabled]
        late_refused = [each for each in late_refused if each.side not in enabled]
        late_refused += _sent_again(namespaces, place, again)
    refused += late_refused


def _sent_again(namespaces: Namespaces, place: OpenNetns, steps: Sequence[_Refused]) -> Iterator[_Refused]:
    """Send late steps in a namespace again, and yield those that are still refused."""
    steps = [each for each in steps if each.job.error is None]
    outcomes = namespaces.exchange(place, [each.request for each in steps]) if steps else []
    for each, outcome in zip(steps, outcomes, strict=True):
        if outcome.errno:
            yield each._replace(outcome=outcome)


def _awaited_source(step: _Refused) -> IPv6Address | None:
    """Return the source of a route that may have been refused because it is still checked for duplicates."""
    with loading:
        from vethlib.session.read.sources import source_of  # for few ends

    return source_of(step.sent.what) if step.job.error is None and step.outcome.errno == errno.EINVAL else None


def _send_when_checked(namespaces: Namespaces, refused: Iterable[_Refused]) -> None:
    """Send late steps again when the sources of routes have been checked for duplicates; note the other refusals."""
    with loading:
        from vethlib.session.read.sources import until_checked  # as above

    sources: dict[tuple[OpenNetns, int], set[IPv6Address]] = {}
    for each in refused:
        if (source := _awaited_source(each)) is not None:
            sources.setdefault((each.side.place, each.side.index), set()).add(source)
    vain = until_checked(namespaces, sources)
    again: dict[OpenNetns, list[_Refused]] = {}
    for each in refused:
        key = each.side.place, each.side.index
        if key in sources and key not in vain:
            again.setdefault(each.side.place, []).append(each)
        else:
            _note_refused(each, vain.get(key, ""))
    for place, steps in again.items():
        for each in _sent_again(namespaces, place, steps):
            _note_refused(each)


def _note_refused(step: _Refused, why: str = "") -> None:
    says = _step_text(step.outcome, step.side, step.sent) + (f", because {why}" if why else "")
    step.job.refused(step.outcome, says=says, side=step.side)


def _read(read: list[tuple[Identity, LinkMessage]], namespaces: Namespaces, place: OpenNetns, ends: _Ends) -> None:
    outcomes = namespaces.ask_all(place, [get_link(side.index) for _, side in ends])
    for (job, side), outcome in zip(ends, outcomes, strict=True):
        if outcome.errno:
            job.refused(outcome, says=_step_text(outcome, side, "read it"), side=side)
            continue
        try:
            message = side.made.read(outcome, parse_link)
        except VethError as error:
            job.failed(error)
            continue
        if side.end.ipv6 not in (None, message.ipv6):
            step = "enable IPv6 on it" if side.end.ipv6 else "disable IPv6 on it"
            job.refused(
                Outcome(errno.EBUSY, "", ()), says=_step_text(Outcome(errno.EBUSY, "", ()), side, step), side=side
            )
        else:
            read.append((place.identity, message))
            side.link = to_link(message, side.end.netns, addresses=plain_of(side.end.interfaces))


def _address_request(index: int, interface: IPInterface, proto: int) -> bytes:
    """Return the RTM_NEWADDR for an ``ipaddress`` interface."""
    if type(interface) not in PLAIN and (body := as_address(interface, index, proto).message):
        return restore_addr(parse_addr(body))
    return new_addr(index, interface.packed, interface.network.prefixlen, proto)


def _add_with_ipv6_enabled(
    namespaces: Namespaces, place: OpenNetns, wanted: Sequence[tuple[Job, Side, IPInterface]]
) -> None:
    """Enable IPv6 on the links and add the addresses. If that fails (/proc/sys is read-only), only its pair fails."""
    failed = enable_ipv6(place, {side.name: None for _, side, _ in wanted})
    for job, side, _ in wanted:
        if side.name in failed:
            job.failed(failed[side.name])
    wanted = [(job, side, interface) for job, side, interface in wanted if side.name not in failed]
    requests = [_address_request(side.index, interface, side.end.address_proto) for _, side, interface in wanted]
    for (job, side, interface), outcome in zip(wanted, namespaces.exchange(place, requests), strict=True):
        if outcome.errno:
            job.refused(outcome, says=_step_text(outcome, side, interface), side=side)


def _step_text(outcome: Outcome, side: Side, step: str | _Sent | IPInterface) -> str:
    name = describe(side.name, side.end.netns)
    what = str(step) if isinstance(step, str | _Sent) else f"add {step}"
    exists = FIELDS[step.field].exists if isinstance(step, _Sent) and outcome.errno == errno.EEXIST else ""
    return f"{name} was created, but the kernel refused to {what}: {exists or os.strerror(outcome.errno)}"
