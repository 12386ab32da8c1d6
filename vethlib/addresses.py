"""An address of a link as the kernel reports it (:class:`Address`): its identity, its owner and its state.

1. The identity is the family, local address, peer and prefix length. ``10.0.0.1 peer 10.0.0.2/32`` is not
   ``10.0.0.1/32``.
2. The owner is determined by the owner mark (IFA_PROTO) alone, never by the range: an fe80:: or 169.254.0.0/16 address
   may have been configured.
3. The state is determined by flags and lifetimes (RFC 4862, 5.4 and 5.5.4).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import closing
from functools import cache
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface, IPv6Network
from operator import attrgetter
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from vethlib._nl.wire import decoded

from ._nl.addr import can_be_given, dump_addrs, extras, is_bare, is_plain, lasting, lifetimes, parse_addr, parse_if_ip
from ._nl.const import (
    IFA_F_DADFAILED,
    IFA_F_DEPRECATED,
    IFA_F_NODAD,
    IFA_F_NOPREFIXROUTE,
    IFA_F_OPTIMISTIC,
    IFA_F_PERMANENT,
    IFA_F_SECONDARY,
    IFA_F_TENTATIVE,
    IFAPROT_KERNEL_LL,
    IFAPROT_KERNEL_LO,
)
from ._values import Value, aside

__all__ = [
    "PLAIN",
    "Address",
    "AddressState",
    "IPAddress",
    "IPInterface",
    "Identity",
    "as_address",
    "identity_of",
    "plain_of",
]

IPInterface: TypeAlias = IPv4Interface | IPv6Interface
IPAddress: TypeAlias = IPv4Address | IPv6Address
Identity: TypeAlias = "tuple[IPInterface, IPAddress | None]"
AddressState: TypeAlias = Literal["dadfailed", "tentative", "deprecated", "expiring", "usable"]

_MADE_OF_A_MAC: Final = IPv6Network("fe80::/64")  # addrconf_add_linklocal, net/ipv6/addrconf.c


class Address(Value):
    """An address of a link: its identity (`interface`, `peer`), its owner (`proto`) and its state (`flags`).

    `interface` is the link's own address with the prefix length. `peer` is the address of the other end of a
    point-to-point address, to which the prefix length then applies; otherwise None. `proto` is the IFA_PROTO (0 =
    unspecified), `flags` the IFA_FLAGS. `message` is the body of the RTM_NEWADDR message that reported the address,
    from which it can be restored exactly.
    """

    index: int
    interface: IPInterface
    flags: int
    proto: int
    message: bytes = aside(default=b"")
    peer: IPAddress | None = None

    def __str__(self) -> str:
        """Format as ``ip address`` does: ``10.0.0.1/24``, ``10.0.0.1 peer 10.0.0.2/32``."""
        if self.peer is None:
            return str(self.interface)
        return f"{self.interface.ip} peer {self.peer}/{self.interface.network.prefixlen}"

    @property
    def identity(self) -> Identity:
        """The identity of the address among those of its link."""
        return self.interface, self.peer

    if not TYPE_CHECKING:  # the same, read in C: a tenant can have thousands of addresses, which are compared by it
        identity = property(attrgetter("interface", "peer"), doc=identity.__doc__)

    def is_exactly(self, interface: IPInterface) -> bool:
        """Return whether this is the address `interface`, with that prefix length and no peer."""
        return self.peer is None and self.interface == interface

    @property
    def permanent(self) -> bool:
        """Whether the address never expires."""
        return bool(self.flags & IFA_F_PERMANENT)

    @property
    def expires(self) -> bool:
        """Whether the kernel removes the address when its valid lifetime ends."""
        return not self.flags & IFA_F_PERMANENT

    @property
    def valid(self) -> int | None:
        """Seconds until it is removed, counted from when it was read; None: never."""
        return self._lifetimes[1]

    @property
    def preferred(self) -> int | None:
        """Seconds until it is deprecated, counted from when it was read; None: never."""
        return self._lifetimes[0]

    @property
    def _lifetimes(self) -> tuple[int | None, int | None]:
        return lifetimes(self.message) if self.message else (None, None)

    @property
    def tentative(self) -> bool:
        """Whether IPv6 duplicate address detection is in progress."""
        return bool(self.flags & IFA_F_TENTATIVE)

    @property
    def optimistic(self) -> bool:
        """Whether it can be used while duplicate address detection is in progress (RFC 4429)."""
        return bool(self.flags & IFA_F_OPTIMISTIC)

    @property
    def dadfailed(self) -> bool:
        """Whether duplicate address detection found another owner, so that the address cannot be used."""
        return bool(self.flags & IFA_F_DADFAILED)

    @property
    def deprecated(self) -> bool:
        """Whether its preferred lifetime is over: new connections use another source address if there is one."""
        return bool(self.flags & IFA_F_DEPRECATED)

    @property
    def secondary(self) -> bool:
        """Whether an earlier IPv4 address of the same subnet is the source address there."""
        return bool(self.flags & IFA_F_SECONDARY) and self.interface.version == 4

    @property
    def usable(self) -> bool:
        """Whether a program can bind to it now."""
        flags = self.flags
        return not flags & IFA_F_DADFAILED and (not flags & IFA_F_TENTATIVE or bool(flags & IFA_F_OPTIMISTIC))

    @property
    def state(self) -> AddressState:
        """The first of these states that applies: dadfailed, tentative, deprecated, expiring; otherwise usable."""
        if self.dadfailed:
            return "dadfailed"
        if not self.usable:
            return "tentative"
        if self.deprecated:
            return "deprecated"
        return "expiring" if self.expires else "usable"

    @property
    def by_kernel(self) -> bool:
        """Whether it is the link-local address that the kernel generates from a link's MAC, and generates again.

        Linux 5.18 and later mark it. Before, it cannot be distinguished from any other permanent address in fe80::/64.
        """
        if self.proto or kernel_marks_owners():
            return self.proto == IFAPROT_KERNEL_LL
        return self.permanent and self.peer is None and self.interface.network == _MADE_OF_A_MAC

    @property
    def temporary(self) -> bool:
        """Whether it is an IPv6 privacy address (RFC 8981), which the kernel derives from another one and removes."""
        return bool(self.flags & IFA_F_SECONDARY) and self.interface.version == 6

    @property
    def comes_again(self) -> bool:
        """Whether the kernel generates it again when the link has its source: it is ``by_kernel``, or temporary.

        Nobody else can add a temporary address: the kernel ignores that flag (inet6_rtm_newaddr, net/ipv6/addrconf.c).
        """
        return self.temporary or self.by_kernel

    @property
    def scope(self) -> int:
        """The kernel's number for its scope: 0 global, 200 site, 253 link, 254 host (enum rt_scope_t)."""
        if self.message:
            return self.message[3]
        if self.interface.version == 4:
            return 0
        return 253 if self.interface.is_link_local else 200 if self.interface.is_site_local else 0

    @property
    def broadcast(self) -> IPv4Address | None:
        """The broadcast address of an IPv4 address that was read; None if it has none."""
        packed = extras(parse_addr(self.message)).broadcast if self.message else b""
        return IPv4Address(packed) if packed else None

    @property
    def label(self) -> str:
        """The label of an IPv4 address that was read: the name of the link unless another was given; otherwise ""."""
        return decoded(extras(parse_addr(self.message)).label) if self.message else ""

    @property
    def nodad(self) -> bool:
        """Whether it was added without IPv6 duplicate address detection."""
        return bool(self.flags & IFA_F_NODAD)

    @property
    def noprefixroute(self) -> bool:
        """Whether it was added without a route to its network."""
        return bool(self.flags & IFA_F_NOPREFIXROUTE)

    def same(self, other: Address) -> bool:
        """Return whether both are the same address with equal label, lifetimes and flags, apart from IPv6 progress."""
        if self.message and other.message:
            return lasting(parse_addr(self.message)) == lasting(parse_addr(other.message))
        return (self.interface, self.peer, self.proto) == (other.interface, other.peer, other.proto)

    def is_bare(self, name: str) -> bool:
        """Return whether an address that was read has no attribute of a :class:`vethlib.NewAddress`, except a peer."""
        return not self.message or is_bare(self.message, self.flags, name)

    @property
    def can_be_given(self) -> bool:
        """Whether it is permanent, and has only attributes that a :class:`vethlib.NewAddress` may have."""
        return self.permanent and (not self.message or can_be_given(parse_addr(self.message)))

    def is_plain(self, name: str) -> bool:
        """Return whether it has only what an address gets by default on a link called `name`: permanent, no extras."""
        if self.peer is not None or not self.permanent:
            return False
        return not self.message or is_plain(parse_addr(self.message), name)


