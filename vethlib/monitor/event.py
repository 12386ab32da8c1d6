"""Events of the monitor for its users."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeAlias

from vethlib.links import Address, Link

__all__ = ["Action", "HostEvent", "LinkName", "What", "changes_between"]

What: TypeAlias = Literal["netns", "link", "address", "state", "resync"]
Action: TypeAlias = Literal["is", "new", "changed", "deleted"]

_FIELDS = ("name", "mac", "mtu", "up", "operstate", "alias", "group", "altnames", "ipv6")


class LinkName(NamedTuple):
    """A link, by the reference of its namespace and its name."""

    netns: str
    name: str


@dataclass(frozen=True, slots=True)
class HostEvent:
    """An event on this host.

    ===========  =====================================================  =======================================
    `what`       subject                                                fields that are set, with `netns`
    ===========  =====================================================  =======================================
    ``netns``    a namespace that is watched
    ``link``     a link                                                 `name`, `link`, `peer`
    ``address``  an `address` of a link                                 `name`, `link`, `address`
    ``state``    the state of interface `name`, reported by its agent   `state` (empty: deleted)
    ``resync``   lost events of one namespace or, if `netns` is "", of
                 any namespace; the differences follow as events
    ===========  =====================================================  =======================================

    `action` is ``new``, ``changed`` or ``deleted``, and ``is`` in a snapshot. `time` is when the event was received, in
    seconds since 1970. `netns` is the canonical reference; "" is the home namespace. `changes` maps each changed field
    to (old, new). A change of an address is reported only if the kernel sends the address again, as ``new``, for
    example when it becomes usable. The event of a deleted link has the last state of the link. When a namespace ends,
    its links have no events of their own.
    """

    what: What
    action: Action
    time: float
    netns: str = ""
    name: str = ""
    link: Link | None = None
    peer: LinkName | None = None
    address: Address | None = None
    state: Mapping[str, Any] = field(default_factory=dict, hash=False)
    changes: Mapping[str, tuple[Any, Any]] = field(default_factory=dict, hash=False)


def changes_between(old: Link, new: Link) -> dict[str, tuple[Any, Any]]:
    """Return the differences in fields that can change while a link stays in its namespace."""
    return {name: (was, now) for name in _FIELDS if (was := getattr(old, name)) != (now := getattr(new, name))}
