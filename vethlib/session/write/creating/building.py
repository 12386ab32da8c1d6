"""Build a slab of pairs, each end directly in its namespace: the messages, and their order.

1. Every namespace of the slab is opened once (:mod:`.namespaces`), and the messages are encoded. Nothing has been sent
   at that point, so a reference that leads nowhere has no consequences.
2. One message creates a pair. It is sent through a socket in the namespace of one end (home, if possible); the
   namespace of the other end is an fd inside the message. The kernel echoes both ifindexes. A link is never moved,
   which would cost 16 ms and possibly another ifindex.
3. The rest follows (:mod:`.configuring`): first what no message can set, such as whether an end has IPv6, then one
   datagram per namespace. An end cannot be up in the message that creates its peer (ENOTCONN). Setting the second end
   up wakes a kernel thread, which works on both for 80 µs while it holds the RTNL lock (linkwatch_event,
   net/core/link_watch.c).
4. Routes may have to wait for their sources. They are sent again after everything else: if there are several slabs,
   after the last one, so that all of them wait together.
5. Last, every end is read. If that were done earlier, the request would wait for that thread; and as long as the peer
   is not up, it would make the kernel do deferred work on the link at once and in vain (linkwatch_sync_dev in
   rtnl_getlink, 70 µs).
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Final

from vethlib import ns
from vethlib._nl.batch import Outcome
from vethlib._nl.link import LinkMessage, get_link, parse_link
from vethlib.addresses import plain_of
from vethlib.errors import VethError, is_exhaustion
from vethlib.links import Link, describe, spell
from vethlib.session.core.namespaces import Birth, Identity, Namespaces, OpenNetns
from vethlib.session.read.dying import Patience, are_dying, holders
from vethlib.session.read.reading import find, to_link
from vethlib.session.write.delete import look

from .configuring import Ends, LateStep, awaited_source, configure, send_when_checked, step_text, write_unsent
from .freenames import FreeNames
from .ids import assign_ids, note_id
from .job import Job, Side

__all__ = ["Slab"]

_TRIES: Final = 16
"""Attempts at creating a pair whose names were free a moment ago: other programs may take them, too."""


class Slab:
    """Pairs that are built together, in namespaces that are open meanwhile."""

    __slots__ = ("_births", "_names", "_namespaces", "_reads", "_refused", "_waited", "_with_births", "jobs")

    def __init__(
        self, namespaces: Namespaces, names: FreeNames, *, reads: bool = True, with_births: bool = True
    ) -> None:
        self._namespaces = namespaces
        self._names = names
        self._reads = reads
        self._with_births = with_births
        self.jobs: list[Job] = []
        self._refused: list[LateStep] = []
        self._births: list[tuple[Job, Side, Birth]] = []  # of pairs that were postponed
        self._waited = False  # for names to become free, at a time when other pairs existed

    @property
    def has_errors(self) -> bool:
        """Whether a pair has failed so far."""
        return any(job.error is not None for job in self.jobs)

    def create(self, patience: Patience, *, keep_going: bool) -> None:
        """Send the creating messages, and learn both ifindexes of each new pair.

        A pair whose names are taken by links that are about to vanish is tried again, as long as `patience` lasts.
        """
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
            self._waited = True
            _recognise(self._namespaces, self.jobs)
            try:
                jobs = patience.freed(self._namespaces, [(job, job.names) for job in blocked])
            except VethError:
                break  # the links with these names cannot be read
            if not jobs:
                break
        for job in self.jobs:
            if job.error is None and job.outcome.errno:
                _explain_create(self._namespaces, job, job.outcome)

    def _named_again(self, jobs: Sequence[Job], attempt: int) -> list[Job]:
        """Choose other names for ends whose names have been taken since; return the pairs that have such ends."""
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
                job.refused(Outcome(errno.EEXIST), says=says)
                return
            side.name = name
        job.encode()

    def reach(self) -> bool:
        """Open what is needed in each namespace, so that no pair is started that cannot be finished or read.

        Returns whether there were enough descriptors. A pair that cannot be started has an error.
        """
        everywhere = self._reads or self._with_births
        needed = [
            (job, side)
            for job in self.jobs
            for side in (job.a, job.b)
            if everywhere or side is job.outer or side.wants_more or side in job.open or not job.has_known_queues
        ]
        self._namespaces.open_sockets([side.place for _, side in needed])
        enough = True
        for job, side in needed:
            try:
                self._namespaces.socket(side.place)
                _ = side.place.cookie  # read now, because undoing needs it after the socket is closed
            except VethError as error:
                enough = enough and not is_exhaustion(error)
                job.failed(error)
        if enough and len(self.jobs) > 1 and any(side.opens_files or job.open for job, side in needed):
            return self._has_two_more()
        return enough

    def _has_two_more(self) -> bool:
        """Return whether two descriptors are left: to enter a namespace, and to open a file there."""
        home = self._namespaces.home
        try:
            with ns.open_owned(home), ns.open_owned(home):
                pass
        except (VethError, OSError) as error:
            return not is_exhaustion(error)
        return True

    def finish(self, *, put_off: bool = False) -> Slab | None:
        """Configure and read each pair that was created.

        With `put_off`, return a slab of the pairs with routes that wait for their sources, to be resumed later.
        """
        if self._waited:
            for place, group in _by_outer_place(job for job in self.jobs if job.made and job.error is None).items():
                _try(_check_presence, self._namespaces, place, [(job, job.outer) for job in group])
        write_unsent(self._namespaces, self.jobs)
        to_configure: dict[OpenNetns, Ends] = {}
        for job in self.jobs:
            if job.made and job.error is None:
                for side in (job.outer, job.peer):
                    if side.wants_more:
                        to_configure.setdefault(side.place, []).append((job, side))
        for place, ends in to_configure.items():
            _try(partial(configure, self._refused), self._namespaces, place, ends)
        if self._refused:
            _recognise(self._namespaces, self.jobs)
        rest = self._split() if put_off and self._refused else None
        self._complete(self.jobs if rest is None else [job for job in self.jobs if job not in rest.jobs])
        return rest

    def _split(self) -> Slab | None:
        """Return a slab of the pairs that have to wait, if there are any."""
        waiting = {each.job for each in self._refused if awaited_source(each) is not None}
        if not waiting:
            return None
        rest = Slab(self._namespaces, self._names, reads=self._reads, with_births=self._with_births)
        rest.jobs = [job for job in self.jobs if job in waiting]
        rest._refused = [each for each in self._refused if each.job in waiting]
        rest._births = [(job, side, side.place.birth) for job in rest.jobs for side in (job.outer, job.peer)]
        self._refused = [each for each in self._refused if each.job not in waiting]
        return rest

    def resume(self, namespaces: Namespaces) -> None:
        """Finish pairs that were postponed, whose namespaces have been closed meanwhile."""
        self._namespaces = namespaces
        for job, side, birth in self._births:
            try:
                place = namespaces.reopened(side.place.ref, birth)
            except VethError as error:
                job.failed(error)
                continue
            if place is None:
                says = f"{describe(side.name, side.end.netns)} was created, but its namespace was replaced by another"
                job.refused(Outcome(errno.ENODEV), says=says, side=side)
            else:
                side.place = place
        self._complete(self.jobs)

    def _complete(self, jobs: Iterable[Job]) -> None:
        """Send what was refused again, and read these pairs."""
        if self._refused:
            send_when_checked(self._namespaces, self._refused)
        to_read: dict[OpenNetns, Ends] = {}
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
        return None if echo is None else to_link(echo, side.end.netns, cookie=side.place.cookie)


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
        outer = job.echo
        if outer is None:
            outer = job.outer.seen = find(namespaces, job.outer.made)
        job.outer.index, job.peer.index = outer.ifindex, outer.link or 0
        note_id(job.outer.place, outer.link_netnsid)
        if not job.peer.index:  # before Linux 5.2, if both ends have the same ifindex
            job.peer.index = find(namespaces, job.peer.made).ifindex
    except VethError as error:
        job.failed(error)


def _recognise(namespaces: Namespaces, jobs: Iterable[Job]) -> None:
    """Read what identifies the peers before waiting, because other programs could replace them during the wait."""
    peers: dict[OpenNetns, list[Job]] = {}
    for job in jobs:
        if job.made and job.error is None and job.peer.seen is None and job.peer.mac is None:
            peers.setdefault(job.peer.place, []).append(job)
    for place, group in peers.items():
        try:
            links = look(namespaces, place, [job.peer.index for job in group])
        except VethError:
            continue  # a later step reports this
        for job, link in zip(group, links, strict=True):
            if link is not None and job.known(job.peer).is_now(link):
                job.peer.seen = link


def _explain_create(namespaces: Namespaces, job: Job, outcome: Outcome) -> None:
    """Note the error of a pair. EEXIST does not show which end's name is taken, so the links are looked up."""
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
    work: Callable[[Namespaces, OpenNetns, Ends], None], namespaces: Namespaces, place: OpenNetns, ends: Ends
) -> None:
    """Do `work` for the ends in a namespace; an error concerns all of them."""
    try:
        work(namespaces, place, ends)
    except VethError as error:
        for job, _ in ends:
            job.failed(error)


