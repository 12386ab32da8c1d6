"""What a user of the cache is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from ..links import Address, Link, NetnsRef

__all__ = ["EventKind", "LinkEvent"]

EventKind: TypeAlias = Literal[
    "new", "changed", "renamed", "deleted", "netns-gone", "resync", "address", "address-gone"
]


@dataclass(frozen=True, slots=True)
class LinkEvent:
    """One thing that happened to a link, or to a watched namespace.

    ================  ===========================================================  ========  ========
    `kind`            what happened                                                `link`    `old`
    ================  ===========================================================  ========  ========
    ``new``           it was created, or moved here                                as it is  None
    ``changed``       anything but its name                                        as it is  as it was
    ``renamed``       its name, and perhaps more                                   as it is  as it was
    ``deleted``       it was deleted, or moved away                                None      as it was
    ``netns-gone``    the namespace ended, its links with it; the watch is over    None      None
    ``resync``        events were lost                                             None      None
    ``address``       an `address` was given to it, or is usable now               as it is  None
    ``address-gone``  an `address` was taken from it                               as it is  None
    ================  ===========================================================  ========  ========

    The last two only from a cache that was asked for addresses.

    `netns` is the reference that was given to ``watch()``; None for ``resync``, which is about all of them. After a
    ``resync`` the differences follow as events of their own, unless nobody fetched events for so long that the oldest
    were dropped: who keeps a copy of anything reads ``links()`` again. Links have no addresses here.
    """

    kind: EventKind
    netns: NetnsRef
    link: Link | None = None
    old: Link | None = None
    address: Address | None = None
