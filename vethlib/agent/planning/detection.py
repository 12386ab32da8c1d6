"""Whether the desired addresses of a link can be used, and the reason if they cannot. Pure.

An IPv6 address is tentative until duplicate address detection has finished, one to two seconds after the link has a
carrier. If detection finds another owner, the address stays on the link, DADFAILED, and only adding it again starts
detection again (addrconf_dad_stop, net/ipv6/addrconf.c). A program can bind to neither.
"""

from __future__ import annotations

from vethlib._nl.const import IFA_F_DADFAILED, IFA_F_TENTATIVE
from vethlib.agent.config.model import Interface
from vethlib.agent.reasons import address_tentative, duplicate_address
from vethlib.agent.state import State, Verdict
from vethlib.links import Address

from .observed import SeenLink

__all__ = ["duplicates", "may_be_detected", "unusable"]

_SUSPECT = IFA_F_TENTATIVE | IFA_F_DADFAILED


def duplicates(interface: Interface, seen: SeenLink, peer: SeenLink | None) -> list[Address]:
    """Return the desired addresses that detection has found to be duplicates, and that may be added again.

    Adding an address again is useless while the other end has it. If both ends should have it and detection has failed
    at both (two ends that are checked at the same time make each other fail), the end whose interface sorts first is
    tried.
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
        ips = {address.interface.ip for address in failed}
        of_peer = peer is not None and not ips.isdisjoint(address.ip for address in peer.addresses)
        return Verdict.because(State.RETRYING, duplicate_address(failed, peer.name if peer and of_peer else ""))
    if not addresses or (peer is not None and not peer.enabled):
        return None
    return Verdict.because(State.PENDING, address_tentative(addresses))


def _not_usable(interface: Interface, seen: SeenLink) -> list[Address]:
    suspects = [address for address in seen.addresses if address.flags & _SUSPECT]
    if not suspects:
        return suspects
    desired = interface.by_identity
    return [each for each in suspects if not each.usable and each.identity in desired]