def _check_presence(namespaces: Namespaces, place: OpenNetns, ends: Ends) -> None:
    """Note which pairs are already gone: in foreign namespaces, other links soon get their ifindexes.

    If an outer end is still the same, its peer is where it was created.
    """
    outcomes = namespaces.ask_all(place, [get_link(side.index) for _, side in ends])
    for (job, side), outcome in zip(ends, outcomes, strict=True):
        if outcome.errno:
            job.refused(outcome, says=step_text(outcome, side, "find it again"), side=side)
            continue
        try:
            if not job.is_still(side, side.made.read(outcome, parse_link)):
                job.gone(side)
        except VethError as error:
            job.failed(error)


def _read(read: list[tuple[Identity, LinkMessage]], namespaces: Namespaces, place: OpenNetns, ends: Ends) -> None:
    outcomes = namespaces.ask_all(place, [get_link(side.index) for _, side in ends])
    for (job, side), outcome in zip(ends, outcomes, strict=True):
        if outcome.errno:
            job.refused(outcome, says=step_text(outcome, side, "read it"), side=side)
            continue
        try:
            message = side.made.read(outcome, parse_link)
        except VethError as error:
            job.failed(error)
            continue
        if not job.is_still(side, message):
            job.gone(side)
        elif side.end.ipv6 not in (None, message.ipv6):
            step = "enable IPv6 on it" if side.end.ipv6 else "disable IPv6 on it"
            busy = Outcome(errno.EBUSY)
            job.refused(busy, says=step_text(busy, side, step), side=side)
        else:
            read.append((place.identity, message))
            side.seen = message
            given = plain_of(side.end.interfaces)
            side.link = to_link(message, side.end.netns, addresses=given, cookie=place.cookie)
