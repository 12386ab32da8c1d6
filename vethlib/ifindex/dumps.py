"""Read the links of several namespaces: an error in one of them is the result for that namespace only.

A caller may also request their addresses, that is, everything that a namespace has when it is first watched.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from functools import partial
from struct import Struct
from typing import Final, ParamSpec, TypeAlias, TypeVar

from vethlib import ns
from vethlib._nl.addr import AddrMessage, parse_addr
from vethlib._nl.dump import all_bodies, link_bodies, netns_cookie
from vethlib._nl.link import LinkMessage
from vethlib.errors import Malformed, NetlinkError, VethError, errno_text, error_class, is_exhaustion
from vethlib.session.core.refusal import system_errors

from .table import records

__all__ = [
    "AddressKey",
    "FirstLook",
    "Found",
    "cookie_in",
    "everything_in",
    "first_links_in",
    "key_of",
    "links_in",
    "or_error",
]

Found: TypeAlias = dict[int, LinkMessage] | NetlinkError
"""The links in a namespace, by ifindex, or why they cannot be read."""

AddressKey: TypeAlias = tuple[int, bytes, int, bytes]
"""The identity of an address in its namespace: ifindex, address, prefix length and peer."""

_COOKIE: Final = Struct("=Q")

P = ParamSpec("P")
T = TypeVar("T")


class FirstLook:
    """The links and addresses of a namespace when it was first watched, with the events since then applied.

    `cookie` distinguishes the namespace from all others since boot (SO_NETNS_COOKIE); 0 if it is unknown.
    """

    __slots__ = ("addresses", "cookie", "links")

    def __init__(self, cookie: int, links: dict[int, LinkMessage], addresses: dict[AddressKey, AddrMessage]) -> None:
        self.cookie = cookie
        self.links = links
        self.addresses = addresses

    def addresses_of(self, index: int) -> list[AddrMessage]:
        """Return the addresses of a link."""
        return [address for address in self.addresses.values() if address.ifindex == index]

    def note_address(self, address: AddrMessage, *, added: bool) -> None:
        """Apply an event: an address was added or has changed, or was removed."""
        key = key_of(address)
        if added:
            self.addresses[key] = address
        else:
            self.addresses.pop(key, None)


def links_in(fds: Sequence[int]) -> list[Found]:
    """Dump the links of each of these open namespaces. Raises NetlinkError only if resources run out."""
    looks = _looks(fds, link_bodies)
    return [bodies if isinstance(bodies, NetlinkError) else or_error(records, bodies) for bodies in looks]


def first_links_in(fds: Sequence[int]) -> list[tuple[int, Found]]:
    """Do the same as :func:`links_in`, and also return the cookie of each namespace; 0 if it is unknown."""
    return [
        (0, look) if isinstance(look, NetlinkError) else (_COOKIE.unpack(look[0])[0], or_error(records, look[1]))
        for look in _looks(fds, lambda: (netns_cookie(), link_bodies()))
    ]


def everything_in(fds: Sequence[int]) -> list[FirstLook | None]:
    """Dump the links and the addresses of each of these open namespaces; None if that takes more than one attempt.

    Raises NetlinkError only if resources run out.
    """
    return [
        None if bodies is None or isinstance(bodies, NetlinkError) else _first_look(*bodies)
        for bodies in _looks(fds, all_bodies)
    ]


def cookie_in(fd: int) -> int:
    """Return the cookie of an open namespace; 0 if it is unknown."""
    try:
        return int(_COOKIE.unpack(ns.call_in(fd, netns_cookie))[0])
    except (OSError, VethError):
        return 0


def _looks(fds: Sequence[int], look: Callable[[], T]) -> Sequence[T | NetlinkError]:
    """Call `look` in each of these open namespaces; return the results, or the errors."""
    with system_errors("list the links of the watched namespaces"):
        try:
            return ns.map_in(fds, partial(or_error, look))
        except VethError as error:
            if is_exhaustion(error):
                raise
            # One of the namespaces cannot be entered.
            return [or_error(ns.call_in, fd, look) for fd in fds]


def _first_look(cookie: bytes, links: list[bytes], addresses: list[bytes]) -> FirstLook | None:
    try:
        found = {key_of(address): address for address in map(parse_addr, addresses)}
        return FirstLook(_COOKIE.unpack(cookie)[0], records(links), found)
    except Malformed:
        return None


def key_of(address: AddrMessage) -> AddressKey:
    """Return the identity of an address in its namespace."""
    return address.ifindex, address.address, address.prefixlen, address.peer


def or_error(look: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | NetlinkError:
    """Return what `look` returns, or the error that concerns its namespace alone. Raises if resources run out."""
    try:
        return look(*args, **kwargs)
    except OSError as error:
        number = error.errno or errno.EIO
        found = error if isinstance(error, NetlinkError) else error_class(number)(errno_text(number), errno=number)
        if is_exhaustion(found):
            raise
        return found
