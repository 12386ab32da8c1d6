"""Names ⇄ ifindexes: the logical names of managed interfaces in all namespaces, and the other links of home.

What is known is what the owner has told (``set_managed`` and the rest, "the feed"), by these rules:

1. A link is in it once: under its logical name where it is managed, and only where it is not under its kernel name.
   So while it is managed, the unmanaged feed of home changes nothing that is shown, whichever of the two came first.
2. A link that becomes managed is "changed", from the unmanaged entry to the managed one. It was not away.
3. A link that ceases to be managed is "removed", and then in doubt: mostly we have deleted it, and what the feed still
   says of it happened before. In doubt it is not shown, until the feed says that it is gone; or, if the feed has not
   said so by the second :meth:`Indexes.deliver`, it lives, is not ours any more, and is "added" as an unmanaged one.
   That holds if between two deliver() the feed of home is read to its end, as one poll of its owner does.
4. A managed name leads to one link and a link to one managed name: who is registered last has both.

A managed interface and an unmanaged link may have one name: ``index(name)`` is then the managed one's, and the other is
found by its ifindex.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from vethlib import ns
from vethlib.errors import LinkNotFound
from vethlib.links import Link, NetnsRef, spell

from .observed import Place
from .subscriptions import Subscribers, Subscription

__all__ = ["IndexEntry", "IndexEvent", "Indexes"]


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """A name and the ifindex it stands for.

    Of a managed interface `name` is its logical name and `netns` the reference of its configuration; of another link
    of the home namespace `name` is its kernel name and `netns` is "". `host_name` is the kernel name of both.
    """

    name: str
    netns: str
    index: int
    host_name: str
    managed: bool
    link: Link


@dataclass(frozen=True, slots=True)
class IndexEvent:
    """One change. A copy of the registry is kept by dropping `old` and adding `entry`.

    ===========  =========================================================================  ========  ========
    `kind`       what happened                                                              `entry`   `old`
    ===========  =========================================================================  ========  ========
    ``added``    it is known from now on (or was when the subscription began)               as it is  None
    ``changed``  anything of the link; the name has another link; the link has become ours  as it is  as it was
    ``removed``  it is not known any more                                                   None      as it was
    ===========  =========================================================================  ========  ========
    """

    kind: Literal["added", "changed", "removed"]
    entry: IndexEntry | None
    old: IndexEntry | None = None


class Indexes:
    """The registry. `home` is the identity of the home namespace.

    Lookups may come from any thread; everything else is for the thread that polls.
    """

    def __init__(self, home: Place) -> None:
        self._home = home
        self._managed: dict[str, IndexEntry] = {}
        # (reference in canonical form, what it leads to) of a managed name
        self._where: dict[str, tuple[str, Place]] = {}
        self._leads: dict[str, Place] = {}  # where each of these references leads
        self._saying: dict[str, dict[str, Place]] = {}  # … and which names say so, the latest last
        self._unmanaged: dict[str, IndexEntry] = {}  # those that are shown
        self._at: dict[tuple[Place, int], IndexEntry] = {}  # all that are shown
        self._links: dict[int, Link] = {}  # of home, managed or not, as the feed has them
        self._doubted: set[int] = set()
        self._doubted_before: set[int] = set()  # at the last deliver()
        self._subscribers: Subscribers[IndexEvent] = Subscribers()

    # --- lookups

    def index(self, name: str) -> int:
        """The ifindex of a managed interface by its logical name, or of another link of home by its kernel name.

        0.1 µs. Raises LinkNotFound, a LookupError.
        """
        entry = self._managed.get(name) or self._unmanaged.get(name)
        if entry is None:
            message = f"there is no interface {name!r} with a link, and no other link of that name at home"
            raise LinkNotFound(message, errno=errno.ENODEV, request=f"look up {name!r}")
        return entry.index

    def name(self, index: int, netns: NetnsRef = "") -> str:
        """The logical name of a managed link, or the kernel name of another one of home, by its ifindex.

        Ifindexes repeat from namespace to namespace, so it takes that too: home, an open Netns, or any reference by
        which a managed interface is configured there. Raises LinkNotFound, and InvalidValue for a reference that
        is none.
        """
        if isinstance(netns, ns.Netns):
            place: Place | None = netns.identity
        else:
            place = self._leads.get(str(ns.parse(netns))) if netns else self._home
        entry = None if place is None else self._at.get((place, index))
        if entry is None:
            request = f"look up ifindex {index} in {spell(netns)}"
            message = f"{request}: {'no interface is known there' if place is None else 'no such link is known'}"
            raise LinkNotFound(message, errno=errno.ENODEV, request=request, netns=str(netns or ""))
        return entry.name

    def entries(self) -> list[IndexEntry]:
        """All that is known, by namespace and ifindex."""
        return sorted(self._at.values(), key=lambda entry: (entry.netns, entry.index))

    # --- subscribers

    def subscribe(self, callback: Callable[[IndexEvent], object] | None = None) -> Subscription[IndexEvent]:
        """Be told of all that is known now, as "added", and then of every change, in order.

        With a callback it is called for each, by :meth:`deliver`: in the middle of nothing and with no lock held, so
        it may look up, subscribe and unsubscribe whom it likes. An exception of it is logged, and the next event
        follows. Without one, :meth:`Subscription.take` has them.
        """
        return self._subscribers.add(callback, [IndexEvent("added", entry) for entry in self.entries()])

    def _tell(
        self, kind: Literal["added", "changed", "removed"], entry: IndexEntry | None, old: IndexEntry | None
    ) -> None:
        if entry != old:
            self._subscribers.tell(IndexEvent(kind, entry, old))

    @property
    def pending(self) -> bool:
        """Whether :meth:`deliver` has something to do: somebody to call, or a link in doubt."""
        doubted = (*self._doubted, *self._doubted_before)
        return self._subscribers.pending or any(index in self._links for index in doubted)

    def deliver(self) -> None:
        """Call the callbacks with all they have not had, those of their own making included.

        To be called once at the end of every poll (see the third rule); a call from within a callback does nothing.
        """
        if not self._subscribers.delivering:
            self._end_doubts()
            self._subscribers.deliver()

    # --- the feed: what is managed

    def set_managed(self, name: str, place: Place, netns_ref: str, link: Link) -> None:
        """The managed interface `name` has this link, in the namespace `place` that `netns_ref` leads to."""
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
        self._say(name, str(ns.parse(netns_ref)), place)
        self._managed[name] = self._at[at] = entry
        if shown is not None and not shown.managed:
            self._take_name(shown)
            if former is not None:
                self._tell("removed", None, shown)
        old = former or shown
        self._tell("added" if old is None else "changed", entry, old)

    def remove_managed(self, name: str) -> None:
        """The managed interface `name` has no link any more, or is not managed; where there was none, nothing."""
        entry = self._managed.get(name)
        if entry is not None:
            self._leave(name, entry)
            self._take_out(name)
            self._tell("removed", None, entry)

    def _leave(self, name: str, former: IndexEntry) -> None:
        """A managed name does not lead to the link any more that it led to."""
        place = self._where[name][1]
        del self._at[place, former.index]
        if place == self._home:
            self._doubted.add(former.index)

    def _take_out(self, name: str) -> None:
        del self._managed[name]
        self._unsay(name)

    def _say(self, name: str, ref: str, place: Place) -> None:
        if self._where.get(name) != (ref, place):
            self._unsay(name)
            self._where[name] = ref, place
            self._leads[ref] = self._saying.setdefault(ref, {})[name] = place

    def _unsay(self, name: str) -> None:
        ref, _ = self._where.pop(name, ("", None))
        saying = self._saying.get(ref, {})
        if saying.pop(name, None) is None:
            return
        if saying:
            self._leads[ref] = next(reversed(saying.values()))
        else:
            del self._leads[ref], self._saying[ref]

    # --- the feed: the links of home

    def set_unmanaged(self, link: Link) -> None:
        """A link of home is there, or has changed; in the kernel's order. Of a managed one it is not shown."""
        self._links[link.index] = link
        self._show(link.index)

    def remove_unmanaged(self, index: int) -> None:
        """A link of home is gone."""
        self._links.pop(index, None)
        self._doubted.discard(index)
        self._doubted_before.discard(index)
        shown = self._at.get((self._home, index))
        if shown is not None and not shown.managed:
            del self._at[self._home, index]
            self._take_name(shown)
            self._tell("removed", None, shown)

    def reset_unmanaged(self, links: Iterable[Link]) -> None:
        """These are the links of home, as of the last that was fed or later; the differences are told."""
        now = {link.index: link for link in links}
        for index in [index for index in self._links if index not in now]:
            self.remove_unmanaged(index)
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
