"""The methods of a session that read single links, and all links of one namespace."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal, cast, overload

from vethlib.endfields.checks import sysctls_to_read
from vethlib.errors import LinkNotFound, NetnsNotFound, VethError
from vethlib.linkref import NO_ITEM, Item, LinkRef, Located, as_items, as_list, locate
from vethlib.links import FURTHER, Address, Link, NetnsRef, Stats, check_lookup_name, describe
from vethlib.session.core.ipv6 import IPv6Settings, read_settings
from vethlib.session.core.present_name import read_by_name
from vethlib.session.core.refusal import loading
from vethlib.session.read.lookup import look_up
from vethlib.session.read.reading import (
    find,
    find_index,
    find_known,
    read_addresses,
    read_details,
    read_links,
    read_stats,
    with_addresses,
)
from vethlib.session.read.target import Target, same_link

from .base import SessionBase

if TYPE_CHECKING:
    from vethlib.rates import Sample


__all__ = ["ReadingSession"]


class ReadingSession(SessionBase):
    """A session that reads links, addresses and counters."""

    def index(self, name: LinkRef, netns: NetnsRef = "") -> int:
        """Return the ifindex of a link, by its name or an alternative name. Raises LinkNotFound, NetnsNotFound.

        The answer comes from an attached cache that watches the namespace, or else from one request to the kernel.
        """
        given = seen = None
        if name.__class__ is not str:
            name, netns, seen, given = locate(name, netns)
        check_lookup_name(name)
        with self._namespaces() as namespaces:
            place = namespaces(netns)
            if given is None:
                index = find_index(namespaces, place, name, netns)
                return index if seen is None else same_link(index, seen, name, netns)
            target = Target(place, name, netns, seen=given)
            link = find_known(namespaces, target)
            same_link(link.ifindex, seen, name, netns)
            return target.check(namespaces, link).ifindex

    def lookup(self, name: LinkRef, netns: NetnsRef = "") -> Link:
        """Return a link with its addresses, by its name or an alternative name. Raises LinkNotFound, NetnsNotFound.

        Given a :class:`Link`, return its current state.
        """
        name, netns, seen, given = locate(name, netns)
        check_lookup_name(name)
        with self._namespaces() as namespaces:
            target = Target(namespaces(netns), name, netns, ifindex=seen, seen=given)
            message = find(namespaces, target)
            same_link(message.ifindex, seen, name, netns)
            target.check(namespaces, message)
            return with_addresses(namespaces, target, message)

    def lookup_many(self, items: Iterable[Item], *, addresses: bool = True) -> list[Link]:
        """Return the link for each (name, netns), Link or End, in order, as :meth:`lookup` does, but with few requests.

        With addresses=False, addresses are not read, which takes less than half the time; ``Link.addresses`` is empty
        then. Raises LinkNotFound or NetnsNotFound for the first missing link, which is the ``item`` of the error.
        """
        given = as_list(items, "items", NO_ITEM)
        wanted = as_items(given)
        for name, *_ in wanted:
            check_lookup_name(name)
        try:
            return look_up(self._namespaces, wanted, addresses=addresses)
        except (LinkNotFound, NetnsNotFound) as error:
            raise self._first_missing(given, wanted, error) from None

    def links(self, netns: NetnsRef = "") -> list[Link]:
        """Return all links of a namespace, of any kind, with their addresses. Raises NetnsNotFound."""
        with self._namespaces() as namespaces:
            return read_links(namespaces, namespaces(netns), netns)

    def addresses(self, netns: NetnsRef = "") -> list[Address]:
        """Return all addresses of a namespace, each with its owner and state."""
        with self._namespaces() as namespaces:
            return read_addresses(namespaces, namespaces(netns))

    def details(self, name: LinkRef, netns: NetnsRef = "") -> dict[str, object]:
        """Return everything that the kernel reports about a link, decoded by pyroute2, as {"IFLA_MTU": 1500, …}.

        Importing pyroute2 takes 120 ms. Raises LinkNotFound, NetnsNotFound.
        """
        name, netns, seen, given = locate(name, netns)
        check_lookup_name(name)
        with self._namespaces() as namespaces:
            target = Target(namespaces(netns), name, netns, seen=given)
            if given is not None:
                target.check(namespaces, find(namespaces, target))
            details = read_details(namespaces, target)
        same_link(cast(int, details["index"]), seen, name, netns)
        return details

    def fields(self, name: LinkRef, netns: NetnsRef = "", *, sysctls: Iterable[str] = ()) -> dict[str, Any]:
        """Return the fields of a link that an :class:`End` may have and a :class:`Link` does not show.

        They are named as in End: ``{"txqlen": 1000, "gso_max_size": 65536, "altnames": (), "sysctls": …}``; of the
        `sysctls`, those requested ("" for one that this kernel lacks, or that has no value). `offload` is a bool, or
        the differences from True, as in ``("-tx-checksum-ip-generic",)``, by the names of ``ethtool -k``.

        Raises LinkNotFound, NetnsNotFound, NetlinkError.
        """
        name, netns, seen, given = locate(name, netns)
        check_lookup_name(name)
        wanted = dict(FURTHER) | {"sysctls": sysctls_to_read(sysctls)}
        with loading:
            from vethlib.session.read.further import read_further  # for few callers

        with self._namespaces() as namespaces:
            target = Target(namespaces(netns), name, netns, ifindex=seen, seen=given)
            link = find(namespaces, target)
            target.check(namespaces, link)
            return read_further(namespaces, target.place, link, wanted)

    def ipv6_settings(self, name: LinkRef, netns: NetnsRef = "") -> IPv6Settings:
        """Return whether IPv6 is disabled on a link, and whether its addresses are checked for duplicates.

        Raises LinkNotFound, NetnsNotFound, NotPermitted, NetlinkError (ENOENT: the link does not support IPv6).
        """
        name, netns, seen, given = locate(name, netns)
        check_lookup_name(name)
        with self._namespaces() as namespaces:
            request = f"read the IPv6 settings of {describe(name, netns)}"
            target = Target(namespaces(netns), name, netns, request, seen, seen=given)
            link = find(namespaces, target)
            target.check(namespaces, link)
            return read_by_name(namespaces, target.place, link, lambda name: read_settings(target.place, name))

    def stats(self, name: LinkRef, netns: NetnsRef = "") -> Stats:
        """Return the 64-bit counters of a link. Raises LinkNotFound, NetnsNotFound."""
        name, netns, seen, given = locate(name, netns)
        check_lookup_name(name)
        with self._namespaces() as namespaces:
            request = f"read the counters of {describe(name, netns)}"
            target = Target(namespaces(netns), name, netns, request, seen=given)
            link = find_known(namespaces, target)
            if seen is not None:
                same_link(link.ifindex, seen, name, netns)
                target.check(namespaces, link)
            return read_stats(namespaces, target, link.ifindex)

    @overload
    def stats_many(self, items: Iterable[Item], *, missing_ok: Literal[False] = False) -> list[Sample]: ...

    @overload
    def stats_many(self, items: Iterable[Item], *, missing_ok: bool) -> list[Sample | None]: ...

    def stats_many(self, items: Iterable[Item], *, missing_ok: bool = False) -> list[Sample] | list[Sample | None]:
        """Return the counters of each (name, netns), Link or End, in order, with the time and the link's identity.

        Rates can be computed from two samples.

        Names are looked up each time, so a link that was deleted and created again is recognised as another link
        (:mod:`vethlib.rates`). Raises LinkNotFound or NetnsNotFound for the first missing link, which is the ``item``
        of the error; with `missing_ok`, its place in the list has None instead.
        """
        with loading:
            from vethlib.session.read.counting import count_many  # for few callers

        given = as_list(items, "items", NO_ITEM)
        wanted = as_items(given)
        for name, *_ in wanted:
            check_lookup_name(name)
        try:
            return count_many(self._namespaces, wanted, missing_ok=missing_ok)
        except (LinkNotFound, NetnsNotFound) as error:
            raise self._first_missing(given, wanted, error) from None

    def _first_missing(self, given: Sequence[Item], wanted: Sequence[Located], found: VethError) -> VethError:
        """Return the error for the first of these links that is missing, with its item; `found` if none is missing now.

        Links are read by namespace, so that the first one `found` may come later in the list.
        """
        for item, (name, netns, seen, link) in zip(given, wanted, strict=True):
            try:
                index = self.index(link) if link is not None else self.index(name, netns)
                same_link(index, seen, name, netns)
            except (LinkNotFound, NetnsNotFound) as error:
                first = found if found.item == (name, netns) else error
                first.item = item
                return first
        return found
