"""Wait until the addresses of links can be used.

A veth carries traffic when its operstate is "up", which requires that both ends are up. An IPv6 address can be used
after duplicate address detection, which takes one to two seconds more (RFC 4862, 5.4).

If detection finds a duplicate on any of the links, waiting ends at once: the state DADFAILED is final
(addrconf_dad_stop, net/ipv6/addrconf.c). If accept_dad is 2 and the duplicate is the link-local address of the MAC, the
kernel disables IPv6 on the link instead and removes every IPv6 address (addrconf_dad_work).
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, closing

from vethlib._nl.batch import Outcome
from vethlib._nl.const import RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR, RTNLGRP_LINK
from vethlib._nl.link import LinkMessage
from vethlib._nl.sock import RtnlSocket
from vethlib._primitives import select, time
from vethlib._values import Value
from vethlib.addresses import Identity, identity_of
from vethlib.errors import DuplicateAddress, NetlinkError, WaitTimeout
from vethlib.links import IPInterface, Link, NetnsRef, describe
from vethlib.session.core.ipv6 import read_settings
from vethlib.session.core.namespaces import Birth, Namespaces, OpenNetns
from vethlib.session.core.refusal import system_errors

from .reading import find_at, read_addresses, with_addresses
from .samelink import KnownVeth
from .target import Target

__all__ = ["Awaited", "until_usable"]

_LONGEST = 3600.0  # seconds without a check; poll(2) takes 24 days at most
_GROUPS = (RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR)


class Awaited(Value):
    """A link that is to become usable, and the addresses that it was given and must still have then.

    It is known by its ifindex, by the birth of its namespace and, if it is a veth, by what is `known` of it: other
    programs may rename it meanwhile. They may also add addresses; of those that were not given, only the ones in
    `present` must become usable.
    """

    index: int
    name: str
    netns: NetnsRef
    birth: Birth
    addresses: tuple[IPInterface, ...] = ()
    present: frozenset[Identity] = frozenset()
    known: KnownVeth | None = None

    @classmethod
    def changed(cls, link: Link, netns: NetnsRef, birth: Birth, given: tuple[IPInterface, ...]) -> Awaited:
        """Return a link that was changed, and given these addresses."""
        # The kernel's own link-local address was not requested, and an IPv4 link would wait two seconds for it.
        present = frozenset(address.identity for address in link.ifaddrs if not address.by_kernel)
        return cls(link.index, link.name, netns, birth, given, present, KnownVeth.of_link(link))

    def __str__(self) -> str:
        return describe(self.name, self.netns)

    def at(self, namespaces: Namespaces) -> Target:
        """Return the link in its namespace. Raises LinkNotFound if the reference now leads to another namespace."""
        target = Target(namespaces(self.netns), self.name, self.netns, f"wait for {self}")
        namespaces.cookie(target.place)
        if not target.place.is_still(self.birth):
            raise target.refusal(Outcome(errno.ENODEV), says="its namespace was replaced by another")
        return target

    def find(self, namespaces: Namespaces, target: Target) -> LinkMessage:
        """Return the link as it is now. Raises LinkNotFound, also if another link now has its ifindex."""
        link = find_at(namespaces, target, self.index)
        if self.known is not None and not self.known.is_now(link):
            raise target.refusal(Outcome(errno.ENODEV), says="another link now has its ifindex")
        return link


def until_usable(
    namespaces: Namespaces, ends: Sequence[Awaited], timeout: float, deadline: float | None = None
) -> list[Link]:
    """Wait until each link is up with every address usable, and return the links.

    Raises WaitTimeout after `timeout` seconds (or at `deadline` on the monotonic clock, which several waits can share),
    and DuplicateAddress as soon as detection finds another owner of an address.
    """
    if deadline is None:
        deadline = time.monotonic() + timeout
    at = [(end, end.at(namespaces)) for end in ends]
    with ExitStack() as opened:
        # Listening starts before the first check, so that no change is missed.
        listeners = [
            opened.enter_context(closing(_listener(place))) for place in dict.fromkeys(target.place for _, target in at)
        ]
        while missing := [(end, what) for end, target in at if (what := _missing(namespaces, target, end))]:
            left = deadline - time.monotonic()
            if left <= 0:
                end, (awaited, words) = missing[0]
                text = f"{end} is not usable after {timeout:g} s: {words}"
                netns = str(end.netns or "")
                raise WaitTimeout(text, awaited=awaited, name=end.name, netns=netns, seconds=timeout)
            _next_event(listeners, min(left, _LONGEST))
    return [with_addresses(namespaces, target, end.find(namespaces, target)) for end, target in at]


def _listener(place: OpenNetns) -> RtnlSocket:
    with system_errors("listen for link events", place.ref):
        return place.call(lambda: RtnlSocket(_GROUPS))


def _next_event(listeners: Sequence[RtnlSocket], timeout: float) -> None:
    """Return after the next event that one of the listeners receives, or after `timeout` seconds."""
    ready: Iterable[RtnlSocket] = listeners
    if len(listeners) > 1:
        poller = select.poll()
        for listener in listeners:
            poller.register(listener.fileno(), select.POLLIN)
        readable = {fd for fd, _ in poller.poll(timeout * 1000)}
        ready, timeout = [listener for listener in listeners if listener.fileno() in readable], 0
    for listener in ready:
        try:
            listener.events(timeout)
        except OSError as error:
            # Lost events do no harm: the state is read again after each event.
            if error.errno != errno.ENOBUFS:
                raise


def _missing(namespaces: Namespaces, target: Target, end: Awaited) -> tuple[str, str] | None:
    """Return what the link waits for, as a code and in words; None if it is usable. Raises DuplicateAddress."""
    link = end.find(namespaces, target)
    addresses = read_addresses(namespaces, target.place, link.ifindex)
    wanted = {identity_of(interface): interface for interface in end.addresses}
    given = [address for address in addresses if address.identity in wanted or address.identity in end.present]
    if duplicates := [str(address.interface.ip) for address in given if address.dadfailed]:
        raise _duplicate(f"another host on the link has {', '.join(duplicates)}", target)
    present = {address.identity for address in given}
    lost = [interface for identity, interface in wanted.items() if identity not in present]
    if any(interface.version == 6 for interface in lost) and _is_switched_off(target.place, link.name):
        says = f"another host on the link has the MAC address {link.mac.hex(':')}, so the kernel has disabled IPv6"
        raise _duplicate(f"{says} on {link.name!r} (accept_dad is 2)", target)
    if not link.up:
        return "up", "the link is down"
    # The driver of a loopback or a dummy reports no state (Documentation/networking/operstates.rst).
    if link.operstate != "up" and (link.operstate != "unknown" or link.kind == "veth"):
        return "carrier", f"its state is {link.operstate} (is the other end up?)"
    if lost:
        return "address", f"{', '.join(map(str, lost))} was removed from it"
    if tentative := [str(address.interface) for address in given if not address.usable]:
        return "detection", f"{', '.join(tentative)} still in duplicate address detection"
    return None


def _is_switched_off(place: OpenNetns, name: str) -> bool:
    try:
        return read_settings(place, name).may_be_switched_off_for_a_duplicate
    except NetlinkError:
        return False


def _duplicate(says: str, target: Target) -> NetlinkError:
    return target.refusal(Outcome(errno.EADDRINUSE), says=says, cls=DuplicateAddress)
