"""Monitor: one descriptor for all that happens to the namespaces, links and addresses of a host.

Theory of operation:

1. The links are known by an IfIndexCache, whose events become ours. It watches home, every named namespace, and those
   that were asked for.
2. That a name comes or goes is heard by inotify, that a namespace is mounted on it by the mount table
   (`directory.py`); both only say when to look. What a name leads to is compared by identity, and anew when the kernel
   says that a namespace has ended, for its identity may be given to the next one at once.
3. A name that is there, but leads to no namespace yet, is tried again with the next event of the mount table: a
   namespace is made in two steps.
4. What the agent says of its interfaces are files (`vethlib.agent.stores.statuses`), read again when they change.
5. All work is done in :meth:`Monitor.poll`, by the thread that calls it.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing
from types import TracebackType
from typing import Any

from vethlib import ns
from vethlib.agent.follow import Follower
from vethlib.agent.instance import status_directory
from vethlib.agent.stores.published import DirectoryStatuses
from vethlib.errors import SessionClosed, VethError
from vethlib.ifindex import IfIndexCache, LinkEvent
from vethlib.links import Address, Link
from vethlib.ns.reference import NETNS_DIR
from vethlib.session import Session
from vethlib.session.refusal import system_errors

from .directory import Directory
from .event import Action, HostEvent, LinkName, changes_between
from .peers import Peers

__all__ = ["Monitor"]


class Monitor:
    """Tells every change of namespaces, links and addresses on this host, and of the states an agent gives interfaces.

        with Session() as session, Monitor(session) as monitor:
            while True:
                for event in monitor.poll(timeout=None):
                    print(event.what, event.action, event.netns, event.name, event.changes)

    Watched are home, every named namespace as it comes and goes, and those of `refs`, whenever they are there. With a
    `label`, what the agent of that label on this host says is told, too, from `status_dir` (default:
    /run/vethlib/LABEL/status).

    It starts no thread: :meth:`fileno` is readable when there may be something to :meth:`poll`. Nothing in it keeps a
    namespace alive. Not for several threads at once; close it, or use it in a ``with``.

    Raises :class:`~vethlib.NetnsNotFound` for a reference of `refs` that leads nowhere, and as
    :class:`~vethlib.IfIndexCache` does: NotPermitted without CAP_SYS_ADMIN or CAP_NET_BROADCAST, NetlinkError.
    """

    def __init__(
        self, session: Session, refs: Iterable[str] = (), *, label: str | None = None, status_dir: str = ""
    ) -> None:
        self._closed = False
        self._session = session
        self._asked = [str(ns.parse(ref)) for ref in refs]
        self._watched: dict[str, tuple[int, int]] = {}  # named namespaces, and what each is
        self._kept = {session.identity(ref) for ref in ("", *self._asked)}
        self._peers = Peers(session)
        self._statuses: DirectoryStatuses | None = None
        self._states: dict[str, dict[str, Any]] = {}
        with ExitStack() as opened, system_errors("watch this host"):
            self._cache = opened.enter_context(IfIndexCache(session, addresses=True))
            self._follower = opened.enter_context(Follower(session.resolver))
            self._names = opened.enter_context(closing(Directory(NETNS_DIR)))
            self._epoll = opened.enter_context(closing(select.epoll()))
            for one in (self._cache, self._follower, self._names):
                self._epoll.register(one.fileno(), select.EPOLLIN)
            if label is not None:
                directory = status_dir or status_directory(label)
                self._said = opened.enter_context(closing(Directory(directory)))
                self._epoll.register(self._said.fileno(), select.EPOLLIN)
                self._statuses = DirectoryStatuses(directory, label)
                self._states = dict(self._statuses.read().entries)
            self._follower.follow(self._asked)
            self._cache.watch_all(["", *self._asked])
            for _ in self._look_at_names():
                pass  # what is there at the start is no news
            self._peers.meet(self._links())
            self._opened = opened.pop_all()

    def __enter__(self) -> Monitor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop watching; twice is harmless."""
        if not self._closed:
            self._closed = True
            self._opened.close()

    def fileno(self) -> int:
        """A descriptor that is readable when there may be something to :meth:`poll`."""
        self._check()
        return self._epoll.fileno()

    def _check(self) -> None:
        if self._closed:
            raise SessionClosed("this monitor is closed")

    # --- what is there

    @property
    def netns(self) -> list[str]:
        """The references of the namespaces that are watched now: home, those asked for, the named ones."""
        return list(dict.fromkeys(["", *(ref for ref in self._asked if self._is_there(ref)), *self._watched]))

    def links(self, netns: str = "") -> list[Link]:
        """The links of a watched namespace, by ifindex, as of the last :meth:`poll`; without addresses.

        Raises NetnsNotFound.
        """
        self._check()
        return self._cache.links(netns)

    def peer(self, netns: str, index: int) -> LinkName | None:
        """The other end of a veth, if it is in a watched namespace."""
        at = self._peers.of((netns, index))
        if at is None:
            return None
        try:
            return LinkName(at[0], self._cache.name(at[1], at[0]))
        except VethError:
            return None  # it is gone, which is yet to be told

    def snapshot(self) -> list[HostEvent]:
        """What there is, as events whose action is ``is``: namespaces with their links and addresses, then states.

        Changes that come meanwhile are told by :meth:`poll`, and may be in it already.
        """
        self._check()
        now = time.time()
        survey = self._session.survey(self.netns)
        events = []
        by_ref: dict[str, list[HostEvent]] = {
            ref: [] for ref, place in survey.places.items() if isinstance(place, tuple)
        }
        for one in survey.links:
            peer = self.peer(one.ref, one.link.index)
            found = by_ref.setdefault(one.ref, [])
            found.append(HostEvent("link", "is", now, one.ref, one.link.name, one.link, peer))
            found += [
                HostEvent("address", "is", now, one.ref, one.link.name, one.link, address=address)
                for address in one.addresses
            ]
        for ref, found in by_ref.items():
            events += [HostEvent("netns", "is", now, ref), *found]
        events += [
            HostEvent("state", "is", now, state["netns"], name, state=state) for name, state in self._states.items()
        ]
        return events

    def _links(self) -> dict[tuple[str, int], Link]:
        return {(ref, link.index): link for ref in self.netns for link in self._cache.links(ref)}

    # --- what happens

    def poll(self, timeout: float | None = 0) -> list[HostEvent]:
        """What has happened and was not told yet, in order.

        If there is nothing, wait for something up to `timeout` seconds (None: as long as it takes); [] after that.
        Raises SessionClosed, NetlinkError.
        """
        self._check()
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            events = self._take()
            left = None if deadline is None else deadline - time.monotonic()
            if events or (left is not None and left <= 0):
                return events
            due = self._follower.due()
            waits = [one for one in (left, due) if one is not None]
            self._epoll.poll(min(waits) if waits else None)

    def _take(self) -> list[HostEvent]:
        events: list[HostEvent] = []
        heard = self._cache.poll()
        self._peers.meet(_as_of_now(heard))
        for one in heard:
            events += self._told(one)
        if self._names.changed() or any(one.kind == "netns-gone" for one in heard):
            events += self._look_at_names()
        for ref in self._follower.changed():
            events += self._admit(ref)
        if self._statuses is not None and self._said.changed():
            events += self._look_at_states()
        return events

    def _told(self, heard: LinkEvent) -> Iterator[HostEvent]:
        """One event of the cache as ours."""
        now, ref = time.time(), str(heard.netns or "")
        link, old = heard.link, heard.old
        if heard.kind == "resync":
            yield HostEvent("resync", "changed", now)
        elif heard.kind == "netns-gone":
            yield from self._lose(ref)
        elif heard.address is not None and link is not None:
            action: Action = "new" if heard.kind == "address" else "deleted"
            if action == "deleted" and heard.address.tentative:
                return  # nobody could use it yet, and of its coming the kernel says nothing (addrconf_dad_begin)
            yield HostEvent("address", action, now, ref, link.name, link, address=heard.address)
        elif link is None and old is not None:
            peer = self.peer(ref, old.index)
            self._peers.forget((ref, old.index))
            yield HostEvent("link", "deleted", now, ref, old.name, old, peer)
        elif link is not None and old is None:
            yield HostEvent("link", "new", now, ref, link.name, link, self.peer(ref, link.index))
        elif link is not None and old is not None and (changes := changes_between(old, link)):
            peer = self.peer(ref, link.index)
            yield HostEvent("link", "changed", now, ref, link.name, link, peer, changes=changes)

    # --- namespaces

    def _look_at_names(self) -> Iterator[HostEvent]:
        """Compare the named namespaces with those that are watched."""
        there: dict[str, tuple[int, int]] = {}
        for name in ns.names():
            try:
                found = os.stat(os.path.join(NETNS_DIR, name))
            except OSError:
                continue  # it went away, or may not be looked at
            there[f"netns:{name}"] = found.st_dev, found.st_ino
        for ref in [ref for ref, identity in self._watched.items() if there.get(ref) != identity]:
            yield from self._lose(ref)
        for ref in there:
            if ref not in self._watched:
                yield from self._admit(ref, there[ref])

    def _admit(self, ref: str, identity: tuple[int, int] | None = None) -> Iterator[HostEvent]:
        """Watch a namespace that has come; its links are news, too."""
        if identity is None and self._is_there(ref):
            return
        try:
            self._cache.watch(ref)
        except VethError:
            return  # a name without its namespace, which is mounted in a moment; or a process that is gone
        if identity is not None:
            self._watched[ref] = identity
        links = self._cache.links(ref)
        self._peers.meet({(ref, link.index): link for link in links})
        now = time.time()
        yield HostEvent("netns", "new", now, ref)
        given = self._addresses(ref) if len(links) > 1 or any(link.up for link in links) else {}
        for link in links:
            yield HostEvent("link", "new", now, ref, link.name, link, self.peer(ref, link.index))
            for address in given.get(link.index, ()):
                yield HostEvent("address", "new", now, ref, link.name, link, address=address)

    def _addresses(self, ref: str) -> dict[int, tuple[Address, ...]]:
        """Those of a namespace that has come with links that are up, by ifindex."""
        try:
            return {one.link.index: one.addresses for one in self._session.survey([ref]).links}
        except VethError:
            return {}

    def _lose(self, ref: str) -> Iterator[HostEvent]:
        """A namespace has ended, or its name leads there no more."""
        self._peers.forget_all_in(ref)
        identity = self._watched.pop(ref, None)
        if identity is None and ref not in self._asked:
            return  # its end was told when its name went
        try:
            if identity not in self._kept:
                self._cache.unwatch(ref)
            # It may have another name, by which it is told from now on.
            self._cache.watch_all([other for other, one in self._watched.items() if one == identity])
        except VethError:
            pass  # it has ended
        yield HostEvent("netns", "deleted", time.time(), ref)

    def _is_there(self, ref: str) -> bool:
        try:
            self._cache.links(ref)
        except VethError:
            return False
        return True

    # --- states

    def _look_at_states(self) -> Iterator[HostEvent]:
        assert self._statuses is not None
        before, self._states = self._states, dict(self._statuses.read().entries)
        now = time.time()
        for name in before.keys() - self._states.keys():
            was = before[name]
            yield HostEvent("state", "deleted", now, was["netns"], name, changes={"state": (was["state"], None)})
        for name, state in self._states.items():
            old = before.get(name)
            if old == state:
                continue
            action: Action = "new" if old is None else "changed"
            fields = ("state", "reason", "warning", "netns", "host_name", "ifindex")
            changes = {one: (old.get(one), state.get(one)) for one in fields if old and old.get(one) != state.get(one)}
            if old is None or changes:
                yield HostEvent("state", action, now, state["netns"], name, state=state, changes=changes)


def _as_of_now(heard: Iterable[LinkEvent]) -> dict[tuple[str, int], Link]:
    """The links that these events are about, as the last one of each has it."""
    links: dict[tuple[str, int], Link] = {}
    for one in heard:
        ref = str(one.netns or "")
        if one.link is not None:
            links[ref, one.link.index] = one.link
        elif one.old is not None:
            links.pop((ref, one.old.index), None)
    return links
