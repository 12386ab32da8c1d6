"""The observatories of a cache: one for home, and as many as are needed to hold the foreign namespaces."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

from .news import News
from .observatory import FIRST_ID, ROOM, ForeignObservatory, HomeObservatory, Observatory

__all__ = ["Observatories"]


class Observatories:
    """The observatories that are in use; their sockets are added to `news`."""

    def __init__(self, groups: Sequence[int], receive_buffer: int, news: News) -> None:
        self._groups = groups
        self._receive_buffer = receive_buffer
        self._news = news
        self._ids = count(FIRST_ID)
        self._all: list[Observatory] = []
        self._by_fd: dict[int, Observatory] = {}  # the owner of each socket
        self._of_home: HomeObservatory | None = None

    def close(self) -> None:
        """Close all of them."""
        for observatory in self._all:
            observatory.close()

    def with_room(self, *, suspect: bool) -> Observatory:
        """Return an observatory that has room for more namespaces. Raises as :class:`ForeignObservatory`."""
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
        """Close an observatory from which nothing is watched any more."""
        self._all.remove(observatory)
        for socket in filter(None, (observatory.links, observatory.ends)):
            del self._by_fd[socket.fileno()]
        observatory.close()

    def readable(self) -> list[Observatory]:
        """Return those that have received events."""
        return list({self._by_fd[fd]: None for fd in self._news.readable() if fd in self._by_fd})

    def lost(self) -> list[Observatory]:
        """Return those that have lost events."""
        return [observatory for observatory in self._all if observatory.lost]
