"""The watched namespaces and what is known of their links: brought up to date by dumps and events.

How nothing is lost, and nothing told twice:

1. A namespace gets its id first, so that from then on its events are queued. Then it is dumped. Then the queue is read
   to its end, and what it says of the namespace is applied to what the dump found, silently: part of it happened before
   the dump. What comes later is told.
2. An event that leaves the link as it is known changes nothing, and is not told.
3. Where events were lost (ENOBUFS), the queue is read empty, for only then does the kernel queue anew; then every
   namespace that was heard there is dumped as in 1, and the differences are told, after one "resync".
4. Whatever interrupts applying (a KeyboardInterrupt) may have lost an event: that is a case of 3.
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import count
from struct import Struct
from typing import Final

from .. import ns
from .._nl.addr import AddrMessage, parse_addr
from .._nl.const import (
    RTM_DELADDR,
    RTM_DELLINK,
    RTM_DELNSID,
    RTM_NEWADDR,
    RTM_NEWLINK,
    RTNLGRP_IPV4_IFADDR,
    RTNLGRP_IPV6_IFADDR,
    RTNLGRP_LINK,
)
from .._nl.dump import link_bodies
from .._nl.events import EventSocket
from .._nl.link import LinkMessage, parse_link
from .._nl.nsid import parse_nsid
from .._nl.wire import messages
from ..errors import NetnsNotFound, VethError
from ..links import NetnsRef
from ..session.refusal import system_errors
from .event import EventKind
from .news import News
from .observatory import FIRST_ID, ROOM, Observatory
from .table import Change, Watch, differences, put, record_of, records, remove, table_of

__all__ = ["Watching"]

_SLAB: Final = 128  # namespaces open at one time
_RESYNCS: Final = 3  # at one time; in a storm that never ends they would never end
_INDEX: Final = Struct("=4xi")  # of struct ifinfomsg

_LINKS: Final = (RTNLGRP_LINK,)
_WITH_ADDRESSES: Final = (RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR)
_OF_ADDRESSES: Final[dict[int, EventKind]] = {RTM_NEWADDR: "address", RTM_DELADDR: "address-gone"}

_RESYNC: Final[Change] = ("resync", None, None)
_GONE: Final[Change] = ("netns-gone", None, None)


class Watching:
    """Not for several threads at once: the cache sees to that.

    `open_ref` opens a reference. At most `most_pending` changes are kept for a user who does not fetch them; after that
    the oldest go, and `dropped` says so. With `addresses`, those that come and go are told, too.
    """

    def __init__(
        self,
        open_ref: Callable[[NetnsRef], ns.Descriptor],
        receive_buffer: int,
        most_pending: int,
        *,
        addresses: bool = False,
    ) -> None:
        self._open = open_ref
        self._groups = _WITH_ADDRESSES if addresses else _LINKS
        self._receive_buffer = receive_buffer
        self._ids = count(FIRST_ID)
        self._by_nsid: dict[int, Watch] = {}
        self._by_inode: dict[int, Watch] = {}
        self.watches: dict[object, Watch] = {}  # by the texts they were asked for by
        self.pending: deque[tuple[Watch | None, Change]] = deque(maxlen=most_pending)
        self.dropped = False
        with system_errors("watch namespaces"):
            self.news = News()
        self._observatories: list[Observatory] = []
        self._by_fd: dict[int, Observatory] = {}  # whose socket it is
        try:
            self._room()
        except BaseException:
            self.news.close()
            raise

    def close(self, *, in_child: bool = False) -> None:
        """Give everything back; who waits for news is woken. A forked child closes the descriptors and no more."""
        for observatory in self._observatories:
            observatory.close()
        if in_child:
            self.news.close_here()
        else:
            self.news.close()

    @property
    def lost(self) -> bool:
        """Whether events were lost and that is not repaired yet."""
        return any(observatory.lost for observatory in self._observatories)

    def _room(self) -> Observatory:
        """An observatory that has room for more."""
        for observatory in self._observatories:
            if observatory.watched < ROOM:
                return observatory
        observatory = Observatory(self._ids, self._groups, self._receive_buffer)
        self._observatories.append(observatory)
        for socket in (observatory.links, observatory.ends):
            self._by_fd[socket.fileno()] = observatory
            self.news.add(socket)
        return observatory

    # --- which namespaces

    def watch(self, refs: Sequence[NetnsRef]) -> None:
        """Watch all of them, or none. Raises what opening a reference raises, NotPermitted, NetlinkError."""
        admitted: list[tuple[NetnsRef, Watch]] = []
        try:
            for start in range(0, len(refs), _SLAB):
                admitted += self._admit(refs[start : start + _SLAB])
            self.catch_up()  # a queue that overflowed meanwhile is repaired while nothing is told yet
        except BaseException:
            for watch in list(self._by_nsid.values()):
                if watch.fresh is not None:
                    self.drop(watch)
            raise
        for ref, watch in admitted:
            if self._by_nsid.get(watch.nsid) is watch:  # has not ended meanwhile
                self._publish(ref, watch)

    def _admit(self, refs: Sequence[NetnsRef]) -> list[tuple[NetnsRef, Watch]]:
        """The watch of each reference; one that is new has its links in `fresh`."""
        opened: list[tuple[NetnsRef, ns.Descriptor, int]] = []
        try:
            for ref in refs:
                owner = self._open(ref)
                opened.append((ref, owner, ns.identity(owner.fileno())[1]))
            # What is open is alive. An inode number is given to another namespace only after the RTM_DELNSID of its
            # last owner (ns_free_inum in net_ns_net_exit), so that after this a known number means that namespace.
            self.catch_up()
            new = {inode: (ref, owner) for ref, owner, inode in opened if inode not in self._by_inode}
            if new:
                self._begin(new)
            return [(ref, self._by_inode[inode]) for ref, _, inode in opened]
        finally:
            for _, owner, _ in opened:
                owner.close()

    def _begin(self, new: dict[int, tuple[NetnsRef, ns.Descriptor]]) -> None:
        observatory = self._room()
        fds = [owner.fileno() for _, owner in new.values()]
        ids = observatory.assign(fds)
        for nsid, (inode, (ref, _)), found in zip(ids, new.items(), _look_into(fds), strict=True):
            watch = Watch(observatory, nsid, inode)
            watch.add_ref(ref)
            watch.fresh = found
            self._by_nsid[nsid] = self._by_inode[inode] = watch
            observatory.watched += 1
        self._drain(observatory)

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
        """The reference leads to another namespace now; a watch that no other one leads to is over."""
        others = tuple(one for one in watch.refs if one != ref)
        if others:
            watch.refs = others
        else:
            self._end(watch)

    def find(self, ref: NetnsRef) -> Watch | None:
        """The watch of the namespace that `ref` leads to."""
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
        """How each namespace that is watched was asked for first."""
        return [watch.netns for watch in self._by_nsid.values() if watch.fresh is None]

    def at(self, identity: tuple[int, int]) -> Watch | None:
        """The watch of a namespace that is open, after :meth:`catch_up`."""
        return self._by_inode.get(identity[1])

    def drop(self, watch: Watch) -> None:
        """Stop watching. The id stays until the observatory ends; its events are read and dropped."""
        if self._by_nsid.pop(watch.nsid, None) is None:
            return
        watch.observatory.watched -= 1
        for spelling in watch.spellings:
            if self.watches.get(spelling) is watch:
                del self.watches[spelling]
        if self._by_inode.get(watch.inode) is watch:
            del self._by_inode[watch.inode]
        watch.table = {}
        watch.fresh = None

    def _end(self, watch: Watch) -> None:
        self.drop(watch)
        self.tell(watch, _GONE)

    # --- what happens in them

    def tell(self, watch: Watch | None, change: Change | None) -> None:
        """Keep a change for the user, if there is one."""
        if change is not None:
            self.dropped = self.dropped or len(self.pending) == self.pending.maxlen
            self.pending.append((watch, change))

    def catch_up(self) -> None:
        """Apply all that has happened so far. Raises NetlinkError when a resync that is due fails; it stays due."""
        for fd in self.news.readable():
            if fd in self._by_fd:
                self._drain(self._by_fd[fd])
        for _ in range(_RESYNCS):
            if not self.lost:
                return
            for observatory in self._observatories:
                if observatory.lost:
                    self._resync(observatory)

    def _drain(self, observatory: Observatory) -> None:
        """Apply what is queued: the links first, for after its end a namespace has none."""
        try:
            self._read(observatory, observatory.links, self._apply)
            self._read(observatory, observatory.ends, self._apply_end)
        except BaseException:
            observatory.lost = True
            raise

    def _read(self, observatory: Observatory, events: EventSocket, apply: Callable[[int, bytes], None]) -> None:
        receive = events.receive
        for _ in range(events.capacity):  # and no more, for in a storm the queue has no end
            try:
                event = receive()
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    with system_errors("hear of the links of the watched namespaces"):
                        raise
                observatory.lost = True
                continue
            if event is None:
                return
            apply(*event)

    def _apply(self, nsid: int, datagram: bytes) -> None:
        watch = self._by_nsid.get(nsid)
        if watch is None:
            return
        for kind, _flags, _sequence, start, end in messages(datagram):
            if kind in _OF_ADDRESSES:
                self._tell_address(watch, _OF_ADDRESSES[kind], parse_addr(datagram[start:end]))
            elif datagram[start]:
                continue  # a family of its own, as AF_BRIDGE: the link as a port of a bridge, or leaving it
            elif kind == RTM_NEWLINK:
                self._put(watch, record_of(parse_link(datagram[start:end])))
            elif kind == RTM_DELLINK:
                self._remove(watch, _INDEX.unpack_from(datagram, start)[0])

    def _tell_address(self, watch: Watch, kind: EventKind, address: AddrMessage) -> None:
        record = watch.table.get(address.ifindex)
        if watch.fresh is None and record is not None:
            self.tell(watch, (kind, record, address))

    def _put(self, watch: Watch, record: LinkMessage) -> None:
        if watch.fresh is None:
            self.tell(watch, put(watch.table, record))
        else:
            watch.fresh[record.ifindex] = record

    def _remove(self, watch: Watch, index: int) -> None:
        if watch.fresh is None:
            self.tell(watch, remove(watch.table, index))
        else:
            watch.fresh.pop(index, None)

    def _apply_end(self, _nsid: int, datagram: bytes) -> None:
        for kind, _flags, _sequence, start, end in messages(datagram):
            if kind == RTM_DELNSID:
                nsid = parse_nsid(datagram[start:end])
                if nsid is not None and (watch := self._by_nsid.get(nsid)) is not None:
                    self._end(watch)

    def learn(self, watch: Watch, message: LinkMessage) -> None:
        """Take from `message` what the kernel sends no event of: it says nothing when the alias, the group or the
        alternative names of a link change that is down (netdev_state_change, net/core/dev.c).
        """
        known = watch.table.get(message.ifindex)
        if known is not None and not known.up and not message.up:
            now = known._replace(alias=message.alias, group=message.group, altnames=message.altnames)
            self.tell(watch, put(watch.table, now))

    # --- when events were lost

    def _resync(self, observatory: Observatory) -> None:
        try:
            self._drain(observatory)
            observatory.lost = False
            self.tell(None, _RESYNC)
            watches = [watch for watch in self._by_nsid.values() if watch.observatory is observatory]
            for start in range(0, len(watches), _SLAB):
                self._look_again(observatory, watches[start : start + _SLAB])
        except BaseException:
            observatory.lost = True
            raise

    def _look_again(self, observatory: Observatory, watches: Iterable[Watch]) -> None:
        published = [watch for watch in watches if watch.fresh is None]
        try:
            for watch, found in self._found_again(observatory, watches):
                if found is None:
                    self._end(watch)
                else:
                    watch.fresh = found
            self._drain(observatory)
            for watch in published:
                if watch.fresh is not None:
                    new = table_of(watch.fresh.values())
                    for change in differences(watch.table, new):
                        self.tell(watch, change)
                    watch.table = new
        finally:
            for watch in published:
                watch.fresh = None

    def _found_again(
        self, observatory: Observatory, watches: Iterable[Watch]
    ) -> list[tuple[Watch, dict[int, LinkMessage] | None]]:
        """The links of each, None for one that has ended."""
        opened: list[tuple[Watch, ns.Descriptor]] = []
        astray: list[Watch] = []  # no reference leads there any more
        try:
            for watch in watches:
                try:
                    opened.append((watch, self._open(watch.netns)))
                except VethError:
                    astray.append(watch)
            ids = observatory.ids_of([owner.fileno() for _, owner in opened])
            there = [(watch, owner) for (watch, owner), nsid in zip(opened, ids, strict=True) if nsid == watch.nsid]
            astray += [watch for (watch, _), nsid in zip(opened, ids, strict=True) if nsid != watch.nsid]
            found = _look_into([owner.fileno() for _, owner in there])
        finally:
            for _, owner in opened:
                owner.close()
        again: list[tuple[Watch, dict[int, LinkMessage] | None]] = [
            (watch, links) for (watch, _), links in zip(there, found, strict=True)
        ]
        return again + [(watch, observatory.links_of(watch.nsid)) for watch in astray]


def _look_into(fds: Sequence[int]) -> list[dict[int, LinkMessage]]:
    with system_errors("list the links of the watched namespaces"):
        return [records(bodies) for bodies in ns.map_in(fds, link_bodies)]


def _other_spelling(ref: str) -> str:
    """ "netns:blue" for "blue", and the other way round."""
    return ref.removeprefix("netns:") if ref.startswith("netns:") else f"netns:{ref}"
