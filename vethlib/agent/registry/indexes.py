"""Names ⇄ ifindexes: managed interfaces in all namespaces, and the other links in the home namespace.

The owner of the registry reports managed interfaces and links (`set_managed` and so on, "the feed"). These rules hold:

1. Each link is listed once: under the name of its interface if it is managed, otherwise under its kernel name. So while
   it is managed, reports about it as an unmanaged link change nothing that is listed.
2. A link that becomes managed is "changed", from the unmanaged entry to the managed one.
3. A link that is no longer managed is "removed", and then in doubt: usually the agent has deleted it, and further
   reports about it are older than that. While it is in doubt, it is not listed. If the feed has not reported its
   deletion by the second :meth:`Indexes.deliver`, it still exists, is no longer owned, and is "added" as an
   unmanaged link. This requires that the feed of the home namespace is read to its end between two calls of deliver(),
   as each poll does.
4. A managed name has one link, and a link has one managed name: the last registration counts.

If a managed interface and an unmanaged link have the same name, ``index(name)`` returns that of the managed interface;
the other link is found by its ifindex.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from vethlib import ns
from vethlib.agent.planning.observed import LinkId, NetnsId
from vethlib.errors import LinkNotFound, shown
from vethlib.links import Link, NetnsRef, spell

from .subscriptions import Subscribers, Subscription

__all__ = ["IndexEntry", "IndexEvent", "Indexes"]


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """A name and its ifindex.

    For a managed interface, `name` is the name of the interface and `netns` the reference in its configuration. For any
    other link in the home namespace, `name` is its kernel name and `netns` is "". `host_name` is always the kernel
    name.
    """

    name: str
    netns: str
    index: int
    host_name: str
    managed: bool
    link: Link


@dataclass(frozen=True, slots=True)
class IndexEvent:
    """A change of the registry. To maintain a copy of the registry, remove `old` and add `entry`.

    ===========  =========================================================================  ========  ========
    `kind`       what happened                                                              `entry`   `old`
    ===========  =========================================================================  ========  ========
    ``added``    the name is new (or existed when the subscription began)                   as it is  None
    ``changed``  the link changed; the name has another link; the link is now managed       as it is  as it was
    ``removed``  the name was removed                                                       None      as it was
    ===========  =========================================================================  ========  ========
    """

    kind: Literal["added", "changed", "removed"]
    entry: IndexEntry | None
    old: IndexEntry | None = None


class Indexes:
    """The registry of names and ifindexes. `home` is the identity of the home namespace.

    Lookups can be made from any thread; all other methods are for the thread that polls.
    """

    def __init__(self, home: NetnsId) -> None:
        self._home = home
        self._managed: dict[str, IndexEntry] = {}
        # By managed name: the reference in canonical form, and the namespace.
        self._where: dict[str, tuple[str, NetnsId]] = {}
        self._leads: dict[str, NetnsId] = {}  # the namespace of each of these references
        self._names_with: dict[str, dict[str, NetnsId]] = {}  # … and the names that have it, the latest last
        self._unmanaged: dict[str, IndexEntry] = {}  # the listed ones
        self._at: dict[tuple[NetnsId, int], IndexEntry] = {}  # all listed entries
        self._links: dict[int, Link] = {}  # in the home namespace, managed or not, as last reported
        self._doubted: set[int] = set()
        self._doubted_before: set[int] = set()  # links in doubt at the last deliver()
        self._subscribers: Subscribers[IndexEvent] = Subscribers()

    # --- lookups

    def index(self, name: str) -> int:
        """Return the ifindex of a managed interface by its name, or of another link in the home namespace.

        This takes 0.1 µs. Raises LinkNotFound, which is a LookupError.
        """
        entry = self._managed.get(name) or self._unmanaged.get(name)
        if entry is None:
            message = (
                f"there is no interface {name!r} with a link, and no other link of that name in the home namespace"
            )
            raise LinkNotFound(message, errno=errno.ENODEV, request=f"look up {name!r}")
        return entry.index

    def name(self, index: int, netns: NetnsRef = "") -> str:
        """Return the name of a managed interface by its ifindex, or the kernel name of another link in home.

        Ifindexes are not unique across namespaces, so `netns` selects one: "" for the home namespace, an open Netns, or
        any reference with which a managed interface is configured there. Raises LinkNotFound, InvalidValue for an
        invalid reference, and NetnsNotFound for an object that is no open namespace.
        """
        if isinstance(netns, ns.Netns):
            place: NetnsId | None = netns.identity
        elif netns is None or isinstance(netns, str):
            place = self._leads.get(str(ns.parse(netns))) if netns else self._home
        else:
            with ns.open_owned(netns) as opened:
                place = ns.identity(opened.fileno())
        entry = None if place is None else self._at.get((place, index))
        if entry is None:
            request = f"look up ifindex {shown(index)} in {spell(netns)}"
            message = f"{request}: {'no interface is known there' if place is None else 'no such link is known'}"
            raise LinkNotFound(message, errno=errno.ENODEV, request=request, netns=str(netns or ""))
        return entry.name

    def link_of(self, name: str) -> LinkId | None:
        """Return the namespace and the ifindex of the link of a managed interface; None if it has none."""
        entry = self._managed.get(name)
        return None if entry is None else (self._where[name][1], entry.index)

    def entries(self) -> list[IndexEntry]:
        """Return all entries, ordered by namespace and ifindex."""
        return sorted(self._at.values(), key=lambda entry: (entry.netns, entry.index))

    # --- subscribers

    def subscribe(self, callback: Callable[[IndexEvent], object] | None = None) -> Subscription[IndexEvent]:
        """Subscribe to all current entries, as "added" events, followed by every change, in order.

        :meth:`deliver` calls the callback for each event, with no lock held and never in the middle of a change, so the
        callback can look up, subscribe and unsubscribe. An exception in the callback is logged, and does not stop later
        events. Without a callback, use :meth:`Subscription.take`.
        """
        return self._subscribers.add(callback, [IndexEvent("added", entry) for entry in self.entries()])

    def _tell(
        self, kind: Literal["added", "changed", "removed"], entry: IndexEntry | None, old: IndexEntry | None
    ) -> None:
        if entry != old:
            self._subscribers.tell(IndexEvent(kind, entry, old))

    @property
    def pending(self) -> bool:
        """Return whether :meth:`deliver` has work to do: callbacks to call, or a link in doubt."""
        doubted = (*self._doubted, *self._doubted_before)
        return self._subscribers.pending or not self._links.keys().isdisjoint(doubted)

    def deliver(self) -> None:
        """Call the callbacks with all events not delivered yet, including those that callbacks cause.

        To be called once at the end of every poll (see the third rule). A call from within a callback does nothing.
        """
        if not self._subscribers.delivering:
            self._end_doubts()
            self._subscribers.deliver()

    # --- the feed: what is managed

    def set_managed(self, name: str, place: NetnsId, netns_ref: str, link: Link) -> None:
        """Record that managed interface `name` has this link, in the namespace `place` of `netns_ref`."""
        entry = IndexEntry(name, netns_ref, link.index, link.name, True, link)
        at = place, link.index
        former = self._managed.get(name)
        if former is not None and (self._where[name][1], former.index) != at:
            self._leave(name, former)
        shown = self._at.get(at)
        if shown is not None and shown.managed and shown.name != name:
            self._take_out(shown.name)
            self._tell("removed", None, shown)
            shown = None
        self._register(name, str(ns.parse(netns_ref)), place)
        self._managed[name] = self._at[at] = entry
        if shown is not None and not shown.managed:
            self._take_name(shown)
            if former is not None:
                self._tell("removed", None, shown)
        old = former or shown
        self._tell("added" if old is None else "changed", entry, old)

    def remove_managed(self, name: str) -> None:
        """Record that interface `name` no longer has a link, or is not managed. Does nothing if it had none."""
        entry = self._managed.get(name)
        if entry is not None:
            self._leave(name, entry)
            self._take_out(name)
            self._tell("removed", None, entry)

    def _leave(self, name: str, former: IndexEntry) -> None:
        """Note that a managed name no longer has this link."""
        place = self._where[name][1]
        self._at.pop((place, former.index), None)  # it is missing if this was interrupted
        if place == self._home:
            self._doubted.add(former.index)

    def _take_out(self, name: str) -> None:
        self._managed.pop(name, None)
        self._unregister(name)

    def _register(self, name: str, ref: str, place: NetnsId) -> None:
        former = self._where.get(name)
        if former != (ref, place):
            names = self._names_with.setdefault(ref, {})
            names.pop(name, None)
            self._leads[ref] = names[name] = place
            self._where[name] = ref, place
            if former is not None and former[0] != ref:
                self._leave_ref(name, former[0])

    def _unregister(self, name: str) -> None:
        ref, _ = self._where.pop(name, ("", None))
        self._leave_ref(name, ref)

    def _leave_ref(self, name: str, ref: str) -> None:
        names = self._names_with.get(ref, {})
        if names.pop(name, None) is None:
            return
        if names:
            self._leads[ref] = next(reversed(names.values()))
        else:
            del self._leads[ref], self._names_with[ref]

    # --- the feed: the links of home

    def set_unmanaged(self, link: Link) -> None:
        """Record a new or changed link of the home namespace, in the kernel's order. Managed links are not shown."""
        self._links[link.index] = link
        self._show(link.index)

    def remove_unmanaged(self, index: int) -> None:
        """Record that a link of the home namespace was deleted."""
        self._links.pop(index, None)
        self._doubted.discard(index)
        self._doubted_before.discard(index)
        shown = self._at.get((self._home, index))
        if shown is not None and not shown.managed:
            del self._at[self._home, index]
            self._take_name(shown)
            self._tell("removed", None, shown)

    def reset_unmanaged(self, links: Iterable[Link]) -> None:
        """Replace all links of the home namespace by a state at least as recent; differences become events.

        This also puts right what an interrupted report has left.
        """
        now = {link.index: link for link in links}
        listed = {entry.index for entry in self._unmanaged.values()}
        for index in [index for index in self._links.keys() | listed if index not in now]:
            self.remove_unmanaged(index)
        for entry in list(self._unmanaged.values()):
            if self._at.get((self._home, entry.index)) is not entry:
                self._take_name(entry)
        for link in now.values():
            self.set_unmanaged(link)

    def _show(self, index: int) -> None:
        link, shown = self._links.get(index), self._at.get((self._home, index))
        if link is None or index in self._doubted or index in self._doubted_before or (shown and shown.managed):
            return
        entry = IndexEntry(link.name, "", index, link.name, False, link)
        self._at[self._home, index] = self._unmanaged[link.name] = entry
        if shown is not None and shown.name != link.name:
            self._take_name(shown)
        self._tell("added" if shown is None else "changed", entry, shown)

    def _take_name(self, entry: IndexEntry) -> None:
        if self._unmanaged.get(entry.name) is entry:  # another link may have the name by now
            del self._unmanaged[entry.name]

    def _end_doubts(self) -> None:
        ended, self._doubted_before, self._doubted = self._doubted_before, self._doubted, set()
        for index in ended:
            self._show(index)
