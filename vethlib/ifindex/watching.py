"""The watched namespaces and their links, kept up to date by dumps and events.

How no change is lost, and none reported twice:

1. A namespace first gets its id, from when on its events are queued. Then it is dumped. Then the queue is read to its
   end, and its events are applied to the result of the dump silently, because some of them happened before the dump.
   Later events are reported.
2. An event that leaves a link unchanged is not reported.
3. If events were lost (ENOBUFS), the queue is read empty, because only then does the kernel queue events again; then
   every namespace watched there is dumped as in 1, and the differences are reported after one "resync".
4. If applying is interrupted (by a KeyboardInterrupt), an event may have been lost, which is a case of 3.
5. If an event was too long to be received, or is malformed, only its own namespace is affected: it is dumped again,
   once for all such events that were queued, and the differences are reported after a "resync" of its own. If that dump
   is malformed or fails as well, it is repeated later, after ever longer pauses, and the known links stay. The same
   applies to a dump of 3 that fails. Only errors that affect all (no descriptors are left) are raised.

If the user only needs to know which links have changed (`coalesce`), reading is also limited in time, and one namespace
cannot use up all of it:

6. A call reads for `SLICE` seconds at most, and each socket has its share. The next call reads the rest. Until then, a
   lookup may be outdated, so :meth:`catch_up` returns whether everything was read.
7. All namespaces of an observatory share one queue, and an id cannot be taken back (see `observatory.py`). So where one
   of them was too noisy (`noise.py`), it is no longer watched, which is reported to the user, and the *others* move to
   another observatory. If it is watched again, then from an observatory for namespaces that were noisy once. Home,
   which is indispensable, has a socket to itself.
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import count
from struct import Struct
from typing import Final

from vethlib import ns
from vethlib._nl.addr import AddrMessage, parse_addr
from vethlib._nl.const import (
    RTM_DELADDR,
    RTM_DELLINK,
    RTM_DELNSID,
    RTM_NEWADDR,
    RTM_NEWLINK,
    RTNLGRP_IPV4_IFADDR,
    RTNLGRP_IPV6_IFADDR,
    RTNLGRP_LINK,
)
from vethlib._nl.events import OWN, EventSocket
from vethlib._nl.link import LinkMessage, parse_link
from vethlib._nl.nsid import parse_nsid
from vethlib._nl.wire import messages
from vethlib._primitives import time
from vethlib.errors import Malformed, NetlinkError, NetnsNotFound, VethError, is_exhaustion
from vethlib.links import NetnsRef
from vethlib.session.core.refusal import system_errors

from .changes import LinkChanges
from .dumps import Found, links_in, or_error
from .event import EventKind
from .news import News
from .noise import Noise
from .observatory import FIRST_ID, ROOM, ForeignObservatory, HomeObservatory, Observatory
from .table import Change, differences, put, record_of, remove, table_of
from .watch import Watch

__all__ = ["Watching"]

_SLAB: Final = 128  # namespaces open at a time
_RESYNCS: Final = 3  # per call; in an endless storm, they would never end
_PAUSES: Final = (1.0, 60.0)  # seconds between two dumps that fail: the first, doubled up to the longest
_INDEX: Final = Struct("=4xi")  # of struct ifinfomsg and of struct ifaddrmsg

SLICE: Final = 0.05
"""Longest time in seconds that one call reads events if they are coalesced."""

GLANCE: Final = 0.002
"""The same for a caller that asks the kernel anyway, and only wants the latest events first."""

_REST: Final = 10  # if events are coalesced, the pause after a dump, in multiples of its duration
_CLOCK: Final = 64  # events that are read between two checks of the clock

_LINKS: Final = (RTNLGRP_LINK,)
_WITH_ADDRESSES: Final = (RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR)
_OF_ADDRESSES: Final[dict[int, EventKind]] = {RTM_NEWADDR: "address", RTM_DELADDR: "address-gone"}

_RESYNC: Final[Change] = ("resync", None, None)
_GONE: Final[Change] = ("netns-gone", None, None)


class Watching:
    """The watches of a cache, which serialises the calls of threads.

    `open_ref` opens a reference. At most `most_pending` changes are kept until they are fetched; then the oldest are
    dropped, and `dropped` is set. With `addresses`, changes of addresses are reported, too. With `coalesce`, changes
    are collected in `changes` instead; `home` is the inode of the namespace that is watched however noisy it is.
    """

    def __init__(
        self,
        open_ref: Callable[[NetnsRef], ns.Descriptor],
        receive_buffer: int,
        most_pending: int,
        *,
        addresses: bool = False,
        coalesce: bool = False,
        home: int = 0,
    ) -> None:
        self._open = open_ref
        self._groups = _WITH_ADDRESSES if addresses else _LINKS
        self._receive_buffer = receive_buffer
        self._ids = count(FIRST_ID)
        self._by_nsid: dict[int, Watch] = {}
        self._by_inode: dict[int, Watch] = {}
        self.watches: dict[object, Watch] = {}  # by the spellings they were given by
        self.pending: deque[tuple[Watch | None, Change]] = deque(maxlen=most_pending)
        self.dropped = False
        self._doubtful: dict[Watch, tuple[float, float]] = {}  # the time of the next dump, and the pause after it
        self.changes = LinkChanges() if coalesce else None
        self._home = home
        self._noise = Noise()
        self._leaving: dict[Observatory, float] = {}  # those to be left, and the time of the next attempt
        self._turn = 0  # which socket is read first
        with system_errors("watch namespaces"):
            self.news = News()
        self._observatories: list[Observatory] = []
        self._by_fd: dict[int, Observatory] = {}  # the owner of each socket
        self._of_home: HomeObservatory | None = None

    def close(self, *, in_child: bool = False) -> None:
        """Close everything, and wake waiting threads. A forked child only closes the descriptors."""
        for observatory in self._observatories:
            observatory.close()
        if in_child:
            self.news.close_here()
        else:
            self.news.close()

    @property
    def lost(self) -> bool:
        """Whether events were lost, and no resync has followed yet."""
        return any(observatory.lost for observatory in self._observatories)

    @property
    def has_news(self) -> bool:
        """Whether there are changes to fetch, apart from events queued in the kernel."""
        if self.changes is None:
            return bool(self.pending) or self.dropped or self.lost
        due = self.due
        return bool(self.changes) or (due is not None and due <= time.monotonic())

    @property
    def due(self) -> float | None:
        """The time of the next pending dump or resync, by the monotonic clock; None if none is pending."""
        dues = [*self._leaving.values(), *(due for due, _ in self._doubtful.values())]
        return min(
            [*dues, *(observatory.resync_at for observatory in self._observatories if observatory.lost)], default=None
        )

    def prepare(self) -> None:
        """Open an observatory for foreign namespaces. Raises as :class:`.observatory.ForeignObservatory`."""
        self._room(suspect=False)

    def _room(self, *, suspect: bool) -> Observatory:
        """Return an observatory that has room for more namespaces."""
        for observatory in self._observatories:
            if observatory.open and observatory.suspect is suspect and observatory.watched < ROOM:
                return observatory
        another = ForeignObservatory(self._ids, self._groups, self._receive_buffer)
        another.suspect = suspect
        self._add(another)
        return another

    def _at_home(self, fd: int) -> HomeObservatory:
        """Return the observatory of the home namespace, which is open as `fd`."""
        if self._of_home is None:
            self._of_home = HomeObservatory(self._ids, self._groups, self._receive_buffer, fd)
            self._add(self._of_home)
        return self._of_home

    def _add(self, observatory: Observatory) -> None:
        self._observatories.append(observatory)
        for socket in filter(None, (observatory.links, observatory.ends)):
            self._by_fd[socket.fileno()] = observatory
            self.news.add(socket)

    # --- which namespaces

    def watch(self, refs: Sequence[NetnsRef]) -> None:
        """Watch all of them, or none. Raises what opening a reference raises, NotPermitted, NetlinkError."""
        admitted: list[tuple[NetnsRef, Watch]] = []
        try:
            for start in range(0, len(refs), _SLAB):
                admitted += self._admit(refs[start : start + _SLAB])
            self.catch_up()  # if a queue overflowed meanwhile, this resyncs before anything is reported
        except BaseException:
            for watch in list(self._by_nsid.values()):
                if watch.fresh is not None:
                    self.drop(watch)
            raise
        for ref, watch in admitted:
            if self._by_nsid.get(watch.nsid) is watch:  # has not ended meanwhile
                self._publish(ref, watch)

    def _admit(self, refs: Sequence[NetnsRef]) -> list[tuple[NetnsRef, Watch]]:
        """Return the watch of each reference; a new one has its links in `fresh`."""
        opened: list[tuple[NetnsRef, ns.Descriptor, int]] = []
        try:
            for ref in refs:
                owner = self._open(ref)
                opened.append((ref, owner, ns.identity(owner.fileno())[1]))
            # These namespaces are open, so they exist. An inode number is reused only after the RTM_DELNSID of its last
            # owner (ns_free_inum in net_ns_net_exit), so after this a known number means the known namespace.
            self.catch_up()
            new = {inode: (ref, owner) for ref, owner, inode in opened if inode not in self._by_inode}
            if self._home in new:
                ref, owner = new.pop(self._home)
                self._begin({self._home: (ref, owner)}, self._at_home(owner.fileno()))
            for suspect in (False, True):
                if some := {inode: at for inode, at in new.items() if self._noise.is_suspect(inode) is suspect}:
                    self._begin(some, self._room(suspect=suspect))
            return [(ref, self._by_inode[inode]) for ref, _, inode in opened]
        finally:
            for _, owner, _ in opened:
                owner.close()

    def _begin(self, new: dict[int, tuple[NetnsRef, ns.Descriptor]], observatory: Observatory) -> None:
        fds = [owner.fileno() for _, owner in new.values()]
        ids = observatory.assign(fds)
        looks = links_in(fds)
        for (ref, _), found in zip(new.values(), looks, strict=True):
            if isinstance(found, NetlinkError):
                with system_errors("list the links of the watched namespaces", ref):
                    raise found
        for nsid, (inode, (ref, _)), found in zip(ids, new.items(), looks, strict=True):
            assert not isinstance(found, NetlinkError)
            watch = Watch(observatory, nsid, inode)
            watch.add_ref(ref)
            watch.fresh = found
            self._by_nsid[nsid] = self._by_inode[inode] = watch
            observatory.watched += 1
        self._drain_for_now(observatory)

    def _publish(self, ref: NetnsRef, watch: Watch) -> None:
        watch.add_ref(ref)
        if watch.fresh is not None:
            watch.table = table_of(watch.fresh.values())
            watch.fresh = None
        if isinstance(ref, str):
            before = self.watches.get(ref)
            self.watches[ref] = watch
            if before is not None and before is not watch:
                self._lose_ref(before, ref)

    def _lose_ref(self, watch: Watch, ref: str) -> None:
        """Remove a reference that now leads to another namespace; a watch without any other ends."""
        others = tuple(other for other in watch.refs if other != ref)
        if others:
            watch.refs = others
        else:
            self._end(watch)

    def find(self, ref: NetnsRef) -> Watch | None:
        """Return the watch of the namespace that `ref` leads to, None if it is not watched."""
        if (ref is None or isinstance(ref, str)) and (watch := self.watches.get(_other_spelling(ref or ""))):
            return watch
        try:
            with self._open(ref) as owner:
                inode = ns.identity(owner.fileno())[1]
                self.catch_up()
                return self._by_inode.get(inode)
        except NetnsNotFound:
            return None

    def netns(self) -> list[NetnsRef]:
        """Return the first reference of each watched namespace."""
        return [watch.netns for watch in self._by_nsid.values() if watch.fresh is None]

    def at(self, identity: tuple[int, int]) -> Watch | None:
        """Return the watch of an open namespace, after :meth:`catch_up`."""
        return self._by_inode.get(identity[1])

    def drop(self, watch: Watch) -> None:
        """Stop watching. The id remains until the observatory ends; its events are read and dropped."""
        if self._by_nsid.pop(watch.nsid, None) is None:
            return
        watch.observatory.watched -= 1
        self._doubtful.pop(watch, None)
        for spelling in watch.spellings:
            if self.watches.get(spelling) is watch:
                del self.watches[spelling]
        if self._by_inode.get(watch.inode) is watch:
            del self._by_inode[watch.inode]
        watch.table = {}
        watch.fresh = None

    def _end(self, watch: Watch) -> None:
        self.drop(watch)
        self.report(watch, _GONE)

    # --- their events

    def report(self, watch: Watch | None, change: Change | None) -> None:
        """Queue a change for the user; None is ignored."""
        if change is None:
            return
        if self.changes is not None:
            if watch is not None:
                self.changes.note(watch, change)
        else:
            self.dropped = self.dropped or len(self.pending) == self.pending.maxlen
            self.pending.append((watch, change))

    def catch_up(self, most: float | None = None) -> bool:
        """Apply the events so far, and return whether all were read, which is always so unless events are coalesced.

        If they are, this takes `most` seconds at most (None: `SLICE`). Raises NetlinkError if a resync that is due
        fails; it stays due.
        """
        ready = {self._by_fd[fd]: None for fd in self.news.readable() if fd in self._by_fd}
        if self.changes is None:
            for observatory in ready:
                self._drain(observatory)
        elif not self._read_in_turn(list(ready), SLICE if most is None else most):
            return False
        for _ in range(_RESYNCS):
            if not self.lost:
                break
            for observatory in self._observatories:
                if observatory.lost and observatory.resync_at <= time.monotonic():
                    self._resync(observatory)
        if self._doubtful:
            self._look_at_doubtful()
        return not self.lost

    def _read_in_turn(self, ready: Sequence[Observatory], most: float) -> bool:
        """Read each of them for its share of `most` seconds; return whether all are empty now."""
        self._turn += 1
        first = self._turn % len(ready) if ready else 0
        until, whole = time.monotonic() + most, True
        for number, observatory in enumerate([*ready[first:], *ready[:first]]):
            now = time.monotonic()
            whole = self._drain(observatory, now + (until - now) / (len(ready) - number)) and whole
        return whole

    def _drain(self, observatory: Observatory, until: float | None = None) -> bool:
        """Apply queued events, those of links before the ends of namespaces; return whether all were read."""
        try:
            whole = self._read(observatory, observatory.links, self._apply, until)
            if observatory.ends is not None:
                self._read(observatory, observatory.ends, self._apply_end, None)
        except BaseException:
            observatory.lost = True
            raise
        return whole

    def _drain_for_now(self, observatory: Observatory) -> None:
        """Apply events queued so far; if coalesced, the rest may follow later, because they only name links."""
        self._drain(observatory, None if self.changes is None else time.monotonic() + SLICE)

    def _read(
        self,
        observatory: Observatory,
        events: EventSocket,
        apply: Callable[[int, bytes], None],
        until: float | None,
    ) -> bool:
        receive = events.receive
        for number in range(1, events.capacity + 1):  # and no more, because in a storm the queue never ends
            try:
                event = receive()
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    with system_errors("receive events of the watched namespaces"):
                        raise
                observatory.lost = True
                continue
            if event is None:
                return True
            nsid, datagram = event
            try:
                if not datagram:
                    raise Malformed("an event longer than the buffer")
                apply(nsid, datagram)
            except Malformed:
                self._doubt(observatory, nsid)
            if until is not None and not number % _CLOCK and time.monotonic() >= until:
                return False
        return False

    def _doubt(self, observatory: Observatory, nsid: int) -> None:
        """Schedule a dump of a namespace after an event that cannot be read (rule 5)."""
        if nsid == OWN:
            observatory.lost = True  # perhaps a namespace has ended
        elif (watch := self._by_nsid.get(nsid)) is not None:
            self._doubtful.setdefault(watch, (watch.rests_until, _PAUSES[0]))

    def _look_at_doubtful(self) -> None:
        now = time.monotonic()
        for watch, (due, pause) in list(self._doubtful.items()):
            if due <= now and watch in self._doubtful:
                del self._doubtful[watch]
                self.report(watch, _RESYNC)
                self._look_again(watch.observatory, [watch], pause)
                watch.rests_until = self._rested_at(now)

    def _apply(self, nsid: int, datagram: bytes) -> None:
        watch = self._by_nsid.get(nsid)
        if watch is None:
            return
        if self.changes is not None:
            self._noise.counts[nsid] = self._noise.counts.get(nsid, 0) + 1
        for kind, _flags, _sequence, start, end in messages(datagram):
            if kind in _OF_ADDRESSES:
                if self.changes is None or not self.changes.ignores(watch, _INDEX.unpack_from(datagram, start)[0]):
                    self._report_address(watch, _OF_ADDRESSES[kind], parse_addr(datagram[start:end]))
            elif datagram[start]:
                continue  # of another family (AF_BRIDGE): the link as a port of a bridge
            elif kind == RTM_NEWLINK:
                self._put(watch, record_of(parse_link(datagram[start:end])))
            elif kind == RTM_DELLINK:
                self._remove(watch, _INDEX.unpack_from(datagram, start)[0])

    def _report_address(self, watch: Watch, kind: EventKind, address: AddrMessage) -> None:
        record = watch.table.get(address.ifindex)
        if watch.fresh is not None or record is None:
            return
        if self.changes is None:
            self.report(watch, (kind, record, address))
        else:
            self.changes.note_address(watch, address.ifindex, address, kind == "address")

    def _put(self, watch: Watch, record: LinkMessage) -> None:
        if watch.fresh is None:
            self.report(watch, put(watch.table, record))
        else:
            watch.fresh[record.ifindex] = record

    def _remove(self, watch: Watch, index: int) -> None:
        if watch.fresh is None:
            self.report(watch, remove(watch.table, index))
        else:
            watch.fresh.pop(index, None)

    def _apply_end(self, _nsid: int, datagram: bytes) -> None:
        for kind, _flags, _sequence, start, end in messages(datagram):
            if kind == RTM_DELNSID:
                nsid = parse_nsid(datagram[start:end])
                if nsid is not None and (watch := self._by_nsid.get(nsid)) is not None:
                    self._end(watch)

    def learn(self, watch: Watch, message: LinkMessage) -> None:
        """Update a link from `message` for changes without events: those of the alias, the group and the alternative
        names of a link that is down (netdev_state_change, net/core/dev.c).
        """
        known = watch.table.get(message.ifindex)
        if known is not None and not known.up and not message.up:
            now = known._replace(alias=message.alias, group=message.group, altnames=message.altnames)
            self.report(watch, put(watch.table, now))

    # --- noisy namespaces

    def take_changes(self) -> LinkChanges:
        """Return the changes since the last call, if events are coalesced. Raises NetlinkError."""
        assert self.changes is not None
        changes = self.changes
        self._part_from_noisy(changes)
        self.changes = LinkChanges()
        return changes

    def excuse(self, inodes: Iterable[int]) -> None:
        """Do not count past events in these namespaces, because the user has caused them."""
        for inode in inodes:
            if (watch := self._by_inode.get(inode)) is not None:
                self._noise.counts.pop(watch.nsid, None)

    def _part_from_noisy(self, changes: LinkChanges) -> None:
        """Stop watching the noisy namespaces (rule 7)."""
        lost = {watch.nsid for watch in self._by_nsid.values() if watch.observatory.lost} if self.lost else set()
        for nsid in self._noise.loudest(lost):
            watch = self._by_nsid.get(nsid)
            if watch is None or watch.inode == self._home:
                continue
            self.drop(watch)
            changes.noisy.append(watch)
            self._noise.suspect(watch.inode)
            self._leaving.setdefault(watch.observatory, 0.0)
        for observatory, due in list(self._leaving.items()):
            if due <= time.monotonic():
                self._leaving[observatory] = time.monotonic() + _PAUSES[0]
                self._leave(observatory)
                del self._leaving[observatory]

    def _leave(self, observatory: Observatory) -> None:
        """Watch all namespaces of an observatory from another one, and close it."""
        observatory.open = False
        watches = self._watches_of(observatory)
        for start in range(0, len(watches), _SLAB):
            self._move(watches[start : start + _SLAB], self._room(suspect=observatory.suspect))
        self._observatories.remove(observatory)
        for socket in filter(None, (observatory.links, observatory.ends)):
            del self._by_fd[socket.fileno()]
        observatory.close()

    def _move(self, watches: Sequence[Watch], to: Observatory) -> None:
        """Watch these namespaces from another observatory from now on."""
        opened: list[tuple[Watch, ns.Descriptor]] = []
        try:
            for watch in watches:
                try:
                    owner = self._open(watch.netns)
                except VethError as error:
                    if is_exhaustion(error):
                        raise
                    continue
                opened.append((watch, owner))
                if ns.identity(owner.fileno())[1] != watch.inode:
                    opened.pop()
                    owner.close()
            fds = [owner.fileno() for _, owner in opened]
            moved = list(zip((watch for watch, _ in opened), to.assign(fds), links_in(fds), strict=True))
        finally:
            for _, owner in opened:
                owner.close()
        for watch, nsid, found in moved:
            del self._by_nsid[watch.nsid]
            watch.observatory.watched -= 1
            watch.observatory, watch.nsid = to, nsid
            self._by_nsid[nsid] = watch
            to.watched += 1
            if isinstance(found, NetlinkError):
                self._doubtful[watch] = time.monotonic() + _PAUSES[0], _PAUSES[0]
                continue
            before, watch.table = watch.table, table_of(found.values())
            for change in differences(before, watch.table):
                self.report(watch, change)
        self._lose(watches)
        for watch in {*watches} - {watch for watch, _, _ in moved}:
            self._end(watch)  # no reference leads there any more

    # --- when events were lost

    def _resync(self, observatory: Observatory) -> None:
        began = time.monotonic()
        try:
            self._drain_for_now(observatory)
            observatory.lost = False
            self.report(None, _RESYNC)
            watches = self._watches_of(observatory)
            self._lose(watches)
            for start in range(0, len(watches), _SLAB):
                self._look_again(observatory, watches[start : start + _SLAB])
        except BaseException:
            observatory.lost = True
            raise
        observatory.resync_at = self._rested_at(began)

    def _rested_at(self, began: float) -> float:
        """Return the earliest time for dumping again what has just been dumped."""
        now = time.monotonic()
        return 0.0 if self.changes is None else now + _REST * (now - began)

    def _watches_of(self, observatory: Observatory) -> list[Watch]:
        return [watch for watch in self._by_nsid.values() if watch.observatory is observatory]

    def _lose(self, watches: Iterable[Watch]) -> None:
        """Note that events of these were lost; if coalesced, changes of addresses cannot be found otherwise."""
        if self.changes is not None:
            self.changes.lost.update(dict.fromkeys(watch for watch in watches if watch.fresh is None))

    def _look_again(self, observatory: Observatory, watches: Iterable[Watch], pause: float = _PAUSES[0]) -> None:
        published = [watch for watch in watches if watch.fresh is None]
        try:
            for watch, found in self._found_again(observatory, watches):
                if found is None:
                    self._end(watch)
                elif isinstance(found, NetlinkError):
                    self._doubtful[watch] = time.monotonic() + pause, min(2 * pause, _PAUSES[1])
                else:
                    watch.fresh = found
            self._drain_for_now(observatory)
            for watch in published:
                if watch.fresh is not None:
                    new = table_of(watch.fresh.values())
                    for change in differences(watch.table, new):
                        self.report(watch, change)
                    watch.table = new
        finally:
            for watch in published:
                watch.fresh = None

    def _found_again(self, observatory: Observatory, watches: Iterable[Watch]) -> list[tuple[Watch, Found | None]]:
        """Return the links of each namespace, None for one that has ended."""
        opened: list[tuple[Watch, ns.Descriptor]] = []
        astray: list[Watch] = []  # no reference leads there any more
        try:
            for watch in watches:
                try:
                    opened.append((watch, self._open(watch.netns)))
                except VethError:
                    astray.append(watch)
            ids = observatory.ids_of([owner.fileno() for _, owner in opened])
            reached = [(watch, owner) for (watch, owner), nsid in zip(opened, ids, strict=True) if nsid == watch.nsid]
            astray += [watch for (watch, _), nsid in zip(opened, ids, strict=True) if nsid != watch.nsid]
            found = links_in([owner.fileno() for _, owner in reached])
        finally:
            for _, owner in opened:
                owner.close()
        again: list[tuple[Watch, Found | None]] = [
            (watch, links) for (watch, _), links in zip(reached, found, strict=True)
        ]
        return again + [(watch, or_error(observatory.links_of, watch.nsid)) for watch in astray]


def _other_spelling(ref: str) -> str:
    """ "netns:blue" for "blue", and the other way round."""
    return ref.removeprefix("netns:") if ref.startswith("netns:") else f"netns:{ref}"
