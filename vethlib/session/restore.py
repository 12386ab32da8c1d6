"""Giving a link back the addresses it had: each just as it was seen, and in the order the kernel had them in.

The order says which address of a subnet is primary, and which one a packet gets for its source. The kernel puts an IPv4
address behind those that are there (__inet_insert_ifa, net/ipv4/devinet.c), an IPv6 one before them
(ipv6_link_dev_addr, net/ipv6/addrconf.c).
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Sequence
from typing import Final

from .._nl.addr import AddrMessage, del_addr, lasting, new_addr, parse_addr, restore_addr
from .._nl.const import IFAPROT_KERNEL_LL
from ..errors import NetlinkError
from ..links import Address, NetnsRef, describe
from .places import Place, Places
from .reading import read_addresses, to_interface
from .refusal import refusal

__all__ = ["restore_addresses"]

_DEL_FINE: Final = (errno.EADDRNOTAVAIL, errno.ENXIO)
_ADD_FINE: Final = (errno.EEXIST,)


def restore_addresses(
    places: Places, place: Place, index: int, name: str, netns: NetnsRef, wanted: Sequence[Address]
) -> None:
    """Make the addresses of a link what they were, aside from those that are ``by_kernel``. Raises NetlinkError.

    First by adding and removing single ones; where that leads to another order, all of IPv4 is laid again.
    """
    messages = [parse_addr(one.message) if one.message else _new(one) for one in wanted if not one.by_kernel]
    four = [one for one in messages if len(one.address) == 4]
    six = [one for one in messages if len(one.address) == 16]
    request = f"give back the addresses of {describe(name, netns)}"
    there = _present(places, place, index)
    # Prefix lengths do not tell IPv6 addresses apart (ipv6_chk_same_addr), so what is to go goes first.
    requests = [_delete(index, one) for one in there if not _among(one, messages)]
    requests += [_add(one) for one in (*four, *reversed(six)) if not _among(one, there)]
    _send(places, place, requests, request, netns)
    there = _present(places, place, index)
    if [lasting(one) for one in there if len(one.address) == 4] != [lasting(one) for one in four]:
        laid = [_delete(index, one) for one in there if len(one.address) == 4]
        _send(places, place, [*laid, *map(_add, four)], request, netns)


def _new(address: Address) -> AddrMessage:
    network = address.interface.network
    request = new_addr(address.index, address.interface.packed, network.prefixlen, address.proto)
    return parse_addr(request[16:])


def _present(places: Places, place: Place, index: int) -> list[AddrMessage]:
    return [one for one in read_addresses(places, place, index) if one.proto != IFAPROT_KERNEL_LL]


def _among(one: AddrMessage, others: Iterable[AddrMessage]) -> bool:
    return any(to_interface(one) == to_interface(other) for other in others)


def _delete(index: int, one: AddrMessage) -> tuple[bytes, tuple[int, ...]]:
    return del_addr(index, one.address, one.prefixlen), _DEL_FINE


def _add(one: AddrMessage) -> tuple[bytes, tuple[int, ...]]:
    return restore_addr(one), _ADD_FINE


def _send(
    places: Places, place: Place, requests: Sequence[tuple[bytes, tuple[int, ...]]], request: str, netns: NetnsRef
) -> None:
    if not requests:
        return
    outcomes = places.exchange(place, [message for message, _ in requests])
    for outcome, (_, fine) in zip(outcomes, requests, strict=True):
        if outcome.errno and outcome.errno not in fine:
            raise refusal(outcome, request, netns, cls=NetlinkError)
