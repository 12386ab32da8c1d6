"""What a user of the monitor is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeAlias

from vethlib.links import Address, Link

__all__ = ["Action", "HostEvent", "LinkName", "What", "changes_between"]

What: TypeAlias = Literal["netns", "link", "address", "state", "resync"]
Action: TypeAlias = Literal["is", "new", "changed", "deleted"]

_FIELDS = ("name", "mac", "mtu", "up", "operstate", "alias", "group", "altnames")


class LinkName(NamedTuple):
    """A link by the reference of its namespace and its name there."""

    netns: str
    name: str


@dataclass(frozen=True, slots=True)
class HostEvent:
    """One thing that happened on this host.

    ===========  =====================================================  =======================================
    `what`       what it is about                                       what is set beside `netns`
    ===========  =====================================================  =======================================
    ``netns``    a namespace that is watched
    ``link``     a link                                                 `name`, `link`, `peer`
    ``address``  an `address` of a link                                 `name`, `link`, `address`
    ``state``    what the agent says of the interface `name`            `state` (empty: deleted)
    ``resync``   events were lost; the differences follow as events
    ===========  =====================================================  =======================================

    `action` is ``new``, ``changed`` or ``deleted``, and ``is`` in a snapshot. `time` is when it was heard of, in
    seconds since 1970. `netns` is the canonical reference, "" home. `changes` maps each field that changed to (old,
    new). Of an address no change is told but those that are heard of as ``new`` once more, as when it can be used.
    A link that was deleted is as it was.
    With the end of a namespace all of its links have gone; they have no events of their own.
    """

    what: What
    action: Action
    time: float
    netns: str = ""
    name: str = ""
    link: Link | None = None
    peer: LinkName | None = None
    address: Address | None = None
    state: Mapping[str, Any] = field(default_factory=dict)
    changes: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)


def changes_between(old: Link, new: Link) -> dict[str, tuple[Any, Any]]:
    """What differs of what can change in a link while it is where it is."""
    return {name: (was, now) for name in _FIELDS if (was := getattr(old, name)) != (now := getattr(new, name))}
