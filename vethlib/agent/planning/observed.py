"""The observed state of a host: its namespaces and links at one moment, to be compared with the desired state.

Where a link was observed, there may be another link by the time something is done about it. Name, ifindex and inode
number of the namespace do not distinguish them: a namespace that was removed and created again often has the same inode
number, and the first links in it have the same ifindexes; and a link may be created with an ifindex of the creator's
choice. So a link is changed or deleted only if (:func:`is_same_link`)

1. its namespace has the cookie that it had, where the kernel has cookies (SO_NETNS_COOKIE, Linux 5.14), and
2. it has the owner mark that it was observed or built with, or the same alias, group and MAC as when it was observed.

A tenant can write all of that, and must not be able to keep an agent from deleting its own pair by rewriting it in a
loop. So outside the home namespace, and where the cookie proves that it is the same namespace, the MAC or the peer is
enough, too: the peer's ifindex and namespace are the kernel's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from vethlib._nl.const import FALLBACK_TUNNELS
from vethlib.agent.config.mark import Mark, group_of, read_alias
from vethlib.agent.reasons import Reason, ReasonCode
from vethlib.links import Address, Link

__all__ = [
    "LinkId",
    "NetnsId",
    "Observed",
    "SeenLink",
    "SeenNetns",
    "is_of_every_netns",
    "is_same_link",
    "is_same_netns",
]

NetnsId: TypeAlias = "tuple[int, int] | str"
"""The identity of a namespace: (st_dev, st_ino), or the reference of a named one that does not exist yet."""

LinkId: TypeAlias = tuple[NetnsId, int]
"""A link in the whole host: its namespace and its ifindex there."""


@dataclass(frozen=True, slots=True)
class SeenNetns:
    """The result of resolving a namespace reference.

    * The namespace exists: `place` is its identity.
    * It does not exist: `place` is None, and `reason` is the reason as text (``process 42 is gone``), with its `code`
      and, if the kernel refused something, the name of the error number (`errno`).
    * It is a named namespace that can be created on demand: `missing` is True, and `place` is the text of the
      reference. A named namespace that must not be created is treated as one that does not exist.
    * `unknown`: the source that would know does not answer. Nothing is built there, and no pair is deleted for that
      reason. `refused`: the namespace or the path to it refused access; no event will report a change, so it has to be
      tried again.
    """

    ref: str
    place: NetnsId | None
    reason: str = ""
    missing: bool = False
    unknown: bool = False
    refused: bool = False
    code: ReasonCode = ReasonCode.NETNS_NOT_FOUND
    errno: str = ""

    def absence(self) -> Reason:
        """Return why nothing can be built in this namespace."""
        return Reason(self.code, self.reason or f"{self.ref} does not exist", self.ref, self.errno)

    @property
    def creatable(self) -> bool:
        """Whether creating a pair may create this namespace first."""
        return self.missing and self.place is not None


@dataclass(frozen=True, slots=True)
class SeenLink:
    """An observed link, its namespace, and its peer, if it is a veth whose peer was found.

    `ref` is a reference by which its namespace can be entered. `id` is the identity of the link on this host. `cookie`
    distinguishes its namespace from later ones with the same identity (SO_NETNS_COOKIE); 0 if it is unknown.
    `further` has the fields that no :class:`Link` has, as far as they were read, because its interface has them.
    `owners_known` is whether the owner mark of each address is right; if not, an address without a mark may be the
    agent's, too.
    """

    place: NetnsId
    ref: str
    link: Link
    addresses: tuple[Address, ...] = ()
    peer: LinkId | None = None
    cookie: int = field(default=0, repr=False, compare=False)
    owners_known: bool = field(default=True, repr=False, compare=False)
    further: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)
    id: LinkId = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "id", (self.place, self.link.index))

    def value_of(self, field: str) -> Any:
        """Return the value of a field of :class:`Link` or of `further`; None if it was not read."""
        return self.further[field] if field in self.further else getattr(self.link, field, None)


@dataclass(frozen=True, slots=True)
class Observed:
    """The observed state of the host. `netns` needs an entry for every reference of the desired interfaces.

    The links of each namespace are listed once, however many references lead to it. `cookies` distinguish the observed
    namespaces from later ones with the same identity (SO_NETNS_COOKIE). `home` is the home namespace, in which no
    tenant can change links; None if it was not observed. `by_name` and `by_index` have the same links. `fingerprints`
    are equal to those of another observation of everything if both have seen the same; None if they are not known.
    """

    netns: Mapping[str, SeenNetns] = field(hash=False)
    links: Sequence[SeenLink] = field(default=(), hash=False)
    cookies: Mapping[NetnsId, int] = field(default_factory=dict, repr=False, compare=False)
    fingerprints: object = field(default=None, repr=False, compare=False)
    home: NetnsId | None = field(init=False, repr=False, compare=False)
    by_name: dict[tuple[NetnsId, str], SeenLink] = field(init=False, repr=False, compare=False)
    by_index: dict[LinkId, SeenLink] = field(init=False, repr=False, compare=False)
    _by_peer: dict[LinkId, SeenLink] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        by_name: dict[tuple[NetnsId, str], SeenLink] = {}
        by_index: dict[LinkId, SeenLink] = {}
        by_peer: dict[LinkId, SeenLink] = {}
        for seen in self.links:
            by_index[seen.id] = seen
            if seen.peer:
                by_peer.setdefault(seen.peer, seen)
            # An alternative name takes the name as well (netdev_name_in_use, net/core/dev.c).
            for name in (seen.link.name, *seen.link.altnames):
                by_name[seen.place, name] = seen
        object.__setattr__(self, "by_name", by_name)
        object.__setattr__(self, "by_index", by_index)
        object.__setattr__(self, "_by_peer", by_peer)
        home = self.netns.get("")
        object.__setattr__(self, "home", None if home is None else home.place)

    def is_replaced(self, place: NetnsId, cookie: int) -> bool:
        """Return whether the namespace with this identity and cookie has ended: another one has the identity now."""
        return not is_same_netns(place, cookie, place, self.cookies.get(place, 0))

    def has(self, end: LinkId, cookie: int) -> bool:
        """Return whether a link was observed, in the namespace with this cookie."""
        return end in self.by_index and not self.is_replaced(end[0], cookie)

    def ends(self, seen: SeenLink | None) -> list[SeenLink]:
        """Return both ends of a pair, given one of them; only those that were observed."""
        if seen is None:
            return []
        other = self.by_index.get(seen.peer) if seen.peer is not None else None
        if other is None:
            other = self._by_peer.get(seen.id)
        return [seen] if other is None else [seen, other]


def is_same_netns(place: NetnsId | None, cookie: int, now: NetnsId | None, now_cookie: int) -> bool:
    """Return whether both are the same namespace: a cookie counts only if both are known."""
    return place is not None and place == now and (not cookie or not now_cookie or cookie == now_cookie)


def is_of_every_netns(link: Link) -> bool:
    """Return whether the kernel creates such a link in every namespace, and nobody uses it, as far as can be seen."""
    return link.name == "lo" or (link.name in FALLBACK_TUNNELS and not link.up)


def is_same_link(was: SeenLink, mark: Mark | None, now: Link, place: NetnsId, cookie: int) -> bool:
    """Return whether `now`, in the namespace with that identity and cookie, is the link that was observed.

    `mark` is the owner mark that the link is known to have been built with; None if it is unknown.
    """
    if now.index != was.link.index or not is_same_netns(was.place, was.cookie, place, cookie):
        return False
    before = was.link
    if (now.alias, now.group, now.mac) == (before.alias, before.group, before.mac):
        return True
    if mark is not None and _has_mark(now, mark):
        return True
    if was.ref == "" or not (was.cookie and cookie):
        return False
    peer = (now.peer_index, now.peer_netnsid)
    return now.mac == before.mac or (peer[0] is not None and peer == (before.peer_index, before.peer_netnsid))


def _has_mark(link: Link, mark: Mark) -> bool:
    if not link.alias:
        return link.group == group_of(mark.label)
    written = read_alias(link.alias)
    return written is not None and (written.label, written.name) == (mark.label, mark.name)
