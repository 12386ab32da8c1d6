"""A plan and its operations.

The operations of a plan are in the order of execution: namespaces are added first, then pairs are deleted (which frees
names), then links are changed (which frees names, too, also for later changes), then pairs are created. Last, and only
in an inverse plan, namespaces are removed. The `interfaces` of an operation are the names of the interfaces that it is
for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, TypeAlias

from vethlib import links
from vethlib.addresses import Identity, identity_of
from vethlib.agent.config.mark import Mark
from vethlib.agent.config.model import IPV6_MIN_MTU, Interface
from vethlib.agent.state import State, Verdict
from vethlib.endfields.table import MASTER
from vethlib.links import Address, Veth

from .observed import LinkId, NetnsId, SeenLink

__all__ = [
    "AddNetns",
    "ChangeLink",
    "CreatePair",
    "DeletePair",
    "Operation",
    "Plan",
    "RemoveNetns",
    "RemoveSurplus",
    "listed_identity",
    "named",
]


@dataclass(frozen=True, slots=True)
class AddNetns:
    """Create a named namespace for a pair."""

    op: ClassVar[str] = "add-netns"
    interfaces: ClassVar[tuple[str, ...]] = ()
    name: str

    @property
    def ref(self) -> str:
        """The reference of the namespace."""
        return f"netns:{self.name}"

    def as_dicts(self) -> list[dict[str, Any]]:
        """Return the operation for JSON."""
        return [_entry(self.op, "", self.ref, {})]


@dataclass(frozen=True, slots=True)
class DeletePair:
    """Delete an owned pair through one of its ends; the kernel deletes the other.

    `interface` is the name of the interface for which the end was built, or "" if unknown; `why` is the reason, for
    people. `at_home` are the name and the ifindex of the end in the home namespace, if there is one; the pair is
    deleted through that end, because no tenant can rename or move it. `marks` are the owner marks of the ends. `seen`
    is the end through which it is deleted, as it was observed: no other link is deleted in its place.
    """

    op: ClassVar[str] = "delete"
    ref: str
    place: NetnsId
    index: int
    name: str
    interface: str
    why: str
    at_home: tuple[str, int] | None = field(default=None, compare=False)
    marks: tuple[tuple[LinkId, Mark], ...] = field(default=(), compare=False, repr=False)
    seen: SeenLink | None = field(default=None, compare=False, repr=False)

    @property
    def interfaces(self) -> tuple[str, ...]:
        """The name of the interface that it is for, if that is known."""
        return (self.interface,) if self.interface else ()

    @property
    def owners(self) -> tuple[str, ...]:
        """The names of the interfaces that the pair was built for, as far as they are known."""
        return tuple(mark.name for _, mark in self.marks)

    @property
    def mark(self) -> Mark | None:
        """The owner mark of the end through which the pair is deleted, if it is known."""
        return None if self.seen is None else dict(self.marks).get(self.seen.id)

    def as_dicts(self) -> list[dict[str, Any]]:
        """Return the operation for JSON."""
        return [_entry(self.op, self.interface, self.ref, {"name": [self.name, None]})]


@dataclass(frozen=True, slots=True)
class ChangeLink:
    """Change fields of one owned link in place; correct fields are left out.

    `name` and `index` are those before the change. `changes` maps fields of an end to (old, new): those of
    ``vethlib.endfields.table.FIELDS``, and name, up and ipv6; old is None for a value that could not be read. The
    changes are made in this order: the alias (a crash must not leave a configured MAC unmarked), `removed`, name, mac,
    mtu, up, ipv6, `added`. It is not an error if an address of `removed` no longer exists by then, or one of `added`
    already exists. An address in both differs in its attributes, and is replaced. Removing an IPv4 address also removes
    those that are secondary to it (__inet_del_ifa, net/ipv4/devinet.c); those that should stay are restored exactly, no
    matter who added them.

    If `order` is given, the addresses are not, or would not be, in that order, and are put into it. Those of `renewed`
    exist, but expire or are deprecated: they are made permanent in place. Those of `again` exist, but are duplicates:
    each is removed and added again, so that duplicate address detection starts again.

    If `restored` is given, it has all the addresses that the link should have in the end, each as it was observed, in
    that order. `added` and `removed` then describe the effect for people. Both list an address that has a peer as it
    was observed.

    `seen` is the link as it was observed, and `mark` its owner mark: no other link is changed in its place.
    """

    op: ClassVar[str] = "change"
    interface: Interface
    ref: str
    place: NetnsId
    index: int
    name: str
    changes: Mapping[str, tuple[Any, Any]] = field(hash=False)
    added: tuple[links.Interface | Address, ...] = ()
    removed: tuple[links.Interface | Address, ...] = ()
    restored: tuple[Address, ...] | None = None
    order: tuple[links.Interface, ...] = ()
    again: tuple[links.Interface, ...] = ()
    renewed: tuple[links.Interface, ...] = ()
    seen: SeenLink | None = field(default=None, compare=False, repr=False)
    mark: Mark | None = field(default=None, compare=False, repr=False)

    @property
    def interfaces(self) -> tuple[str, ...]:
        """The name of the interface that it is for."""
        return (self.interface.name,)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to do."""
        addresses = self.added or self.removed or self.order or self.again or self.renewed
        return not self.changes and not addresses and self.restored is None

    @property
    def differences(self) -> dict[str, tuple[Any, Any]]:
        """The changes whose values differ. The others set a value again that one of these takes away."""
        return {name: values for name, values in self.changes.items() if values[0] != values[1]}

    @property
    def replaced(self) -> set[Identity]:
        """The addresses that are removed and added with other attributes."""
        return set(map(listed_identity, self.removed)) & set(map(listed_identity, self.added))

    @property
    def sets_again(self) -> bool:
        """Whether all it does is to add routes again that another operation takes away."""
        addresses = self.added or self.removed or self.order or self.again or self.renewed
        return not self.differences and not addresses and self.restored is None

    @property
    def takes_addresses(self) -> bool:
        """Whether an address is removed from the link, even if only to be added again after others."""
        return bool(self.removed or self.order)

    def removes(self, address: Address) -> bool:
        """Return whether an address of the link is among those to be removed."""
        return named(address) in self.removed

    def costs_source(self, address: Address) -> bool:
        """Return whether routes over other links lose their source with an address of the link.

        Where it is only replaced or put in order, the session restores them at once, unless the kernel checks it for
        duplicates again.
        """
        ips = {listed_identity(each)[0].ip for each in self.added}
        is_removed = self.removes(address) and address.interface.ip not in ips
        if address.interface.version == 4 or is_removed:
            return is_removed
        new = {name: value for name, (_, value) in self.changes.items()}
        if False in (new.get("up"), new.get("ipv6")) or new.get("mtu", IPV6_MIN_MTU) < IPV6_MIN_MTU:
            return True
        replaced = (each for each in self.added if listed_identity(each)[0].ip == address.interface.ip)
        is_checked = not getattr(next(replaced, address), "nodad", False)
        return is_checked and (self.takes_addresses or MASTER in new)

    def as_dicts(self) -> list[dict[str, Any]]:
        """Return the operation for JSON."""
        changes: dict[str, Any] = {name: [_plain(old), _plain(new)] for name, (old, new) in self.differences.items()}
        if self.added or self.removed:
            changes["addresses"] = _addresses(self.added, self.removed)
        if self.order:
            changes["order"] = [str(address) for address in self.order]
        if self.renewed:
            changes["expiring"] = [str(address) for address in self.renewed]
        if self.again:
            changes["duplicates"] = [str(address) for address in self.again]
        return [_entry(self.op, self.interface.name, self.ref, changes)]


