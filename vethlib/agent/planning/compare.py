"""The differences between a link and its interface, and those that cannot be changed in place."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import replace
from typing import Any

from vethlib import links
from vethlib._nl.const import IFA_F_DADFAILED, IFA_F_DEPRECATED, IFA_F_PERMANENT
from vethlib.address_order import added, in_order, in_the_way, removed
from vethlib.addresses import Identity, as_address, identity_of
from vethlib.agent.config.mark import ADDRESS_PROTO, Mark, alias_of, read_alias
from vethlib.agent.config.model import IPV6_MIN_MTU, Interface
from vethlib.agent.reasons import Reason, needs_rebuild
from vethlib.endfields.table import ALTNAMES, FIELDS, TAKES_LATE
from vethlib.links import Address, Link

from .detection import duplicates, unusable
from .observed import SeenLink
from .operations import ChangeLink, CreatePair, named

__all__ = [
    "change_of",
    "is_as_created",
    "is_as_given",
    "link_differences",
    "rebuild_reason",
    "unknown_addresses",
    "will_expire",
]


DEFAULT_MTU = 1500  # ETH_DATA_LEN, which ether_setup() gives to a veth

_STATES = IFA_F_PERMANENT | IFA_F_DEPRECATED | IFA_F_DADFAILED


def rebuild_reason(interface: Interface, seen: SeenLink) -> Reason | None:
    """Return why a link cannot be changed into the desired one; None if it can.

    A MAC address that is no longer configured does not count: it may stay.
    """
    link = seen.link
    if interface.num_queues and interface.num_queues != link.num_queues:
        return needs_rebuild(interface.name, "num_queues", link.num_queues, interface.num_queues)
    return None


def link_differences(
    interface: Interface, link: Link, label: str, *, marked: bool, further: Mapping[str, Any] | None = None
) -> dict[str, tuple[Any, Any]]:
    """Return the drift of a link, apart from its addresses: field → (observed, desired).

    `further` are the observed values of fields that no :class:`Link` has; with None, these are not compared.

    The alias counts only if the link is `marked`: an alias that a tenant can write is ignored.
    """
    fields = _link_fields(interface)
    if marked or _says_otherwise(link.alias, interface, label):
        fields["alias"] = alias_of(label, interface)
    drift = {name: (present, value) for name, value in fields.items() if (present := getattr(link, name)) != value}
    drift |= _further_differences(interface, link, further)
    if "name" in drift and interface.kernel_name in link.altnames:  # a link cannot have a name twice
        _, altnames = drift.get(ALTNAMES, ((), link.altnames))
        drift[ALTNAMES] = link.altnames, tuple(name for name in altnames if name != interface.kernel_name)
    if "mtu" in drift and link.mtu < IPV6_MIN_MTU and interface.wants_ipv6 is False:
        drift["ipv6"] = (False, False)  # the kernel would enable it along with the larger MTU
    return drift


def _says_otherwise(alias: str, interface: Interface, label: str) -> bool:
    """Return whether the alias is the interface's mark, but records other fields that have to be read than it has."""
    mark = read_alias(alias) if interface.further or " more" in alias else None
    if mark is None or (mark.label, mark.name) != (label, interface.name):
        return False
    wanted = read_alias(alias_of(label, interface))
    return wanted is not None and (mark.more, mark.owned) != (wanted.more, wanted.owned)


def _further_differences(
    interface: Interface, link: Link, further: Mapping[str, Any] | None
) -> dict[str, tuple[Any, Any]]:
    wanted = dict(interface.further)
    # Owned fields that are not (or no longer) configured are removed, and a link that is down has no routes.
    for name in (*wanted, *(further or ())):
        if FIELDS[name].none is not None and _has_none(interface, name):
            wanted[name] = FIELDS[name].none
    drift = {}
    for name, value in wanted.items():
        field = FIELDS[name]
        if further is None and field.read is None:
            continue
        present = getattr(link, name) if further is None or field.read is not None else further.get(name)
        if (target := field.target(present, value)) != present:
            drift[name] = (present, target)
    return drift


def _has_none(interface: Interface, name: str) -> bool:
    return name not in interface.further or (FIELDS[name].late and not interface.enabled)


def _link_fields(interface: Interface) -> dict[str, Any]:
    """Return the desired value of each field, by its name in :class:`Link`; a missing field may have any value."""
    fields: dict[str, Any] = {"name": interface.kernel_name}
    if interface.phys_address:
        fields["mac"] = interface.phys_address
    fields |= {"mtu": interface.mtu or DEFAULT_MTU, "up": interface.enabled}
    if interface.wants_ipv6 is not None:
        fields["ipv6"] = interface.wants_ipv6
    return fields


