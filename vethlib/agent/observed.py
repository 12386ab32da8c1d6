"""What is there: namespaces and links as found at one moment, which a plan compares with what is wanted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from vethlib.links import Address, Link

__all__ = ["LinkId", "Observed", "Place", "SeenLink", "SeenNetns"]

Place: TypeAlias = "tuple[int, int] | str"
"""Which namespace: (st_dev, st_ino), or the reference text of a named one that does not exist yet."""

LinkId: TypeAlias = tuple[Place, int]
"""A link in the whole host: its namespace and its ifindex there."""


@dataclass(frozen=True, slots=True)
class SeenNetns:
    """What a namespace reference leads to.

    * There: `place` is its identity.
    * Absent: `place` is None, and `reason` says so in words (``process 42 is gone``).
    * A named namespace to be created on demand: `missing`, and `place` is its reference text. One that must
      not be created is simply absent.
    * `unknown`: absent as far as one can see, but who would know does not answer. Nothing is built there, and
      nothing is taken down for it.
    """

    ref: str
    place: Place | None
    reason: str = ""
    missing: bool = False
    unknown: bool = False

    @property
    def creatable(self) -> bool:
        """Whether creating a pair may create this namespace first."""
        return self.missing and self.place is not None


@dataclass(frozen=True, slots=True)
class SeenLink:
    """A link, where it is, and the other end of it where that is a veth's and was found.

    `ref` is a reference its namespace can be entered by.
    """

    place: Place
    ref: str
    link: Link
    addresses: tuple[Address, ...] = ()
    peer: LinkId | None = None

    @property
    def id(self) -> LinkId:
        """Which link of the host this is."""
        return self.place, self.link.index


@dataclass(frozen=True, slots=True)
class Observed:
    """All that was found. `netns` needs an entry for every reference the desired interfaces use.

    Every namespace's links are listed once, however many references lead to it.
    """

    netns: Mapping[str, SeenNetns]
    links: Sequence[SeenLink] = ()
    by_name: dict[tuple[Place, str], SeenLink] = field(init=False, repr=False, compare=False)
    by_index: dict[LinkId, SeenLink] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        by_name: dict[tuple[Place, str], SeenLink] = {}
        for seen in self.links:
            # An alternative name takes the name as well (netdev_name_in_use, net/core/dev.c).
            for name in (seen.link.name, *seen.link.altnames):
                by_name[seen.place, name] = seen
        object.__setattr__(self, "by_name", by_name)
        object.__setattr__(self, "by_index", {seen.id: seen for seen in self.links})
