"""Links that are about to vanish, because the namespace of their other end is ending.

The steps of the kernel (net/core/net_namespace.c), and how they can be observed:

1. When the last reference to a namespace is dropped, it is queued for cleanup_net, which runs in a kernel thread, one
   batch after another. It can no longer be referenced (maybe_get_net): RTM_GETNSID for its id returns ENOENT.
2. cleanup_net removes its ids (unhash_nsid): IFLA_LINK_NETNSID of a link whose other end is in there is -1.
3. default_device_exit_batch unregisters its links, each with its other end (veth_dellink). Until then, 10 to 70 ms
   after step 1 on an idle machine and seconds on a busy one, the other end keeps its name.

A netlink socket drops its reference an RCU grace period (about 20 ms) after it was closed. Until then, such a namespace
cannot be distinguished from one that a descriptor keeps. So if the other end of a link is in a namespace that the call
has not opened itself, the link is read again for a short time before it is reported as staying.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Sequence
from typing import Final, TypeVar

from vethlib._nl.link import LinkMessage, get_named, parse_link
from vethlib._nl.nsid import get_nsid, parse_nsid, probe_nsid
from vethlib._primitives import time
from vethlib.session.core.namespaces import Namespaces, OpenNetns

from .target import read_body

__all__ = ["Patience", "Wanted", "are_dying", "holders"]

_DOUBT: Final = 0.05  # seconds after which a namespace without users is known to be ending
_DOUBT_IN_WAIT: Final = 1.0  # the same, for a caller that waits anyway
_PAUSES: Final = (0.001, 0.02)  # seconds between two checks: the first, doubled up to the longest

Wanted = tuple[OpenNetns, str]
"""A name that must be free in a namespace."""

K = TypeVar("K")


def holders(namespaces: Namespaces, wanted: Iterable[Wanted]) -> dict[Wanted, LinkMessage]:
    """Return the links that have these names, as far as there are any."""
    found: dict[Wanted, LinkMessage] = {}
    for place, name in wanted:
        outcome = namespaces.ask(place, get_named(name))
        if not outcome.errno:
            found[place, name] = read_body(place, outcome, parse_link)
    return found


def are_dying(namespaces: Namespaces, found: dict[Wanted, LinkMessage]) -> bool:
    """Return whether there are such links, and all of them are about to vanish."""
    return bool(found) and all(_is_dying(namespaces, place, link) for (place, _), link in found.items())


def _is_dying(namespaces: Namespaces, place: OpenNetns, link: LinkMessage) -> bool | None:
    """Return whether a link is about to vanish; None if that is not known yet."""
    if link.link_netnsid is None:
        return False
    if link.link_netnsid < 0:
        return True
    outcome = namespaces.ask(place, probe_nsid(link.link_netnsid))
    if outcome.errno:
        return outcome.errno == errno.ENOENT
    for other in namespaces:
        answer = namespaces.ask(place, get_nsid(other.fd))
        if not answer.errno and read_body(place, answer, parse_nsid) == link.link_netnsid:
            return False
    return None


class Patience:
    """The time that one call may wait for links to vanish: `wait` seconds in total, None for a call that does not wait.

    `spent` is the number of seconds used so far.
    """

    def __init__(self, wait: float | None) -> None:
        self._wait = 0.0 if wait is None else wait
        self._doubt = _DOUBT if wait is None else min(wait, _DOUBT_IN_WAIT)
        self.spent = 0.0

    def freed(self, namespaces: Namespaces, blocked: Sequence[tuple[K, Sequence[Wanted]]]) -> list[K]:
        """Wait until all names of some of the `blocked` are free, if that may be soon, and return those.

        Returns none if each is blocked by a link that stays, or if the time is over.
        """
        began, pause = time.monotonic(), _PAUSES[0]
        try:
            while True:
                found = [(key, holders(namespaces, wanted)) for key, wanted in blocked]
                if free := [key for key, links in found if not links]:
                    return free
                passed = time.monotonic() - began
                left = max(self._left(namespaces, links) for _, links in found) - passed
                if left <= 0:
                    return []
                time.sleep(min(pause, left))
                pause = min(2 * pause, _PAUSES[1])
        finally:
            self.spent += time.monotonic() - began

    def _left(self, namespaces: Namespaces, links: dict[Wanted, LinkMessage]) -> float:
        """Return the number of seconds to wait until none of these links exists."""
        verdicts = [_is_dying(namespaces, place, link) for (place, _), link in links.items()]
        if False in verdicts:
            return 0.0
        most = self._doubt if None in verdicts else self._wait
        return min(most, self._wait - self.spent) if self._wait else most - self.spent
