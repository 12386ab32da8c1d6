"""The watched namespaces and their links, kept up to date by dumps and events.

These rules ensure that no change is lost, and none is reported twice:

1. A namespace first gets its id; from then on, its events are queued. Then it is dumped. Then the queue is read to its
   end, and its events are applied to the result of the dump silently, because some of them happened before the dump.
   Later events are reported.
2. An event that leaves a link unchanged is not reported.
3. If events were lost (ENOBUFS), the queue is read empty, because only then does the kernel queue events again; then
   every namespace watched there is dumped as in 1, and the differences are reported after one "resync".
4. If applying is interrupted (by a KeyboardInterrupt), an event may have been lost, which is a case of 3.
5. If an event was too long to be received, or is malformed, only its own namespace is affected: it is dumped again,
   once for all such events that were queued, and the differences are reported after a separate "resync". If that dump
   is malformed or fails as well, it is repeated later, with increasing pauses; until then, the known links stay. The
   same applies to a dump of 3 that fails. Only errors that affect all namespaces (no descriptors are left) are raised.

These ensure that one namespace cannot use up the time of all others:

6. A call that returns events reads for `SLICE` seconds at most, and each socket has its share. The next call reads the
   rest. If the user only needs to know which links have changed (`coalesce`), the same is true of every call, and a
   lookup may be outdated, so :meth:`catch_up` returns whether everything was read.
7. All namespaces of an observatory share one queue, and an id cannot be taken back (see `observatory.py`). So if one of
   them is too noisy (`noise.py`), it is no longer watched, which is reported to the user, and the *others* move to
   another observatory. If it is watched again, it is watched from an observatory for namespaces that were once noisy.
   Home, which is indispensable, has a socket to itself. Without `coalesce`, a noisy namespace continues to be watched,
   from the observatory of noisy ones; there, a resync makes up for the events lost in a flood once the flood is over.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from vethlib import ns
from vethlib._nl.const import RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR, RTNLGRP_LINK
from vethlib._nl.link import LinkMessage
from vethlib._primitives import time
from vethlib.errors import NetlinkError, NetnsNotFound, VethError, is_exhaustion
from vethlib.links import NetnsRef
from vethlib.ns.deadline import earliest
from vethlib.ns.own import OwnDescriptors
from vethlib.session.core.refusal import system_errors

from .changes import RESYNC, LinkChanges, Reports
from .dumps import FirstLook, Found, cookie_in, everything_in, first_links_in, links_in, or_error
from .news import News
from .noise import Noise
from .observatory import Observatories, Observatory
from .reader import FIRST_PAUSE, EventReader
from .table import put, table_of
from .watch import Watch
from .watched import Watched, spellings

__all__ = ["Watching"]

_SLAB: Final = 128  # namespaces open at a time
_RESYNCS: Final = 3  # per call; in an endless storm, they would never end
_LONGEST_PAUSE: Final = 60.0  # seconds between two dumps that fail; the first pause is doubled up to that
_MOST_PUT_OFF: Final = 20  # how often a resync is postponed until all events have been read
_REST: Final = 10  # if events are coalesced, the pause after a dump, in multiples of its duration

_LINKS: Final = (RTNLGRP_LINK,)
_WITH_ADDRESSES: Final = (RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR)


class Watching:
    """The watched namespaces of a cache, which serialises the calls of threads.

    `open_ref` opens a reference. `reports` has the changes that were not fetched yet; at most `most_pending` of them
    are kept. With `addresses`, changes of addresses are reported, too. With `coalesce`, changes are collected per link.
    `home` is the inode of the namespace that stays watched, however noisy it is.
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
        self._home = home
        self.watched = Watched()
        self.reports = Reports(most_pending, coalesce=coalesce)
        self._noise = Noise()
        self._reader = EventReader(self.watched, self.reports, self._noise)
        self._leaving: dict[Observatory, float] = {}  # observatories to be left, and the time of the next attempt
        with system_errors("watch namespaces"):
            self.news = News()
        self._observatories = Observatories(_WITH_ADDRESSES if addresses else _LINKS, receive_buffer, self.news)

    def close(self, *, in_child: bool = False) -> None:
        """Close everything, and wake waiting threads. A forked child only closes the descriptors."""
        self._observatories.close()
        if in_child:
            self.news.close_here()
        else:
            self.news.close()

    @property
    def has_news(self) -> bool:
        """Whether there are changes to fetch, apart from events queued in the kernel."""
        if self.reports:
            return True
        if self.reports.changes is None:
            return bool(self._observatories.lost())
        due = self.due
        return due is not None and due <= time.monotonic()

    @property
    def due(self) -> float | None:
        """The time of the next pending dump or resync, by the monotonic clock; None if none is pending."""
        lost, doubtful = self._observatories.lost(), self.watched.doubtful
        if not (lost or doubtful or self._leaving):
            return None  # nearly always
        doubts = (due for due, _ in doubtful.values())
        return earliest(*self._leaving.values(), *doubts, *(observatory.resync_at for observatory in lost))

    def left(self, deadline: float | None = None) -> float | None:
        """Return the seconds until `deadline` or what is due, whichever is earlier; None if there is neither."""
        first = earliest(deadline, self.due)
        return None if first is None else max(0.0, first - time.monotonic())

    def prepare(self) -> None:
        """Open an observatory for foreign namespaces. Raises as :class:`.observatory.ForeignObservatory` does."""
        self._observatories.with_room(suspect=False)

    # --- which namespaces

    def watch(self, refs: Sequence[NetnsRef], *, reading: bool = False) -> list[FirstLook | None]:
        """Watch all of these namespaces, or none. Raises what opening a reference raises, NotPermitted, NetlinkError.

        If `reading`, return the contents of each: None if it was watched before, or could not be read at once.
        """
        admitted: list[tuple[NetnsRef, Watch]] = []
        try:
            for start in range(0, len(refs), _SLAB):
                admitted += self._admit(refs[start : start + _SLAB], reading=reading)
            self.catch_up()  # if a queue overflowed meanwhile, this resyncs before anything is reported
        except BaseException:
            for watch in self.watched.unpublished():
                self.watched.drop(watch)
            raise
        for ref, watch in admitted:
            if self.watched.by_nsid.get(watch.nsid) is watch:  # it has not ended meanwhile
                self._publish(ref, watch)
        first = [None if watch.is_over else watch.first for _, watch in admitted]
        for _, watch in admitted:
            watch.first = None
        return first

    def _admit(self, refs: Sequence[NetnsRef], *, reading: bool) -> list[tuple[NetnsRef, Watch]]:
        """Return the watch of each reference; a new one has its links in `fresh`."""
        opened: list[tuple[NetnsRef, ns.Descriptor, int]] = []
        own = OwnDescriptors()
        try:
            for ref in refs:
                owner = own.hold(self._open(ref))
                opened.append((ref, owner, ns.identity(owner.fileno())[1]))
            # These namespaces are open, so they exist. An inode number is reused only after the RTM_DELNSID of its last
            # owner (ns_free_inum in net_ns_net_exit), so after this a known number means the known namespace.
            self.catch_up()
            new: dict[int, tuple[NetnsRef, ns.Descriptor]] = {}
            for ref, owner, inode in opened:
                if inode not in self.watched.by_inode:
                    new.setdefault(inode, (ref, owner))  # the first reference is the one in events
            if self._home in new:
                ref, owner = new.pop(self._home)
                self._begin({self._home: (ref, owner)}, self._observatories.at_home(owner.fileno()), reading=False)
            suspects = {inode for inode, (_, owner) in new.items() if self._is_suspect(inode, owner)}
            for suspect in (False, True):
                if some := {inode: at for inode, at in new.items() if (inode in suspects) is suspect}:
                    self._begin(some, self._observatories.with_room(suspect=suspect), reading=reading)
            return [(ref, self.watched.by_inode[inode]) for ref, _, inode in opened]
        finally:
            own.close()

    def _is_suspect(self, inode: int, owner: ns.Descriptor) -> bool:
        return self._noise.is_suspect(inode, lambda: cookie_in(owner.fileno()))

    def _begin(
        self, new: dict[int, tuple[NetnsRef, ns.Descriptor]], observatory: Observatory, *, reading: bool
    ) -> None:
        fds = [owner.fileno() for _, owner in new.values()]
        ids = observatory.assign(fds)
        first = everything_in(fds) if reading else [None] * len(fds)
        rest = iter(first_links_in([fd for fd, look in zip(fds, first, strict=True) if look is None]))
        looks = [next(rest) if look is None else (look.cookie, look.links) for look in first]
        for (ref, _), (_, found) in zip(new.values(), looks, strict=True):
            if isinstance(found, NetlinkError):
                with system_errors("list the links of the watched namespaces", ref):
                    raise found
        for nsid, (inode, (ref, _)), (cookie, found), look in zip(ids, new.items(), looks, first, strict=True):
            assert not isinstance(found, NetlinkError)
            watch = Watch(observatory, nsid, inode, cookie)
            watch.add_ref(ref)
            watch.fresh, watch.first = found, look
            self.watched.add(watch)
        self._reader.drain_for_now(observatory)

    def _publish(self, ref: NetnsRef, watch: Watch) -> None:
        watch.add_ref(ref)
        if watch.fresh is not None:
            watch.table = table_of(watch.fresh.values())
            watch.fresh = None
        if isinstance(ref, str):
            by_ref = self.watched.by_ref
            before = {spelling: by_ref[spelling] for spelling in spellings(ref) if spelling in by_ref}
            for spelling in (ref, *before):
                watch.add_ref(spelling)
                by_ref[spelling] = watch
            for former in {*before.values()} - {watch}:
                self._lose_refs(former, before)

    def _lose_refs(self, watch: Watch, lost: Container[str]) -> None:
        """Remove references that now lead to another namespace; a watch without any other ends."""
        others = tuple(other for other in watch.refs if other not in lost)
        if others:
            watch.refs = others
        else:
            self._reader.end(watch)

    def find(self, ref: NetnsRef) -> Watch | None:
        """Return the watch of the namespace that `ref` leads to; None if it is not watched."""
        if (watch := self.watched.named(ref)) is not None:
            return watch
        try:
            with self._open(ref) as owner:
                inode = ns.identity(owner.fileno())[1]
                self.catch_up()
                return self.watched.by_inode.get(inode)
        except NetnsNotFound:
            return None

    def at(self, identity: tuple[int, int]) -> Watch | None:
        """Return the watch of an open namespace, after :meth:`catch_up`."""
        return self.watched.by_inode.get(identity[1])

    # --- their events

    def catch_up(self, most: float | None = None, *, partly: bool = False) -> bool:
        """Apply the events so far, and return whether all were read: always, unless events are coalesced, or `partly`.

        Otherwise, this takes `most` seconds at most (None: `SLICE`). Raises NetlinkError if a resync that is due
        fails; it stays due.
        """
        if partly:
            self._noise.begin()
        whole = self._reader.read(self._observatories.readable(), most, partly=partly)
        if self.reports.changes is not None:
            if not whole:
                return False
        elif partly:
            self._set_noisy_apart()
        lost = self._observatories.lost()
        if not lost and not self.watched.doubtful:
            return True
        is_limited = partly and self.reports.changes is None
        for _ in range(0 if not lost else 1 if is_limited else _RESYNCS):
            for observatory in lost:
                if observatory.resync_at <= time.monotonic():
                    self._resync(observatory, partly=is_limited)
            if not (lost := self._observatories.lost()):
                break
        self._look_at_doubtful()
        return not self._observatories.lost()

    def _look_at_doubtful(self) -> None:
        now = time.monotonic()
        for watch, (due, pause) in list(self.watched.doubtful.items()):
            if due <= now and watch in self.watched.doubtful:
                del self.watched.doubtful[watch]
                self.reports.add(watch, RESYNC)
                self._look_again(watch.observatory, [watch], pause)
                watch.rests_until = self._rested_at(now)

    def learn(self, watch: Watch, message: LinkMessage) -> None:
        """Update a link from `message`, as far as the kernel sends no events.

        It sends none for changes of the alias, the group and the alternative names of a link that is down
        (netdev_state_change, net/core/dev.c).
        """
        known = watch.table.get(message.ifindex)
        if known is not None and not known.up and not message.up:
            now = known._replace(alias=message.alias, group=message.group, altnames=message.altnames)
            self.reports.add(watch, put(watch.table, now))

    # --- noisy namespaces

    def _set_noisy_apart(self) -> None:
        """Watch the noisy namespaces from a separate observatory (rule 7)."""
        for nsid in self._loudest():
            watch = self.watched.by_nsid.get(nsid)
            if watch is None or watch.inode == self._home or watch.observatory.suspect:
                continue
            former, cookie = watch.observatory, self._cookie_of(watch)
            if cookie is not None:
                self._noise.suspect(watch.inode, cookie)
            self._move([watch], self._observatories.with_room(suspect=True))
            self._leaving.setdefault(former, 0.0)
        self._leave_some()

    def take_changes(self) -> LinkChanges:
        """Return the changes since the last call, if events are coalesced. Raises NetlinkError."""
        assert self.reports.changes is not None
        self._part_from_noisy(self.reports.changes)
        return self.reports.take_changes()

    def excuse(self, inodes: Iterable[int]) -> None:
        """Do not count past events in these namespaces, because the user has caused them."""
        for inode in inodes:
            if (watch := self.watched.by_inode.get(inode)) is not None:
                self._noise.excuse(watch.nsid)

    def _part_from_noisy(self, changes: LinkChanges) -> None:
        """Stop watching the noisy namespaces (rule 7)."""
        for nsid in self._loudest():
            watch = self.watched.by_nsid.get(nsid)
            if watch is None or watch.inode == self._home:
                continue
            watch.cookie = self._cookie_of(watch)
            self.watched.drop(watch)
            changes.noisy.append(watch)
            if watch.cookie is not None:
                self._noise.suspect(watch.inode, watch.cookie)
            self._leaving.setdefault(watch.observatory, 0.0)
        self._leave_some()

    def _loudest(self) -> list[int]:
        lost = {watch.nsid for observatory in self._observatories.lost() for watch in self.watched.at(observatory)}
        return self._noise.loudest(lost)

    def _leave_some(self) -> None:
        """Leave the observatories that had a noisy namespace, unless that has just failed."""
        for observatory, due in list(self._leaving.items()):
            if due <= time.monotonic():
                self._leaving[observatory] = time.monotonic() + FIRST_PAUSE
                self._leave(observatory)
                del self._leaving[observatory]

    def _cookie_of(self, watch: Watch) -> int | None:
        """Return the cookie of a watched namespace; 0 if it is unknown, None if no reference leads there now."""
        try:
            owner = self._open_again(watch)
            if owner is None:
                return None
            with owner:
                fd = owner.fileno()
                return cookie_in(fd) if watch.observatory.ids_of([fd]) == [watch.nsid] else None
        except VethError:
            return 0

    def _leave(self, observatory: Observatory) -> None:
        """Watch all namespaces of an observatory from another one, and close it."""
        observatory.open = False
        watches = self.watched.at(observatory)
        for start in range(0, len(watches), _SLAB):
            self._move(watches[start : start + _SLAB], self._observatories.with_room(suspect=observatory.suspect))
        self._observatories.remove(observatory)

    def _move(self, watches: Sequence[Watch], to: Observatory) -> None:
        """Watch these namespaces from another observatory from now on."""
        if self.reports.changes is None:
            self._move_and_report(watches, to)
            return
        with self._all_open_again(watches) as opened:
            fds = [owner.fileno() for owner in opened.values()]
            moved = list(zip(opened, to.assign(fds), links_in(fds), strict=True))
        for watch, nsid, found in moved:
            self.watched.move(watch, to, nsid)
            if isinstance(found, NetlinkError):
                self.watched.doubtful[watch] = time.monotonic() + FIRST_PAUSE, FIRST_PAUSE
                continue
            before, watch.table = watch.table, table_of(found.values())
            self.reports.compare(watch, before, watch.table)
        self.reports.lose(watches)
        for watch in {*watches} - {watch for watch, _, _ in moved}:
            self._reader.end(watch)  # no reference leads there any more

    def _move_and_report(self, watches: Sequence[Watch], to: Observatory) -> None:
        """Do the same for a user who follows each change: changes until then are reported after a "resync" of each."""
        with self._all_open_again(watches) as opened:
            moved, ids = list(opened), to.assign([owner.fileno() for owner in opened.values()])
        try:
            for watch, nsid in zip(moved, ids, strict=True):
                self.watched.move(watch, to, nsid)
                self.reports.add(watch, RESYNC)
            self._look_again(to, moved)
        except BaseException:
            to.lost = True
            raise
        for watch in {*watches} - {*moved}:
            self._reader.end(watch)  # no reference leads there any more

    @contextmanager
    def _all_open_again(self, watches: Iterable[Watch]) -> Iterator[dict[Watch, ns.Descriptor]]:
        """Open those watched namespaces that references still lead to, until the end of the block."""
        opened: dict[Watch, ns.Descriptor] = {}
        try:
            for watch in watches:
                if (owner := self._open_again(watch)) is not None:
                    opened[watch] = owner
            yield opened
        finally:
            for owner in opened.values():
                owner.close()

    def _open_again(self, watch: Watch) -> ns.Descriptor | None:
        """Open a watched namespace by a reference that still leads there; None if none does."""
        for ref in watch.given():
            try:
                owner = self._open(ref)
            except VethError as error:
                if is_exhaustion(error):
                    raise
                continue
            if ns.identity(owner.fileno())[1] == watch.inode:
                return owner
            owner.close()
        return None

    # --- when events were lost

    def _resync(self, observatory: Observatory, *, partly: bool) -> None:
        began = time.monotonic()
        watches = self.watched.at(observatory)
        apart = observatory.suspect and self.reports.changes is None
        try:
            may_wait = partly and observatory.put_off < _MOST_PUT_OFF
            whole = self._reader.drain_for_now(observatory, partly=may_wait)
            if not whole and (apart or may_wait):
                # The kernel may be queuing nothing until everything is read; or a noisy namespace will soon be watched
                # separately.
                observatory.put_off += 1
                observatory.resync_at = time.monotonic() + (FIRST_PAUSE if apart else 0.0)
                return
            observatory.lost, observatory.put_off = False, 0
            for watch in watches if apart else [None]:
                self.reports.add(watch, RESYNC)
            watches = self.watched.at(observatory)
            self.reports.lose(watches)
            for start in range(0, len(watches), _SLAB):
                self._look_again(observatory, watches[start : start + _SLAB], partly=may_wait)
        except BaseException:
            observatory.lost = True
            raise
        observatory.resync_at = self._rested_at(began)

    def _rested_at(self, began: float) -> float:
        """Return the earliest time for the next dump, after one that began at that time and has just ended."""
        now = time.monotonic()
        return 0.0 if self.reports.changes is None else now + _REST * (now - began)

    def _look_again(
        self, observatory: Observatory, watches: Sequence[Watch], pause: float = FIRST_PAUSE, *, partly: bool = False
    ) -> None:
        published = [watch for watch in watches if watch.fresh is None]
        for watch in watches:
            watch.first = None  # events of its addresses may be lost
        try:
            for watch, found in self._found_again(observatory, watches):
                if found is None:
                    self._reader.end(watch)
                elif isinstance(found, NetlinkError):
                    self.watched.doubtful[watch] = time.monotonic() + pause, min(2 * pause, _LONGEST_PAUSE)
                else:
                    watch.fresh = found
            self._reader.drain_for_now(observatory, partly=partly)
            for watch in published:
                if watch.fresh is not None:
                    new = table_of(watch.fresh.values())
                    self.reports.compare(watch, watch.table, new)
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
