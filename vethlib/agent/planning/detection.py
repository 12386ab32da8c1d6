"""Whether the desired addresses of a link can be used, and the reason if they cannot. Pure.

An IPv6 address is tentative until duplicate address detection has finished, one to two seconds after the link has a
carrier. If detection finds another owner, the address stays on the link, DADFAILED, and only adding it again starts
detection again (addrconf_dad_stop, net/ipv6/addrconf.c). A program can bind to neither.
"""

from __future__ import annotations

from collections.abc import Sequence

from vethlib._nl.const import IFA_F_DADFAILED, IFA_F_TENTATIVE
from vethlib.agent.config.model import Interface
from vethlib.agent.state import State, Verdict
from vethlib.links import Address

from .observed import SeenLink

__all__ = ["duplicates", "may_be_detected", "switched_off", "unusable"]

_LISTED = 3  # addresses in a reason
_SUSPECT = IFA_F_TENTATIVE | IFA_F_DADFAILED


def duplicates(interface: Interface, seen: SeenLink, peer: SeenLink | None) -> list[Address]:
    """Return the desired addresses that detection has found to be duplicates, and that may be added again.

    While the other end has the address, that would be useless. If both ends should have it and both have failed (two
    that are checked at the same time fail each other), the end whose interface sorts first is tried.
    """
    failed = [address for address in _not_usable(interface, seen) if address.dadfailed]
    if not failed or peer is None:
        return failed
    first = interface.name < interface.peer_if_name
    taken = {address.interface.ip for address in peer.addresses if not address.dadfailed or not first}
    return [address for address in failed if address.interface.ip not in taken]


def may_be_detected(interface: Interface, peer: Interface | None) -> bool:
    """Return whether an interface has IPv6 addresses, and detection can begin for them: both ends have to be up."""
    if not interface.enabled or interface.link_only or (peer is not None and not peer.enabled):
        return False
    return any(address.version == 6 for address in interface.addresses)


def unusable(interface: Interface, seen: SeenLink, peer: Interface | None) -> Verdict | None:
    """Return the state of an interface whose addresses cannot be used, although its link is as configured.

    Return None if they can be used. Also return None if either end is disabled: detection cannot begin, as configured.
    """
    if not interface.enabled or interface.link_only:
        return None
    addresses = _not_usable(interface, seen)
    if failed := [address for address in addresses if address.dadfailed]:
        why = "another host on the link has the same address"
        ips = {address.interface.ip for address in failed}
        if peer is not None and not ips.isdisjoint(address.ip for address in peer.addresses):
            why = f"the other end, {peer.name}, has the same address"
        return Verdict(State.RETRYING, f"{_listed(failed)}: duplicate address detection failed: {why}")
    if not addresses or (peer is not None and not peer.enabled):
        return None
    return Verdict(State.PENDING, f"{_listed(addresses)}: duplicate address detection has not finished")


def switched_off(addresses: Sequence[object]) -> str:
    """Return the reason for an interface that has lost these addresses because the MAC of its link is a duplicate."""
    return (
        f"{_listed(addresses)}: duplicate address detection failed: another host on the link has the same MAC address, "
        "and the kernel switched IPv6 off (accept_dad is 2)"
    )


def _not_usable(interface: Interface, seen: SeenLink) -> list[Address]:
    suspects = [address for address in seen.addresses if address.flags & _SUSPECT]
    return [each for each in suspects if not each.usable and each.interface in interface.addresses]


def _listed(addresses: Sequence[object]) -> str:
    text = ", ".join(map(str, addresses[:_LISTED]))
    return text if len(addresses) <= _LISTED else f"{text} and {len(addresses) - _LISTED} more"
