"""A network namespace of our own, from which others are watched without being touched.

Theory of operation:

1. A socket hears the namespaces that have an id in its own (see `_nl/events.py`), so a namespace is watched by giving
   it an id. The kernel takes no id back: given out in home, they would stay there for good. So they are given out in
   an anonymous namespace in which nothing is but our sockets. When those are closed it ends, and every id with it; an
   id keeps nobody alive. Home is one of the watched.
2. Ids are numbered by us, upwards from `FIRST_ID`, so that none ever means two namespaces. Below it the kernel numbers
   those that it gives out by itself (see 5).
3. RTM_DELNSID says that a watched namespace has ended. It comes before the links in there are unregistered
   (unhash_nsid in cleanup_net, net/core/net_namespace.c), so that no RTM_DELLINK of theirs is ever heard. A socket of
   its own hears it, in this namespace only: the one that hears everywhere would hear of every id that a watched
   namespace gives to another.
4. Giving out an id takes 20 ns for each that there is already: the 8 000th takes as long as reading eight namespaces.
   So where `ROOM` namespaces are watched from one observatory, the next are from another.
5. The links of a namespace are read in there, through a socket that lives for this one question. They could be read
   from here (IFLA_TARGET_NETNSID), but then IFLA_LINK_NETNSID would be an id of *this* namespace, made on the spot
   for a peer that perhaps nobody watches (rtnl_fill_link_netnsid takes the asking socket's namespace). In events it is
   an id of the link's own. Only where no reference leads to a watched namespace any more (its name was removed,
   somebody still is in it) it is read from here, and the ids are translated.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from contextlib import ExitStack, closing
from itertools import count
from typing import Final

from .. import ns
from .._nl.const import RTNLGRP_NSID
from .._nl.events import EventSocket
from .._nl.link import LinkMessage, dump_links
from .._nl.nsid import get_nsid, new_nsid, parse_nsid, translate_nsid
from .._nl.sock import RtnlSocket
from ..errors import NotPermitted
from ..session.refusal import refusal, system_errors
from .table import records

__all__ = ["FIRST_ID", "ROOM", "Observatory"]

FIRST_ID: Final = 1 << 20
ROOM: Final = 512

_ENDS_BUFFER: Final = 4 << 20


class Observatory:
    """The namespace and its sockets: for questions, for `links` events, for `ends` of namespaces. Takes no lock.

    `groups` are the multicast groups whose events `links` gives. `watched` is how many namespaces are watched from
    here, `lost` that events were lost: both are kept by who uses it.

    Raises NotPermitted without CAP_SYS_ADMIN (to make a namespace) or CAP_NET_BROADCAST (to hear others), NetlinkError.
    """

    def __init__(self, ids: count[int], groups: Sequence[int], receive_buffer: int) -> None:
        self._ids = ids
        self.watched = 0
        self.lost = False
        with system_errors("watch namespaces"):
            self._requests, self.links, self.ends = ns.call_in_new(lambda: _sockets(groups, receive_buffer))

    def close(self) -> None:
        """End the namespace."""
        for socket in (self._requests, self.links, self.ends):
            socket.close()

    def assign(self, fds: Sequence[int]) -> list[int]:
        """The ids of these namespaces, given out where they have none yet."""
        ids = [next(self._ids) for _ in fds]
        with system_errors("give namespaces an id"):
            outcomes = self._requests.exchange([new_nsid(fd, nsid) for fd, nsid in zip(fds, ids, strict=True)])
        known = []
        for position, outcome in enumerate(outcomes):
            if outcome.errno == errno.EEXIST:
                known.append(position)
            elif outcome.errno:
                raise refusal(outcome, "give a namespace an id", "")
        for position, nsid in zip(known, self.ids_of([fds[position] for position in known]), strict=True):
            assert nsid is not None
            ids[position] = nsid
        return ids

    def ids_of(self, fds: Sequence[int]) -> list[int | None]:
        """The ids that these namespaces have, None for one without."""
        with system_errors("ask for the id of a namespace"):
            outcomes = self._requests.exchange([get_nsid(fd) for fd in fds])
        return [None if outcome.errno else parse_nsid(outcome.bodies[0]) for outcome in outcomes]

    def links_of(self, nsid: int) -> dict[int, LinkMessage] | None:
        """The links of a namespace that no reference leads to, by ifindex; None if it has ended (rule 4)."""
        with system_errors("list the links of a namespace by its id"):
            (outcome,) = self._requests.exchange([dump_links(netnsid=nsid)])
            if outcome.errno == errno.EINVAL:  # what rtnl_get_net_ns_capable says of an id that is nobody's
                return None
            if outcome.errno:
                raise refusal(outcome, "list the links of a namespace by its id", "")
            found = records(outcome.bodies)
            elsewhere = [one for one in found.values() if one.link_netnsid is not None]
            requests = [translate_nsid(one.link_netnsid or 0, nsid) for one in elsewhere]
            for one, answer in zip(elsewhere, self._requests.exchange(requests), strict=True):
                translated = None if answer.errno else parse_nsid(answer.bodies[0])
                found[one.ifindex] = one._replace(link_netnsid=translated)
        return found


def _sockets(groups: Sequence[int], receive_buffer: int) -> tuple[RtnlSocket, EventSocket, EventSocket]:
    with ExitStack() as opened:
        requests = opened.enter_context(closing(RtnlSocket()))
        ends = opened.enter_context(closing(EventSocket([RTNLGRP_NSID], _ENDS_BUFFER)))
        try:
            links = EventSocket(groups, receive_buffer, everywhere=True)
        except PermissionError as error:
            message = "hearing the events of others needs CAP_NET_BROADCAST"
            raise NotPermitted(message, errno=error.errno or 0) from None
        opened.pop_all()
    return requests, links, ends
