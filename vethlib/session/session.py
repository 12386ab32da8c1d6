"""Session: the imperative API. Each method checks its arguments, opens the namespaces it needs, and delegates."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Container, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, cast, overload

from vethlib import ns
from vethlib._closing import WarnsUnclosed
from vethlib._nl.sock import RtnlSocket
from vethlib._primitives import for_caller, socket
from vethlib.endfields.checks import check_sysctls
from vethlib.endfields.table import FIELDS
from vethlib.errors import BatchError, InvalidValue, SessionClosed, VethError, check_type
from vethlib.linkref import Item, LinkRef, as_indexed, as_items, as_key, check_refs, locate
from vethlib.links import (
    FURTHER,
    Address,
    Dependents,
    End,
    IPInterface,
    Link,
    NetnsRef,
    Pair,
    Stats,
    Veth,
    check_addresses,
    check_index,
    check_ipv6,
    check_kernel_name,
    check_lookup_name,
    check_name,
    check_proto,
    check_up,
    check_veth,
    check_wait,
    describe,
    spell,
)

from .core.caches import AttachedCaches, Cache
from .core.ipv6 import IPv6Settings, read_settings
from .core.namespaces import Birth, Namespaces, OpenNetns
from .core.refusal import naming, system_errors
from .read.lookup import look_up
from .read.reading import (
    addresses_of,
    find,
    find_index,
    read_addresses,
    read_details,
    read_link,
    read_links,
    read_stats,
)
from .read.target import Target, same_link
from .write.create import Creation, Made
from .write.delete import DeleteItem, Deletion
from .write.setting import carry_out, carry_out_all, only_setting

if TYPE_CHECKING:
    from vethlib.endfields.routes import Route
    from vethlib.rates import Sample

    from .read.fingerprint import Fingerprints
    from .read.further import Asked
    from .read.survey import Survey

__all__ = ["Session", "open_namespaces", "open_netns"]


class Session(WarnsUnclosed):
    """Create, change, move, delete and read links in any network namespace.

    The home namespace is that of the thread that creates the session, for all threads that use the session. A
    `resolver` turns the label of a "microservice:label" reference into another reference.

    Threads can share a session. A forked process cannot use the session of its parent. Close it, or use it in a
    ``with`` statement. Raises NotPermitted or NetlinkError if the kernel provides no rtnetlink socket.
    """

    _usage = "Session()"

    def __init__(self, *, resolver: Callable[[str], str] | None = None) -> None:
        self._pid = os.getpid()
        self._resolver = resolver
        with system_errors("start a session"):
            self._home = OpenNetns("", ns.current(), is_home=True)
            self._home.socket = RtnlSocket()
        self._caches = AttachedCaches()
        self._closed = False

    def close(self) -> None:
        """Close the socket. Links are not affected. Closing twice is harmless."""
        if not self._closed:
            self._closed = True
            self._home.close()

    @property
    def resolver(self) -> Callable[[str], str] | None:
        """The resolver for the label of a "microservice:label" reference, or None."""
        return self._resolver

    def _namespaces(self) -> Namespaces:
        if self._pid != os.getpid():
            raise SessionClosed(
                f"this session belongs to process {self._pid}: after a fork, the child makes a session of its own"
            )
        if self._closed:
            raise SessionClosed("this session is closed")
        return Namespaces(self._home, self._resolver, self._caches)

    def attach(self, cache: Cache) -> None:
        """Look up links by name in `cache` if it knows them, and update it after every change made here.

        Each :class:`Link` that is returned still comes from the kernel. The cache is not kept alive. An IfIndexCache
        attaches itself, and detaches when it is closed.
        """
        self._caches.add(cache)

    def detach(self, cache: Cache) -> None:
        """Undo :meth:`attach`. Does nothing if the cache is not attached."""
        self._caches.remove(cache)

    def create(self, veth: Veth, *, wait: float | None = None, read: bool = True) -> Pair:
        """Create a pair, each end directly in its namespace, and return both links with their ifindexes.

        Without `wait`, the ends may not have a carrier yet: their operstate may be "unknown" or "down" for a moment.
        With `wait`, wait up to that many seconds until both ends are up and their addresses usable. This includes
        waiting for links of the same names that are about to vanish with the namespace of their peer.

        With read=False, the new links are not read, and described by what was requested and what the kernel returned:
        ``operstate`` is "unknown" if the link is up, and of one end ``peer_netnsid`` is None, and ``ipv6`` True unless
        it was given. The MAC of that end is chosen here if none is given.

        Raises LinkExists (the message names the link; ``dying`` is True if the name is about to become free),
        NetnsNotFound, NotPermitted or NetlinkError, and creates nothing then. Raises WaitTimeout or DuplicateAddress if
        the pair was created but did not become usable.
        """
        creation = self._creation([veth], wait, read=read)
        try:
            return creation.run()[0]
        except BaseException as error:
            if error is not creation.verdict:
                creation.take_back(error)
            raise

    def create_many(
        self,
        veths: Iterable[Veth],
        *,
        on_error: Literal["rollback", "continue"] = "rollback",
        progress: Callable[[int, int], object] | None = None,
        made: Callable[[list[Made]], object] | None = None,
        wait: float | None = None,
        together: bool = False,
        read: bool = True,
    ) -> list[Pair]:
        """Create many pairs in batches and return them in order.

        With on_error="rollback", the first failure ends the call: pairs created so far are deleted, and the error is
        raised with the Veth as its ``item``. With on_error="continue", all other pairs are created; then BatchError is
        raised with one error per failed pair, and the created pairs as ``created``. An interruption undoes everything
        in both cases. `progress(done, total)` is called from time to time. `made` is called with the pairs of each
        batch as soon as they exist, each with the identities of its namespaces.

        `read` and `wait` apply as for :meth:`create`, `wait` to all pairs together; read=False takes a tenth to a fifth
        less time. A pair that does not become usable in time stays, and is in ``created`` of the WaitTimeout or
        DuplicateAddress, or of the BatchError that contains it.

        With `together`, the pairs are made to be deleted together: an end of each, that in the home namespace if there
        is one, is in a link group of this call (a number above 2³¹, shown by ``ip -d link``) unless its End has one. On
        a host with thousands of links with IPv6, that makes it much faster to delete all or most of them.
        """
        if on_error not in ("rollback", "continue"):
            raise InvalidValue("on_error", on_error, 'must be "rollback" or "continue"')
        check_up(together, "together")
        keep_going = on_error == "continue"
        creation = self._creation(list(veths), wait, read=read, keep_going=keep_going, together=together)
        try:
            return creation.run(progress, made)
        except BaseException as error:
            if error is not creation.verdict:
                creation.take_back(error)
            raise

    def _creation(
        self,
        veths: list[Veth],
        wait: float | None,
        *,
        read: bool,
        keep_going: bool = False,
        together: bool = False,
    ) -> Creation:
        for veth in veths:
            check_veth(veth)
        if wait is not None:
            check_wait(wait)
        check_up(read, "read")
        return Creation(self._namespaces, veths, keep_going=keep_going, wait=wait, together=together, reads=read)

    def delete(self, name: LinkRef, netns: NetnsRef = "", *, missing_ok: bool = False) -> None:
        """Delete a pair, given one of its ends as a name, a Link or an End.

        A :class:`Link` is deleted only if the link still has the same ifindex; this holds for all methods that accept a
        Link. Raises LinkNotFound or NetnsNotFound (not with `missing_ok`), and NotSupported if the link is not a veth.
        """
        name, netns, index = locate(name, netns)
        check_lookup_name(name)
        item = (name, netns) if index is None else (name, netns, index)
        for error in Deletion(self._namespaces, [item], missing_ok=missing_ok).run():
            raise error

    def delete_many(
        self,
        items: Iterable[DeleteItem],
        *,
        missing_ok: bool = True,
        renamed_ok: bool = False,
        only_if: Callable[[DeleteItem, Link, Birth], bool] | None = None,
        progress: Callable[[int, int], object] | None = None,
    ) -> None:
        """Delete many pairs, each given by one end or both, with as few unregistrations in the kernel as possible.

        An end is (name, netns) or an :class:`End`. With (name, netns, ifindex) or a :class:`Link`, a link is deleted
        only if its name and ifindex still match; with `renamed_ok`, only the ifindex has to match.

        Ifindexes and identities of namespaces are reused. So with `only_if`, a link is deleted only if
        ``only_if(item, link, birth)`` is true just before that, and is treated as missing otherwise: `link` is the
        present link without its addresses, and `birth` the :meth:`identity` and :meth:`cookie` of its namespace.

        Deletes all it can, then raises BatchError with one error per item that failed.
        """
        items = list(items)
        for name, _, _ in as_items(items):
            check_lookup_name(name)
        deletion = Deletion(self._namespaces, items, missing_ok=missing_ok, renamed_ok=renamed_ok, only_if=only_if)
        if failed := deletion.run(progress) if items else []:
            raise BatchError(f"{len(failed)} of {len(items)} links could not be deleted", failed)

    def set(
        self,
        name: LinkRef,
        netns: NetnsRef = "",
        *,
        index: int | None = None,
        new_name: str | None = None,
        up: bool | None = None,
        mac: str | None = None,
        mtu: int | None = None,
        alias: str | None = None,
        group: int | None = None,
        addresses: Iterable[str | IPInterface] | None = None,
        add_addresses: Iterable[str | IPInterface] = (),
        remove_addresses: Iterable[str | IPInterface | Address] = (),
        address_order: Iterable[str | IPInterface] = (),
        address_proto: int = 0,
        only_if: Callable[[Link, Birth], bool] | None = None,
        wait: float | None = None,
        ipv6: bool | None = None,
        txqlen: int | None = None,
        gso_max_size: int | None = None,
        altnames: Iterable[str] | None = None,
        sysctls: Mapping[str, str | int] | Iterable[tuple[str, str]] | None = None,
        routes: Iterable[Route] | None = None,
    ) -> Link:
        """Change the given settings of a link, and nothing else; return the link as changed.

        `addresses` replaces all addresses of the link except the link-local address that the kernel generates from its
        MAC. Their order matters: the first of a subnet is primary, and the first of each family is the source address
        if several are possible. `add_addresses` and `remove_addresses` change single addresses; an address in both is
        removed and added again. Removing an IP interface removes the address without a peer, or, if there is none,
        those with a peer; an :class:`Address` removes exactly that address. `address_order` puts those of its addresses
        that the link has in this order. Addresses that would expire or are deprecated become permanent. `alias=""`
        clears the alias. Setting a link down removes its IPv6 addresses, and so does ipv6=False, which disables IPv6 on
        it; ipv6=True enables it. `altnames` replaces all alternative names; of the `sysctls`, those that are given are
        written (see :class:`End`). `routes` replaces all routes over the link that vethlib has added, and no other; the
        kernel removes all of them when a link is set down.

        With `index`, the link is changed only if it still has that ifindex; with `only_if`, only if
        ``only_if(link, birth)`` is true, as for :meth:`delete_many`. With `wait`, wait up to that many seconds
        until the link is up and its addresses usable.

        Raises LinkNotFound, LinkExists (`new_name` is taken) or NetlinkError, which names the setting; nothing has
        changed then.
        """
        name, netns, seen = locate(name, netns)
        index = seen if index is None else check_index(index)
        check_lookup_name(name)
        check_proto(address_proto)
        if wait is not None:
            check_wait(wait)
        given_addresses = None if addresses is None else check_addresses(addresses)
        add = () if add_addresses == () else check_addresses(add_addresses, "add_addresses")
        remove = () if remove_addresses == () else _check_removed(remove_addresses)
        order = () if address_order == () else check_addresses(address_order, "address_order")
        if given_addresses is not None and (add or remove or order):
            raise InvalidValue(
                "addresses", addresses, "cannot be combined with add_addresses, remove_addresses or address_order"
            )
        check_ipv6(ipv6, (*(given_addresses or ()), *add), mtu)
        new_name = None if new_name is None else check_name(new_name, "new_name")
        up = None if up is None else check_up(up)
        values = {
            "mac": mac,
            "mtu": mtu,
            "alias": alias,
            "group": group,
            "txqlen": txqlen,
            "gso_max_size": gso_max_size,
            "altnames": altnames,
            "sysctls": sysctls,
            "routes": routes,
        }
        fields = {name: FIELDS[name].check(value, name) for name, value in values.items() if value is not None}
        if (new_name, up, given_addresses, ipv6, wait, only_if).count(None) == 6 and not (add or remove or order):
            setting = only_setting(fields)
            if setting is not None:
                with self._namespaces() as namespaces:
                    return carry_out(namespaces, Target(namespaces(netns), name, netns, ifindex=index), setting)
        from .write.change import Change, change  # 2 ms, for changes of several steps

        wanted = Change(new_name, up, fields, given_addresses, add, remove, address_proto, order, ipv6)
        with self._namespaces() as namespaces:
            target = Target(namespaces(netns), name, netns, f"set {describe(name, netns)}", index, only_if)
            link = change(namespaces, target, wanted)
            if wait is None:
                return link
            from .read.wait import Awaited, until_usable  # 1 ms, for those who wait

            return until_usable(namespaces, [Awaited(link.name, netns, (*(given_addresses or ()), *add))], wait)[0]

    def set_many(
        self,
        items: Iterable[Item],
        *,
        up: bool | None = None,
        mtu: int | None = None,
        alias: str | None = None,
        group: int | None = None,
    ) -> None:
        """Change settings of many links, given as for :meth:`lookup_many`: each link as :meth:`set` does.

        The links are not read. So one setting, except an MTU below 1280, takes one exchange for all links of a
        namespace, a few µs per link. Changes all it can, then raises BatchError with one error per item that failed.
        """
        given = list(items)
        wanted = as_items(given)
        for name, _, _ in wanted:
            check_lookup_name(name)
        up = None if up is None else check_up(up)
        values = {"mtu": mtu, "alias": alias, "group": group}
        fields = {name: FIELDS[name].check(value, name) for name, value in values.items() if value is not None}
        setting = only_setting(fields, up=up)
        if setting is not None:
            failed = carry_out_all(self._namespaces, wanted, setting)
        else:
            failed = {}
            for position, (name, netns, index) in enumerate(wanted):
                try:
                    self.set(name, netns, index=index, up=up, **fields)
                except VethError as error:
                    failed[position] = error
        if failed:
            for position, failure in failed.items():
                failure.item = given[position]
            text = f"{len(failed)} of {len(given)} links could not be changed"
            raise BatchError(text, list(failed.values()))

    def ipv6_settings(self, name: LinkRef, netns: NetnsRef = "") -> IPv6Settings:
        """Return whether IPv6 is disabled on a link, and whether its addresses are checked for duplicates.

        Raises NetnsNotFound, NotPermitted, NetlinkError (ENOENT: the link does not support IPv6).
        """
        name, netns, _ = locate(name, netns)
        check_kernel_name(name)
        with self._namespaces() as namespaces:
            return read_settings(namespaces(netns), name)

    def renew_addresses(
        self,
        name: LinkRef,
        netns: NetnsRef = "",
        *,
        addresses: Iterable[str | IPInterface],
        index: int | None = None,
        address_proto: int = 0,
    ) -> None:
        """Make those of these addresses that expire permanent, and repeat duplicate address detection.

        With `index`, only if the link still has that ifindex. Raises LinkNotFound, NetnsNotFound, NetlinkError.
        """
        from .write.renew import renew_addresses  # for an agent

        name, netns, seen = locate(name, netns)
        index = seen if index is None else check_index(index)
        check_lookup_name(name)
        check_proto(address_proto)
        wanted = check_addresses(addresses)
        with self._namespaces() as namespaces:
            request = f"renew the addresses of {describe(name, netns)}"
            target = Target(namespaces(netns), name, netns, request, index)
            renew_addresses(namespaces, target, wanted, address_proto)

    def restore_addresses(
        self, name: LinkRef, netns: NetnsRef = "", *, addresses: Iterable[Address], index: int | None = None
    ) -> None:
        """Restore addresses that a link had, with peer, label, lifetimes, flags, owner and order.

        Other addresses are removed, except for the link-local address that the kernel generates from the MAC. With
        `index`, only if the link still has that ifindex. Raises LinkNotFound, NetnsNotFound, NetlinkError.
        """
        from .write.restore import restore_addresses  # for a rollback

        name, netns, seen = locate(name, netns)
        index = seen if index is None else check_index(index)
        check_lookup_name(name)
        addresses = list(addresses)
        for address in addresses:
            check_type(address, Address, "addresses", "give Addresses, as Session.addresses() returns them")
        with self._namespaces() as namespaces:
            request = f"restore the addresses of {describe(name, netns)}"
            target = Target(namespaces(netns), name, netns, request, index)
            link = find(namespaces, target)
            target.check_ifindex(link.ifindex)
            restore_addresses(namespaces, target, link.ifindex, addresses)

    def move(self, link: LinkRef, netns: NetnsRef = "", *, to: NetnsRef, name: str | None = None) -> Link:
        """Move a link to another namespace, and return it as it is there; with `name`, it has that name from then on.

        The kernel sets it down, removes its addresses, and gives it another ifindex if its own is taken. This takes
        about 20 ms; creating each end of a pair directly in its namespace avoids it.

        Raises LinkNotFound, LinkExists (the name is taken there), NetnsNotFound or NetlinkError; the link has not moved
        then.
        """
        from .write.change import move  # as above

        old, netns, index = locate(link, netns)
        check_lookup_name(old)
        if name is not None:
            check_name(name)
        with self._namespaces() as namespaces:
            renamed = "" if name is None else f" as {name!r}"
            request = f"move {describe(old, netns)} to {spell(to)}{renamed}"
            return move(namespaces, Target(namespaces(netns), old, netns, request, index), namespaces(to), to, name)

    def index(self, name: LinkRef, netns: NetnsRef = "") -> int:
        """Return the ifindex of a link, by its name or an alternative name. Raises LinkNotFound, NetnsNotFound.

        The answer comes from an attached cache that watches the namespace, or else from one request to the kernel.
        """
        seen = None
        if name.__class__ is not str:
            name, netns, seen = locate(name, netns)
        check_lookup_name(name)
        with self._namespaces() as namespaces:
            index = find_index(namespaces, Target(namespaces(netns), name, netns))
            return index if seen is None else same_link(index, seen, name, netns)

    def lookup(self, name: LinkRef, netns: NetnsRef = "") -> Link:
        """Return a link with its addresses, by its name or an alternative name. Raises LinkNotFound, NetnsNotFound.

        Given a :class:`Link`, return its current state.
        """
        name, netns, seen = locate(name, netns)
        check_lookup_name(name)
        with self._namespaces() as namespaces:
            link = read_link(namespaces, Target(namespaces(netns), name, netns))
        same_link(link.index, seen, name, netns)
        return link

    def lookup_many(self, items: Iterable[Item], *, addresses: bool = True) -> list[Link]:
        """Return the link of each (name, netns), Link or End, in order, as :meth:`lookup` does, with few requests.

        With addresses=False, addresses are not read, which takes less than half the time; ``Link.addresses`` is empty
        then. Raises LinkNotFound or NetnsNotFound for the first missing link, which is the ``item`` of the error.
        """
        given = list(items)
        wanted = as_items(given)
        for name, _, _ in wanted:
            check_lookup_name(name)
        with naming(given, wanted):
            links = look_up(self._namespaces, [(name, netns) for name, netns, _ in wanted], addresses=addresses)
            for link, (name, netns, seen) in zip(links, wanted, strict=True):
                same_link(link.index, seen, name, netns)
        return links

    def links(self, netns: NetnsRef = "") -> list[Link]:
        """Return all links of a namespace, of any kind, with their addresses. Raises NetnsNotFound."""
        with self._namespaces() as namespaces:
            return read_links(namespaces, namespaces(netns), netns)

    def addresses(self, netns: NetnsRef = "") -> list[Address]:
        """Return all addresses of a namespace, each with its owner and state."""
        with self._namespaces() as namespaces:
            return addresses_of(read_addresses(namespaces, namespaces(netns)))

    def details(self, name: LinkRef, netns: NetnsRef = "") -> dict[str, object]:
        """Return everything that the kernel reports about a link, decoded by pyroute2, as {"IFLA_MTU": 1500, …}.

        Importing pyroute2 takes 120 ms. Raises LinkNotFound, NetnsNotFound.
        """
        name, netns, seen = locate(name, netns)
        check_lookup_name(name)
        with self._namespaces() as namespaces:
            details = read_details(namespaces, Target(namespaces(netns), name, netns))
        same_link(cast(int, details["index"]), seen, name, netns)
        return details

    def fields(self, name: LinkRef, netns: NetnsRef = "", *, sysctls: Iterable[str] = ()) -> dict[str, Any]:
        """Return the fields of a link that an :class:`End` may have and a :class:`Link` does not show.

        They are named as in End: ``{"txqlen": 1000, "gso_max_size": 65536, "altnames": (), "sysctls": …}``; of
        `sysctls`, those that are asked for. Raises LinkNotFound, NetnsNotFound, NetlinkError.
        """
        name, netns, seen = locate(name, netns)
        check_lookup_name(name)
        wanted = dict(FURTHER) | {"sysctls": check_sysctls([(setting, "0") for setting in sysctls])}
        from .read.further import read_further  # for few callers

        with self._namespaces() as namespaces:
            target = Target(namespaces(netns), name, netns, ifindex=seen)
            link = find(namespaces, target)
            target.check_ifindex(link.ifindex)
            return read_further(namespaces, target.place, link, wanted)

    def fields_many(self, asked: Iterable[Asked]) -> list[dict[str, Any] | VethError | None]:
        """Return fields of many links, each (reference, ifindex, fields to read), as :meth:`fields` does.

        An error that concerns some links is returned for these; None for a link that is missing.
        """
        from .read.further import read_further_of  # for an agent

        return read_further_of(self._namespaces, asked)

    def survey(self, refs: Iterable[str], *, may_be_closed: Container[str] = (), fingerprints: bool = False) -> Survey:
        """Read all links and addresses of many namespaces at once, and find the peer of each veth.

        A reference that leads to no namespace, or to one that cannot be read, is not an error; its entry in ``places``
        has the reason. Raises NetlinkError for the home namespace, and NotPermitted if no namespace can be entered,
        except for references in `may_be_closed`, which have that error in ``places``, too. With `fingerprints`, the
        result can be compared with :meth:`fingerprints` later.
        """
        from .read.survey import survey  # 1 ms, for the agent

        return survey(self._namespaces, check_refs(refs), may_be_closed, fingerprints=fingerprints)

    def fingerprints(self, refs: Iterable[str]) -> Fingerprints | None:
        """Take the fingerprints of these namespaces: equal to those of a survey if it would read the same again.

        That takes a third of the time of a survey. None if a namespace cannot be read at the moment.
        """
        from .read.fingerprint import fingerprints  # as above

        return fingerprints(self._namespaces, check_refs(refs))

    def inspect(
        self,
        links: Iterable[tuple[str, str | int] | Link | End],
        refs: Iterable[str] = (),
        *,
        ends_at_home: bool = False,
        may_be_closed: Container[str] = (),
    ) -> Survey:
        """Read single links: (reference, name or alternative name), (reference, ifindex), a Link or an End.

        Like :meth:`survey`, but only for these links. The result has those that exist, each once, with their addresses,
        and with ``peer`` if both ends are among them. With `ends_at_home`, it also has the peers that are in the home
        namespace. ``places`` has all references of `links` and `refs`. The cost (0.2 ms for a pair) does not depend on
        what other links exist. Raises as :meth:`survey`.
        """
        from .read.survey import inspect  # as above

        keys = map(as_key, links)
        return inspect(self._namespaces, keys, check_refs(refs), ends_at_home=ends_at_home, may_be_closed=may_be_closed)

    def identity(self, netns: NetnsRef = "") -> tuple[int, int]:
        """Return the identity of a namespace, (st_dev, st_ino), which is equal exactly if it is the same namespace.

        It is valid while the namespace exists; afterwards, the kernel reuses the number. Raises NetnsNotFound,
        NotPermitted, NetlinkError, InvalidValue.
        """
        with self._namespaces() as namespaces:
            return namespaces(netns).identity

    def cookie(self, netns: NetnsRef = "") -> int:
        """Return the number that identifies a namespace among all since the boot (SO_NETNS_COOKIE).

        Unlike :meth:`identity`, it is never reused. It is 0 before Linux 5.14. Raises as :meth:`identity`.
        """
        with self._namespaces() as namespaces:
            place = namespaces(netns)
            namespaces.socket(place)
            return place.cookie

    def dependents(self, links: Iterable[tuple[NetnsRef, int] | Link]) -> list[Dependents]:
        """Return the dependents of each Link or (reference, ifindex): routes, neighbours, qdiscs, links on top of it.

        These are lost when the link is deleted, and some of them when it goes down. Raises NetnsNotFound, NetlinkError.
        """
        from .read.dependents import read_dependents  # as above

        return read_dependents(self._namespaces, map(as_indexed, links))

    def borne(self, links: Iterable[tuple[NetnsRef, int] | Link]) -> list[Dependents]:
        """Return what :meth:`dependents` returns, which is the present name of this method."""
        warnings.warn("use Session.dependents(), the present name of this method", DeprecationWarning, stacklevel=2)
        return self.dependents(links)

    def socket(
        self,
        netns: NetnsRef = "",
        family: int = socket.AF_INET,
        type: int = socket.SOCK_STREAM,  # noqa: A002 - as socket.socket has it
        proto: int = 0,
    ) -> socket.socket:
        """Return a socket that was made in a namespace, which can be used from any thread, event loop or process.

            with session.socket("blue") as client:
                client.connect(("10.0.0.2", 80))

        Its class is the caller's ``socket.socket``. The caller closes it; until then, it keeps the namespace alive.
        Raises OSError as ``socket.socket``, NetnsNotFound, NotPermitted, InvalidValue.
        """
        with self._namespaces() as namespaces:
            return for_caller(namespaces(netns).call(lambda: socket.socket(family, type, proto)))

    def stats(self, name: LinkRef, netns: NetnsRef = "") -> Stats:
        """Return the 64-bit counters of a link. Raises LinkNotFound, NetnsNotFound."""
        name, netns, seen = locate(name, netns)
        check_lookup_name(name)
        with self._namespaces() as namespaces:
            target = Target(namespaces(netns), name, netns, f"read the counters of {describe(name, netns)}")
            if seen is not None:
                same_link(find_index(namespaces, target), seen, name, netns)
            return read_stats(namespaces, target)

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
        from .read.counting import count_many  # as survey, for those who ask

        given = list(items)
        wanted = as_items(given)
        for name, _, _ in wanted:
            check_lookup_name(name)
        with naming(given, wanted):
            samples = count_many(self._namespaces, [(name, netns) for name, netns, _ in wanted], missing_ok=missing_ok)
            for position, (sample, (name, netns, seen)) in enumerate(zip(samples, wanted, strict=True)):
                if sample is not None and seen not in (None, sample.index):
                    if not missing_ok:
                        same_link(sample.index, seen, name, netns)
                    samples[position] = None
        return samples

    def stats_in(self, refs: Iterable[str]) -> dict[str, list[Sample] | VethError]:
        """Return the counters of all links in many namespaces, by reference.

        This takes one dump per namespace, 12 µs per link.
        A reference that leads to no namespace, or to one that cannot be read, is not an error: its value is the
        exception.
        """
        from .read.counting import count_in  # as above

        return count_in(self._namespaces, check_refs(refs))


# Two functions for other packages of vethlib, which work in namespaces as a session does. They are no methods, because
# what they give out is no part of the API.


def open_namespaces(session: Session) -> Namespaces:
    """Return the namespaces of one call of this session, of which home is open. Raises SessionClosed."""
    return session._namespaces()


def open_netns(session: Session, ref: NetnsRef) -> ns.Descriptor:
    """Open a namespace by a reference that the session understands; the caller closes it.

    Raises SessionClosed, NetnsNotFound, NotPermitted, InvalidValue.
    """
    home = session._namespaces().home
    return ns.open_owned(ref or f"fd:{home.fd}", session._resolver)


def _check_removed(addresses: Iterable[str | IPInterface | Address]) -> tuple[IPInterface | Address, ...]:
    """Return addresses to remove: each Address as it is, and others checked."""
    field = "remove_addresses"
    if isinstance(addresses, str):
        check_addresses(addresses, field)
    given = list(addresses)
    seen = [address for address in given if isinstance(address, Address)]
    return *check_addresses([address for address in given if not isinstance(address, Address)], field), *seen