def change_of(
    interface: Interface, seen: SeenLink, label: str, *, marked: bool, peer: SeenLink | None = None
) -> ChangeLink | None:
    """Return the change of a link to its desired state; None if it matches. `peer` is the other end, if observed."""
    link = seen.link
    changes = link_differences(interface, link, label, marked=marked, further=seen.further)
    if not changes and (interface.link_only or _has_plainly(seen.addresses, interface, link.name)):
        return None  # most links match: 10 µs instead of 50
    mark = Mark(label, interface.name, bool(interface.phys_address))
    ref = interface.namespace.ref
    change = ChangeLink(interface, ref, seen.place, link.index, link.name, changes, seen=seen, mark=mark)
    if not interface.link_only:
        change = _with_addresses(change, seen, peer)
        causes = [*changes, "addresses"] if change.takes_addresses else changes
        if at_stake := {name for cause in causes for name in TAKES_LATE.get(cause, ())}:
            late = {name: (value, value) for name, value in seen.further.items() if name in at_stake and value}
            change = replace(change, changes=late | changes)
    return None if change.is_empty else change


def is_as_created(create: CreatePair, a: SeenLink, b: SeenLink, label: str) -> bool:
    """Return whether these are the ends of a pair that was created, and nothing is left to do about either of them.

    Everything is compared, even what a tenant may change: an observation decides about a pair that differs.
    """
    for interface, end, seen, other, peer in (
        (create.a, create.veth.a, a, b, create.b),
        (create.b, create.veth.b, b, a, create.a),
    ):
        link = seen.link
        if link.kind != "veth" or link.peer_index != other.link.index:
            return False
        if link.alias != end.alias or link.group != end.group:
            return False
        if interface.further or rebuild_reason(interface, seen) is not None:
            return False
        if change_of(interface, seen, label, marked=False, peer=other) is not None:
            return False
        if unusable(interface, seen, peer) is not None:
            return False
    return True


def _with_addresses(change: ChangeLink, seen: SeenLink, peer: SeenLink | None) -> ChangeLink:
    desired = tuple(dict.fromkeys(change.interface.addresses))
    wanted = {identity_of(given): given for given in desired}
    stays: Sequence[Address] = seen.addresses
    if (True, False) in (change.changes.get("up"), change.changes.get("ipv6")):
        # addrconf_ifdown() removes the IPv6 addresses of a link that is set down or has no IPv6 (net/ipv6/addrconf.c).
        stays = [address for address in stays if address.interface.version == 4]
    present = {address.identity: address for address in stays if address.identity in wanted}
    right = {identity for identity, each in present.items() if is_as_given(each, wanted[identity], change.name)}
    missing = [given for identity, given in wanted.items() if identity not in right]
    new = [as_address(given, change.index, ADDRESS_PROTO) for given in missing]
    # A configured address that exists in another form is replaced, no matter who added it.
    ips = {address.ip for address in missing}
    obstacles = {address.identity for address in in_the_way(stays, new) if address.interface.ip in ips}
    surplus = [each for each in seen.addresses if each.identity in obstacles or _is_surplus(each, wanted)]
    return replace(
        change,
        added=tuple(missing),
        removed=tuple(map(named, surplus)),
        order=() if len(desired) < 2 or _are_in_order(added(removed(stays, surplus), new), desired) else desired,
        again=tuple(
            wanted[each.identity] for each in duplicates(change.interface, seen, peer) if each.identity in right
        ),
        renewed=tuple(wanted[identity] for identity in present if identity in right and will_expire(present[identity])),
    )


def _has_plainly(addresses: Sequence[Address], interface: Interface, name: str) -> bool:
    """Return whether a link has one configured address or none, permanent and usable, and no surplus one."""
    if len(interface.addresses) > 1:
        return False
    missing = len(interface.addresses)
    for address in addresses:
        if address.peer is None and address.interface in interface.addresses:
            if address.flags & _STATES != IFA_F_PERMANENT:
                return False
            if address.proto == ADDRESS_PROTO and not address.is_bare(name):
                return False
            missing -= 1
        elif address.proto == ADDRESS_PROTO:
            return False
    return not missing


def _are_in_order(after: Sequence[Address], desired: Sequence[links.Interface]) -> bool:
    # A duplicate comes first whenever it is added again. It is put in order when it can be used.
    usable = [address for address in after if not address.dadfailed]
    return [address.identity for address in in_order(usable, desired)] == [address.identity for address in usable]


def will_expire(address: Address) -> bool:
    """Return whether an address is not permanent, as a configured one is: it expires, or is deprecated already."""
    return address.expires or address.deprecated


def is_as_given(address: Address, given: links.Interface, name: str) -> bool:
    """Return whether an address of a link called `name`, with the identity of a configured one, has its attributes.

    An address that is configured without attributes may have any, if another program has added it.
    """
    if (is_met_by := getattr(given, "is_met_by", None)) is not None:
        return bool(is_met_by(address))
    return address.proto != ADDRESS_PROTO or address.is_bare(name)


def unknown_addresses(interface: Interface, seen: SeenLink) -> tuple[Address, ...]:
    """Return the addresses of a link that are not configured but may be the agent's: the kernel does not mark them."""
    if seen.owners_known or interface.link_only:
        return ()
    return tuple(
        address
        for address in seen.addresses
        if not address.by_kernel and address.proto != ADDRESS_PROTO and address.identity not in interface.by_identity
    )


def _is_surplus(address: Address, desired: Container[Identity]) -> bool:
    """Return whether the agent has added an address that is not, or no longer, configured."""
    return address.proto == ADDRESS_PROTO and address.identity not in desired
