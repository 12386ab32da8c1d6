"""Namespaces from which others are watched: our own for foreign namespaces, and home for itself.

Theory of operation:

1. A socket receives the events of those namespaces that have an id in the socket's own (see `_nl/events.py`), so a
   namespace is watched by assigning it an id. Ids cannot be removed: in home, they would stay for ever. So they are
   assigned in an anonymous namespace that contains only our sockets. When those are closed, it ends with all its ids;
   an id keeps no namespace alive.
2. We choose the ids, upwards from `FIRST_ID`, so that none ever means two namespaces. Below it are the ids that the
   kernel assigns automatically (see 5).
3. RTM_DELNSID reports the end of a watched namespace. It is sent before its links are unregistered (unhash_nsid in
   cleanup_net, net/core/net_namespace.c), so no RTM_DELLINK for them is ever received. It has a separate socket that
   listens in this namespace only, because a socket that listens everywhere would receive the ids that watched
   namespaces assign to others.
4. Assigning an id takes 20 ns for each existing id: the 8 000th takes as long as reading eight namespaces. So at most
   `ROOM` namespaces are watched from one observatory.
5. The links of a namespace are read from inside, through a socket that is used once. They could be read from here
   (IFLA_TARGET_NETNSID), but then IFLA_LINK_NETNSID would be an id in *this* namespace, which the kernel assigns even
   to peers that are not watched (rtnl_fill_link_netnsid uses the asking socket's namespace). In events, it is an id in
   the link's own namespace. Only if a watched namespace can no longer be reached by any reference (its name was
   removed, but it is still in use) is it read from here, and the ids are translated.
6. Home is watched through a socket inside, for which no namespace has to be entered or created. So home alone can be
   watched without any capability, and it has its own queue.
"""

from __future__ import annotations

import errno
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import ExitStack, closing
from functools import partial
from itertools import count
from operator import attrgetter
from typing import Final

from vethlib import ns
from vethlib._nl.const import RTNLGRP_NSID
from vethlib._nl.events import EventSocket
from vethlib._nl.link import LinkMessage, dump_links, index_of
from vethlib._nl.nsid import get_nsid, new_nsid, parse_nsid, translate_nsid
from vethlib._nl.sock import RtnlSocket
from vethlib._nl.torn import read
from vethlib.errors import not_permitted
from vethlib.session.core.refusal import refusal, system_errors

from .news import News
from .table import records

__all__ = ["FIRST_ID", "ROOM", "ForeignObservatory", "HomeObservatory", "Observatories", "Observatory"]

FIRST_ID: Final = 1 << 20
ROOM: Final = 512

_ENDS_BUFFER: Final = 4 << 20

_has_lost: Final = attrgetter("lost")  # asked for several times in each call of a cache


class Observatory(ABC):
    """A namespace from which others are watched, with its sockets. It takes no lock.

    `links` receives the events of `groups` (multicast groups), and `ends`, if not None, the ends of namespaces. The
    caller maintains the other attributes: `watched` is the number of namespaces watched from here; `lost` is whether
    events were lost, and `resync_at` the earliest time to resynchronise; `open` is whether more namespaces may be
    watched from here, and `suspect` whether it is for namespaces that were noisy.
    """

    links: EventSocket
    ends: EventSocket | None
    _requests: RtnlSocket

    def __init__(self, ids: count[int]) -> None:
        self._ids = ids
        self.watched = 0
        self.lost = False
        self.put_off = 0  # how often the resync after a loss was postponed
        self.resync_at = 0.0
        self.open = True
        self.suspect = False

    def close(self) -> None:
        """Close the sockets, which ends all watches."""
        for socket in (self._requests, self.links, self.ends):
            if socket is not None:
                socket.close()

    @abstractmethod
    def assign(self, fds: Sequence[int]) -> list[int]:
        """Return the ids of these namespaces; assign those that are missing. Raises NetlinkError."""

    @abstractmethod
    def ids_of(self, fds: Sequence[int]) -> list[int | None]:
        """Return the ids of these namespaces, None for each that has none. Raises NetlinkError."""

    @abstractmethod
    def links_of(self, nsid: int) -> dict[int, LinkMessage] | None:
        """Return the links of a namespace without a reference, by ifindex; None if it has ended."""


class HomeObservatory(Observatory):
    """The home namespace, open as `fd`: watched by a socket inside, and with an id as if it were watched from outside.

    Raises NetlinkError.
    """

    def __init__(self, ids: count[int], groups: Sequence[int], receive_buffer: int, fd: int) -> None:
        super().__init__(ids)
        self._id = next(ids)
        self._identity = ns.identity(fd)
        self.open = False
        self.ends = None  # it does not end while it is in use
        with system_errors("watch the home namespace"):
            self._requests, self.links = ns.call_at_home(fd, lambda: _sockets_at_home(groups, receive_buffer, self._id))

    def assign(self, fds: Sequence[int]) -> list[int]:
        """Do as in :class:`Observatory`; all of these namespaces are home."""
        return [self._id for _ in fds]

    def ids_of(self, fds: Sequence[int]) -> list[int | None]:
        """As in :class:`Observatory`."""
        return [self._id if ns.identity(fd) == self._identity else None for fd in fds]

    def links_of(self, nsid: int) -> dict[int, LinkMessage]:  # noqa: ARG002 - there is only one
        """As in :class:`Observatory`."""
        with system_errors("list the links of the home namespace"):
            outcome = read(partial(self._requests.dump, dump_links(), bytes, 1), index_of)
        if outcome.errno:
            raise refusal(outcome, "list the links of the home namespace", "")
        return records(outcome.bodies)


