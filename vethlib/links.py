"""What is wanted (:class:`End`, :class:`Veth`) and what is seen (:class:`Link`, :class:`Pair`, :class:`Stats`).

Values are checked where they are made: an ``End`` that exists can be sent. The limits are the kernel's:
names from dev_valid_name (net/core/dev.c), MTU from veth_setup (drivers/net/veth.c: ETH_MIN_MTU 68 to ETH_MAX_MTU
65535), MAC from is_valid_ether_addr (include/linux/etherdevice.h), queues from rtnl_create_link (at most 4096).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import KW_ONLY, dataclass, field
from ipaddress import IPv4Interface, IPv6Interface, ip_interface
from socket import AF_INET, AF_INET6, inet_pton
from typing import TYPE_CHECKING, TypeAlias

from .errors import InvalidValue

if TYPE_CHECKING:
    from .ns import Netns

__all__ = [
    "Address",
    "Borne",
    "End",
    "Interface",
    "Link",
    "NetnsRef",
    "Pair",
    "Stats",
    "Veth",
    "check_addresses",
    "check_alias",
    "check_group",
    "check_lookup_name",
    "check_mac",
    "check_mtu",
    "check_name",
    "check_proto",
    "check_queues",
    "describe",
    "spell",
]

Interface: TypeAlias = IPv4Interface | IPv6Interface
NetnsRef: TypeAlias = "str | Netns | None"

# 0xa0 is a space to the kernel (lib/ctype.c is Latin-1), so that it refuses 'à', whose UTF-8 ends with it.
_BAD_IN_NAME = re.compile(rb"[/:%\0\s\xa0]")
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")


def check_name(name: str, field: str = "name") -> str:
    """Return `name` if the kernel takes it as a link name: 1–15 bytes, no '/', ':', '%' or space.

    '%' is refused because the kernel reads ``veth%d`` as a pattern and picks a name itself.
    """
    encoded = _encoded(name, field)
    if not 1 <= len(encoded) <= 15:
        raise InvalidValue(field, name, f"a link name has 1 to 15 bytes, this one has {len(encoded)}")
    if _BAD_IN_NAME.search(encoded):
        raise InvalidValue(field, name, "a link name has no '/', ':', '%' or space (nor a byte 0xa0, as in 'à')")
    if name in (".", ".."):
        raise InvalidValue(field, name, "a link cannot be called '.' or '..'")
    return name


def check_lookup_name(name: str, field: str = "name") -> str:
    """Return `name` if a link may have it as an alternative name: up to 127 bytes (ALTIFNAMSIZ)."""
    return name if 15 < len(_encoded(name, field)) < 128 else check_name(name, field)


def _encoded(text: str, field: str) -> bytes:
    if not isinstance(text, str):
        raise InvalidValue(field, text, "write text")
    try:
        return os.fsencode(text)
    except UnicodeEncodeError:
        raise InvalidValue(field, text, "this text cannot be encoded") from None


def check_mac(mac: str, field: str = "mac") -> str:
    """Return `mac` as six lower-case pairs with colons, if it is a unicast address that is not all zeros."""
    text = mac.lower().replace("-", ":") if isinstance(mac, str) else ""
    if not _MAC.fullmatch(text):
        raise InvalidValue(field, mac, "write a MAC address as six pairs of hex digits, 02:00:00:00:00:01")
    if int(text[:2], 16) & 1:
        raise InvalidValue(field, mac, "a link needs a unicast MAC address: make the first byte even")
    if text == "00:00:00:00:00:00":
        raise InvalidValue(field, mac, "an all-zero MAC address is not an address")
    return text


def check_mtu(mtu: int, field: str = "mtu") -> int:
    """Return `mtu` (bytes) if veth takes it: 68 to 65535."""
    return _check_int(mtu, field, 68, 65535, "a veth's MTU is 68 to 65535 bytes")


def check_queues(count: int, field: str = "num_queues") -> int:
    """Return `count` if the kernel takes that many queues: 1 to 4096."""
    return _check_int(count, field, 1, 4096, "a link has 1 to 4096 queues")


def check_group(group: int, field: str = "group") -> int:
    """Return `group` if it is a link group number: 0 to 2³¹−1."""
    return _check_int(group, field, 0, 0x7FFF_FFFF, "a link group is a number from 0 to 2147483647")


def check_proto(proto: int, field: str = "address_proto") -> int:
    """Return `proto` if it is an IFA_PROTO: 0 to 255."""
    return _check_int(proto, field, 0, 255, "IFA_PROTO is a number from 0 to 255")


def _check_int(value: int, field: str, low: int, high: int, hint: str) -> int:
    if type(value) is not int or not low <= value <= high:
        raise InvalidValue(field, value, hint)
    return value


def check_alias(alias: str, field: str = "alias") -> str:
    """Return `alias` if it fits the kernel's IFALIASZ: at most 255 bytes, no NUL."""
    encoded = _encoded(alias, field)
    if len(encoded) > 255 or b"\0" in encoded:
        raise InvalidValue(field, alias, "an alias is text of at most 255 bytes")
    return alias


