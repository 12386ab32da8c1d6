"""The methods of a session that change and move links."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from vethlib.endfields.table import FIELDS
from vethlib.errors import BatchError, InvalidValue, check_callback
from vethlib.linkref import NO_ITEM, Item, LinkRef, Located, as_items, as_list, as_list_of, locate
from vethlib.links import (
    Address,
    IPInterface,
    Link,
    NetnsRef,
    check_addresses,
    check_index,
    check_ipv6,
    check_lookup_name,
    check_name,
    check_proto,
    check_ref,
    check_up,
    check_wait,
    describe,
    spell,
)
from vethlib.session.core.namespaces import Birth
from vethlib.session.core.refusal import loading
from vethlib.session.read.reading import find
from vethlib.session.read.target import Target
from vethlib.session.write.setting import carry_out, carry_out_all, only_setting

from .base import SessionBase

if TYPE_CHECKING:
    from vethlib.endfields.neighbours import Neighbour
    from vethlib.endfields.newaddress import NewAddress
    from vethlib.endfields.routes import Route


__all__ = ["ChangingSession"]


class ChangingSession(SessionBase):
    """A session that changes and moves links."""

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
        addresses: Iterable[str | IPInterface | NewAddress] | None = None,
        add_addresses: Iterable[str | IPInterface | NewAddress] = (),
        remove_addresses: Iterable[str | IPInterface | NewAddress | Address] = (),
        address_order: Iterable[str | IPInterface | NewAddress] = (),
        address_proto: int = 0,
        only_if: Callable[[Link, Birth], bool] | None = None,
        wait: float | None = None,
        ipv6: bool | None = None,
        txqlen: int | None = None,
        gso_max_size: int | None = None,
        altnames: Iterable[str] | None = None,
        master: str | None = None,
        sysctls: Mapping[str, str | int] | Iterable[tuple[str, str]] | None = None,
        routes: Iterable[Route] | None = None,
        neighbours: Iterable[Neighbour] | None = None,
        offload: bool | Iterable[str] | None = None,
        surplus: int | None = None,
    ) -> Link:
        """Change the given settings of a link, and nothing else; return the link as changed.

        `addresses` replaces all addresses of the link except the link-local address that the kernel generates from its
        MAC. Their order matters: the first of a subnet is primary, and the first of each family is the source address
        if several are possible. `add_addresses` and `remove_addresses` change single addresses; an address in both is
        removed and added again. Removing an IP interface removes the address without a peer, or, if there is none,
        those with a peer; an :class:`Address` removes exactly that address. `address_order` puts those of its addresses
        that the link has in this order. Addresses that would expire or are deprecated become permanent, unless they are
        given lifetimes. An address that is given with attributes (:class:`vethlib.NewAddress`) is removed and added
        again if the link has it with other attributes; an address that is given without attributes may have any.

        `alias=""` clears the alias. `altnames` replaces all alternative names; with `new_name`, the former name can be
        one of them. The link is attached to the bridge or VRF `master`, or detached with ``master=""``; it keeps its
        addresses. Of the `sysctls`, only those given are written (see :class:`End`). `offload` is as for an End, or as
        returned by :meth:`fields`.

        Setting a link down removes its IPv6 addresses, and so does ipv6=False, which disables IPv6 on it; ipv6=True
        enables it. With an MTU below 1280, the kernel also forgets the IPv6 settings of the link; when the MTU rises to
        1280 again, they and IPv6 itself are as for a new link, unless `ipv6` is given.

        `routes` replaces all routes over the link that vethlib has added, and no others; the kernel removes all of them
        when a link is set down. The same is true of `neighbours`, except that a neighbour with the same address as a
        given one is replaced no matter who added it.

        Some changes make the kernel remove routes and permanent neighbours: another MAC, the removal of an address,
        ipv6=False, an MTU below 1280, joining or leaving a VRF, and, before Linux 6.2, renaming a link that is up.
        Those of vethlib are restored, as far as the link can still have them; those of other programs are lost, unless
        addresses were only changed or put in order. Routes over other links whose source is an address of this link are
        restored if the link has that address afterwards, and it is not checked for duplicates.

        With `index`, the link is changed only if it still has that ifindex; with `only_if`, only if that returns True
        for (link, birth), as for :meth:`delete_many`. With `wait`, wait up to that many seconds until the link is up
        and its addresses usable. With `surplus`, routes and neighbours are read as by :meth:`fields_many`: if there are
        too many, `routes` and `neighbours` are refused with EFBIG, and so is a change that may remove addresses, unless
        it has a `mac`. Any other change that removes some restores only the routes of vethlib; if it fails, a note
        names the fields that may have lost entries.

        Raises LinkNotFound, LinkExists (`new_name` is taken) or NetlinkError, which names the setting; then nothing has
        changed. Entries that the kernel has removed meanwhile are restored, foreign ones included, with these
        exceptions: IPv6 routes from router advertisements (the protocol `ra`, or `kernel` if they expire); temporary
        IPv6 addresses, which the kernel replaces with new ones; next hop objects and the routes that use them; proxy
        entries of the neighbour table; what stacked links have lost; after `master`, VLANs and forwarding entries of
        the bridge port; and after an MTU below 1280, the token and the net.ipv6.neigh settings of the link. A note
        lists what else could not be restored.
        """
        name, netns, index, link = _located(name, netns, index)
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
        check_callback(only_if, "only_if")
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
            "master": master,
            "sysctls": sysctls,
            "routes": routes,
            "neighbours": neighbours,
            "offload": offload,
        }
        fields = {name: FIELDS[name].check_set(value) for name, value in values.items() if value is not None}
        if (new_name, up, given_addresses, ipv6, wait, only_if).count(None) == 6 and not (add or remove or order):
            setting = only_setting(fields)
            if setting is not None:
                with self._namespaces() as namespaces:
                    return carry_out(
                        namespaces, Target(namespaces(netns), name, netns, ifindex=index, seen=link), setting
                    )
        with loading:
            from vethlib.session.read.wait import Awaited, until_usable
            from vethlib.session.write.change import Change, change  # 3 ms, for changes of several steps

        wanted = Change(new_name, up, fields, given_addresses, add, remove, address_proto, order, ipv6)
        with self._namespaces() as namespaces:
            target = Target(namespaces(netns), name, netns, f"set {describe(name, netns)}", index, only_if, link)
            if surplus is not None:
                namespaces.limit(
                    surplus, {target.place: len(fields.get("routes", ())) + len(fields.get("neighbours", ()))}
                )
            link = change(namespaces, target, wanted)
            if wait is None:
                return link
            end = Awaited.changed(link, netns, target.place.birth, (*(given_addresses or ()), *add))
            return until_usable(namespaces, [end], wait)[0]

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

        The links are not read, so changing one setting (except to an MTU below 1280) takes one exchange for all links
        of a namespace: a few µs per link. All links that can be changed are changed. If any failed, BatchError is then
        raised, with one error per failed item.
        """
        given = as_list(items, "items", NO_ITEM)
        wanted = as_items(given)
        for name, *_ in wanted:
            check_lookup_name(name)
        up = None if up is None else check_up(up)
        values = {"mtu": mtu, "alias": alias, "group": group}
        fields = {name: FIELDS[name].check_set(value) for name, value in values.items() if value is not None}
        setting = only_setting(fields, up=up)
        if setting is not None:
            with self._for_one_call() as opening:
                failed = carry_out_all(opening, wanted, setting)
        else:
            with loading:
                from vethlib.session.write.change import Change, change_all  # as in set()

            with self._for_one_call() as opening:
                failed = change_all(opening, wanted, Change(up=up, fields=fields))
        if failed:
            for position, failure in failed.items():
                failure.item = given[position]
            text = f"{len(failed)} of {len(given)} links could not be changed"
            raise BatchError(text, list(failed.values()))

    def renew_addresses(
        self,
        name: LinkRef,
        netns: NetnsRef = "",
        *,
        addresses: Iterable[str | IPInterface | NewAddress],
        index: int | None = None,
        address_proto: int = 0,
    ) -> None:
        """Make those of the given addresses that expire permanent, and repeat duplicate address detection.

        With `index`, this is done only if the link still has that ifindex. Raises LinkNotFound, NetnsNotFound,
        NetlinkError.
        """
        with loading:
            from vethlib.session.write.renew import renew_addresses  # for an agent

        name, netns, index, link = _located(name, netns, index)
        check_proto(address_proto)
        wanted = check_addresses(addresses)
        with self._namespaces() as namespaces:
            request = f"renew the addresses of {describe(name, netns)}"
            target = Target(namespaces(netns), name, netns, request, index, seen=link)
            renew_addresses(namespaces, target, wanted, address_proto)

    def restore_addresses(
        self, name: LinkRef, netns: NetnsRef = "", *, addresses: Iterable[Address], index: int | None = None
    ) -> None:
        """Restore addresses that a link had, with peer, label, lifetimes, flags, owner and order.

        Other addresses are removed, except for those that the kernel makes (:attr:`Address.comes_again`), which cannot
        be restored. With `index`, this is done only if the link still has that ifindex. Raises LinkNotFound,
        NetnsNotFound, NetlinkError.
        """
        with loading:
            from vethlib.session.write.restoring.addresses import restore_addresses  # for a rollback

        name, netns, index, link = _located(name, netns, index)
        hint = "give Addresses, as Session.addresses() returns them"
        addresses = as_list_of(Address, addresses, "addresses", hint)
        with self._namespaces() as namespaces:
            request = f"restore the addresses of {describe(name, netns)}"
            target = Target(namespaces(netns), name, netns, request, index, seen=link)
            now = find(namespaces, target)
            target.check(namespaces, now)
            restore_addresses(namespaces, target, now.ifindex, addresses)

    def remove_dependents(
        self,
        name: LinkRef,
        netns: NetnsRef = "",
        *,
        routes: Iterable[Route] = (),
        neighbours: Iterable[Neighbour] = (),
        index: int | None = None,
        only_if: Callable[[Link, Birth], bool] | None = None,
    ) -> None:
        """Remove these routes and neighbours of a link, without reading the others; missing ones are no error.

        Only those of vethlib are removed: a neighbour that now has another MAC or protocol stays, as does a route with
        another protocol.

        With `index`, this is done only if the link still has that ifindex; with `only_if`, only if that returns True
        for (link, birth), as for :meth:`delete_many`. Raises LinkNotFound, NetnsNotFound, NetlinkError.
        """
        with loading:
            from vethlib.session.write.removal import remove_values  # for an agent

        name, netns, index, link = _located(name, netns, index)
        check_callback(only_if, "only_if")
        with loading:
            from vethlib.endfields.neighbours import Neighbour
            from vethlib.endfields.routes import Route

        hint = "give what Session.fields() has returned"
        surplus = {
            "routes": tuple(as_list_of(Route, routes, "routes", hint)),
            "neighbours": tuple(as_list_of(Neighbour, neighbours, "neighbours", hint)),
        }
        with self._namespaces() as namespaces:
            target = Target(namespaces(netns), name, netns, f"change {describe(name, netns)}", index, only_if, link)
            remove_values(namespaces, target, surplus)

    def move(self, link: LinkRef | None = None, netns: NetnsRef = "", *, to: NetnsRef, name: str | None = None) -> Link:
        """Move a link to another namespace, and return it as it is there; with `name`, the link is also renamed.

        The kernel sets it down, removes its addresses, and gives it another ifindex if its own is taken. This takes
        about 20 ms; creating each end of a pair directly in its namespace avoids it.

        Raises LinkNotFound, LinkExists (the name is taken there), NetnsNotFound or NetlinkError; the link has not moved
        then. If another program takes the new name at the last moment, the kernel refuses the name after it has moved
        the link. The link is then moved back, and what it has lost is restored, except VLANs and forwarding entries of
        a bridge port, next hop objects and the routes that use them, its token, its net.ipv4.neigh and net.ipv6.neigh
        settings, qdiscs, and links on top of it. A note lists what else could not be restored.

        Another program may rename the link as soon as it arrives: it is returned under the name that it has then. If it
        has already been deleted or moved on, NetlinkError is raised, but not LinkNotFound.
        """
        with loading:
            from vethlib.session.write.move import move  # 2 ms, for few callers

        if link is None:
            if name is None:
                raise InvalidValue("link", None, "give the link to move: its name, a Link or an End")
            # Until a move could rename, `name` was the first parameter.
            warnings.warn("move(name=) is the new name: give the link first", DeprecationWarning, stacklevel=2)
            link, name = name, None
        old, netns, index, seen = locate(link, netns)
        check_lookup_name(old)
        check_ref(to, "to")
        if name is not None:
            check_name(name)
        with self._namespaces() as namespaces:
            renamed = "" if name is None else f" as {name!r}"
            request = f"move {describe(old, netns)} to {spell(to)}{renamed}"
            target = Target(namespaces(netns), old, netns, request, index, seen=seen)
            return move(namespaces, target, namespaces(to), to, name)


def _located(link: LinkRef, netns: NetnsRef, index: int | None) -> Located:
    """Return the link to be changed, as :func:`locate` does; `index` is the ifindex that it must have, if given."""
    name, netns, seen, given = locate(link, netns)
    index = seen if index is None else check_index(index)
    check_lookup_name(name)
    return name, netns, index, given


def _check_removed(addresses: Iterable[str | IPInterface | NewAddress | Address]) -> tuple[IPInterface | Address, ...]:
    """Return the addresses to remove: each Address as it is, and all others checked."""
    field = "remove_addresses"
    if isinstance(addresses, str) or not isinstance(addresses, Iterable):
        check_addresses(addresses, field)
    given = list(addresses)
    seen = [address for address in given if isinstance(address, Address)]
    return *check_addresses([address for address in given if not isinstance(address, Address)], field), *seen
