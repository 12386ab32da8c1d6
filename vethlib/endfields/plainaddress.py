"""Addresses without attributes, as given to an end: how they are written, and which a link cannot have."""

from __future__ import annotations

from ipaddress import IPv4Interface, IPv6Interface, ip_interface
from socket import AF_INET, AF_INET6, inet_pton
from typing import Final

from vethlib.addresses import IPInterface
from vethlib.errors import InvalidValue

__all__ = ["check_plain"]

_NO_ADDRESS: Final = "must be an address with a prefix length, such as 10.0.0.1/24 or 2001:db8::1/64"
_LONGEST: Final = 128  # characters: the longest spelling of an IPv6 address, with a prefix and a scope, has half of it


def check_plain(address: object, field: str) -> IPInterface:
    """Return an address as an ``ipaddress`` interface, if a link can have it. Raises InvalidValue."""
    if isinstance(address, str):
        if "/" not in address:
            raise InvalidValue(field, address, "must have a prefix length, as in 10.0.0.1/24 or 2001:db8::1/64")
        address = _parse_address(address, field)
    if not isinstance(address, (IPv4Interface, IPv6Interface)):
        raise InvalidValue(field, address, "must be a string or an ipaddress interface")
    if _is_no_host(address.packed):
        raise InvalidValue(field, str(address), "a link cannot have an unspecified or a multicast address")
    if isinstance(address, IPv6Interface) and address.scope_id is not None:
        raise InvalidValue(field, str(address), "an address on a link has no %scope: the link is the scope")
    return address


def _is_no_host(packed: bytes) -> bool:
    """Return whether an address is unspecified or multicast; `ipaddress` would make two more objects to find out."""
    first = packed[0]
    if not first:
        return not any(packed)
    return first & 0xF0 == 0xE0 if len(packed) == 4 else first == 0xFF


def _parse_address(text: str, field: str) -> IPInterface:
    if len(text) > _LONGEST:
        raise InvalidValue(field, text, _NO_ADDRESS)
    # inet_pton reads most addresses, in half the time of ipaddress; ipaddress explains what is wrong with the others.
    ip, _, prefix = text.partition("/")
    try:
        if len(prefix) <= 3 and prefix.isdecimal() and prefix.isascii():
            if ":" not in ip:
                return IPv4Interface((inet_pton(AF_INET, ip), int(prefix)))
            if "%" not in ip:
                return IPv6Interface((inet_pton(AF_INET6, ip), int(prefix)))
    except (OSError, ValueError):
        pass
    try:
        return ip_interface(text)
    except ValueError:
        raise InvalidValue(field, text, _NO_ADDRESS) from None
