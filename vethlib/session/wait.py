"""Waiting until an address can be used.

A link that was set up carries traffic when the kernel says operstate "up", which takes the other end being up too. An
IPv6 address can be used when duplicate address detection is through, one to two seconds after that (RFC 4862, 5.4).
"""

from __future__ import annotations

import errno
import time
from collections.abc import Sequence

from .. import ns
from .._nl.batch import Outcome
from .._nl.const import IFAPROT_KERNEL_LL, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR, RTNLGRP_LINK
from .._nl.sock import RtnlSocket
from ..errors import DuplicateAddress, WaitTimeout
from ..links import Link, NetnsRef, describe
from .places import Place, Places
from .reading import addresses_of, find, read_addresses, read_link
from .refusal import refusal, system_errors

__all__ = ["until_usable"]

_GROUPS = (RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR)


def until_usable(
    places: Places, ends: Sequence[tuple[str, NetnsRef]], timeout: float, deadline: float | None = None
) -> list[Link]:
    """Wait until each link is up with every address usable; return them as they are then.

    Raises WaitTimeout after `timeout` seconds (at `deadline` on the monotonic clock, where several waits share one)
    with what is still missing, DuplicateAddress when detection found another owner of an address.
    """
    if deadline is None:
        deadline = time.monotonic() + timeout
    return [_wait_for(places, places(netns), name, netns, deadline, timeout) for name, netns in ends]


def _wait_for(places: Places, place: Place, name: str, netns: NetnsRef, deadline: float, timeout: float) -> Link:
    # Listening starts before the first look, so that nothing falls between them.
    with system_errors("listen for link events", netns):
        listener = ns.call_in(place.fd, lambda: RtnlSocket(_GROUPS))
    try:
        while missing := _missing(places, place, name, netns):
            left = deadline - time.monotonic()
            if left <= 0:
                raise WaitTimeout(f"{describe(name, netns)} is not usable after {timeout:g} s: {missing}")
            _next_event(listener, left)
    finally:
        listener.close()
    return read_link(places, place, name, netns, f"wait for {describe(name, netns)}")


def _next_event(listener: RtnlSocket, timeout: float) -> None:
    try:
        listener.events(timeout)
    except OSError as error:
        # Events that were lost are no loss: the state is read again after each.
        if error.errno != errno.ENOBUFS:
            raise


def _missing(places: Places, place: Place, name: str, netns: NetnsRef) -> str:
    """What keeps the link from being usable, in words; "" when nothing does."""
    request = f"wait for {describe(name, netns)}"
    link = find(places, place, name, netns, request)
    # The kernel's own link-local address is nobody's wish, and an IPv4 link would wait two seconds for it.
    found = [one for one in addresses_of(read_addresses(places, place, link.ifindex)) if one.proto != IFAPROT_KERNEL_LL]
    for one in found:
        if one.dadfailed:
            says = f"another host on the link has {one.interface.ip}"
            raise refusal(Outcome(errno.EADDRINUSE, "", ()), request, netns, says=says, cls=DuplicateAddress)
    if link.operstate != "up":
        return "the link is down" if not link.up else f"its state is {link.operstate} (is the other end up?)"
    tentative = [str(one.interface) for one in found if one.tentative]
    return f"{', '.join(tentative)} still in duplicate address detection" if tentative else ""
