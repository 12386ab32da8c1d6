"""Make addresses of a link usable again: permanent, or checked for duplicates once more."""

from __future__ import annotations

from collections.abc import Sequence

from vethlib._nl.addr import new_addr, parse_addr, restore_addr
from vethlib.addresses import Address, as_address, identity_of
from vethlib.errors import NetlinkError
from vethlib.links import IPInterface
from vethlib.session.core.namespaces import Namespaces
from vethlib.session.read.reading import find, read_addresses
from vethlib.session.read.target import Target

from .addressing import take

__all__ = ["renew_addresses"]


def renew_addresses(namespaces: Namespaces, target: Target, wanted: Sequence[IPInterface], proto: int) -> None:
    """Make the given addresses, as far as the link has them, permanent and usable. Raises LinkNotFound, NetlinkError.

    The lifetimes of an address that expires or is deprecated are changed in place. A duplicate is removed and added
    again in one datagram, because nothing else restarts detection (addrconf_dad_stop, net/ipv6/addrconf.c); it is then
    the first.
    """
    link = find(namespaces, target)
    target.check(namespaces, link)
    place, index = target.place, link.ifindex
    present = {address.identity: address for address in read_addresses(namespaces, place, index)}
    requests: list[bytes] = []
    for interface in wanted:
        if (address := present.get(identity_of(interface))) is not None:
            requests += _renewal(address, as_address(interface, index, proto or address.proto))
    for outcome in namespaces.exchange(place, requests) if requests else ():
        if outcome.errno:
            raise target.refusal(outcome, cls=NetlinkError)


def _renewal(address: Address, renewed: Address) -> list[bytes]:
    if address.dadfailed:
        return [take(address, renewed.index).request, _new(renewed)]
    if address.expires or address.deprecated:
        return [_new(renewed, replace=True)]
    return []


def _new(address: Address, *, replace: bool = False) -> bytes:
    if address.message:
        return restore_addr(parse_addr(address.message), replace=replace)
    packed, prefixlen = address.interface.packed, address.interface.network.prefixlen
    return new_addr(address.index, packed, prefixlen, address.proto, replace=replace)
