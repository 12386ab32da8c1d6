"""What a survey has read so far, and its result."""

from __future__ import annotations

import sys
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from vethlib import ns
from vethlib._nl.addr import AddrMessage
from vethlib._nl.link import LinkMessage
from vethlib._nl.nsid import get_nsid, parse_nsid
from vethlib.errors import NotPermitted, VethError, is_exhaustion
from vethlib.links import Address, Link, NetnsRef
from vethlib.ns.reference import HasFileno
from vethlib.session.core.namespaces import Identity, Namespaces, OpenNetns

from .fingerprint import Fingerprints, fingerprint_of
from .reading import addresses_of, to_link
from .target import read_body

__all__ = ["LinkAt", "Seen", "Survey", "SurveyedLink"]

LinkAt = tuple[Identity, int]
"""A link in any namespace: the identity of the namespace, and the ifindex."""


@dataclass(frozen=True, slots=True)
class SurveyedLink:
    """A link, its namespace, its addresses, and for a veth its other end, if that was read as well."""

    at: Identity
    ref: str
    link: Link
    addresses: tuple[Address, ...]
    peer: LinkAt | None = None


@dataclass(frozen=True, slots=True)
class Survey:
    """The result of a survey. `links` has each link once.

    `places` has, for each reference, the identity of the namespace to which it leads, or an error: NetnsNotFound if
    there is no such namespace; any other error means that this is unknown. `cookies` has the SO_NETNS_COOKIE (Linux
    5.14) of the namespaces that were read, which distinguishes each from all others since the boot. `fingerprints` show
    later whether anything has changed; None if a namespace could not be read.
    """

    places: dict[str, Identity | VethError]
    links: list[SurveyedLink]
    cookies: dict[Identity, int] = field(default_factory=dict)
    fingerprints: Fingerprints | None = field(default=None, repr=False, compare=False)


class Seen:
    """What has been read so far.

    An error concerns only its own namespace, which is then in `failed`: its links are left out, and its references have
    the error. Errors of the home namespace are raised. `objects` are the references that are not text, by their text in
    the result.
    """

    def __init__(
        self, *, with_home: bool, may_be_closed: Container[str], objects: Mapping[str, HasFileno] = MappingProxyType({})
    ) -> None:
        self.places: dict[str, Identity | VethError] = {}
        self.ref_of: dict[Identity, str] = {}
        self.links: dict[LinkAt, tuple[Link, tuple[Address, ...]]] = {}
        self.cookies: dict[Identity, int] = {}
        self.fingerprints: dict[Identity, bytes] = {}
        self.home: Identity | None = None
        self.home_id: dict[Identity, int | None] = {}  # the id of home in each namespace
        self.failed: dict[Identity, VethError] = {}
        self.short = False  # whether descriptors have run out since the last slab was started
        self._with_home = with_home
        self._may_be_closed = may_be_closed
        self._objects = objects

    def reference(self, identity: Identity) -> NetnsRef:
        """Return the reference by which a namespace was opened."""
        ref = self.ref_of[identity]
        return self._objects.get(ref, ref)

    def open(self, namespaces: Namespaces, refs: Iterable[str]) -> list[tuple[str, OpenNetns]]:
        """Open the references, and note the errors of those that cannot be opened.

        A namespace of an earlier slab may have ended, and another one may now have its identity. Then what was read of
        the former is forgotten, and its references are opened again, too.
        """
        opened = self._opened(namespaces, refs)
        while self.cookies and (ended := namespaces.replaced(self.cookies)):
            refs = dict.fromkeys([*refs, *self._forget(ended)])
            opened = self._opened(namespaces, refs)
        return opened

    def _opened(self, namespaces: Namespaces, refs: Iterable[str]) -> list[tuple[str, OpenNetns]]:
        self.short = False
        opened: list[tuple[str, OpenNetns]] = []
        for ref in refs:
            try:
                place = namespaces(self._objects.get(ref, ref))
            except VethError as error:
                self.short = self.short or is_exhaustion(error)
                self.places[ref] = error
                continue
            self.places[ref] = place.identity
            self.ref_of.setdefault(place.identity, ref)
            opened.append((ref, place))
        return opened

    def _forget(self, ended: set[Identity]) -> list[str]:
        """Forget what was read under these identities; return the references that led there."""
        for identity in ended:
            known: dict[Identity, Any]
            for known in (self.ref_of, self.cookies, self.fingerprints, self.home_id, self.failed):
                known.pop(identity, None)
        self.links = {at: link for at, link in self.links.items() if at[0] not in ended}
        return [ref for ref, place in self.places.items() if place in ended]

    def fail(self, place: OpenNetns, error: VethError) -> None:
        """Note an error that concerns `place` alone. Raises it if that is home, or if no namespace may be entered."""
        if place.is_home or self._is_closed_to_all(place, error):
            raise error
        self.short = self.short or is_exhaustion(error)
        self.failed[place.identity] = error

    def _is_closed_to_all(self, place: OpenNetns, error: VethError) -> bool:
        """Return whether a namespace cannot be entered because none can, although it was not expected to be closed."""
        if not isinstance(error, NotPermitted) or self.ref_of[place.identity] in self._may_be_closed:
            return False
        return not ns.can_enter()

    def add(
        self, namespaces: Namespaces, place: OpenNetns, links: Iterable[LinkMessage], addresses: Iterable[AddrMessage]
    ) -> None:
        """Add links of `place`, each with its addresses. This clears an earlier error of `place`."""
        identity, ref = place.identity, self.reference(place.identity)
        cookie = self.cookies[identity] = place.cookie
        by_index: dict[int, list[Address]] = {}
        for address in addresses_of(addresses):
            by_index.setdefault(address.index, []).append(address)
        peers_abroad = False
        for message in links:
            own = tuple(by_index.get(message.ifindex, ()))
            link = to_link(message, ref, own, cookie=cookie)
            self.links[identity, link.index] = link, own
            peers_abroad = peers_abroad or link.peer_netnsid is not None
        if place.is_home:
            self.home = identity
        elif peers_abroad and self._with_home:
            outcome = namespaces.ask(place, get_nsid(namespaces.home.fd))
            if not outcome.errno:
                self.home_id[identity] = read_body(place, outcome, parse_nsid)
        self.failed.pop(identity, None)

    def take_fingerprint(
        self, place: OpenNetns, links: Iterable[LinkMessage], addresses: Iterable[AddrMessage]
    ) -> None:
        """Take the fingerprint of `place`, which has these links and addresses and no others."""
        self.fingerprints[place.identity] = fingerprint_of(place.cookie.to_bytes(8, sys.byteorder), links, addresses)

    def survey(self, peers: dict[LinkAt, LinkAt]) -> Survey:
        """Return the result, with these peers."""
        failed = self.failed
        links = [
            SurveyedLink(at[0], self.ref_of[at[0]], link, addresses, peers.get(at))
            for at, (link, addresses) in self.links.items()
            if at[0] not in failed
        ]
        if not failed:
            places = {ref: str(place) if isinstance(place, VethError) else place for ref, place in self.places.items()}
            taken = Fingerprints(places, self.fingerprints) if self.fingerprints else None
            return Survey(self.places, links, self.cookies, taken)
        links = [replace(link, peer=None) if link.peer and link.peer[0] in failed else link for link in links]
        namespaces = {
            ref: place if isinstance(place, VethError) else failed.get(place, place)
            for ref, place in self.places.items()
        }
        return Survey(namespaces, links, self.cookies)
