"""The table of the links of one namespace, and how an event changes it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final, TypeAlias

from vethlib._nl.addr import AddrMessage
from vethlib._nl.const import IFF_UP
from vethlib._nl.link import LinkMessage, parse_link

from .event import EventKind

__all__ = ["Change", "Table", "differences", "put", "record_of", "records", "remove", "table_of"]

Table: TypeAlias = dict[str | int, LinkMessage]
"""Each link by its ifindex, its name and its alternative names.

There is one dict per namespace; two would take 230 bytes more for a namespace with two links. Readers take no lock, so
at any moment each key has the old or the new link.
"""

Change: TypeAlias = tuple[EventKind, LinkMessage | None, LinkMessage | AddrMessage | None]
"""(kind, link, old or address) of a future :class:`~vethlib.ifindex.LinkEvent`."""


_NO_MAC: Final = bytes(6)
_MOST_SHARED: Final = 1024
_shared: dict[Any, Any] = {}


def _share(value: Any) -> Any:
    # "eth0" and 1500 are the same in every container: sharing them makes a link 100 bytes smaller.
    known = _shared.get(value)
    if known is None:
        if len(_shared) < _MOST_SHARED:
            _shared[value] = value
        return value
    return known


def record_of(message: LinkMessage) -> LinkMessage:
    """Return the message with only the properties of a Link.

    Of the flags, it keeps only IFF_UP: the kernel reports others (IFF_RUNNING) late, and in events that change nothing
    else. The first event of a veth is sent before it has a peer (veth_newlink, drivers/net/veth.c); the ifindex of the
    peer is 0 then.
    """
    index, flags, name, mac, mtu, link, *rest = message
    if mac == _NO_MAC:
        mac = _NO_MAC
    return tuple.__new__(LinkMessage, (index, flags & IFF_UP, _share(name), mac, _share(mtu), link or None, *rest))


def records(bodies: Iterable[bytes]) -> dict[int, LinkMessage]:
    """Return the links in a dump by ifindex. Raises Malformed."""
    return {record.ifindex: record for record in map(record_of, map(parse_link, bodies))}


def put(table: Table, new: LinkMessage) -> Change | None:
    """Put the current state of a link into the table; return the change, or None if nothing changed."""
    index = new.ifindex
    old = table.get(index)
    if old == new:
        return None
    if old is not None and old.altnames and old.altnames != new.altnames:
        new = _with_known_names(new, old.altnames)
    table[index] = table[new.name] = new
    for name in new.altnames:
        table[name] = new
    if old is None:
        return "new", new, None
    if old.name == new.name and old.altnames == new.altnames:
        return "changed", new, old
    _remove_names(table, old)
    return "changed" if old.name == new.name else "renamed", new, old


def _with_known_names(new: LinkMessage, known: tuple[str, ...]) -> LinkMessage:
    """Return the link with the known string objects for its alternative names.

    A link may have 496 such names of 127 characters; otherwise, each pending change would have its own copies.
    """
    same = dict(zip(known, known, strict=True))
    return new._replace(altnames=tuple([same.get(name, name) for name in new.altnames]))


def remove(table: Table, index: int) -> Change | None:
    """Remove a link; return the change, or None if the link was missing."""
    old = table.pop(index, None)
    if old is None:
        return None
    _remove_names(table, old)
    return "deleted", None, old


def _remove_names(table: Table, old: LinkMessage) -> None:
    for name in (old.name, *old.altnames):
        if table.get(name) is old:  # another link may already have the name
            del table[name]


def table_of(records: Iterable[LinkMessage]) -> Table:
    """Return a table of these links."""
    table: Table = {}
    for record in records:
        table[record.ifindex] = table[record.name] = record
        for name in record.altnames:
            table[name] = record
    return table


def differences(old: Table, new: Table) -> Iterator[Change]:
    """Yield the changes from one table to another: deletions first, because their names may have new owners."""
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
