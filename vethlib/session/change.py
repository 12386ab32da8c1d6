"""Changing one link: all that is asked, or nothing.

Each field is a message of its own, so that a refusal names its field. Each comes with the messages that undo it, so
that when one is refused those that were done are undone, last first. The kernel does not stop at one that it refuses,
so they go in up to three datagrams: what may be refused and can be undone without a trace, then the name, then what
takes something away.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from .._nl.addr import AddrMessage, del_addr, new_addr, restore_addr
from .._nl.batch import Exchange, Outcome
from .._nl.link import LinkMessage, get_link, parse_link, set_link
from ..errors import InvalidValue, LinkExists, NetlinkError, VethError
from ..links import Interface, Link, NetnsRef, describe, spell
from .ipv6 import disable_ipv6, enable_ipv6, is_disabled
from .places import Place, Places
from .reading import find_known, missing, read_addresses, read_link, to_interface
from .refusal import refusal

__all__ = ["Change", "change", "move"]


# ENXIO: the link has no IPv6 any more, as below an MTU of 1280 (inet6_addr_del, addrconf.c).
_NO_SUCH_ADDRESS: Final = (errno.EADDRNOTAVAIL, errno.ENXIO)
_IPV6_MIN_MTU: Final = 1280  # include/uapi/linux/ipv6.h


class Change(NamedTuple):
    """What of a link is to become different; None leaves a field alone.

    `addresses` is the whole set (link-local ones aside); `add` and `remove` are differences.
    """

    new_name: str | None = None
    up: bool | None = None
    mac: str | None = None
    mtu: int | None = None
    alias: str | None = None
    group: int | None = None
    addresses: tuple[Interface, ...] | None = None
    add: tuple[Interface, ...] = ()
    remove: tuple[Interface, ...] = ()
    address_proto: int = 0

    def touches_addresses(self, before: LinkMessage) -> bool:
        """Whether the addresses have to be read first: down, also in undoing up, drops the IPv6 ones."""
        given = self.addresses is not None or self.add or self.remove
        return bool(given) or self.up not in (None, before.up) or self.mtu_after(before) < _IPV6_MIN_MTU

    def mtu_after(self, before: LinkMessage) -> int:
        """The MTU the link is to have."""
        return before.mtu if self.mtu is None else self.mtu


class _Step(NamedTuple):
    """One message; `fine` are errnos that mean it is as wanted already."""

    what: str
    request: bytes
    undo: tuple[bytes, ...]
    fine: tuple[int, ...] = ()
    address: Interface | None = None


_Present = dict[Interface, AddrMessage]
"""The addresses a link had, in their order."""


def change(places: Places, place: Place, name: str, netns: NetnsRef, wanted: Change, index: int | None = None) -> Link:
    """Change a link, return it as it has become. Raises LinkNotFound, LinkExists (a new name taken), NetlinkError."""
    request = f"set {describe(name, netns)}"
    before = find_known(places, place, name, netns, request)
    if index not in (None, before.ifindex):
        raise missing(name, netns, request)
    found = read_addresses(places, place, before.ifindex) if wanted.touches_addresses(before) else []
    present = {to_interface(one): one for one in found}
    _run(places, place, _steps(before, present, wanted), before, request, netns)
    return read_link(places, place, wanted.new_name or before.name, netns, request)


def _steps(before: LinkMessage, present: _Present, wanted: Change) -> tuple[list[_Step], list[_Step], list[_Step]]:
    """What is to be done, a list for each datagram."""
    index = before.ifindex
    add, remove = _differences(present, wanted)
    _check_mtu(before, present, wanted, add, remove)
    # IPv6 refuses an address that is there with another prefix length (ipv6_add_addr), so that one goes first.
    new = {one.ip for one in add if one.version == 6}
    in_the_way = [one for one in remove if one.ip in new]
    rest = [one for one in remove if one.ip not in new]
    mtu = _mtu_steps(before, wanted)
    shrinks = wanted.mtu_after(before) < before.mtu

    first = _link_steps(before, wanted) if shrinks else mtu + _link_steps(before, wanted)
    if wanted.up is False:
        first.append(_down_step(before, present))
    first += [_remove_step(index, present, one, add) for one in in_the_way]
    first += [_add_step(index, present, one, wanted.address_proto, remove) for one in add]
    if wanted.up:
        first.append(_up_step(before, present))
    last = [_remove_step(index, present, one, add) for one in rest]
    if any(one.version == 4 for one in rest):
        last += _keep_steps(index, present, wanted.address_proto, add, rest)
    return first, _rename_steps(before, wanted), last + mtu if shrinks else last


def _differences(present: _Present, wanted: Change) -> tuple[list[Interface], list[Interface]]:
    """The addresses to add and to remove."""
    # Going down drops the IPv6 ones before the additions are made.
    stays = {one for one in present if one.version == 4 or wanted.up is not False}
    if wanted.addresses is None:
        return [one for one in wanted.add if one not in stays], [one for one in wanted.remove if one in present]
    keep = {*wanted.addresses, *(one for one in present if one.version == 6 and one.is_link_local)}
    return [one for one in wanted.addresses if one not in stays], [one for one in present if one not in keep]


def _check_mtu(
    before: LinkMessage, present: _Present, wanted: Change, add: Sequence[Interface], remove: Sequence[Interface]
) -> None:
    """Raise InvalidValue if the link would have an IPv6 address and too small an MTU for it.

    The kernel would drop the address without a word (addrconf_notify). Link-local ones it makes again when it can.
    """
    mtu = wanted.mtu_after(before)
    after = [*add, *(one for one in present if one not in remove)]
    if mtu < _IPV6_MIN_MTU and any(one.version == 6 and not one.is_link_local for one in after):
        raise InvalidValue("mtu", mtu, "IPv6 needs 1280 bytes: raise the MTU or take the IPv6 addresses away")


def _mtu_steps(before: LinkMessage, wanted: Change) -> list[_Step]:
    """The MTU: raised first and lowered last, because IPv6 comes and goes with it at 1280 bytes."""
    if wanted.mtu is None:
        return []
    index = before.ifindex
    return [_Step(f"mtu {wanted.mtu}", set_link(index, mtu=wanted.mtu), (set_link(index, mtu=before.mtu),))]


def _link_steps(before: LinkMessage, wanted: Change) -> list[_Step]:
    """The other fields of the link itself; the alias first, because it may be a mark that says what else was set."""
    index = before.ifindex
    steps: list[_Step] = []
    if wanted.alias is not None:
        undo = set_link(index, alias=os.fsencode(before.alias))
        steps.append(_Step(f"alias {wanted.alias!r}", set_link(index, alias=os.fsencode(wanted.alias)), (undo,)))
    if wanted.mac is not None:
        request = set_link(index, mac=bytes.fromhex(wanted.mac.replace(":", "")))
        steps.append(_Step(f"mac {wanted.mac}", request, (set_link(index, mac=before.mac),)))
    if wanted.group is not None:
        undo = set_link(index, group=before.group)
        steps.append(_Step(f"group {wanted.group}", set_link(index, group=wanted.group), (undo,)))
    return steps


def _rename_steps(before: LinkMessage, wanted: Change) -> list[_Step]:
    """The name: by it the kernel numbers the labels of the IPv4 addresses, which no undoing brings back."""
    if wanted.new_name is None or wanted.new_name == before.name:
        return []
    index = before.ifindex
    request = set_link(index, name=os.fsencode(wanted.new_name))
    return [_Step(f"name {wanted.new_name!r}", request, (set_link(index, name=os.fsencode(before.name)),))]


def _down_step(before: LinkMessage, present: _Present) -> _Step:
    """Down takes the IPv6 addresses along (addrconf_ifdown); undoing it gives them back."""
    index = before.ifindex
    return _Step("down", set_link(index, up=False), (*_restored(present, 6), set_link(index, up=before.up)))


def _up_step(before: LinkMessage, present: _Present) -> _Step:
    """Undoing it takes along the IPv6 addresses that the link had while it was down, so they are given back."""
    index = before.ifindex
    undo = () if before.up else (set_link(index, up=False), *_restored(present, 6))
    return _Step("up", set_link(index, up=True), undo)


def _restored(present: _Present, version: int) -> list[bytes]:
    return [restore_addr(message) for one, message in present.items() if one.version == version]


def _add_step(index: int, present: _Present, interface: Interface, proto: int, removed: Sequence[Interface]) -> _Step:
    packed, prefixlen = interface.packed, interface.network.prefixlen
    request = new_addr(index, packed, prefixlen, proto)
    undo = del_addr(index, packed, prefixlen)
    # EEXIST is as wanted, unless it is for an IPv6 address that is there, and stays, with another prefix length.
    others = [one for one in present if one.version == 6 and one not in (interface, *removed)]
    fine = () if any(one.ip == interface.ip for one in others) else (errno.EEXIST,)
    return _Step(f"address {interface}", request, (undo,), fine, interface)


def _remove_step(index: int, present: _Present, interface: Interface, added: Sequence[Interface]) -> _Step:
    there = present[interface]
    undo = [restore_addr(there)]
    if interface.version == 4:
        # Which one of a subnet is primary depends on their order, so all of them are laid again.
        laid = [one for one in (*present, *added) if one.version == 4]
        undo = [del_addr(index, one.packed, one.network.prefixlen) for one in laid] + _restored(present, 4)
    request = del_addr(index, there.address, there.prefixlen)
    return _Step(f"no address {interface}", request, tuple(undo), _NO_SUCH_ADDRESS)


def _keep_steps(
    index: int, present: _Present, proto: int, added: Sequence[Interface], removed: Sequence[Interface]
) -> list[_Step]:
    """Give back the IPv4 addresses that a removal took along; EEXIST where they never went.

    Removing one that is primary removes the secondaries of its subnet too, those just added among them (inet_del_ifa,
    devinet.c, unless promote_secondaries is set).
    """
    kept = [(one, restore_addr(there)) for one, there in present.items() if one not in removed]
    kept += [(one, new_addr(index, one.packed, one.network.prefixlen, proto)) for one in added]
    return [_Step(f"keep {one}", request, (), (errno.EEXIST,), one) for one, request in kept if one.version == 4]


def _run(
    places: Places,
    place: Place,
    datagrams: Iterable[Sequence[_Step]],
    before: LinkMessage,
    request: str,
    netns: NetnsRef,
) -> None:
    sent: list[tuple[Sequence[_Step], Exchange]] = []
    enabled: list[str] = []
    try:
        for steps in filter(None, datagrams):
            exchange = places.begin(place, [step.request for step in steps])
            sent.append((steps, exchange))
            places.run(place, exchange)
            outcomes = exchange.outcomes
            for number, (step, outcome) in enumerate(zip(steps, outcomes, strict=True)):
                if outcome.errno and outcome.errno not in step.fine:
                    again = _second_try(places, place, step, outcome, before, enabled)
                    if again.errno:
                        raise _refused(step, again, request, netns)
                    outcomes[number] = again
    except BaseException:
        disable_ipv6(place, enabled)
        done = [
            step.undo
            for steps, exchange in sent
            for step, outcome in zip(steps, exchange.outcomes, strict=True)
            if not outcome.errno
        ]
        places.exchange(place, [request for undo in reversed(done) for request in undo])
        raise


def _second_try(
    places: Places, place: Place, step: _Step, outcome: Outcome, before: LinkMessage, enabled: list[str]
) -> Outcome:
    """What a refusal that has a cure comes to: IPv6 off on the link, a name that cannot change while it is up."""
    off = step.address is not None and is_disabled(outcome, step.address)
    busy = outcome.errno == errno.EBUSY and step.what.startswith("name ")
    if not off and not busy:
        return outcome
    (now,) = places.exchange(place, [get_link(before.ifindex)])
    if now.errno:
        return now
    link = parse_link(now.bodies[0])
    if off:
        enabled.append(link.name)
        enable_ipv6(place, [link.name])
        return places.exchange(place, [step.request])[0]
    return _rename_while_down(places, place, step, link)


def _rename_while_down(places: Places, place: Place, step: _Step, link: LinkMessage) -> Outcome:
    """Renaming a link that is up came with Linux 6.3 (dev_change_name)."""
    if not link.up:
        return places.exchange(place, [step.request])[0]
    present = {to_interface(one): one for one in read_addresses(places, place, link.ifindex)}
    down, up = set_link(link.ifindex, up=False), set_link(link.ifindex, up=True)
    return places.exchange(place, [down, step.request, *_restored(present, 6), up])[1]


def _refused(step: _Step, outcome: Outcome, request: str, netns: NetnsRef) -> VethError:
    cls: type[NetlinkError] | None = None
    says = ""
    if outcome.errno == errno.EEXIST and step.address is not None:
        cls, says = NetlinkError, "the link has this address with another prefix length"
    elif outcome.errno == errno.EEXIST:
        cls, says = LinkExists, "a link of that name already exists there"
    elif step.address is not None and outcome.errno == errno.EACCES:
        cls = NetlinkError
    return refusal(outcome, f"{request} {step.what}", netns, says=says, cls=cls)


def move(places: Places, place: Place, name: str, netns: NetnsRef, target: Place, to: NetnsRef) -> Link:
    """Move a link, return it as it has become there: with a new index if its own was taken, down, without addresses."""
    request = f"move {describe(name, netns)} to {spell(to)}"
    before = find_known(places, place, name, netns, request)
    if place is not target:
        (outcome,) = places.exchange(place, [set_link(before.ifindex, netns_fd=target.fd)])
        if outcome.errno == errno.EEXIST:
            says = f"{before.name!r} already exists in {target}"
            raise refusal(outcome, request, to, says=says)
        if outcome.errno:
            raise refusal(outcome, request, netns)
    return read_link(places, target, before.name, to, request)