class ForeignObservatory(Observatory):
    """One of our own namespaces, from which others are watched by their ids there.

    Raises NotPermitted without CAP_SYS_ADMIN (to create a namespace) or CAP_NET_BROADCAST (to receive the events of
    others), and from :meth:`assign` without CAP_NET_ADMIN. Raises NetlinkError for other failures.
    """

    def __init__(self, ids: count[int], groups: Sequence[int], receive_buffer: int) -> None:
        super().__init__(ids)
        with system_errors("watch namespaces"):
            self._requests, self.links, self.ends = ns.call_in_new(lambda: _sockets(groups, receive_buffer))

    def assign(self, fds: Sequence[int]) -> list[int]:
        """As in :class:`Observatory`."""
        ids = [next(self._ids) for _ in fds]
        with system_errors("assign ids to namespaces"):
            outcomes = self._requests.exchange([new_nsid(fd, nsid) for fd, nsid in zip(fds, ids, strict=True)])
        known = []
        for position, outcome in enumerate(outcomes):
            if outcome.errno == errno.EEXIST:
                known.append(position)
            elif outcome.errno:
                raise refusal(outcome, "assign an id to a namespace", "")
        for position, nsid in zip(known, self.ids_of([fds[position] for position in known]), strict=True):
            assert nsid is not None
            ids[position] = nsid
        return ids

    def ids_of(self, fds: Sequence[int]) -> list[int | None]:
        """As in :class:`Observatory`."""
        with system_errors("look up the id of a namespace"):
            outcomes = self._requests.exchange([get_nsid(fd) for fd in fds])
        return [None if outcome.errno else parse_nsid(outcome.bodies[0]) for outcome in outcomes]

    def links_of(self, nsid: int) -> dict[int, LinkMessage] | None:
        """Do as in :class:`Observatory` (rule 5)."""
        with system_errors("list the links of a namespace by its id"):
            outcome = read(partial(self._requests.dump, dump_links(netnsid=nsid), bytes, 1), index_of)
            if outcome.errno == errno.EINVAL:  # the error of rtnl_get_net_ns_capable for an unused id
                return None
            if outcome.errno:
                raise refusal(outcome, "list the links of a namespace by its id", "")
            found = records(outcome.bodies)
            elsewhere = [link for link in found.values() if link.link_netnsid is not None]
            requests = [translate_nsid(link.link_netnsid or 0, nsid) for link in elsewhere]
            for link, answer in zip(elsewhere, self._requests.exchange(requests), strict=True):
                translated = None if answer.errno else parse_nsid(answer.bodies[0])
                found[link.ifindex] = link._replace(link_netnsid=translated)
        return found


class Observatories:
    """The observatories of a cache: one for home, and as many as are needed to hold the foreign namespaces.

    Their sockets are added to `news`.
    """

    def __init__(self, groups: Sequence[int], receive_buffer: int, news: News) -> None:
        self._groups = groups
        self._receive_buffer = receive_buffer
        self._news = news
        self._ids = count(FIRST_ID)
        self._all: list[Observatory] = []
        self._by_fd: dict[int, Observatory] = {}  # the owner of each socket
        self._of_home: HomeObservatory | None = None

    def close(self) -> None:
        """Close all observatories."""
        for observatory in self._all:
            observatory.close()

    def with_room(self, *, suspect: bool) -> Observatory:
        """Return an observatory that has room for more namespaces. Raises as :class:`ForeignObservatory` does."""
        for observatory in self._all:
            if observatory.open and observatory.suspect is suspect and observatory.watched < ROOM:
                return observatory
        another = ForeignObservatory(self._ids, self._groups, self._receive_buffer)
        another.suspect = suspect
        self._add(another)
        return another

    def at_home(self, fd: int) -> HomeObservatory:
        """Return the observatory of the home namespace, which is open as `fd`. Raises NetlinkError."""
        if self._of_home is None:
            self._of_home = HomeObservatory(self._ids, self._groups, self._receive_buffer, fd)
            self._add(self._of_home)
        return self._of_home

    def _add(self, observatory: Observatory) -> None:
        self._all.append(observatory)
        for socket in filter(None, (observatory.links, observatory.ends)):
            self._by_fd[socket.fileno()] = observatory
            self._news.add(socket)

    def remove(self, observatory: Observatory) -> None:
        """Close an observatory from which no namespace is watched any longer."""
        self._all.remove(observatory)
        for socket in filter(None, (observatory.links, observatory.ends)):
            del self._by_fd[socket.fileno()]
        observatory.close()

    def readable(self) -> list[Observatory]:
        """Return the observatories that have received events."""
        return list({self._by_fd[fd]: None for fd in self._news.readable() if fd in self._by_fd})

    def lost(self) -> list[Observatory]:
        """Return the observatories that have lost events."""
        return [*filter(_has_lost, self._all)]


def _sockets_at_home(groups: Sequence[int], receive_buffer: int, own: int) -> tuple[RtnlSocket, EventSocket]:
    with ExitStack() as opened:
        requests = opened.enter_context(closing(RtnlSocket()))
        links = EventSocket(groups, receive_buffer, own=own)
        opened.pop_all()
    return requests, links


def _sockets(groups: Sequence[int], receive_buffer: int) -> tuple[RtnlSocket, EventSocket, EventSocket]:
    with ExitStack() as opened:
        requests = opened.enter_context(closing(RtnlSocket()))
        ends = opened.enter_context(closing(EventSocket([RTNLGRP_NSID], _ENDS_BUFFER)))
        try:
            links = EventSocket(groups, receive_buffer, everywhere=True)
        except PermissionError as error:
            message = "receiving the events of other namespaces needs CAP_NET_BROADCAST"
            raise not_permitted(message, "CAP_NET_BROADCAST", errno=error.errno or 0) from None
        opened.pop_all()
    return requests, links, ends
