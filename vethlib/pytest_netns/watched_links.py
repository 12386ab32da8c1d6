"""The links of some namespaces, looked at time and again: listed anew only where something has changed.

A listing costs 20 µs, and 50 in a namespace where nobody has been for a while. So in each a socket hears of its links,
and one poll of all these tells where there is anything to list. An event is queued before the call returns that caused
it (rtnl_notify, net/core/rtnetlink.c), so none is late.

The sockets keep their namespaces alive, and thereby the identities theirs, until a look no longer asks for them.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Mapping
from contextlib import suppress

from .. import ns
from .._nl.const import NETLINK_ROUTE
from .found import Found, Identity

__all__ = ["WatchedLinks"]

_RTMGRP_LINK = 1  # include/uapi/linux/rtnetlink.h

_FALLBACKS = frozenset(
    # Made in every namespace that there is by whoever first needs a tunnel of the kind, and not to be deleted
    # (fb_tunnels_only_for_init_net, Documentation/admin-guide/sysctl/net.rst).
    ("tunl0", "gre0", "gretap0", "erspan0", "ip_vti0", "ip6_vti0", "sit0", "ip6tnl0", "ip6gre0")
)


class WatchedLinks:
    """What is known of the links of the namespaces that the last look asked for."""

    def __init__(self) -> None:
        self._sockets: dict[Identity | None, socket.socket] = {}
        self._links: dict[Identity | None, list[Found]] = {}
        self._news = select.poll()

    def close(self) -> None:
        """Stop listening everywhere."""
        self._forget(self._links.keys() | self._sockets.keys())

    def filenos(self) -> list[int]:
        """The descriptors of the sockets that listen."""
        return [heard.fileno() for heard in self._sockets.values()]

    def look(self, places: Mapping[Identity | None, int]) -> list[Found]:
        """The links in each of these namespaces, given with a descriptor of each; home is the one called None."""
        self._forget((self._links.keys() | self._sockets.keys()) - places.keys())
        self._listen(places)
        ready = {fd for fd, _ in self._news.poll(0)}
        stale = []
        for place in places:
            heard = self._sockets.get(place)
            if heard is None or heard.fileno() in ready or place not in self._links:
                if heard is not None:
                    _drain(heard)
                stale.append(place)
        if stale:
            listed = ns.map_in([places[place] for place in stale], socket.if_nameindex)
            for place, links in zip(stale, listed, strict=True):
                self._links[place] = [
                    Found("link", place, index, name) for index, name in links if name not in _FALLBACKS
                ]
        return [link for place in places for link in self._links[place]]

    def _listen(self, places: Mapping[Identity | None, int]) -> None:
        new = [place for place in places if place not in self._links and place not in self._sockets]
        with suppress(OSError):  # no descriptors left: where there is no socket, every look makes a listing
            for place, heard in zip(
                new, ns.map_in([places[place] for place in new], _hear) if new else (), strict=True
            ):
                self._sockets[place] = heard
                self._news.register(heard, select.POLLIN | select.POLLERR)

    def _forget(self, places: set[Identity | None]) -> None:
        for place in places:
            self._links.pop(place, None)
            if (heard := self._sockets.pop(place, None)) is not None:
                self._news.unregister(heard)
                heard.close()


def _hear() -> socket.socket:
    heard = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, NETLINK_ROUTE)
    heard.bind((0, _RTMGRP_LINK))
    return heard


def _drain(heard: socket.socket) -> None:
    while True:
        try:
            heard.recv(1)
        except BlockingIOError:
            return
        except OSError:
            pass  # ENOBUFS: there was more than could be queued