def check_addresses(addresses: Iterable[str | Interface], field: str = "addresses") -> tuple[Interface, ...]:
    """Return the addresses as ``ipaddress`` interfaces; each needs a prefix and may occur once."""
    if isinstance(addresses, str):
        raise InvalidValue(field, addresses, 'write a list of addresses: ["10.0.0.1/24"]')
    checked: list[Interface] = []
    for address in addresses:
        one = _check_address(address, field)
        if one in checked:
            raise InvalidValue(field, str(one), "the same address is given twice")
        if one.version == 6 and any(one.ip == other.ip for other in checked):
            # ipv6_chk_same_addr (net/ipv6/addrconf.c) does not look at the prefix length; IPv4 does.
            raise InvalidValue(field, str(one), "a link has an IPv6 address once, with one prefix length")
        checked.append(one)
    return tuple(checked)


def _check_address(address: str | Interface, field: str) -> Interface:
    if isinstance(address, str):
        if "/" not in address:
            raise InvalidValue(field, address, "write the prefix too, as in 10.0.0.1/24 or 2001:db8::1/64")
        address = _parse_address(address, field)
    if not isinstance(address, (IPv4Interface, IPv6Interface)):
        raise InvalidValue(field, address, "not an address: give text or an ipaddress interface")
    if address.ip.is_unspecified or address.ip.is_multicast:
        raise InvalidValue(field, str(address), "a link cannot have an unspecified or a multicast address")
    if isinstance(address, IPv6Interface) and address.scope_id is not None:
        raise InvalidValue(field, str(address), "an address on a link has no %scope: the link is the scope")
    return address


def _parse_address(text: str, field: str) -> Interface:
    # Most are as inet_pton reads them, which takes half as long as ipaddress; what it does not read, that explains.
    ip, _, prefix = text.partition("/")
    try:
        if len(prefix) <= 3 and prefix.isdecimal() and prefix.isascii():
            if ":" not in ip:
                return IPv4Interface((inet_pton(AF_INET, ip), int(prefix)))
            if "%" not in ip:
                return IPv6Interface((inet_pton(AF_INET6, ip), int(prefix)))
    except (OSError, ValueError):
        pass
    try:
        return ip_interface(text)
    except ValueError:
        raise InvalidValue(field, text, "not an address with a prefix: write 10.0.0.1/24 or 2001:db8::1/64") from None


@dataclass(frozen=True, slots=True)
class End:
    """One end of a pair, as it is wanted.

    `netns` is a namespace reference ("" = the session's home namespace); `mac`, `mtu` (bytes) and `num_queues` (of
    each direction) left None are the kernel's choice; `addresses` are "ip/prefix" texts or ``ipaddress``
    interfaces. `alias`, `group` and `address_proto` are marks for those who need to know their own links and
    addresses again: IFLA_IFALIAS, IFLA_GROUP and IFA_PROTO (0 = none).

    Raises :class:`InvalidValue` for a value the kernel would refuse.
    """

    name: str
    netns: NetnsRef = ""
    _: KW_ONLY
    mac: str | None = None
    mtu: int | None = None
    addresses: Iterable[str | Interface] = ()
    up: bool = True
    num_queues: int | None = None
    alias: str | None = None
    group: int | None = None
    address_proto: int = 0

    def __post_init__(self) -> None:
        check_name(self.name)
        if self.mac is not None:
            _set(self, "mac", check_mac(self.mac))
        if self.mtu is not None:
            check_mtu(self.mtu)
        if self.addresses != ():
            _set(self, "addresses", check_addresses(self.addresses))
        if self.num_queues is not None:
            check_queues(self.num_queues)
        if self.alias is not None:
            check_alias(self.alias)
        if self.group is not None:
            check_group(self.group)
        check_proto(self.address_proto)
        if self.mtu is not None and self.mtu < 1280 and any(one.version == 6 for one in self.interfaces):
            raise InvalidValue("mtu", self.mtu, "IPv6 needs 1280 bytes: raise the MTU or leave out the IPv6 addresses")

    @property
    def interfaces(self) -> tuple[Interface, ...]:
        """The addresses, as the ``ipaddress`` interfaces they were checked into."""
        return self.addresses  # type: ignore[return-value]

    def __str__(self) -> str:
        return describe(self.name, self.netns)


_set = object.__setattr__


def describe(name: str, netns: NetnsRef) -> str:
    """``'veth1' in netns:blue``, for messages; the home namespace goes without saying."""
    return f"{name!r} in {spell(netns)}" if netns else repr(name)