PLAIN: Final = (IPv4Interface, IPv6Interface)
"""The types of addresses without attributes, as most addresses are."""


def identity_of(given: IPInterface) -> Identity:
    """Return the identity of an address that is given to a link, which may be a :class:`vethlib.NewAddress`."""
    if type(given) in PLAIN:
        return given, None
    identity: Identity = getattr(given, "identity", (given, None))
    return identity


def as_address(given: IPInterface, index: int, proto: int) -> Address:
    """Return the permanent address that link `index` has when it is given this one, with the owner mark `proto`."""
    if type(given) in PLAIN:
        return Address(index, given, IFA_F_PERMANENT, proto)
    on: Callable[[int, int], Address] | None = getattr(given, "on", None)
    return Address(index, given, IFA_F_PERMANENT, proto) if on is None else on(index, proto)


def plain_of(given: tuple[IPInterface, ...]) -> tuple[IPInterface, ...]:
    """Return addresses given to a link in the form in which they are read back: without attributes."""
    for each in given:
        if type(each) not in PLAIN:
            return tuple([identity_of(each)[0] for each in given])
    return given


@cache
def kernel_marks_owners() -> bool:
    """Return whether the kernel stores IFA_PROTO, and sets it for its own addresses: Linux 5.18, or a backport."""
    numbers = [int("".join(filter(str.isdigit, part)) or 0) for part in os.uname().release.split(".")[:2]]
    return numbers >= [5, 18] or _is_loopback_marked()


def _is_loopback_marked() -> bool:
    """Return whether the addresses that the kernel gives to a loopback that is up are marked as its own."""
    from ._nl.sock import RtnlSocket  # only for older kernels

    try:
        with closing(RtnlSocket()) as sock:
            addresses = sock.dump(dump_addrs(), parse_if_ip).bodies
            return any(address is not None and address.proto == IFAPROT_KERNEL_LO for address in addresses)
    except OSError:
        return False
