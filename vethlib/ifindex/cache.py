"""IfIndexCache: the public class. It holds the lock, answers lookups, and queues events."""

from __future__ import annotations

import errno
import os
import weakref
from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Final

from vethlib._closing import WarnsUnclosed
from vethlib._nl.addr import AddrMessage
from vethlib._nl.link import LinkMessage
from vethlib._primitives import RLock, time
from vethlib.errors import (
    InvalidValue,
    LinkNotFound,
    NetnsNotFound,
    SessionClosed,
    VethError,
    belongs_to_parent,
    check_type,
    shown,
)
from vethlib.linkref import NO_REFS, LinkRef, as_list, check_refs, check_several, locate
from vethlib.links import End, Link, NetnsRef, describe, spell
from vethlib.ns.deadline import deadline_after
from vethlib.session import Session
from vethlib.session.read.reading import addresses_of, to_link
from vethlib.session.read.samelink import is_another
from vethlib.session.read.target import replaced, same_link
from vethlib.session.session import open_netns

from .changes import LinkChanges
from .dumps import FirstLook
from .event import LinkEvent
from .reader import GLANCE
from .table import Change
from .watch import Watch
from .watching import Watching

__all__ = ["IfIndexCache"]

_RECEIVE_BUFFER: Final = 32 << 20
_MOST_BUFFERED: Final = (1 << 31) - 1  # setsockopt(2) takes an int
_MOST_PENDING: Final = 65536


