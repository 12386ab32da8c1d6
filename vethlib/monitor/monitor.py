"""Monitor: one descriptor for all events of the namespaces, links and addresses of a host.

Theory of operation:

1. An IfIndexCache watches the home namespace, every named namespace, and those that were asked for. Its events become
   events of the monitor.
2. inotify reports new and removed names, and the mount table reports that a namespace is mounted on a name
   (`directory.py`). Both only trigger a check, which compares the identity of the namespace of a name with the known
   one. The check is repeated when the kernel reports the end of a namespace, because the next namespace may get the
   same identity.
3. A namespace is created in two steps. A name that does not lead to a namespace yet is checked again with the next
   event of the mount table. That does not show which mounts have changed, so all other names are checked after it, too;
   with thousands of names, that takes up to a tenth of the time (`vethlib.follow.turns`).
4. Interface states are files written by the agent (`vethlib.agent.stores.statuses`), each read again when it changes.
5. All work is done in :meth:`Monitor.poll`, by the thread that calls it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any

from vethlib import ns
from vethlib._closing import Closing
from vethlib._nl.batch import Outcome
from vethlib._primitives import select, time
from vethlib.errors import (
    InvalidValue,
    NetnsNotFound,
    SessionClosed,
    VethError,
    belongs_to_parent,
    check_path,
    check_type,
)
from vethlib.follow import Follower
from vethlib.follow.alarm import Alarm
from vethlib.follow.turns import Turn
from vethlib.ifindex import IfIndexCache, LinkEvent
from vethlib.linkref import check_refs
from vethlib.links import Address, Link, NetnsRef
from vethlib.ns.deadline import LONGEST, deadline_after, earliest
from vethlib.ns.opening import NETNS_DIR, identity_at
from vethlib.session import Session
from vethlib.session.core.refusal import refusal, system_errors

from .directory import Directory, DirectoryChanges
from .event import Action, HostEvent, LinkName, changes_between
from .peers import At, Peers

if TYPE_CHECKING:
    from vethlib.agent.stores.published import DirectoryStatuses

__all__ = ["Monitor"]

_MOST_UNMOUNTED = 64  # names without a namespace, such as files of other programs, that are checked with every mount


class Monitor(Closing):
    """Report every change of namespaces, links, addresses and, for one agent, interface states on this host.

        with Session() as session, Monitor(session) as monitor:
            while True:
                for event in monitor.poll(timeout=None):
                    print(event.what, event.action, event.netns, event.name, event.changes)

    It watches the home namespace, every named namespace while it exists, and those to which `refs` lead, wherever they
    lead. With a `label`, it also reports the interface states of the agent with that label on this host, which it reads
    from `status_dir` (default: /run/vethlib/LABEL/status).

    It starts no thread: :meth:`fileno` is readable when :meth:`poll` may have events. It does not keep any namespace
    alive. It must not be used by several threads at once. Close it, or use it in a ``with`` statement.

    Raises :class:`~vethlib.NetnsNotFound` for a reference of `refs` that leads to no namespace, NotPermitted for `refs`
    without CAP_SYS_ADMIN, CAP_NET_ADMIN or CAP_NET_BROADCAST, and NetlinkError. Without `refs`, a lack of
    these capabilities means that only the home namespace is watched.
    """

    def __init__(
        self, session: Session, refs: Iterable[str] = (), *, label: str | None = None, status_dir: str = ""
    ) -> None:
        check_type(session, Session, "session", "must be a Session")
        status_dir = check_path(status_dir, "status_dir")
        self._pid = os.getpid()
        self._closed = False
        self._torn = False  # whether a poll was interrupted
        self._session = session
        self._asked = [str(ns.parse(ref)) for ref in check_refs(refs)]
        self._named: dict[str, tuple[int, int]] = {}  # the identities of named namespaces
        self._unmounted: dict[str, None] = {}  # the last names that led to no namespace
        self._all_names = Turn()  # to check all names
        self._peers = Peers(session)
        self._statuses: DirectoryStatuses | None = None
        self._states: dict[str, dict[str, Any]] = {}
        with ExitStack() as opened, system_errors("watch this host"):
            self._cache = opened.enter_context(IfIndexCache(session, addresses=True))
            self._follower = opened.enter_context(Follower(session.resolver))
            self._names = opened.enter_context(closing(Directory(NETNS_DIR)))
            self._alarm = opened.enter_context(closing(Alarm()))
            self._epoll = opened.enter_context(closing(select.epoll()))
            for fd in (
                self._cache.fileno(),
                self._follower.fileno(),
                self._follower.moves_fileno(),
                self._names.fileno(),
                self._alarm.fileno(),
            ):
                self._epoll.register(fd, select.EPOLLIN)
            if label is not None:
                # Imported here, because only states need a part of the agent, and importing that loads protobuf.
                from vethlib.agent.process.rundir import status_directory
                from vethlib.agent.stores.published import DirectoryStatuses

                directory = status_dir or status_directory(label)
                self._status_files = opened.enter_context(closing(Directory(directory)))
                self._epoll.register(self._status_files.fileno(), select.EPOLLIN)
                self._statuses = DirectoryStatuses(directory, label)
                self._states = self._read_states(self._statuses)
            self._follower.follow(self._asked)
            self._cache.watch_all(["", *self._asked])
            for _ in self._look_at_all_names():
                pass  # namespaces that exist at the start cause no events
            self._peers.meet(self._links())
            self._set_alarm()
            self._opened = opened.pop_all()

    def close(self) -> None:
        """Stop watching. Closing twice is harmless."""
        if not self._closed:
            self._closed = True
            self._opened.close()

    def fileno(self) -> int:
        """Return a descriptor that is readable when :meth:`poll` may have events."""
        self._check()
        return self._epoll.fileno()

    def _check(self) -> None:
        if self._pid != os.getpid():
            raise belongs_to_parent("monitor", self._pid)
        if self._closed:
            raise SessionClosed("this monitor is closed")

    # --- state

    @property
    def netns(self) -> list[str]:
        """The references of the namespaces watched now: home, those asked for, and named ones."""
        self._check()
        asked = (ref for ref in self._asked if self._cache.identity(ref) is not None)
        return list(dict.fromkeys(["", *asked, *self._named]))

    def references(self, netns: str = "") -> list[str]:
        """Return the references in :attr:`netns` that lead to the same namespace, which may have several names.

        Events have one of them. It is empty for a namespace that is no longer watched.
        """
        self._check()
        return self._cache.references(str(ns.parse(netns)))

    def links(self, netns: str = "") -> list[Link]:
        """Return the links of a watched namespace, ordered by ifindex, as of the last :meth:`poll`; without addresses.

        Raises NetnsNotFound.
        """
        self._check()
        return self._cache.links(netns)

    def peer(self, netns: str | Link, index: int | None = None) -> LinkName | None:
        """Return the peer of a veth (given by namespace and ifindex, or as a Link) if it is in a watched namespace.

        Raises NetnsNotFound for a Link of a Netns that is closed.
        """
        if isinstance(netns, Link):
            index, place = netns.index, netns.netns
        else:
            place = netns
        if index is None:
            raise InvalidValue("index", index, "must be the ifindex, unless the first argument is a Link")
        refs = self._references(place)
        if isinstance(netns, Link):
            refs = [ref for ref in refs if self._cache.is_still(netns, ref)]
        found = (self._peers.of((ref, index)) for ref in refs)
        at = next(filter(None, found), None)
        if at is None:
            return None
        try:
            return LinkName(at[0], self._cache.name(at[1], at[0]))
        except VethError:
            return None  # it was deleted, and its event is still to be read

    def _references(self, netns: NetnsRef) -> list[str]:
        """Return references that may lead to a namespace; those that do, if it is open: its own spelling may not."""
        self._check()
        if netns is None or isinstance(netns, str):
            ref = str(ns.parse(netns or ""))
            return [ref, *self.references(ref)]
        with ns.open_owned(netns) as opened:
            identity = ns.identity(opened.fileno())
        return [ref for ref in self.netns if self._cache.identity(ref) == identity]

    def snapshot(self) -> list[HostEvent]:
        """Return the current state as events with action ``is``: namespaces with links and addresses, then states.

        :meth:`poll` reports changes that happen meanwhile, even if the snapshot already contains them.
        """
        self._check()
        now = time.time()
        survey = self._session.survey(self.netns)
        events = []
        by_ref: dict[str, list[HostEvent]] = {
            ref: [] for ref, place in survey.places.items() if isinstance(place, tuple)
        }
        for seen in survey.links:
            peer = self.peer(seen.ref, seen.link.index)
            of_netns = by_ref.setdefault(seen.ref, [])
            of_netns.append(HostEvent("link", "is", now, seen.ref, seen.link.name, seen.link, peer))
            of_netns += [
                HostEvent("address", "is", now, seen.ref, seen.link.name, seen.link, address=address)
                for address in seen.addresses
            ]
        for ref, of_netns in by_ref.items():
            events += [HostEvent("netns", "is", now, ref), *of_netns]
        events += [
            HostEvent("state", "is", now, state["netns"], name, state=state) for name, state in self._states.items()
        ]
        return events

    def _links(self) -> dict[tuple[str, int], Link]:
        watched = [ref for ref in self.netns if self._cache.identity(ref) is not None]
        return {(ref, link.index): link for ref in watched for link in self._cache.links(ref)}

    # --- events

    def poll(self, timeout: float | None = 0) -> list[HostEvent]:
        """Return the events that were not returned yet, in order; if there are very many, the first of them.

        If there are none, wait for events up to `timeout` seconds (None: without limit), and return [] on timeout. An
        interruption (KeyboardInterrupt) may lose events, but the next call continues from the present state. Raises
        NetlinkError, InvalidValue for a bad time-out, and SessionClosed, also if the session that it needs is closed.
        """
        self._check()
        deadline = deadline_after(timeout)
        while True:
            events = self._take()
            now = time.monotonic()
            if events or (deadline is not None and deadline <= now):
                return events
            self._epoll.poll(LONGEST if deadline is None else min(LONGEST, deadline - now))

    def _set_alarm(self) -> None:
        """Make the descriptor readable when there is work even without an event."""
        cache_due = self._cache.due()
        left = None if cache_due is None else max(0.0, cache_due - time.monotonic())
        self._alarm.set(earliest(self._follower.due(), self._all_names.due(), left))

    def _take(self) -> list[HostEvent]:
        # After an interruption, news may be lost: so everything is compared with what is known.
        torn, self._torn = self._torn, True
        events: list[HostEvent] = []
        link_events = self._cache.poll()
        # Before others are processed: an end that was moved is deleted here and new there, and its ifindex may be
        # reused.
        parted = {at: self._parted(*at) for at in _deleted(link_events)}
        if torn:
            self._peers = Peers(self._session)
            self._peers.meet(self._links())
        else:
            self._peers.meet(_latest_links(link_events))
        for event in link_events:
            events += self._translated(event, parted)
        ended = [str(event.netns or "") for event in link_events if event.kind == "netns-gone"]
        events += self._look_for_names(self._names.changed(), ended, torn=torn)
        refs = self._follower.changed() | self._follower.moved()
        if ended or torn:  # perhaps a namespace with the identity of the one that has ended
            refs.update(ref for ref in self._asked if torn or self._cache.identity(ref) is None)
        for ref in refs:
            events += self._look_at_reference(ref)
        if self._statuses is not None:
            changes = self._status_files.changed()
            if changes.everything or torn:
                events += self._look_at_states(None)
            elif changes.files:
                events += self._look_at_states(changes.files)
        self._set_alarm()
        self._torn = False
        return events

    def _parted(self, ref: str, index: int) -> LinkName | None:
        """Forget a deleted link, and return the peer that it had."""
        peer = self.peer(ref, index)
        self._peers.forget((ref, index))
        return peer

    def _translated(self, event: LinkEvent, parted: Mapping[At, LinkName | None]) -> Iterator[HostEvent]:
        """Yield the events of the monitor for one event of the cache; `parted` are the peers of the deleted links."""
        now, ref = time.time(), str(event.netns or "")
        link, old = event.link, event.old
        if event.kind == "resync":
            yield HostEvent("resync", "changed", now, ref)
        elif event.kind == "netns-gone":
            if self._cache.identity(ref) is None:  # otherwise its successor is watched already
                yield from self._lose(ref)
        elif event.address is not None and link is not None:
            action: Action = "new" if event.kind == "address" else "deleted"
            if action == "deleted" and event.address.tentative:
                return  # it was never usable, and the kernel has not reported its creation (addrconf_dad_begin)
            yield HostEvent("address", action, now, ref, link.name, link, address=event.address)
        elif link is None and old is not None:
            yield HostEvent("link", "deleted", now, ref, old.name, old, parted[ref, old.index])
        elif link is not None and old is None:
            yield HostEvent("link", "new", now, ref, link.name, link, self.peer(ref, link.index))
        elif link is not None and old is not None and (changes := changes_between(old, link)):
            peer = self.peer(ref, link.index)
            yield HostEvent("link", "changed", now, ref, link.name, link, peer, changes=changes)

    # --- namespaces

    def _look_for_names(self, changes: DirectoryChanges, ended: list[str], *, torn: bool) -> Iterator[HostEvent]:
        """Look at the names that may lead elsewhere, by these changes and because these references have ended."""
        if changes.everything or changes.mounts:
            self._all_names.requested = True
        if torn or self._all_names.due() == 0:
            yield from self._look_at_all_names()
            return
        names = set(changes.files)
        if changes.mounts:
            names.update(self._unmounted)
        if ended:
            # The end of a namespace is reported with one of its references only. The next one may have its identity.
            refs = [ref for ref, seen in self._named.items() if not self._cache.is_at(ref, seen)]
            names.update(ref.removeprefix("netns:") for ref in (*ended, *refs) if ref.startswith("netns:"))
        yield from self._look_at_names(names)

    def _look_at_all_names(self) -> Iterator[HostEvent]:
        begun = self._all_names.begin()
        known = [ref.removeprefix("netns:") for ref in self._named]
        yield from self._look_at_names({*ns.names(), *known})
        self._all_names.end(begun)

    def _look_at_names(self, names: Iterable[str]) -> Iterator[HostEvent]:
        """Compare the namespaces of these names with those that are watched."""
        present: dict[str, tuple[int, int]] = {}
        for name in sorted(names):
            identity = identity_at(f"{NETNS_DIR}/{name}")
            self._unmounted.pop(name, None)
            if identity is not None:
                present[f"netns:{name}"] = identity
            elif os.path.lexists(f"{NETNS_DIR}/{name}"):
                self._unmounted[name] = None  # or it may not be looked at
        while len(self._unmounted) > _MOST_UNMOUNTED:
            del self._unmounted[next(iter(self._unmounted))]
        for name in sorted(names):
            ref = f"netns:{name}"
            seen = self._named.get(ref)
            if seen is not None and (present.get(ref) != seen or not self._cache.is_at(ref, seen)):
                yield from self._lose(ref)
        for ref in present:
            if ref not in self._named:
                yield from self._admit(ref)

    def _look_at_reference(self, ref: str) -> Iterator[HostEvent]:
        """Compare where a reference of `refs` leads with the namespace that is watched by it."""
        leads_to: tuple[int, int] | None = None
        try:
            leads_to = self._session.identity(ref)
        except NetnsNotFound:
            pass
        except SessionClosed:
            raise
        except VethError:
            return  # it is unknown, for example because descriptors ran out
        watched = self._cache.identity(ref)
        if watched is not None and watched != leads_to:
            yield from self._lose(ref)
        if leads_to is not None and watched != leads_to:
            yield from self._admit(ref)

    def _admit(self, ref: str) -> Iterator[HostEvent]:
        """Watch a new namespace, and yield events for it and its links."""
        try:
            self._cache.watch(ref)
            links = self._cache.links(ref)
        except SessionClosed:
            raise  # otherwise, no new namespace would be reported from now on
        except VethError:
            if ref.startswith("netns:"):
                self._unmounted[ref.removeprefix("netns:")] = None
            return  # a name whose namespace has not been mounted yet, or a process that has ended
        identity = self._cache.identity(ref)
        if identity is not None and ref.startswith("netns:"):
            self._named[ref] = identity
        self._peers.meet({(ref, link.index): link for link in links})
        now = time.time()
        yield HostEvent("netns", "new", now, ref)
        given = self._addresses(ref) if len(links) > 1 or any(link.up for link in links) else {}
        for link in links:
            yield HostEvent("link", "new", now, ref, link.name, link, self.peer(ref, link.index))
            for address in given.get(link.index, ()):
                yield HostEvent("address", "new", now, ref, link.name, link, address=address)

    def _addresses(self, ref: str) -> dict[int, tuple[Address, ...]]:
        """Return the addresses of a new namespace's links, by ifindex."""
        try:
            return {seen.link.index: seen.addresses for seen in self._session.survey([ref]).links}
        except SessionClosed:
            raise
        except VethError:
            return {}

    def _lose(self, ref: str) -> Iterator[HostEvent]:
        """Stop watching a namespace by a reference, because it has ended, or that leads elsewhere."""
        if ref not in self._named and ref not in self._asked:
            return  # its end was reported when its name was removed
        other = self._cache.unwatch_by(ref)
        if other is None:
            self._peers.forget_all_in(ref)
        else:
            self._peers.rename(ref, other)  # the events of the namespace are reported by that reference from now on
        self._named.pop(ref, None)
        yield HostEvent("netns", "deleted", time.time(), ref)

    # --- states

    def _read_states(
        self, statuses: DirectoryStatuses, files: Iterable[str] | None = None
    ) -> dict[str, dict[str, Any]]:
        try:
            return dict(statuses.read(files).entries)
        except OSError as error:
            refused = refusal(Outcome(error.errno or 0), f"read the statuses in {statuses.place}", "")
            refused.filename = error.filename
            raise refused from error

    def _look_at_states(self, files: Iterable[str] | None) -> Iterator[HostEvent]:
        """Read the states again, of which only those in these files have changed; None for all."""
        assert self._statuses is not None
        before, self._states = self._states, self._read_states(self._statuses, files)
        now = time.time()
        for name in before.keys() - self._states.keys():
            was = before[name]
            yield HostEvent("state", "deleted", now, was["netns"], name, changes={"state": (was["state"], None)})
        for name, state in self._states.items():
            old = before.get(name)
            if old is state or old == state:
                continue
            action: Action = "new" if old is None else "changed"
            fields = ("state", "reason", "code", "warning", "netns", "host_name", "ifindex")
            changes = {key: (old.get(key), state.get(key)) for key in fields if old and old.get(key) != state.get(key)}
            if old is None or changes:
                yield HostEvent("state", action, now, state["netns"], name, state=state, changes=changes)


def _deleted(events: Iterable[LinkEvent]) -> Iterator[At]:
    """Yield the links that were deleted by these events."""
    for event in events:
        if event.kind not in ("netns-gone", "resync") and event.link is None and event.old is not None:
            yield str(event.netns or ""), event.old.index


def _latest_links(events: Iterable[LinkEvent]) -> dict[tuple[str, int], Link]:
    """Return the links of these events, each as in its last event."""
    links: dict[tuple[str, int], Link] = {}
    for event in events:
        ref = str(event.netns or "")
        if event.link is not None:
            links[ref, event.link.index] = event.link
        elif event.old is not None:
            links.pop((ref, event.old.index), None)
    return links