@dataclass(frozen=True, slots=True)
class RemoveSurplus:
    """Remove some of the routes or neighbours of one owned link, which has too many that are not configured.

    `surplus` has them by field; the rest is as in :class:`ChangeLink`.
    """

    op: ClassVar[str] = "change"
    interface: Interface
    ref: str
    place: NetnsId
    index: int
    name: str
    surplus: Mapping[str, tuple[Any, ...]]
    seen: SeenLink | None = field(default=None, compare=False, repr=False)
    mark: Mark | None = field(default=None, compare=False, repr=False)

    @property
    def interfaces(self) -> tuple[str, ...]:
        """The name of the interface that it is for."""
        return (self.interface.name,)

    def as_dicts(self) -> list[dict[str, Any]]:
        """Return the operation for JSON."""
        changes = {name: [_plain(values), []] for name, values in self.surplus.items()}
        return [_entry(self.op, self.interface.name, self.ref, changes)]


@dataclass(frozen=True, slots=True)
class CreatePair:
    """Create a pair: `veth` with all owner marks, for the interfaces `a` and `b`."""

    op: ClassVar[str] = "create"
    a: Interface
    b: Interface
    veth: Veth

    @property
    def interfaces(self) -> tuple[str, ...]:
        """The names of the interfaces that it is for."""
        return self.a.name, self.b.name

    def as_dicts(self) -> list[dict[str, Any]]:
        """Return the operation for JSON, with one entry for each end."""
        return [
            _entry(self.op, interface.name, interface.namespace.ref, _values(interface, end))
            for interface, end in ((self.a, self.veth.a), (self.b, self.veth.b))
        ]


