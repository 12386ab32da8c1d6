"""Events of the cache for its users."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from vethlib.links import Address, Link, NetnsRef

__all__ = ["EventKind", "LinkEvent"]

EventKind: TypeAlias = Literal[
    "new", "changed", "renamed", "deleted", "netns-gone", "resync", "address", "address-gone"
]


@dataclass(frozen=True, slots=True)
class LinkEvent:
    """A change of a link or of a watched namespace.

    ================  ===========================================================  ========  ========
    `kind`            what happened                                                `link`    `old`
    ================  ===========================================================  ========  ========
    ``new``           the link was created, or moved here                          as it is  None
    ``changed``       a change other than its name                                 as it is  as it was
    ``renamed``       a change of its name, and possibly more                      as it is  as it was
    ``deleted``       the link was deleted, or moved away                          None      as it was
    ``netns-gone``    the namespace ended with its links; the watch has ended      None      None
    ``resync``        events were lost                                             None      None
    ``address``       an `address` was added, or has become usable                 as it is  None
    ``address-gone``  an `address` was removed                                     as it is  None
    ================  ===========================================================  ========  ========

    A cache sends the last two only if it was created with ``addresses=True``.

    `netns` is the reference that was passed to ``watch()``. For a ``resync``, it is None if all namespaces are
    affected, and a reference if only events of that namespace were lost: an event was too long to be received, or this
    namespace or another one sent thousands per second, and from then on they are watched separately. After a
    ``resync``, the differences follow as events, unless events were not fetched for so long that the oldest were
    dropped. If you keep a copy of the links, call ``links()`` again. The links in events have no addresses.
    """

    kind: EventKind
    netns: NetnsRef
    link: Link | None = None
    old: Link | None = None
    address: Address | None = None
