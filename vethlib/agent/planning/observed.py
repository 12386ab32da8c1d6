"""The observed state of a host: its namespaces and links at one moment, to be compared with the desired state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from vethlib.links import Address, Link

__all__ = ["LinkId", "NetnsId", "Observed", "SeenLink", "SeenNetns"]

NetnsId: TypeAlias = "tuple[int, int] | str"
"""The identity of a namespace: (st_dev, st_ino), or the reference of a named one that does not exist yet."""

LinkId: TypeAlias = tuple[NetnsId, int]
"""A link in the whole host: its namespace and its ifindex there."""


@dataclass(frozen=True, slots=True)
class SeenNetns:
    """The result of resolving a namespace reference.

    * The namespace exists: `place` is its identity.
    * It does not exist: `place` is None, and `reason` is the reason as text (``process 42 is gone``).
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

    @property
    def creatable(self) -> bool:
        """Whether creating a pair may create this namespace first."""
        return self.missing and self.place is not None


@dataclass(frozen=True, slots=True)
class SeenLink:
    """An observed link, its namespace, and its peer, if it is a veth whose peer was found.

    `ref` is a reference by which its namespace can be entered. `id` is the identity of the link on this host.
    """

    place: NetnsId
    ref: str
    link: Link
    addresses: tuple[Address, ...] = ()
    peer: LinkId | None = None
    id: LinkId = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "id", (self.place, self.link.index))


@dataclass(frozen=True, slots=True)
class Observed:
    """The observed state of the host. `netns` needs an entry for every reference of the desired interfaces.

    The links of each namespace are listed once, however many references lead to it. `cookies` distinguish the observed
    namespaces from later ones with the same identity (SO_NETNS_COOKIE). `home` is the home namespace, in which no
    tenant can change links; None if it was not observed. `by_name` and `by_index` have the same links. `fingerprints`
    are equal to those of another look at everything if both have seen the same; None if they are not known.
    """

    netns: Mapping[str, SeenNetns]
    links: Sequence[SeenLink] = ()
    cookies: Mapping[NetnsId, int] = field(default_factory=dict, repr=False, compare=False)
    fingerprints: object = field(default=None, repr=False, compare=False)
    home: NetnsId | None = field(init=False, repr=False, compare=False)
    by_name: dict[tuple[NetnsId, str], SeenLink] = field(init=False, repr=False, compare=False)
    by_index: dict[LinkId, SeenLink] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        by_name: dict[tuple[NetnsId, str], SeenLink] = {}
        for seen in self.links:
            # An alternative name takes the name as well (netdev_name_in_use, net/core/dev.c).
            for name in (seen.link.name, *seen.link.altnames):
                by_name[seen.place, name] = seen
        object.__setattr__(self, "by_name", by_name)
        object.__setattr__(self, "by_index", {seen.id: seen for seen in self.links})
        home = self.netns.get("")
        object.__setattr__(self, "home", None if home is None else home.place)

    def ends(self, seen: SeenLink | None) -> list[SeenLink]:
        """Return both ends of a pair, given one of them; only those that were observed."""
        if seen is None:
            return []
        other = self.by_index.get(seen.peer) if seen.peer is not None else None
        if other is None:
            other = next((link for link in self.links if link.peer == seen.id), None)
        return [seen] if other is None else [seen, other]