def spell(netns: NetnsRef) -> str:
    """A namespace for messages: ``netns:blue`` for "blue", ``the home namespace`` for ""."""
    text = str(netns or "the home namespace")
    return text if ":" in text or not netns else f"netns:{text}"


@dataclass(frozen=True, slots=True)
class Veth:
    """A pair, as it is wanted: its two ends, in no order.

    Raises :class:`InvalidValue` when both ends are one name in one namespace.
    """

    a: End
    b: End

    def __post_init__(self) -> None:
        if self.a.name == self.b.name and self.a.netns == self.b.netns:
            raise InvalidValue("name", self.a.name, "both ends of the pair have this name in one namespace")

    def __str__(self) -> str:
        return f"{self.a} ⇄ {self.b}"


@dataclass(frozen=True, slots=True)
class Link:
    """A link as the kernel showed it, at one moment.

    `netns` is the reference it was asked for by. `operstate` is the RFC 2863 word ("up", "lowerlayerdown", …). For
    a veth, `peer_index` is the other end's ifindex, and `peer_netnsid` the id its namespace has in this one (None:
    both ends are in the same namespace). `num_queues` counts the transmit queues.
    """

    index: int
    name: str
    netns: NetnsRef
    kind: str
    mac: str
    mtu: int
    up: bool
    operstate: str
    addresses: tuple[Interface, ...]
    peer_index: int | None
    peer_netnsid: int | None
    alias: str
    group: int
    num_queues: int
    altnames: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Pair:
    """The two ends of a pair that was just created; unpacks into them."""

    a: Link
    b: Link

    def __iter__(self) -> Iterator[Link]:
        return iter((self.a, self.b))


@dataclass(frozen=True, slots=True)
class Address:
    """An address on a link: whose it is (`proto`, IFA_PROTO: 0 = not said) and its IFA_FLAGS.

    `message` is the body of the RTM_NEWADDR it was seen in, by which it can be given back just as it was.
    """

    index: int
    interface: Interface
    flags: int
    proto: int
    message: bytes = field(default=b"", repr=False, compare=False)

    @property
    def permanent(self) -> bool:
        """It does not expire."""
        return bool(self.flags & 0x80)  # IFA_F_PERMANENT

    @property
    def by_kernel(self) -> bool:
        """The link-local address that the kernel makes of a link's MAC, and makes again (Linux 5.18 says so)."""
        return self.proto == 3  # IFAPROT_KERNEL_LL

    def same(self, other: Address) -> bool:
        """Whether both are one address, with the same label, lifetimes and flags; how far IPv6 has got is nothing."""
        from ._nl.addr import lasting, parse_addr

        if self.message and other.message:
            return lasting(parse_addr(self.message)) == lasting(parse_addr(other.message))
        return (self.interface, self.proto) == (other.interface, other.proto)

    def is_plain(self, name: str) -> bool:
        """Whether it is all that a link called `name` gets with an address: it does not expire, and has no extras."""
        from ._nl.addr import is_plain, parse_addr

        return self.permanent and (not self.message or is_plain(parse_addr(self.message), name))

    @property
    def tentative(self) -> bool:
        """IPv6 duplicate address detection has not finished: the address cannot be used yet."""
        return bool(self.flags & 0x40)  # IFA_F_TENTATIVE, include/uapi/linux/if_addr.h

    @property
    def dadfailed(self) -> bool:
        """Duplicate address detection found another owner: the address cannot be used."""
        return bool(self.flags & 0x08)  # IFA_F_DADFAILED


@dataclass(frozen=True, slots=True)
class Borne:
    """What others have put on a link.

    `routes` counts those that the kernel did not make by itself, `neighbours` the permanent ones. `stacked` names the
    links on top of it (VLANs, macvlans); `fixed` says in words what else hangs on it: a master, queueing disciplines,
    programs, alternative names. `ipv6_off`: net.ipv6.conf.NAME.disable_ipv6 is set.
    """

    routes: int = 0
    neighbours: int = 0
    stacked: tuple[str, ...] = ()
    fixed: tuple[str, ...] = ()
    ipv6_off: bool = False


@dataclass(frozen=True, slots=True)
class Stats:
    """64-bit counters of a link (struct rtnl_link_stats64, include/uapi/linux/if_link.h)."""

    rx_packets: int
    tx_packets: int
    rx_bytes: int
    tx_bytes: int
    rx_errors: int
    tx_errors: int
    rx_dropped: int
    tx_dropped: int
    multicast: int
    collisions: int
    rx_length_errors: int
    rx_over_errors: int
    rx_crc_errors: int
    rx_frame_errors: int
    rx_fifo_errors: int
    rx_missed_errors: int
    tx_aborted_errors: int
    tx_carrier_errors: int
    tx_fifo_errors: int
    tx_heartbeat_errors: int
    tx_window_errors: int
    rx_compressed: int
    tx_compressed: int
    rx_nohandler: int
