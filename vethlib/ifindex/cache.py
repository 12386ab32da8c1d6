"""IfIndexCache: the public face. It has the lock, hands out what is known, and says when there is news."""

from __future__ import annotations

import errno
import os
import threading
import time
import warnings
import weakref
from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from types import TracebackType
from typing import Final

from .. import ns
from .._nl.addr import AddrMessage
from .._nl.link import LinkMessage
from ..errors import LinkNotFound, NetnsNotFound, SessionClosed
from ..links import Link, NetnsRef, describe, spell
from ..session import Session
from ..session.reading import addresses_of, to_link
from .event import LinkEvent
from .table import Change, Watch
from .watching import Watching

__all__ = ["IfIndexCache"]

_RECEIVE_BUFFER: Final = 32 << 20
_MOST_PENDING: Final = 65536


class IfIndexCache:
    """The links of any number of namespaces, known without asking the kernel, and news of what happens to them.

        with IfIndexCache(session) as cache:
            cache.watch_all(["blue", "pid:42", ""])
            cache.index("veth1", "blue")            # 0.1 µs, no system call
            for event in cache.poll(timeout=1.0):
                print(event.kind, event.netns, event.link)

    What is known is as of the last call of anything but the lookups: :meth:`poll`, :meth:`watch`, :meth:`catch_up`.
    Only a lookup that would fail looks at what is queued first. The cache knows links, not their addresses
    (``addresses`` is always empty). Some things of a link are as of its last event, since the kernel sends none of
    them: its alias, group and alternative names while it is down (netdev_state_change, net/core/dev.c); its other end,
    when that is moved, and until a veth that was just created comes up (``peer_index`` is None till then).

    Nothing is kept open in a watched namespace: it ends when its last user goes. The listening is done from namespaces
    of the cache's own, one for every 512 that are watched; nothing of it shows in home, and nothing stays. It has
    a price: whatever changes a link, on all of the host, takes the kernel 20 ns longer for each namespace watched
    (`_nl/events.py` says why). Raises NotPermitted without CAP_SYS_ADMIN (to make a namespace) or CAP_NET_BROADCAST (to
    hear others), and NetlinkError.

    `session` opens the references, and in turn finds links here instead of asking the kernel, and sees to it that what
    it does is known here at once; it is not closed with the cache. `receive_buffer` is what the kernel may queue
    between two calls, in bytes of its memory, taken when needed: an event is charged some 2 300. When it overflows, the
    watched namespaces are read anew and the differences told, after one "resync" event. With `addresses`, there are
    events when an address comes or goes, too; of those no difference is told.

    Threads may share a cache; each event goes to one of them. A process forked from this one may not use it. Close it,
    or use it in a ``with``.
    """

    def __init__(self, session: Session, *, receive_buffer: int = _RECEIVE_BUFFER, addresses: bool = False) -> None:
        self._closed = True  # until there is something to close
        self._pid = os.getpid()
        self._lock = threading.Lock()
        session._places()  # raises SessionClosed
        self._watching = Watching(partial(_open, session), receive_buffer, _MOST_PENDING, addresses=addresses)
        self._watches = self._watching.watches
        self._closed = False
        self._session = session
        session.attach(self)
        _open_caches.add(self)

    def __enter__(self) -> IfIndexCache:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if not self._closed:
            if self._pid == os.getpid():
                warnings.warn(f"unclosed {self!r}: close it, or use `with IfIndexCache(…)`", ResourceWarning, 2, self)
            self.close()

    def close(self) -> None:
        """End the watch of every namespace; twice is harmless. Who waits in :meth:`poll` gets SessionClosed."""
        if self._pid != os.getpid():
            # A copy, with the lock as it was: a thread may have held it that is not here.
            self._closed = True
            self._watching.close(in_child=True)
            return
        with self._lock:
            if not self._closed:
                self._closed = True
                self._watches = {}
                self._session.detach(self)
                self._watching.close()

    def _check(self) -> None:
        if self._pid != os.getpid():
            raise SessionClosed(
                f"this cache belongs to process {self._pid}: after a fork, the child makes a cache of its own"
            )
        if self._closed:
            raise SessionClosed("this cache is closed")

    @contextmanager
    def _at_work(self) -> Iterator[Watching]:
        """Hold the lock, and leave fileno() readable exactly if there is something to poll."""
        self._check()
        with self._lock:
            self._check()
            watching = self._watching
            try:
                yield watching
            finally:
                if not self._closed:
                    watching.news.set_flag(bool(watching.pending) or watching.dropped or watching.lost)

    # --- which namespaces

    def watch(self, netns: NetnsRef = "") -> None:
        """Know the links of a namespace from now on. Those it has make no events.

        A namespace that is watched already is the same watch, by whatever reference. Where the reference leads to
        another namespace than before (one that was made anew under the name), the watch of the old one is over.

        Raises NetnsNotFound, InvalidValue, NotPermitted, NetlinkError; then nothing has changed.
        """
        self.watch_all([netns])

    def watch_all(self, refs: Iterable[NetnsRef]) -> None:
        """Watch many namespaces: all, or after an error none that was not watched before. Raises as :meth:`watch`."""
        given = ["" if ref is None else ref for ref in refs]
        with self._at_work() as watching:
            watching.watch(given)

    def unwatch(self, netns: NetnsRef = "") -> None:
        """Forget a namespace, by any reference to it. Raises NetnsNotFound when it is not watched."""
        with self._at_work() as watching:
            watching.drop(self._watch_of(netns))

    def netns(self) -> list[NetnsRef]:
        """The references of the namespaces that are watched, each as it was given first."""
        with self._at_work() as watching:
            return watching.netns()

    def _watch_of(self, netns: NetnsRef) -> Watch:
        if netns is None or isinstance(netns, str):
            watch = self._watches.get(netns or "")
            if watch is not None:
                return watch
        watch = self._watching.find(netns)
        if watch is None:
            raise NetnsNotFound(f"{spell(netns)} is not watched: cache.watch({netns!r}) first", netns=str(netns or ""))
        return watch

    # --- lookups

    def index(self, name: str, netns: NetnsRef = "") -> int:
        """The ifindex of a link, by its name or an alternative one.

        Quick (0.1 µs, no lock, no system call) with the reference spelt as it was given to :meth:`watch`; any other
        that leads there will do. Raises LinkNotFound; NetnsNotFound when the namespace is not watched.
        """
        try:
            return self._watches[netns].table[name].ifindex
        except KeyError:
            return self._find(name, netns).ifindex

    def name(self, index: int, netns: NetnsRef = "") -> str:
        """The name of a link, by its ifindex. As :meth:`index`."""
        try:
            return self._watches[netns].table[index].name
        except KeyError:
            return self._find(index, netns).name

    def link(self, name: str, netns: NetnsRef = "") -> Link:
        """A link, by its name or an alternative one. As :meth:`index`; building the Link costs 2 µs."""
        try:
            record = self._watches[netns].table[name]
        except KeyError:
            record = self._find(name, netns)
        return to_link(record, netns, ())

    def links(self, netns: NetnsRef = "") -> list[Link]:
        """All links of a namespace, by ifindex. Raises NetnsNotFound when it is not watched."""
        watch = self._watches.get(netns)
        if watch is None:
            with self._at_work():
                watch = self._watch_of(netns)
        table = watch.table.copy()  # in one step, whatever another thread does
        return [to_link(table[key], netns, ()) for key in sorted(key for key in table if isinstance(key, int))]

    def _find(self, key: str | int, netns: NetnsRef) -> LinkMessage:
        """What a lookup did not find at once."""
        with self._at_work() as watching:
            watching.catch_up()
            record = self._watch_of(netns).table.get(key)
        if record is None:
            request = f"look up {describe(key, netns) if isinstance(key, str) else f'ifindex {key} in {spell(netns)}'}"
            message = f"{request}: there is no such link"
            raise LinkNotFound(message, errno=errno.ENODEV, request=request, netns=str(netns or ""))
        return record

    # --- events

    def catch_up(self) -> None:
        """Apply what the kernel has queued, so that lookups know it; its events stay for :meth:`poll`."""
        with self._at_work() as watching:
            watching.catch_up()

    def poll(self, timeout: float | None = 0) -> list[LinkEvent]:
        """Apply all that has happened and return the events that were not fetched yet, in their order.

        If there are none, wait for some up to `timeout` seconds (None: as long as it takes), and return [] then.
        Raises SessionClosed when the cache is closed meanwhile.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            with self._at_work() as watching:
                watching.catch_up()
                events = self._take(len(watching.pending) + 1)
                left = None if deadline is None else deadline - time.monotonic()
                if events or (left is not None and left <= 0):
                    return events
            watching.news.wait(left)

    def _take(self, most: int) -> list[LinkEvent]:
        """The events that are due, the first of them if there are more."""
        watching = self._watching
        events: list[LinkEvent] = []
        if watching.dropped:
            watching.dropped = False
            events.append(LinkEvent("resync", None))
        while watching.pending and len(events) < most:
            events.append(_event(*watching.pending.popleft()))
        return events

    def fileno(self) -> int:
        """A descriptor that is readable when there may be something to :meth:`poll`; for any kind of event loop."""
        self._check()
        return self._watching.news.fileno()

    async def events(self) -> AsyncGenerator[LinkEvent, None]:
        """Every event as it comes, until the cache is closed.

        An event that was not taken (a ``break``, a cancellation) is there for the next who asks.
        """
        self._check()
        try:
            while True:
                self.catch_up()
                while event := self._next():
                    yield event
                await self._watching.news.wait_async()
        except SessionClosed:
            return

    def _next(self) -> LinkEvent | None:
        with self._at_work():
            return next(iter(self._take(1)), None)

    # --- for the session

    def find(self, identity: tuple[int, int], name: str) -> LinkMessage | None:
        """A link in the namespace of that identity, which the caller has open, as the kernel would show it now.

        None where the kernel has to be asked: the namespace is not watched, there is no such link, or some of what is
        known of it may be old, because it is down (see :class:`IfIndexCache`). 4 µs.
        """
        with self._at_work() as watching:
            watching.catch_up()
            watch = watching.at(identity)
            record = None if watch is None else watch.table.get(name)
        return record if record is not None and record.up else None

    def learn(self, identity: tuple[int, int], message: LinkMessage) -> None:
        """Know at once what the caller has done to a link of which the kernel answered `message` afterwards.

        By then the events of it are queued, and perhaps later ones, so it is they that count; only of what the kernel
        sends no event the message is believed.
        """
        with self._at_work() as watching:
            watching.catch_up()
            if (watch := watching.at(identity)) is not None:
                watching.learn(watch, message)


def _open(session: Session, ref: NetnsRef) -> ns.Descriptor:
    session._places()  # raises SessionClosed
    return ns.open_owned(ref or f"fd:{session._home.fd}", session._resolver)


def _event(watch: Watch | None, change: Change) -> LinkEvent:
    kind, new, old = change
    netns = None if watch is None else watch.netns
    if isinstance(old, AddrMessage):
        assert new is not None
        return LinkEvent(kind, netns, to_link(new, netns, ()), None, *addresses_of([old]))
    return LinkEvent(
        kind,
        netns,
        None if new is None else to_link(new, netns, ()),
        None if old is None else to_link(old, netns, ()),
    )


_open_caches: weakref.WeakSet[IfIndexCache] = weakref.WeakSet()


def _forget_after_fork() -> None:
    """In a forked child: index() asks for no process id, so it is to find nothing there."""
    for cache in _open_caches:
        cache._watches = {}


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_after_fork)
