"""One link against its interface: what differs, and what cannot be changed where it is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from vethlib.links import Address, Link

from .mark import ADDRESS_PROTO, alias_of, read_alias
from .model import Interface
from .observed import SeenLink
from .operations import ChangeLink

__all__ = ["change_of", "link_differences", "rebuild_reason"]

DEFAULT_MTU = 1500  # ETH_DATA_LEN, which ether_setup() gives to a veth


def rebuild_reason(interface: Interface, seen: SeenLink) -> str:
    """Why the link cannot become what is wanted by changing it; "" if it can."""
    link = seen.link
    if interface.num_queues and interface.num_queues != link.num_queues:
        return f"{interface.name} has num_queues {link.num_queues}, not {interface.num_queues}"
    if not interface.phys_address:
        mark = read_alias(link.alias)
        if mark is not None and mark.mac:
            return f"the phys_address of {interface.name} was cleared"
    return ""


def link_differences(interface: Interface, link: Link, label: str) -> dict[str, tuple[Any, Any]]:
    """What differs between the link and what is wanted, without its addresses: field → (is, wanted)."""
    is_and_wanted = {
        "name": (link.name, interface.kernel_name),
        "mac": (link.mac, interface.phys_address or link.mac),
        "mtu": (link.mtu, interface.mtu or DEFAULT_MTU),
        "up": (link.up, interface.enabled),
        "alias": (link.alias, alias_of(label, interface)),
    }
    return {name: (now, wanted) for name, (now, wanted) in is_and_wanted.items() if now != wanted}


def change_of(interface: Interface, seen: SeenLink, label: str) -> ChangeLink | None:
    """What differs between the link and what is wanted; None if nothing does."""
    link = seen.link
    changes = link_differences(interface, link, label)
    change = ChangeLink(interface, interface.namespace.ref, seen.place, link.index, link.name, changes)
    if not interface.link_only:
        change = _with_addresses(change, seen)
    return change if changes or change.added or change.removed else None


def _with_addresses(change: ChangeLink, seen: SeenLink) -> ChangeLink:
    wanted = dict.fromkeys(change.interface.addresses)
    unwanted = [address for address in seen.addresses if _is_ours(address) and address.interface not in wanted]
    missing = wanted.keys() - {address.interface for address in seen.addresses}
    if change.changes.get("up") == (True, False):
        # addrconf_ifdown() takes the IPv6 addresses of a link that goes down (net/ipv6/addrconf.c).
        missing |= {address for address in wanted if address.version == 6}
    if not missing and not unwanted:
        return change
    return replace(
        change,
        added=tuple(address for address in wanted if address in missing),
        removed=tuple(address.interface for address in unwanted),
    )


def _is_ours(address: Address) -> bool:
    return address.proto == ADDRESS_PROTO and not address.interface.is_link_local