class IfIndexCache(WarnsUnclosed):
    """A cache of the links of any number of namespaces, and a source of events about them.

        with IfIndexCache(session) as cache:
            cache.watch_all(["blue", "pid:42", ""])
            cache.index("veth1", "blue")            # 0.1 µs, no system call
            for event in cache.poll(timeout=1.0):
                print(event.kind, event.netns, event.link)

    Lookups answer from memory. The cache is updated by the other calls: :meth:`poll`, :meth:`watch`, :meth:`catch_up`;
    only a lookup that would fail reads queued events first. The cache has links, but not their addresses (``addresses``
    is always empty). Some properties of a link are those of its last event, because the kernel sends no event when they
    change: its alias, group and alternative names while it is down (netdev_state_change, net/core/dev.c), and its peer
    when the peer is moved. ``peer_index`` of a new veth is None until the veth comes up.

    The cache keeps nothing open in a watched namespace, which therefore ends with its last user. Events are received in
    the cache's own namespaces, one for every 512 watched namespaces. This is not visible in the home namespace, and
    leaves nothing behind, but it has a cost: for each watched namespace, every change of a link anywhere on the host
    takes the kernel 20 ns longer (for the reason, see `_nl/events.py`). Watching the home namespace needs no
    capability. Watching any other namespace needs CAP_SYS_ADMIN (to create a namespace and to enter others),
    CAP_NET_ADMIN (to assign nsids) and CAP_NET_BROADCAST (to receive the events). Raises NetlinkError.

    `session` opens the references. In return, it finds links in this cache instead of asking the kernel, and updates
    the cache after each of its changes. Closing the cache does not close the session. `receive_buffer` limits how much
    the kernel can queue between two calls, in bytes of its memory, allocated when needed; an event takes about 2 300
    bytes. When the buffer overflows, the watched namespaces are read again, and the differences are reported after a
    "resync" event. With `addresses`, there are also events for addresses that are added or removed; after an overflow,
    their differences are not reported.

    With `coalesce`, there are no events. Instead, :meth:`changes` returns the links that have changed, one entry per
    link, however often it has changed. It takes a bounded time, and stops watching a namespace that sends too many
    events (for the rules, see `watching.py`). Use it if you read a changed link again anyway.

    Threads can share a cache; each event goes to one of them. A forked process cannot use the cache of its parent.
    Close it, or use it in a ``with`` statement.
    """

    _usage = "IfIndexCache(…)"

    def __init__(
        self,
        session: Session,
        *,
        receive_buffer: int = _RECEIVE_BUFFER,
        addresses: bool = False,
        coalesce: bool = False,
    ) -> None:
        check_type(session, Session, "session", "give the Session that is to use the cache")
        if type(receive_buffer) is not int or not 0 <= receive_buffer <= _MOST_BUFFERED:
            raise InvalidValue("receive_buffer", receive_buffer, f"must be a number of bytes up to {_MOST_BUFFERED}")
        self._pid = os.getpid()
        self._lock = RLock()  # an RLock knows which thread holds it, see _check_free()
        self._device, self._home = session.identity("")  # all namespaces are on one file system
        self._watching = Watching(
            partial(open_netns, session),
            receive_buffer,
            _MOST_PENDING,
            addresses=addresses,
            coalesce=coalesce,
            home=self._home,
        )
        self._watches = self._watching.watched.by_ref
        self._closed = False
        self._session = session
        session.attach(self)
        _open_caches.add(self)

    def close(self) -> None:
        """Stop watching. Calls waiting in :meth:`poll` raise SessionClosed. Closing twice is harmless."""
        if self._pid != os.getpid():
            # A copy, with the lock as it was at the fork: it may be held by a thread that does not exist here.
            self._closed = True
            self._watching.close(in_child=True)
            return
        self._check_free()
        with self._lock:
            if not self._closed:
                self._closed = True
                self._watches = {}
                self._session.detach(self)
                self._watching.close()

    def _check(self) -> None:
        self._check_open()
        self._check_free()

    def _check_open(self) -> None:
        if self._pid != os.getpid():
            raise belongs_to_parent("cache", self._pid)
        if self._closed:
            raise SessionClosed("this cache is closed")

    def _check_free(self) -> None:
        if self._is_held():
            raise VethError("this cache is in use by this thread, which a signal handler has interrupted")

    def _is_held(self) -> bool:
        return bool(self._lock._is_owned())  # type: ignore[attr-defined]  # as threading.Condition asks, too

    def _alone(self) -> AbstractContextManager[object]:
        """Return the lock that :meth:`_at_work` needs.

        Its own methods are C functions, so that an interruption never leaves it locked. Those of a generator are not: a
        traceback keeps a generator that was interrupted at its beginning or end.
        """
        self._check()
        return self._lock

    @contextmanager
    def _at_work(self) -> Iterator[Watching]:
        """Leave fileno() readable if, and only if, there is something to poll. The caller holds the lock."""
        if self._closed:
            raise SessionClosed("this cache is closed")
        watching = self._watching
        try:
            yield watching
        finally:
            if not self._closed and self._is_held():  # not when a traceback that has kept this is collected
                watching.news.set_flag(watching.has_news)

    # --- which namespaces

    def watch(self, netns: NetnsRef = "") -> None:
        """Watch a namespace from now on. There are no events for links that it already has.

        Watching the same namespace again, by any reference, has no effect. If the reference leads to another namespace
        than before (one that was created again with the same name), the watch of the old one ends.

        Raises NetnsNotFound, InvalidValue, NotPermitted or NetlinkError; nothing has changed then.
        """
        self.watch_all([netns])

    def watch_all(self, refs: Iterable[NetnsRef]) -> None:
        """Watch many namespaces. After an error, none of them is newly watched. Raises as :meth:`watch` does."""
        check_several(refs)
        given = ["" if ref is None else ref for ref in as_list(refs, "refs", NO_REFS)]
        with self._alone(), self._at_work() as watching:
            watching.watch(given)

    def watch_and_read(self, refs: Iterable[str]) -> dict[str, FirstLook]:
        """Watch namespaces like :meth:`watch_all`; return the links and addresses of those not watched until now.

        A namespace that could not be read in one attempt is left out of the result. Later changes in the others are
        reported as events.
        """
        given = check_refs(refs)
        with self._alone(), self._at_work() as watching:
            looks = watching.watch(given, reading=True)
        return {ref: look for ref, look in zip(given, looks, strict=True) if look is not None}

    def prepare(self) -> None:
        """Prepare for watching foreign namespaces. Raises NotPermitted if a capability is missing."""
        with self._alone(), self._at_work() as watching:
            watching.prepare()

    def unwatch(self, netns: NetnsRef = "") -> None:
        """Stop watching a namespace, given by any reference to it. Raises NetnsNotFound if it is not watched."""
        with self._alone(), self._at_work() as watching:
            watching.watched.drop(self._watch_of(netns))

    def unwatch_by(self, ref: str) -> str | None:
        """Stop watching a namespace by this reference.

        Returns the first of its other references, by which it is still watched, without losing an event; None if there
        are no others, so that it is no longer watched.
        """
        with self._alone(), self._at_work() as watching:
            other = watching.watched.drop_ref(ref)
            return None if other is None else str(other)

    def netns(self) -> list[NetnsRef]:
        """Return the references of the watched namespaces, each as first given."""
        with self._alone(), self._at_work() as watching:
            return watching.watched.netns()

    def _watch_of(self, netns: NetnsRef) -> Watch:
        if netns is None or isinstance(netns, str):
            watch = self._watches.get(netns or "")
            if watch is not None:
                return watch
        watch = self._watching.find(netns)
        if watch is None:
            raise NetnsNotFound(f"{spell(netns)} is not watched: cache.watch({netns!r}) first", netns=str(netns or ""))
        return watch

    def _watch_by(self, ref: str) -> Watch | None:
        """Return what is watched by exactly this reference. Raises SessionClosed."""
        if (watch := self._watches.get(ref)) is None:
            self._check_open()  # a closed cache watches nothing
        return watch

    # --- lookups

    def index(self, name: LinkRef, netns: NetnsRef = "") -> int:
        """Return the ifindex of a link, given its name, an alternative name, a Link or an End.

        This takes 0.1 µs, no lock and no system call if the reference is spelt as in :meth:`watch`; other references to
        the namespace also work. Raises LinkNotFound, and NetnsNotFound if the namespace is not watched.
        """
        try:
            return self._watches[netns].table[name].ifindex  # type: ignore[index]  # a key that is no name is simply missing
        except (KeyError, TypeError):  # an object need not be hashable
            return self._located(name, netns)[1].ifindex

    def name(self, index: int | Link, netns: NetnsRef = "") -> str:
        """Return the current name of a link, given its ifindex or a Link. Errors and cost are as for :meth:`index`."""
        try:
            return self._watches[netns].table[index].name  # type: ignore[index]  # as above
        except (KeyError, TypeError):
            if isinstance(index, Link):
                return self._named(index, netns)
            return self._find(check_type(index, int, "index", "give an ifindex or a Link"), netns)[1].name

    def link(self, name: LinkRef, netns: NetnsRef = "") -> Link:
        """Return a link, given its name or an alternative name. Errors and cost are as for :meth:`index`, plus 2 µs."""
        try:
            watch = self._watches[netns]
            record = watch.table[name]  # type: ignore[index]  # as above
        except (KeyError, TypeError):
            watch, record, netns = self._located(name, netns)
        return _link(watch, record, netns)

    def links(self, netns: NetnsRef = "") -> list[Link]:
        """Return all links of a namespace, ordered by ifindex. Raises NetnsNotFound if it is not watched."""
        watch = self._watches.get(netns) if isinstance(netns, str) else None
        if watch is None:
            with self._alone(), self._at_work():
                watch = self._watch_of(netns)
        table = watch.table.copy()  # atomic, so another thread cannot change it meanwhile
        return [_link(watch, table[key], netns) for key in sorted(key for key in table if isinstance(key, int))]

    def _located(self, link: LinkRef, netns: NetnsRef) -> tuple[Watch, LinkMessage, NetnsRef]:
        """Return a link that a lookup did not find at once (perhaps given as a Link or End), and its namespace."""
        name, netns, index, seen = locate(link, netns)
        watch = self._watches.get(netns) if isinstance(link, Link | End) and isinstance(netns, str) else None
        record = None if watch is None else watch.table.get(name)
        if watch is None or record is None or index not in (None, record.ifindex):
            watch, record = self._find(name, netns)
        same_link(record.ifindex, index, name, netns)
        if seen is not None:
            self._check_seen(seen, watch, record)
        return watch, record, netns

    def _named(self, link: Link, netns: NetnsRef) -> str:
        """Return the present name of a link that was read."""
        _, where, index, seen = locate(link, netns)
        watch, record = self._find(index or 0, where)
        if seen is not None:
            self._check_seen(seen, watch, record)
        return record.name

    def _check_seen(self, seen: Link, watch: Watch, record: LinkMessage) -> None:
        """Raise LinkNotFound if a Link is not the link that has its ifindex now."""
        if self._is_another(seen, watch, record):
            raise replaced(seen.name, seen.netns, f"look up {describe(seen.name, seen.netns)}")

    def _is_another(self, seen: Link, watch: Watch, record: LinkMessage) -> bool:
        return is_another(seen, record, watch.cookie or 0, in_home=watch.inode == self._home)

    def _find(self, key: str | int, netns: NetnsRef) -> tuple[Watch, LinkMessage]:
        """Return a link that a lookup did not find at once, after reading queued events."""
        with self._alone(), self._at_work() as watching:
            watching.catch_up()
            watch = self._watch_of(netns)
            record = watch.table.get(key)
        if record is None:
            what = describe(key, netns) if isinstance(key, str) else f"ifindex {shown(key)} in {spell(netns)}"
            request = f"look up {what}"
            message = f"{request}: there is no such link"
            raise LinkNotFound(message, errno=errno.ENODEV, request=request, netns=str(netns or ""))
        return watch, record

    # --- events

    def catch_up(self) -> None:
        """Apply the events that the kernel has queued, so that lookups are current; :meth:`poll` returns them later.

        Raises SessionClosed, and NetlinkError for an error that affects all namespaces (no descriptor is left).
        """
        with self._alone(), self._at_work() as watching:
            watching.catch_up(GLANCE)

    def poll(self, timeout: float | None = 0) -> list[LinkEvent]:
        """Apply queued events, and return those not returned yet, in order.

        If there are very many, some are left for the next call, and :meth:`fileno` stays readable. If there are none,
        wait for events up to `timeout` seconds (None: without limit), and return [] on timeout. Raises SessionClosed if
        the cache is closed, even during the wait, NetlinkError as :meth:`catch_up` does, and InvalidValue for a bad
        time-out.
        """
        deadline = deadline_after(timeout)
        while True:
            with self._alone(), self._at_work() as watching:
                watching.catch_up(partly=True)
                events = self._take(len(watching.reports.pending) + 1)
                if events or (deadline is not None and deadline <= time.monotonic()):
                    return events
                left = watching.left(deadline)
            watching.news.wait(left)

    def changes(self) -> LinkChanges:
        """Read events for a bounded time and return what has changed; for a cache that coalesces.

        If there is more to read, :meth:`fileno` stays readable, or :meth:`due` returns the time of the next call.
        Raises SessionClosed, NetlinkError, and InvalidValue if the cache does not coalesce.
        """
        with self._alone(), self._at_work() as watching:
            if watching.reports.changes is None:
                raise InvalidValue("coalesce", False, "use poll(): only IfIndexCache(…, coalesce=True) has changes()")
            watching.catch_up()
            return watching.take_changes()

    def due(self) -> float | None:
        """Return when, by the monotonic clock, to call :meth:`changes` or :meth:`poll` even without an event.

        None means never. A failed dump is repeated at that time; :meth:`poll` and :meth:`events` wait no longer than
        that.
        """
        self._check_open()
        return self._watching.due

    def excuse(self, identities: Iterable[tuple[int, int]]) -> None:
        """Do not count past events in these namespaces as noise, because the caller caused them."""
        with self._alone(), self._at_work() as watching:
            watching.excuse([inode for _, inode in identities])

    def _take(self, most: int) -> list[LinkEvent]:
        """Return the pending events, up to `most`."""
        reports = self._watching.reports
        events: list[LinkEvent] = []
        if reports.dropped:
            reports.dropped = False
            events.append(LinkEvent("resync", None))
        while reports.pending and len(events) < most:
            events.append(_event(*reports.pending.popleft()))
        return events

    def fileno(self) -> int:
        """Return a descriptor, for any kind of event loop, that is readable when :meth:`poll` may have events."""
        self._check()
        return self._watching.news.fileno()

    async def events(self) -> AsyncGenerator[LinkEvent, None]:
        """Yield each event as it arrives, until the cache is closed.

        An event that was not consumed (because of a ``break`` or a cancellation) is returned by the next call.
        """
        self._check()
        try:
            while True:
                with self._alone(), self._at_work() as watching:
                    watching.catch_up(partly=True)
                while event := self._next():
                    yield event
                with self._alone(), self._at_work() as watching:
                    left = watching.left()
                await watching.news.wait_async(left)
        except SessionClosed:
            return

    def _next(self) -> LinkEvent | None:
        with self._alone(), self._at_work():
            return next(iter(self._take(1)), None)

    def is_at(self, netns: str, identity: tuple[int, int]) -> bool:
        """Return whether the namespace that is watched by this reference has that identity."""
        watch = self._watch_by(netns)
        return watch is not None and watch.inode == identity[1]

    def identity(self, netns: str) -> tuple[int, int] | None:
        """Return the identity of the namespace that is watched by this reference; None if it is not watched."""
        watch = self._watch_by(netns)
        return None if watch is None else (self._device, watch.inode)

    def references(self, netns: str) -> list[str]:
        """Return all references by which a namespace is watched, given one of them; empty if it is not watched."""
        watch = self._watch_by(netns)
        return [] if watch is None else list(watch.spellings)

    def record(self, netns: str, index: int) -> LinkMessage | None:
        """Return a link that is watched by this reference, as of its last event; None if there is no such link."""
        watch = self._watch_by(netns)
        return None if watch is None else watch.table.get(index)

    def is_still(self, link: Link, netns: str) -> bool:
        """Return whether a Link is the link that has its ifindex where this reference leads, as of its last event."""
        watch = self._watch_by(netns)
        record = None if watch is None else watch.table.get(link.index)
        return watch is not None and record is not None and not self._is_another(link, watch, record)

    # --- for the session

    def find(self, identity: tuple[int, int], name: str) -> LinkMessage | None:
        """Return a link of the namespace with that identity, which the caller has open, in its current state.

        Return None if the kernel has to be asked: the namespace is not watched, the link is missing, or the cache may
        be outdated, because the link is down (see :class:`IfIndexCache`), events are still queued, or an event of the
        namespace was lost and the dump to make up for it has failed. This takes 4 µs.
        """
        with self._alone(), self._at_work() as watching:
            whole = watching.catch_up(GLANCE)
            watch = watching.at(identity) if whole else None
            record = None if watch is None or watch in watching.watched.doubtful else watch.table.get(name)
        return record if record is not None and record.up else None

    def cookie_of(self, identity: tuple[int, int]) -> int:
        """Return the cookie of the namespace with that identity, which the caller has open; 0 if it is not known."""
        with self._alone(), self._at_work() as watching:
            watch = watching.at(identity) if watching.catch_up(GLANCE) else None
        return 0 if watch is None else watch.cookie or 0

    def learn(self, identity: tuple[int, int], message: LinkMessage) -> None:
        """Update the cache after the caller has changed a link, for which the kernel then returned `message`.

        By then, the events of the change are queued, and possibly later ones, so events take precedence. `message` is
        used only for properties that have no events.
        """
        with self._alone(), self._at_work() as watching:
            watching.catch_up(GLANCE)
            if (watch := watching.at(identity)) is not None:
                watching.learn(watch, message)


def _event(watch: Watch | None, change: Change) -> LinkEvent:
    kind, new, old = change
    netns = None if watch is None else watch.netns
    if isinstance(old, AddrMessage):
        assert new is not None
        return LinkEvent(kind, netns, _link(watch, new, netns), None, *addresses_of([old]))
    return LinkEvent(
        kind,
        netns,
        None if new is None else _link(watch, new, netns),
        None if old is None else _link(watch, old, netns),
    )


def _link(watch: Watch | None, record: LinkMessage, netns: NetnsRef) -> Link:
    return to_link(record, netns, cookie=0 if watch is None else watch.cookie or 0)


_open_caches: weakref.WeakSet[IfIndexCache] = weakref.WeakSet()


def _forget_after_fork() -> None:
    """Empty the caches of a forked child, because index() does not check the process id."""
    for cache in _open_caches:
        cache._watches = {}


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_after_fork)
