"""A watched namespace: the references that lead to it, where its events are received, and its links."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from vethlib._nl.link import LinkMessage
from vethlib.links import NetnsRef
from vethlib.ns.netns import text_of

from .dumps import FirstLook
from .observatory import Observatory
from .table import Table

__all__ = ["Watch"]


class Watch:
    """A watched namespace. `refs` are the references that lead to it, in the order in which they were given.

    `fresh` has the links of a dump by ifindex while later events are applied to it without being reported; `first` has
    the same and the addresses, if a caller asked for them. `is_over` is set once the namespace is no longer watched.
    `cookie` distinguishes it from later namespaces with its inode number; 0 if it is unknown. If the namespace is no
    longer watched because it was too noisy, `cookie` is None if it can no longer be reached.
    """

    __slots__ = ("cookie", "first", "fresh", "inode", "is_over", "nsid", "observatory", "refs", "rests_until", "table")

    def __init__(self, observatory: Observatory, nsid: int, inode: int, cookie: int = 0) -> None:
        self.observatory = observatory
        self.nsid = nsid
        self.inode = inode
        self.is_over = False
        self.cookie: int | None = cookie
        self.refs: tuple[Any, ...] = ()
        self.table: Table = {}
        self.fresh: dict[int, LinkMessage] | None = None
        self.first: FirstLook | None = None
        self.rests_until = 0.0  # the earliest time for the next dump

    def add_ref(self, ref: Any) -> None:
        """Add a reference: a string, or a Netns, which is not kept alive."""
        if isinstance(ref, str):
            if ref not in self.refs:
                self.refs = (*self.refs, ref)
        elif any(isinstance(known, _Held) for known in self.refs):
            # Open Netns objects of one namespace are equal, so the latest suffices.
            self.refs = tuple(known if isinstance(known, str) else _Held(ref) for known in self.refs)
        else:
            self.refs = (*self.refs, _Held(ref))

    @property
    def netns(self) -> NetnsRef:
        """The first reference, as it was given."""
        return next(self.given())

    def given(self) -> Iterator[NetnsRef]:
        """Yield all references, as they were given."""
        return (ref if isinstance(ref, str) else ref.given() for ref in self.refs)

    @property
    def spellings(self) -> Iterator[str]:
        """The references that are strings."""
        return (ref for ref in self.refs if isinstance(ref, str))


class _Held:
    """An open namespace that was given as a reference, and its spelling, for use after it is collected.

    An object to which there are no weak references, such as the descriptors of `vethlib.ns`, is only known by that.
    """

    __slots__ = ("_netns", "_text")

    def __init__(self, netns: Any) -> None:
        self._text = text_of(netns)
        self._netns: Callable[[], Any] = _nothing
        with suppress(TypeError):
            self._netns = weakref.ref(netns)

    def given(self) -> NetnsRef:
        """Return the Netns, or its spelling."""
        netns: NetnsRef = self._netns()
        return self._text if netns is None else netns


def _nothing() -> None:
    pass
