"""Determine whether anything in many namespaces has changed since a survey, from fingerprints of what was read.

The fingerprint of a namespace covers everything that a survey reads of its links and addresses, and its cookie, which
distinguishes it from a later namespace with the same inode. While no fingerprint changes, the other ends of veths are
the same, too: the id of a peer's namespace (IFLA_LINK_NETNSID) stays the same until that namespace ends.

Taking the fingerprints again requires two dumps per namespace, but neither objects nor a plan.
"""

from __future__ import annotations

import marshal
import sys
from collections.abc import Callable, Iterable, Iterator
from hashlib import blake2b
from operator import attrgetter
from typing import Final, NamedTuple

from vethlib import ns
from vethlib._nl.addr import AddrMessage, lasting, parse_addr
from vethlib._nl.const import IFA_F_PERMANENT
from vethlib._nl.dump import all_bodies
from vethlib._nl.link import LinkMessage, parse_link
from vethlib.errors import Malformed, SessionClosed, VethError
from vethlib.session.core.namespaces import Identity, Namespaces, OpenNetns
from vethlib.session.core.refusal import system_errors
from vethlib.session.core.slabs import slabs

__all__ = ["Fingerprints", "fingerprint_of", "fingerprints"]

_ifindex: Final = attrgetter("ifindex")
_FORMAT: Final = 2  # of marshal; later formats depend on how often an object is referenced


class Fingerprints(NamedTuple):
    """Where each reference leads, or why it leads nowhere, and the fingerprint of each namespace."""

    places: dict[str, Identity | str]
    of: dict[Identity, bytes]


def fingerprint_of(cookie: bytes, links: Iterable[LinkMessage], addresses: Iterable[AddrMessage]) -> bytes:
    """Return the fingerprint of a namespace with these links and addresses, in any order.

    Links are sorted by ifindex alone, because two states of a link may be incomparable (None and a number).
    """
    values = [list(map(tuple, sorted(links, key=_ifindex))), sorted(map(_essence, addresses))]
    return blake2b(marshal.dumps(values, _FORMAT), digest_size=16, key=cookie).digest()


def _essence(address: AddrMessage) -> tuple[int, int, bytes]:
    # The lifetimes of an address that expires, such as one from DHCP, differ each time they are read.
    if address.flags & IFA_F_PERMANENT:
        return address.ifindex, address.flags, address.body
    values = address.flags, address.address, address.peer, repr(lasting(address))
    return address.ifindex, address.flags, marshal.dumps(values, _FORMAT)


def fingerprints(open_namespaces: Callable[[], Namespaces], refs: Iterable[str]) -> Fingerprints | None:
    """Take the fingerprint of every namespace that `refs` lead to; None if one of them cannot be taken now.

    None also if a namespace has ended meanwhile and another one has its identity.
    """
    result = Fingerprints({}, {})
    cookies: dict[Identity, int] = {}
    try:
        for slab in slabs(list(dict.fromkeys(refs))):
            with open_namespaces() as namespaces:
                new = dict(_opened(namespaces, slab, result))
                if namespaces.replaced(cookies):
                    return None
                for identity, tables in zip(new, _read(new.values()), strict=True):
                    if tables is None:
                        return None
                    cookie, links, addresses = tables
                    cookies[identity] = int.from_bytes(cookie, sys.byteorder)
                    result.of[identity] = fingerprint_of(cookie, map(parse_link, links), map(parse_addr, addresses))
    except SessionClosed:
        raise
    except (VethError, Malformed):
        return None
    return result


def _opened(namespaces: Namespaces, refs: Iterable[str], result: Fingerprints) -> Iterator[tuple[Identity, OpenNetns]]:
    """Open the references, and yield the namespaces that have no fingerprint yet."""
    for ref in refs:
        try:
            place = namespaces(ref)
        except VethError as error:
            result.places[ref] = str(error)
        else:
            result.places[ref] = place.identity
            if place.identity not in result.of:
                yield place.identity, place


def _read(places: Iterable[OpenNetns]) -> list[tuple[bytes, list[bytes], list[bytes]] | None]:
    with system_errors("compare namespaces"):
        places = list(places)
        if not any(place.is_home for place in places):
            return ns.map_in([place.fd for place in places], all_bodies)
        return [place.call(all_bodies) for place in places]
