"""What there is to do: the operations of a plan, and the plan itself.

A plan's operations are in the order in which they are to be carried out: namespaces are added first, then pairs are
deleted (which frees names), then links are changed (which frees names too), then pairs are created. What only an
inverse plan has comes last: namespaces are removed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeAlias

from vethlib import links
from vethlib.links import Address, Veth

from .model import Interface
from .observed import Place, SeenLink
from .state import Verdict

__all__ = ["AddNetns", "ChangeLink", "CreatePair", "DeletePair", "Operation", "Plan", "RemoveNetns"]


@dataclass(frozen=True, slots=True)
class AddNetns:
    """Create the named namespace that a pair is about to live in."""

    op: ClassVar[str] = "add-netns"
    name: str

    @property
    def ref(self) -> str:
        """The namespace's reference."""
        return f"netns:{self.name}"

    def as_dicts(self) -> list[dict[str, Any]]:
        """The operation for JSON."""
        return [_entry(self.op, "", self.ref, {})]


@dataclass(frozen=True, slots=True)
class DeletePair:
    """Delete a pair of ours by one of its ends; the kernel deletes the other.

    `interface` is the name of the interface that end was built for, "" where it bears none; `why` is for people.
    """

    op: ClassVar[str] = "delete"
    ref: str
    place: Place
    index: int
    name: str
    interface: str
    why: str

    def as_dicts(self) -> list[dict[str, Any]]:
        """The operation for JSON."""
        return [_entry(self.op, self.interface, self.ref, {"name": [self.name, None]})]


@dataclass(frozen=True, slots=True)
class ChangeLink:
    """Change fields of one link of ours where it is; those that are right are not mentioned.

    `name` and `index` are the link's before the change. `changes` maps name, mac, mtu, up and alias to (old, new).
    To be carried out in this order: the alias (a crash must not leave a configured MAC unmarked), `removed`, name,
    mac, mtu, up, `added`. An address of `removed` may be gone by then and one of `added` be there already: neither is
    an error. Addresses that stay, but go with a removed IPv4 one because they are secondary to it (__inet_del_ifa,
    net/ipv4/devinet.c), are to be given back just as they were, whoever gave them.

    With `restored`, these are all the addresses the link is to have in the end, each as it was seen, in that order;
    then `added` and `removed` say to people what that comes to.
    """

    op: ClassVar[str] = "change"
    interface: Interface
    ref: str
    place: Place
    index: int
    name: str
    changes: Mapping[str, tuple[Any, Any]]
    added: tuple[links.Interface, ...] = ()
    removed: tuple[links.Interface, ...] = ()
    restored: tuple[Address, ...] | None = None

    def as_dicts(self) -> list[dict[str, Any]]:
        """The operation for JSON."""
        changes: dict[str, Any] = {name: [old, new] for name, (old, new) in self.changes.items()}
        if self.added or self.removed:
            changes["addresses"] = _addresses(self.added, self.removed)
        return [_entry(self.op, self.interface.name, self.ref, changes)]


@dataclass(frozen=True, slots=True)
class CreatePair:
    """Create a pair where it is to live: `veth` with all its marks, for the interfaces `a` and `b`."""

    op: ClassVar[str] = "create"
    a: Interface
    b: Interface
    veth: Veth

    def as_dicts(self) -> list[dict[str, Any]]:
        """The operation for JSON: one entry for each end."""
        return [
            _entry(self.op, interface.name, interface.namespace.ref, _values(interface, end))
            for interface, end in ((self.a, self.veth.a), (self.b, self.veth.b))
        ]


@dataclass(frozen=True, slots=True)
class RemoveNetns:
    """Remove a named namespace that was added for a trial, if `name` leads to `place` still and nobody uses it."""

    op: ClassVar[str] = "remove-netns"
    name: str
    place: Place

    @property
    def ref(self) -> str:
        """The namespace's reference."""
        return f"netns:{self.name}"

    def as_dicts(self) -> list[dict[str, Any]]:
        """The operation for JSON."""
        return [_entry(self.op, "", self.ref, {})]


Operation: TypeAlias = AddNetns | DeletePair | ChangeLink | CreatePair | RemoveNetns


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do, and what each interface's state is once it is done.

    `found` are the links that stay, by the name of their interface, as they were before any operation. `doubtful` are
    the interfaces whose pair lacks nothing but somebody who says where its namespaces are: it is left as it is.
    """

    operations: tuple[Operation, ...]
    verdicts: Mapping[str, Verdict]
    found: Mapping[str, SeenLink] = field(default_factory=dict)
    doubtful: frozenset[str] = frozenset()

    def as_dicts(self) -> list[dict[str, Any]]:
        """The operations for JSON, in order: objects with op, interface, netns and changes."""
        return [entry for operation in self.operations for entry in operation.as_dicts()]


def _entry(op: str, interface: str, netns: str, changes: dict[str, Any]) -> dict[str, Any]:
    return {"op": op, "interface": interface, "netns": netns, "changes": changes}


def _values(interface: Interface, end: links.End) -> dict[str, Any]:
    values: dict[str, Any] = {"name": end.name, "peer": interface.peer_if_name}
    values |= {"mac": end.mac, "mtu": end.mtu, "up": end.up, "num_queues": end.num_queues, "alias": end.alias}
    changes: dict[str, Any] = {name: [None, value] for name, value in values.items() if value is not None}
    if end.interfaces:
        changes["addresses"] = _addresses(end.interfaces, ())
    return changes


def _addresses(added: tuple[links.Interface, ...], removed: tuple[links.Interface, ...]) -> dict[str, Any]:
    return {"added": [str(one) for one in added], "removed": [str(one) for one in removed]}
