"""Determine whether a link that was read is still the same, in a later call (:func:`is_another`) or the same call.

An ifindex identifies nothing, even in a namespace that is known to be the same one: the first link of a namespace has
the ifindex 2, and a link that is moved keeps its ifindex if that is free where it arrives. So when a link is deleted, a
link of another program may take its place at once. This is true of the home namespace, too: the kernel chooses fresh
ifindexes only for links that are created there. A MAC is random unless it was given; the ifindex of the peer, together
with its namespace, is chosen by the kernel.

A later call may concern another namespace: a successor with the same name, or the home of another session. Its cookie
shows that (Linux 5.14). If both cookies are the same, the MAC or the peer must also be the same; in home, the ifindex
of the peer suffices. If one of the two cookies is unknown, and this is not the home of the session, the peer identifies
a link only if it is in home: the peers of all pairs between two new containers have the same ifindex, and the
namespaces of the peers have the same id.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from vethlib._nl.link import LinkMessage
from vethlib.links import Link

__all__ = ["UNKNOWN", "KnownVeth", "is_another", "is_replaced"]

UNKNOWN: Final = -2
"""The id of the peer's namespace if it was not read.

None stands for the veth's own namespace, and -1 for a namespace that is ending.
"""


def is_another(
    seen: Link, now: LinkMessage, cookie: int, *, in_home: bool, peer_is_home: Callable[[], bool] = lambda: False
) -> bool:
    """Return whether a Link is not the link that now has its ifindex, in a namespace with this cookie.

    `in_home` is whether that is the home of the session, which is not created again under its name. `peer_is_home` is
    called if it matters whether the peer is in home.
    """
    if seen.cookie != cookie and 0 not in (seen.cookie, cookie):
        return True
    if seen.kind != "veth" or now.kind != "veth":  # other links may change their MAC: a bridge does so with its ports
        return seen.kind != now.kind
    if seen.mac == now.mac.hex(":"):
        return False
    if 0 in (seen.cookie, cookie) and not in_home:
        return seen.peer_index is None or seen.peer_index != now.link or not peer_is_home()
    if not seen.peer_index or not now.link:  # unknown, as for a link of which a cache has seen only the creation
        return False
    if seen.peer_index != now.link:
        return True
    # A peer may be moved, and no event of the veth reports that to a cache. In home, where hardly any ifindex is that
    # of a former link, the veth must be recognised nevertheless. Without an id, the peer is in the namespace of the
    # veth, or was not read (`create` with read=False).
    return not in_home and seen.peer_netnsid not in (None, now.link_netnsid)


class KnownVeth(NamedTuple):
    """What is known of a veth: its MAC (empty: unknown), and the ifindex (0: unknown) and namespace of its peer.

    One of the two suffices to identify it, because other programs may change its MAC or move its peer meanwhile.
    """

    mac: bytes
    peer: int
    peer_netnsid: int | None

    @classmethod
    def of(cls, link: LinkMessage) -> KnownVeth:
        """Return what is known of a veth that was read."""
        return cls(link.mac, link.link or 0, link.link_netnsid)

    @classmethod
    def of_link(cls, link: Link) -> KnownVeth | None:
        """Return what is known of a link that was read; None if it is not a veth."""
        if link.kind != "veth":
            return None
        return cls(bytes.fromhex(link.mac.replace(":", "")), link.peer_index or 0, link.peer_netnsid)

    def is_now(self, link: LinkMessage) -> bool:
        """Return whether it is the link that now has its ifindex. If nothing is known of it, any veth may be."""
        if link.kind != "veth":
            return False
        if not self.mac and not self.peer:
            return True
        if self.mac and self.mac == link.mac:
            return True
        return bool(self.peer) and self.peer == link.link and self.peer_netnsid in (UNKNOWN, link.link_netnsid)


def is_replaced(before: LinkMessage, now: LinkMessage) -> bool:
    """Return whether a veth that was read has been replaced by the link that now has its ifindex.

    Links of other kinds have nothing that is known to stay the same: the MAC of a bridge, for example, changes with its
    ports.
    """
    return before.kind == "veth" and not KnownVeth.of(before).is_now(now)
