"""A link as callers give it: its name, a :class:`Link` that was read, or the :class:`End` from which it was made.

A name or an End means the link that has this name when it is looked up. A Link means that very link: if its name now
belongs to another link, it is not found. Name and ifindex do not suffice for that, because a namespace that is created
again has the same ifindexes, and a link that is moved may keep its own (`session/read/samelink.py`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias, TypeVar

from .errors import InvalidValue, check_type
from .links import End, Link, NetnsRef, check_index, check_ref, means_home

__all__ = [
    "NO_ITEM",
    "NO_REFS",
    "Item",
    "LinkRef",
    "Located",
    "as_indexed",
    "as_items",
    "as_key",
    "as_list",
    "as_list_of",
    "check_refs",
    "check_several",
    "locate",
]

T = TypeVar("T")

Located: TypeAlias = tuple[str, NetnsRef, int | None, Link | None]
"""Name, namespace, the ifindex that the link must have, and the Link that it must be, or None."""

LinkRef: TypeAlias = str | Link | End
"""The name of a link, a Link or an End; the latter two contain their namespace."""

Item: TypeAlias = tuple[str, NetnsRef] | Link | End
"""One link of many: (name, namespace), a Link or an End."""

_NO_LINK = "give the name of a link, a Link or an End"
NO_REFS = 'give references as text, as in ["", "ns1", "pid:42"]'
NO_ITEM = 'give (name, namespace) as in ("veth1", "ns1"), a Link or an End; "" is home'


def locate(link: LinkRef, netns: NetnsRef = "", field: str = "name") -> Located:
    """Return the name, the namespace and, for a Link, the ifindex and the Link.

    If `netns` is given, the link is looked up there: it must still have the ifindex of the Link, but may have been
    moved. Raises InvalidValue.
    """
    if netns.__class__ is not str:
        check_ref(netns)
    if isinstance(link, str):
        return link, netns, None, None
    if isinstance(link, Link):
        return (link.name, link.netns, link.index, link) if means_home(netns) else (link.name, netns, link.index, None)
    if isinstance(link, End):
        _check_is_whole(link)
        return link.name, link.netns if means_home(netns) else netns, None, None
    raise InvalidValue(field, link, _NO_LINK)


def _check_is_whole(end: End) -> None:
    if end.name[-1] == "*":
        raise InvalidValue(
            "name", end.name, "a name that ends with * does not identify a link: give the Link that create() returned"
        )


def as_list(values: Iterable[T], field: str, hint: str) -> list[T]:
    """Return values as a list. Raises InvalidValue if they cannot be iterated over."""
    if not isinstance(values, Iterable):
        raise InvalidValue(field, values, hint)
    return list(values)


def as_list_of(cls: type[T], values: Iterable[object], field: str, hint: str) -> list[T]:
    """Return values as a list. Raises InvalidValue if they cannot be iterated over, or one is not of this class."""
    return [check_type(value, cls, field, hint) for value in as_list(values, field, hint)]


def as_items(items: Iterable[object]) -> list[Located]:
    """Return each item as :func:`locate` does; instead of the name, an item may contain the ifindex.

    Raises InvalidValue, also for a name alone, which would be split into its letters: "ab" into link a in namespace b.
    """
    found: list[Located] = []
    for item in [items] if isinstance(items, str) else items:
        if isinstance(item, Link | End):
            found.append(locate(item))
        elif isinstance(item, str):
            raise InvalidValue("items", item, f"a link is a name and a namespace: write ({item!r}, '') for home")
        elif isinstance(item, tuple | list) and 2 <= len(item) <= 3:
            name, netns, *index = item
            check_ref(netns)
            found.append((name, netns, check_index(index[0]) if index else None, None))
        else:
            raise InvalidValue("items", item, NO_ITEM)
    return found


def as_key(link: object) -> tuple[NetnsRef, str | int, Link | None]:
    """Return (reference, name or ifindex, Link or None) for a Link, an End, or (reference, name or ifindex).

    Raises InvalidValue.
    """
    if isinstance(link, Link):
        return link.netns, link.index, link
    if isinstance(link, End):
        _check_is_whole(link)
        return link.netns, link.name, None
    if isinstance(link, tuple) and len(link) == 2:
        if link[0].__class__ is not str:
            check_ref(link[0])
        return *link, None
    raise InvalidValue("links", link, "give (reference, name or ifindex), a Link or an End")


def as_indexed(link: object) -> tuple[NetnsRef, int, Link | None]:
    """Return (reference, ifindex, Link or None) for a Link, or (reference, ifindex). Raises InvalidValue."""
    if isinstance(link, Link):
        return link.netns, link.index, link
    if isinstance(link, tuple) and len(link) == 2 and isinstance(link[1], int):
        check_ref(link[0])
        check_index(link[1])
        return *link, None
    raise InvalidValue("links", link, "give (reference, ifindex) or a Link")


def check_several(refs: Iterable[object], field: str = "refs") -> None:
    """Raise InvalidValue if a single reference is given instead of several: it would be split into letters."""
    if isinstance(refs, str):
        raise InvalidValue(field, refs, f"give a list of references: [{refs!r}]")


def check_refs(refs: Iterable[str], field: str = "refs") -> list[str]:
    """Return the references as a list. Raises InvalidValue for a single one, which would be split into letters."""
    check_several(refs, field)
    texts = as_list(refs, field, NO_REFS)
    for ref in texts:
        if not isinstance(ref, str):
            raise InvalidValue(field, ref, NO_REFS)
    return texts
