"""Wait for addresses that are the source of routes.

The kernel refuses a route whose source is an IPv6 address that it still checks for duplicates (EINVAL; ipv6_chk_addr in
ip6_route_info_create, net/ipv6/route.c). The check takes up to two seconds from the moment at which the link has a
carrier, that is, both ends are up. So a refused route is tried again when its source has been checked.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from ipaddress import IPv6Address
from typing import Final, TypeAlias

from vethlib._nl.const import IFF_LOWER_UP
from vethlib._nl.link import get_link, parse_link
from vethlib._primitives import time
from vethlib.endfields.routes import Route
from vethlib.errors import VethError
from vethlib.session.core.namespaces import Namespaces, OpenNetns

from .reading import read_addresses
from .target import read_body

__all__ = ["Sources", "source_of", "sources_of", "until_checked", "until_checked_anywhere"]

Sources: TypeAlias = Mapping[tuple[OpenNetns, int], Collection[IPv6Address]]
"""Addresses of links, by namespace and ifindex."""

_LONGEST: Final = 5.0
"""Seconds for a check: dad_transmits × retrans_time, which are 1 and 1 s, after a random delay of up to 1 s."""

_MOMENT: Final = 0.1
"""Seconds after which a link without a carrier is given up: unless accept_dad is 0, the check does not even begin."""

_PAUSE: Final = 0.02


def source_of(route: object) -> IPv6Address | None:
    """Return the IPv6 address that is the source of a route; None if it has none, or is no route."""
    source = route.source if isinstance(route, Route) else None
    return source if isinstance(source, IPv6Address) else None


def sources_of(routes: Iterable[Route]) -> set[IPv6Address]:
    """Return the IPv6 addresses that are the source of one of the routes."""
    return {source for route in routes if (source := source_of(route)) is not None}


def until_checked(namespaces: Namespaces, sources: Sources) -> dict[tuple[OpenNetns, int], str]:
    """Wait until the kernel has checked these addresses; return the links for which waiting is in vain, and why.

    Addresses that a link does not have are not waited for.
    """
    begun = time.monotonic()
    failed: dict[tuple[OpenNetns, int], str] = {}
    waiting = dict(sources)
    while True:
        waited = time.monotonic() - begun
        for (place, index), addresses in [*waiting.items()]:
            try:
                unchecked, why = _unchecked(namespaces, place, index, addresses, waited)
            except VethError:
                unchecked, why = False, ""  # sending the route again reports the reason
            if why:
                failed[place, index] = f"{why}: add nodad to the address, or the route later"
            if why or not unchecked:
                del waiting[place, index]
        if not waiting:
            return failed
        time.sleep(_PAUSE)


def until_checked_anywhere(namespaces: Namespaces, place: OpenNetns, addresses: Collection[IPv6Address]) -> None:
    """Wait until the kernel has checked these addresses, on any links of a namespace, or waiting is in vain."""
    sources: dict[tuple[OpenNetns, int], set[IPv6Address]] = {}
    for each in read_addresses(namespaces, place):
        if isinstance(each.interface.ip, IPv6Address) and each.interface.ip in addresses:
            sources.setdefault((place, each.index), set()).add(each.interface.ip)
    until_checked(namespaces, sources)


def _unchecked(
    namespaces: Namespaces, place: OpenNetns, index: int, addresses: Collection[IPv6Address], waited: float
) -> tuple[bool, str]:
    """Return whether a link has one of the addresses that cannot be used yet, and why waiting for it is in vain."""
    present = read_addresses(namespaces, place, index)
    for address in present:
        if address.usable or (ip := address.interface.ip) not in addresses:
            continue
        if address.dadfailed:
            return True, f"another host on the link has its source {ip}"
        if waited >= _LONGEST:
            return True, f"its source {ip} is still being checked for duplicates after {_LONGEST:g} s"
        if waited >= _MOMENT and not _has_carrier(namespaces, place, index):
            return True, f"its source {ip} is checked for duplicates only when the link has a carrier (both ends up)"
        return True, ""
    return False, ""


def _has_carrier(namespaces: Namespaces, place: OpenNetns, index: int) -> bool:
    outcome = namespaces.ask(place, get_link(index))
    return not outcome.errno and bool(read_body(place, outcome, parse_link).flags & IFF_LOWER_UP)
