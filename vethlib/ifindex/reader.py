"""Read queued events, and apply them to the tables of the watched namespaces.

This follows the rules in `watching.py`.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from struct import Struct
from typing import Final

from vethlib._nl.addr import AddrMessage, parse_addr
from vethlib._nl.const import RTM_DELADDR, RTM_DELLINK, RTM_DELNSID, RTM_NEWADDR, RTM_NEWLINK
from vethlib._nl.events import OWN, EventSocket, is_wireless_event
from vethlib._nl.link import LinkMessage, parse_link
from vethlib._nl.nsid import parse_nsid
from vethlib._nl.wire import messages
from vethlib._primitives import time
from vethlib.errors import Malformed
from vethlib.session.core.refusal import system_errors

from .changes import GONE, Reports
from .event import EventKind
from .noise import Noise
from .observatory import Observatory
from .table import put, record_of, remove
from .watch import Watch
from .watched import Watched

__all__ = ["FIRST_PAUSE", "GLANCE", "EventReader"]

FIRST_PAUSE: Final = 1.0
"""Seconds between a failed dump and the next attempt."""

SLICE: Final = 0.05
"""The longest time, in seconds, for which one call reads events if they are coalesced, or if it returns them."""

GLANCE: Final = 0.002
"""The same for a caller that asks the kernel anyway, and only needs the latest events applied first."""

_LONG: Final = 1024
"""If each event is reported, these bytes count as one more event: reading alternative names takes the most time."""

_CLOCK: Final = 64  # events that are read between two checks of the clock
_INDEX: Final = Struct("=4xi")  # of struct ifinfomsg and of struct ifaddrmsg
_OF_ADDRESSES: Final[dict[int, EventKind]] = {RTM_NEWADDR: "address", RTM_DELADDR: "address-gone"}


class EventReader:
    """Applies events to `watched`, and adds the changes to `reports`. `noise` counts the events of each namespace."""

    def __init__(self, watched: Watched, reports: Reports, noise: Noise) -> None:
        self._watched = watched
        self._by_nsid = watched.by_nsid
        self._reports = reports
        self._report = reports.add
        self._noise = noise
        self._turn = 0  # which socket is read first

    def read(self, ready: Sequence[Observatory], most: float | None, *, partly: bool = False) -> bool:
        """Apply queued events, and return whether all were read: always, unless events are coalesced, or `partly`.

        Otherwise, each observatory has its share of `most` seconds (None: `SLICE`) of this thread's own time, so that
        events queued at once are read together even on a busy machine.
        """
        if self._reports.changes is None and not partly:
            for observatory in ready:
                self.drain(observatory)
            return True
        self._turn += self._reports.changes is not None  # if not, the order of events stays the same
        first = self._turn % len(ready) if ready else 0
        until, whole = time.thread_time() + (SLICE if most is None else most), True
        for number, observatory in enumerate([*ready[first:], *ready[:first]]):
            now = time.thread_time()
            whole = self.drain(observatory, now + (until - now) / (len(ready) - number)) and whole
        return whole

    def drain(self, observatory: Observatory, until: float | None = None) -> bool:
        """Apply queued events, those of links before the ends of namespaces; return whether all were read."""
        try:
            whole = self._read(observatory, observatory.links, self._apply, until)
            if observatory.ends is not None:
                self._read(observatory, observatory.ends, self._apply_end, None)
        except BaseException:
            observatory.lost = True
            raise
        return whole

    def drain_for_now(self, observatory: Observatory, *, partly: bool = False) -> bool:
        """Apply events queued so far, and return whether all were read.

        The rest may follow later if they are coalesced, because they only name links, or if a flood would delay others.
        """
        is_limited = partly or observatory.suspect or self._reports.changes is not None
        return self.drain(observatory, time.thread_time() + SLICE if is_limited else None)

    def _read(
        self,
        observatory: Observatory,
        events: EventSocket,
        apply: Callable[[int, bytes, int], None],
        until: float | None,
    ) -> bool:
        receive = events.receive
        read, next_glance = 0, _CLOCK
        while read < events.capacity:  # a limit, because in a storm the queue never ends
            try:
                event = receive()
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    with system_errors("receive events of the watched namespaces"):
                        raise
                observatory.lost = True
                read += 1
                continue
            if event is None:
                return True
            nsid, datagram, number = event
            try:
                if datagram is None:
                    raise Malformed("an event longer than the buffer")
                apply(nsid, datagram, number)
            except Malformed:
                self._doubt(observatory, nsid)
            read += number
            if until is not None and read >= next_glance:
                next_glance = read + _CLOCK
                if time.thread_time() >= until:
                    return False
        return False

    def _doubt(self, observatory: Observatory, nsid: int) -> None:
        """Schedule a dump of a namespace after an event that cannot be read (rule 5)."""
        if nsid == OWN:
            observatory.lost = True  # perhaps a namespace has ended
        elif (watch := self._by_nsid.get(nsid)) is not None:
            self._watched.doubtful.setdefault(watch, (watch.rests_until, FIRST_PAUSE))

    def _apply(self, nsid: int, datagram: bytes, number: int) -> None:
        watch = self._by_nsid.get(nsid)
        if watch is None:
            return
        changes = self._reports.changes
        if changes is None:
            number += len(datagram) // _LONG
        self._noise.add(nsid, number)
        for kind, _flags, _sequence, start, end in messages(datagram):
            if kind in _OF_ADDRESSES:
                if changes is None or not changes.ignores(watch, _INDEX.unpack_from(datagram, start)[0]):
                    self._report_address(watch, _OF_ADDRESSES[kind], parse_addr(datagram[start:end]))
            elif datagram[start]:
                continue  # of another family (AF_BRIDGE): the link as a port of a bridge
            elif kind == RTM_NEWLINK:
                link = parse_link(body := datagram[start:end])
                if link.mtu or not is_wireless_event(body):  # a wireless event has no MTU
                    self._put(watch, record_of(link))
            elif kind == RTM_DELLINK:
                self._remove(watch, _INDEX.unpack_from(datagram, start)[0])

    def _report_address(self, watch: Watch, kind: EventKind, address: AddrMessage) -> None:
        if watch.fresh is not None:
            if watch.first is not None:
                watch.first.note_address(address, added=kind == "address")
            return
        record = watch.table.get(address.ifindex)
        if record is None:
            return
        if self._reports.changes is None:
            self._report(watch, (kind, record, address))
        else:
            self._reports.changes.note_address(watch, address.ifindex, address, kind == "address")

    def _put(self, watch: Watch, record: LinkMessage) -> None:
        if watch.fresh is not None:
            watch.fresh[record.ifindex] = record
        elif (change := put(watch.table, record)) is not None:
            self._report(watch, change)
            return
        if self._reports.changes is not None:
            self._reports.changes.unclear.add((watch, record.ifindex))

    def _remove(self, watch: Watch, index: int) -> None:
        if watch.fresh is None:
            self._report(watch, remove(watch.table, index))
        else:
            watch.fresh.pop(index, None)

    def _apply_end(self, _nsid: int, datagram: bytes, _number: int) -> None:
        for kind, _flags, _sequence, start, end in messages(datagram):
            if kind == RTM_DELNSID:
                nsid = parse_nsid(datagram[start:end])
                if nsid is not None and (watch := self._by_nsid.get(nsid)) is not None:
                    self.end(watch)

    def end(self, watch: Watch) -> None:
        """Stop watching a namespace that has ended, and report that."""
        self._watched.drop(watch)
        self._report(watch, GONE)