@dataclass(frozen=True, slots=True)
class RemoveNetns:
    """Remove a named namespace that was added for a trial, if `name` still leads to `place` and nothing uses it."""

    op: ClassVar[str] = "remove-netns"
    interfaces: ClassVar[tuple[str, ...]] = ()
    name: str
    place: NetnsId
    cookie: int = field(default=0, compare=False, repr=False)

    @property
    def ref(self) -> str:
        """The reference of the namespace."""
        return f"netns:{self.name}"

    def as_dicts(self) -> list[dict[str, Any]]:
        """Return the operation for JSON."""
        return [_entry(self.op, "", self.ref, {})]


Operation: TypeAlias = AddNetns | DeletePair | ChangeLink | RemoveSurplus | CreatePair | RemoveNetns


@dataclass(frozen=True, slots=True)
class Plan:
    """The operations to execute, and the state of each interface after that.

    `found` are the links that stay, by the name of their interface, as they were before any operation; `standing` are
    those of interfaces that are FAILED or PENDING, which stay unchanged. `doubtful` are the interfaces whose pair may
    exist, but for which the source of a namespace reference does not answer; it is left unchanged. `unusable` are those
    of `found` with addresses that cannot be used: tentative ones (PENDING) or duplicates (RETRYING). Their outcome is
    not known beforehand, so `verdicts` do not take them into account.
    """

    operations: tuple[Operation, ...]
    verdicts: Mapping[str, Verdict] = field(hash=False)
    found: Mapping[str, SeenLink] = field(default_factory=dict, hash=False)
    doubtful: frozenset[str] = frozenset()
    unusable: Mapping[str, Verdict] = field(default_factory=dict, hash=False)
    standing: Mapping[str, SeenLink] = field(default_factory=dict, hash=False)

    def configures(self, interface: str) -> bool:
        """Return whether an interface is as configured after the operations."""
        verdict = self.verdicts.get(interface)
        return verdict is not None and verdict.state is State.CONFIGURED

    def states(self) -> dict[str, Verdict]:
        """Return the verdicts, with PENDING for tentative addresses and FAILED for duplicates."""
        states = dict(self.verdicts)
        for name, verdict in self.unusable.items():
            if states[name].state is State.CONFIGURED:
                failed = verdict.state is State.RETRYING
                states[name] = replace(verdict, state=State.FAILED) if failed else verdict
        return states

    def as_dicts(self) -> list[dict[str, Any]]:
        """Return the operations for JSON, in order: objects with op, interface, netns and changes."""
        return [entry for operation in self.operations for entry in operation.as_dicts()]


def _entry(op: str, interface: str, netns: str, changes: dict[str, Any]) -> dict[str, Any]:
    return {"op": op, "interface": interface, "netns": netns, "changes": changes}


def _values(interface: Interface, end: links.End) -> dict[str, Any]:
    values: dict[str, Any] = {"name": end.name, "peer": interface.peer_if_name}
    values |= {"mac": end.mac, "mtu": end.mtu, "up": end.up, "num_queues": end.num_queues, "alias": end.alias}
    values["ipv6"] = end.ipv6
    values |= {name: _plain(value) for name, value in end.further.items()}
    changes: dict[str, Any] = {name: [None, value] for name, value in values.items() if value is not None}
    if end.interfaces:
        changes["addresses"] = _addresses(end.interfaces, ())
    return changes


def _plain(value: object) -> object:
    """Return the value of a field for JSON: a value of several parts is a list of texts."""
    return list(map(str, value)) if isinstance(value, tuple) else value


def named(address: Address) -> links.Interface | Address:
    """Return the form in which an address is listed: as configured, or the address itself if it has a peer."""
    return address.interface if address.peer is None else address


def listed_identity(listed: links.Interface | Address) -> Identity:
    """Return the identity of an address that is listed in an operation."""
    return listed.identity if isinstance(listed, Address) else identity_of(listed)


def _addresses(added: Sequence[object], removed: Sequence[object]) -> dict[str, Any]:
    return {"added": list(map(str, added)), "removed": list(map(str, removed))}
