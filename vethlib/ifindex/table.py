"""The links of one watched namespace, and how an event changes them."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from .._nl.addr import AddrMessage
from .._nl.const import IFF_UP
from .._nl.link import LinkMessage, parse_link
from ..links import NetnsRef
from .event import EventKind

if TYPE_CHECKING:
    from .observatory import Observatory

__all__ = ["Change", "Table", "Watch", "differences", "put", "record_of", "records", "remove", "table_of"]

Table: TypeAlias = dict[str | int, LinkMessage]
"""Each link under its ifindex, its name and its alternative names.

One dict a namespace: two would cost 230 bytes more where there are two links. Readers take no lock, so at every
moment it holds what was or what is.
"""

Change: TypeAlias = tuple[EventKind, LinkMessage | None, LinkMessage | AddrMessage | None]
"""(kind, link, old or address) of a :class:`~vethlib.ifindex.LinkEvent` to be."""


class Watch:
    """A namespace that is watched. `refs` lead to it, the first of them is how it was asked for.

    `fresh` is what a dump has found (ifindex → link) while the events since are applied to that and not yet told.
    """

    __slots__ = ("fresh", "inode", "nsid", "observatory", "refs", "table")

    def __init__(self, observatory: Observatory, nsid: int, inode: int) -> None:
        self.observatory = observatory
        self.nsid = nsid
        self.inode = inode
        self.refs: tuple[Any, ...] = ()
        self.table: Table = {}
        self.fresh: dict[int, LinkMessage] | None = None

    def add_ref(self, ref: Any) -> None:
        """Know the namespace by one reference more: a text, or a Netns, which is not kept alive for it."""
        if isinstance(ref, str):
            if ref not in self.refs:
                self.refs = (*self.refs, ref)
        elif any(isinstance(one, _Held) for one in self.refs):
            # Those that are open are all equal: the latest will do.
            self.refs = tuple(one if isinstance(one, str) else _Held(ref) for one in self.refs)
        else:
            self.refs = (*self.refs, _Held(ref))

    @property
    def netns(self) -> NetnsRef:
        """The reference as it was given."""
        ref = self.refs[0]
        return ref if isinstance(ref, str) else ref.given()

    @property
    def spellings(self) -> Iterator[str]:
        """The references that are texts."""
        return (ref for ref in self.refs if isinstance(ref, str))


class _Held:
    """A Netns that was given as a reference, and its text for when it is no more."""

    __slots__ = ("_netns", "_text")

    def __init__(self, netns: Any) -> None:
        self._netns = weakref.ref(netns)
        self._text = str(netns)

    def given(self) -> NetnsRef:
        """The Netns, or its text."""
        netns: NetnsRef = self._netns()
        return self._text if netns is None else netns


_NO_MAC: Final = bytes(6)
_MOST_SHARED: Final = 1024
_shared: dict[Any, Any] = {}


def _share(value: Any) -> Any:
    # "eth0" and 1500 are the same in every container: kept once, they make a link 100 bytes smaller.
    known = _shared.get(value)
    if known is None:
        if len(_shared) < _MOST_SHARED:
            _shared[value] = value
        return value
    return known


def record_of(message: LinkMessage) -> LinkMessage:
    """The message with only what a Link shows of it.

    Of the flags only IFF_UP: the kernel tells of others, as IFF_RUNNING, late and in events that change nothing else.
    The first event of a veth is sent before it has a peer (veth_newlink, drivers/net/veth.c), as number 0.
    """
    index, flags, name, mac, mtu, link, *rest = message
    if mac == _NO_MAC:
        mac = _NO_MAC
    return tuple.__new__(LinkMessage, (index, flags & IFF_UP, _share(name), mac, _share(mtu), link or None, *rest))


def records(bodies: Iterable[bytes]) -> dict[int, LinkMessage]:
    """ifindex → link, of the messages of a dump. Raises Malformed."""
    return {record.ifindex: record for record in map(record_of, map(parse_link, bodies))}


def put(table: Table, new: LinkMessage) -> Change | None:
    """Let the table have a link as it is now; what that changed, None if nothing."""
    index = new.ifindex
    old = table.get(index)
    if old == new:
        return None
    table[index] = table[new.name] = new
    for name in new.altnames:
        table[name] = new
    if old is None:
        return "new", new, None
    if old.name == new.name and old.altnames == new.altnames:
        return "changed", new, old
    _remove_names(table, old)
    return "changed" if old.name == new.name else "renamed", new, old


def remove(table: Table, index: int) -> Change | None:
    """Take a link out; what that changed, None if it was not there."""
    old = table.pop(index, None)
    if old is None:
        return None
    _remove_names(table, old)
    return "deleted", None, old


def _remove_names(table: Table, old: LinkMessage) -> None:
    for name in (old.name, *old.altnames):
        if table.get(name) is old:  # another link may have the name by now
            del table[name]


def table_of(records: Iterable[LinkMessage]) -> Table:
    """A table of these links."""
    table: Table = {}
    for record in records:
        table[record.ifindex] = table[record.name] = record
        for name in record.altnames:
            table[name] = record
    return table


def differences(old: Table, new: Table) -> Iterator[Change]:
    """What leads from one table to the other: first what is gone, for its name may be another's now."""
    for key, was in old.items():
        if key == was.ifindex and key not in new:
            yield "deleted", None, was
    for key, now in new.items():
        if key == now.ifindex:
            before = old.get(key)
            if before is None:
                yield "new", now, None
            elif before != now:
                yield "changed" if before.name == now.name else "renamed", now, before
