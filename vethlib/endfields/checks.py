"""Check the values that describe links, when a value is created: each check returns it in the form that is compared.

The limits are the kernel's: names from dev_valid_name (net/core/dev.c), MTU from veth_setup (drivers/net/veth.c:
ETH_MIN_MTU 68 to ETH_MAX_MTU 65535), MAC from is_valid_ether_addr (include/linux/etherdevice.h), queues from
rtnl_create_link (at most 4096). All raise :class:`InvalidValue`, which names the field and the value.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Mapping
from ipaddress import IPv4Interface, IPv6Address
from typing import TYPE_CHECKING, NamedTuple

from vethlib._nl.wire import encoded
from vethlib.addresses import IPInterface, identity_of
from vethlib.errors import InvalidValue

from .plainaddress import check_plain

if TYPE_CHECKING:
    from .newaddress import NewAddress

# 0xa0 is a space to the kernel (lib/ctype.c is Latin-1), so that it refuses 'à', whose UTF-8 ends with it.
_BAD_IN_NAME = frozenset(b"/:%\0 \t\n\r\f\v\xa0")
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_-]{1,15}").fullmatch  # a third of the time of the whole check
OF_THE_NAMESPACE = frozenset({"all", "default"})
"""Names of the directories below /proc/sys/net/ipv4/conf and ipv6/conf for all links, and for new links.

The kernel refuses these names for a link that has settings there (devinet_sysctl_register, addrconf_sysctl_register),
but there are links without such settings.
"""

IPV6_MIN_MTU = 1280
"""Bytes (include/uapi/linux/ipv6.h); below it, addrconf_notify() removes IPv6 from the link."""

_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
# Six bytes in groups of two, four or six digits, or in a single group, with the same separator throughout.
_ANY_MAC = (
    r"[0-9a-f]{2}([:.-])[0-9a-f]{2}(\1[0-9a-f]{2}){4}|[0-9a-f]{4}([:.-])[0-9a-f]{4}\3[0-9a-f]{4}"
    r"|[0-9a-f]{6}[:.-]?[0-9a-f]{6}"
)


def check_name(name: str, field: str = "name", *, may_be_open: bool = False) -> str:
    """Return `name` if the kernel accepts it as a link name: 1–15 bytes, no '/', ':', '%' or space.

    '%' is refused because the kernel reads ``veth%d`` as a pattern and picks a name itself. Characters that a terminal
    interprets (control characters, changes of text direction) are refused although the kernel accepts them, and so is a
    '*' at the end: with `may_be_open`, it means any free name with this prefix.

    "all" and "default" are refused, because the settings of such a link would be those of the whole namespace.
    """
    check_kernel_name(name, field)
    if name in OF_THE_NAMESPACE:
        raise InvalidValue(field, name, "its settings would be those of the whole namespace: choose another name")
    if name[-1] == "*":
        if not may_be_open:
            raise InvalidValue(field, name, "must be a complete name: only for a new end does '*' mean any free name")
        if len(name) == 1:
            raise InvalidValue(field, name, "a name must have something before the '*', as in 'veth*'")
    if not name.isascii() or not name.isprintable():
        _check_no_controls(name, field)
    return name


def _check_no_controls(name: str, field: str) -> None:
    from vethlib.text import has_controls  # for unusual names

    if has_controls(name):
        raise InvalidValue(field, name, "must not contain control or text-direction characters")


def check_kernel_name(name: str, field: str = "name") -> str:
    """Return `name` if the kernel accepts it as a link name, including names that vethlib itself would not create."""
    _check_bytes_of_name(_encoded(name, field), name, field)
    return name


def _check_bytes_of_name(encoded: bytes, name: str, field: str) -> None:
    if not 1 <= len(encoded) <= 15:
        raise InvalidValue(field, name, f"a link name has 1 to 15 bytes, but this one has {len(encoded)}")
    if not _BAD_IN_NAME.isdisjoint(encoded):
        raise InvalidValue(field, name, "a link name has no '/', ':', '%' or space (nor a byte 0xa0, as in 'à')")
    if name in (".", ".."):
        raise InvalidValue(field, name, "a link cannot be called '.' or '..'")


def check_lookup_name(name: str, field: str = "name") -> str:
    """Return `name` if an existing link can have it, as its name or as an alternative name.

    An alternative name has up to 127 bytes (ALTIFNAMSIZ) and can contain any character, because others chose it, and
    the kernel refuses none (rtnl_alt_ifname, net/core/rtnetlink.c).
    """
    if name.__class__ is str and _PLAIN_NAME(name):
        return name
    encoded = _encoded(name, field)
    if b"\0" in encoded:
        raise InvalidValue(field, "a name with a NUL", "must not contain a NUL, where the kernel would end the name")
    if not 1 <= len(encoded) <= 127:
        says = f"a name has 1 to 15 bytes, an alternative name up to 127, but this one has {len(encoded)}"
        raise InvalidValue(field, name, says)
    return name


def _encoded(text: str, field: str) -> bytes:
    if not isinstance(text, str):
        raise InvalidValue(field, text, "must be a string")
    try:
        return encoded(text)
    except UnicodeEncodeError:
        raise InvalidValue(field, text, "this text cannot be encoded") from None


def check_mac(mac: str, field: str = "mac") -> str:
    """Return `mac` as six lower-case pairs with colons, if it is a unicast address other than all zeros.

    Accepted forms are 02:00:00:00:00:01, 02-00-00-00-00-01, 0200.0000.0001 and 020000000001, in either letter case.
    """
    text = check_hardware_address(mac, field)
    if int(text[:2], 16) & 1:
        raise InvalidValue(field, mac, "a link needs a unicast MAC address: make the first byte even")
    return text


def check_hardware_address(mac: str, field: str) -> str:
    """Return `mac` as :func:`check_mac` does; it may also be a multicast address."""
    text = mac.lower().replace("-", ":") if isinstance(mac, str) else ""
    if not _MAC.fullmatch(text):
        text = _six_pairs(mac)
        if not text:
            raise InvalidValue(field, mac, "must be six pairs of hex digits, such as 02:00:00:00:00:01")
    if text == "00:00:00:00:00:00":
        raise InvalidValue(field, mac, "an all-zero MAC address is not an address")
    return text


def _six_pairs(mac: object) -> str:
    """Convert another notation of a MAC address to pairs with colons; "" if it is not one."""
    # No MAC has more than 17 characters, and lower-casing a megabyte takes time.
    text = mac.lower() if isinstance(mac, str) and len(mac) <= 17 else ""
    if not re.fullmatch(_ANY_MAC, text):
        return ""
    return ":".join(re.findall("[0-9a-f]{2}", re.sub("[:.-]", "", text)))


def check_mtu(mtu: int, field: str = "mtu") -> int:
    """Return `mtu` (bytes) if it is valid for a veth: 68 to 65535."""
    return _check_int(mtu, field, 68, 65535, "a veth's MTU is 68 to 65535 bytes")


def check_queues(count: int, field: str = "num_queues") -> int:
    """Return `count` if it is a valid number of queues: 1 to 4096."""
    return _check_int(count, field, 1, 4096, "a link has 1 to 4096 queues")


def check_group(group: int, field: str = "group") -> int:
    """Return `group` if it is a valid link group: 0 to 2³¹−1."""
    return _check_int(group, field, 0, 0x7FFF_FFFF, "a link group is a number from 0 to 2147483647")


def check_index(index: int, field: str = "index") -> int:
    """Return `index` if a link may have that ifindex: 1 to 2³¹−1."""
    return _check_int(index, field, 1, 0x7FFF_FFFF, "an ifindex is a number from 1 to 2147483647")


def check_up(up: bool, field: str = "up") -> bool:
    """Return `up` if it is a bool, because a string such as "down" would count as True."""
    if up is True or up is False:
        return up
    raise InvalidValue(field, up, "must be True or False")


def check_ipv6(
    ipv6: bool | None, addresses: Iterable[IPInterface], mtu: int | None, field: str = "ipv6"
) -> bool | None:
    """Return `ipv6` if it is a bool or None, and a link with these addresses and this MTU can have it."""
    if ipv6 is None:
        return None
    check_up(ipv6, field)
    if ipv6 and mtu is not None and mtu < IPV6_MIN_MTU:
        raise InvalidValue(field, ipv6, f"IPv6 needs an mtu of at least {IPV6_MIN_MTU} bytes, but it is {mtu}")
    if not ipv6:
        for address in addresses:
            if address.version == 6:
                raise InvalidValue(field, ipv6, f"a link without IPv6 cannot have {address} among its addresses")
    return ipv6


def check_wait(wait: float, field: str = "wait") -> float:
    """Return `wait` if it is a number of seconds; to be called before making the change to wait for."""
    if not isinstance(wait, int | float) or not abs(wait) <= sys.float_info.max:
        raise InvalidValue(field, wait, "must be a number of seconds, such as 2.5")
    return wait


def check_txqlen(length: int, field: str = "txqlen") -> int:
    """Return `length` (packets) if a transmit queue can have it: 0 to 2³¹−1."""
    return _check_int(length, field, 0, 0x7FFF_FFFF, "a queue has 0 to 2147483647 packets")


class GsoMaxSize(int):
    """The largest packet that is left to a link to segment, and that of IPv4 (Linux 6.3).

    The kernel also sets the latter whenever the former is set to at most 65536 (netif_set_gso_max_size).
    """

    ipv4: int | None

    def __new__(cls, size: int, ipv4: int | None = None) -> GsoMaxSize:
        """Create a size; `ipv4` is None if the kernel has no such attribute."""
        self = super().__new__(cls, size)
        self.ipv4 = ipv4
        return self


def check_gso_max_size(size: int, field: str = "gso_max_size") -> int:
    """Return `size` (bytes) if it can be the size of the largest packet that is left to the link to segment.

    The kernel has a higher lower limit (MAX_TCP_HEADER), and an upper limit for each link (tso_max_size).
    """
    if isinstance(size, GsoMaxSize):  # as it was read
        return size
    return _check_int(size, field, 1, 524_280, "the largest packet to be segmented has 1 to 524280 bytes")


def check_altnames(names: Iterable[str], field: str = "altnames") -> tuple[str, ...]:
    """Return alternative names for a new link, each once, and checked by :func:`check_altname`."""
    return _each_once(check_altname, names, field)


def check_all_altnames(names: Iterable[str], field: str = "altnames") -> tuple[str, ...]:
    """Return alternative names for an existing link, each once; names that it may already have are accepted."""
    return _each_once(check_lookup_name, names, field)


def _each_once(check: Callable[[str, str], str], names: Iterable[str], field: str) -> tuple[str, ...]:
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise InvalidValue(field, names, 'must be a list of names, such as ["uplink"]')
    return tuple(dict.fromkeys(check(name, field) for name in names))


def check_altname(name: str, field: str = "altnames") -> str:
    """Return an alternative name if it can be given: like the name of a link, but up to 127 bytes (ALTIFNAMSIZ)."""
    encoded = _encoded(name, field)
    if not 1 <= len(encoded) <= 127:
        raise InvalidValue(field, name, f"an alternative name has 1 to 127 bytes, but this one has {len(encoded)}")
    if not _BAD_IN_NAME.isdisjoint(encoded) or name in (".", ".."):
        raise InvalidValue(field, name, "a name has no '/', ':', '%' or space, and is not '.' or '..'")
    _check_no_controls(name, field)
    return name


class MasterName(str):
    """The name of the bridge or VRF that a link belongs to ("": none), its ifindex and its alternative names.

    Only a master that was looked up has the latter two. `port` are the settings of the link as a port of the bridge, if
    it is one (:mod:`vethlib._nl.dependents.port`).
    """

    __slots__ = ("altnames", "ifindex", "port")

    ifindex: int
    altnames: tuple[str, ...]
    port: bytes

    def __new__(cls, name: str, ifindex: int = 0, altnames: tuple[str, ...] = (), port: bytes = b"") -> MasterName:
        """Create a name; `ifindex` is 0 for no master, and until it has been looked up."""
        master = super().__new__(cls, name)
        master.ifindex, master.altnames, master.port = ifindex, altnames, port
        return master


def is_master(present: str | None, name: str) -> bool:
    """Return whether the master `present` of a link has this name, or this alternative name."""
    return present == name or name in getattr(present, "altnames", ())


def check_master(name: str, field: str = "master") -> str:
    """Return `name` if a link of that name can be the master of another link, or "" for none."""
    return name if name == "" else check_kernel_name(name, field)


class Sysctl(NamedTuple):
    """A setting of a link: `name` is the family and the name, as in ``ipv4.rp_filter``."""

    name: str
    value: str

    def __str__(self) -> str:
        return f"{self.name}={self.shown}"

    @property
    def shown(self) -> str:
        """The value in a form that everybody may read: the kernel shows the stable_secret only to root."""
        return "…" if self.name == STABLE_SECRET and self.value else self.value


def check_sysctls(
    sysctls: Mapping[str, str | int] | Iterable[tuple[str, str | int]], field: str = "sysctls"
) -> tuple[Sysctl, ...]:
    """Return settings below net.ipv4.conf.LINK and net.ipv6.conf.LINK, sorted, each with its family.

    A name without a family means IPv4 if that has a setting of that name, and IPv6 otherwise. The values are in the
    form in which the kernel returns them.
    """
    try:
        given = list(sysctls.items() if isinstance(sysctls, Mapping) else ((name, value) for name, value in sysctls))
    except (TypeError, ValueError):
        raise InvalidValue(field, sysctls, 'must map names to values, as in {"rp_filter": "0"}') from None
    checked: dict[str, str] = {}
    for name, value in given:
        full = check_sysctl_name(name, field)
        if (cure := _NEVER_SET.get(full)) is not None:
            raise InvalidValue(field, name, cure)
        text = _setting_value(full, value, field)
        if checked.setdefault(full, text) != text:
            raise InvalidValue(field, name, f"{full} is given twice, with different values")
    return tuple(Sysctl(name, checked[name]) for name in sorted(checked))


def sysctls_to_read(names: Iterable[str], field: str = "sysctls") -> tuple[Sysctl, ...]:
    """Return the settings with these names, without values, sorted, each with its family."""
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise InvalidValue(field, names, 'must be a list of names, such as ["rp_filter"]')
    return tuple(Sysctl(name, "") for name in sorted({check_sysctl_name(name, field) for name in names}))


def check_sysctl_name(name: str, field: str = "sysctls") -> str:
    """Return the name of a setting with its family."""
    family, _, rest = name.rpartition(".") if isinstance(name, str) else ("", "", "")
    if family not in ("", "ipv4", "ipv6") or not _SETTING.fullmatch(rest):
        raise InvalidValue(field, name, "must be a setting of a link, such as rp_filter or ipv6.accept_ra")
    if rest == "disable_ipv6":
        raise InvalidValue(field, name, "use the field ipv6 instead")
    return f"{family or ('ipv4' if rest in _IPV4_SETTINGS else 'ipv6')}.{rest}"


def _setting_value(name: str, value: str | int, field: str) -> str:
    """Return the value of a setting in the form in which the kernel returns it, if the kernel would accept it."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 64:
        value = str(value)
    if not isinstance(value, str) or not _SETTING_VALUE.fullmatch(value):
        raise InvalidValue(field, value, f"the value of {name} must be a number, or a word of up to 64 characters")
    if name == STABLE_SECRET:
        try:
            return IPv6Address(value).exploded
        except ValueError:
            raise InvalidValue(field, value, f"the value of {name} must be an IPv6 address") from None
    if (number := _INTEGER.fullmatch(value)) is None:
        return value
    # Numbers as strtoul() reads them with base 0 (proc_get_long, kernel/sysctl.c).
    sign, hexadecimal, octal, decimal = number.groups()
    try:
        digits = hexadecimal or octal or decimal
        return str(int(sign + digits, 16 if hexadecimal else 8 if octal else 10))
    except ValueError:
        raise InvalidValue(field, value, f"the value of {name} must be a number: with a 0 first, it is octal") from None


def sysctls_target(present: Iterable[Sysctl] | None, wanted: Iterable[Sysctl]) -> tuple[Sysctl, ...]:
    """Return the settings that a link should have, given what it has: a time may be rounded up, as by the kernel.

    The kernel keeps milliseconds in jiffies of up to 10 ms (proc_dointvec_ms_jiffies, kernel/time/jiffies.c).
    """
    there = dict(present or ())

    def is_rounded(setting: Sysctl) -> bool:
        text = there.get(setting.name, "")
        return text.isdecimal() and setting.value.isdecimal() and 0 < int(text) - int(setting.value) < 10

    return tuple(
        Sysctl(each.name, there[each.name]) if each.name in _IN_JIFFIES and is_rounded(each) else each
        for each in wanted
    )


_IN_JIFFIES = ("ipv6.mldv1_unsolicited_report_interval", "ipv6.mldv2_unsolicited_report_interval")

STABLE_SECRET = "ipv6.stable_secret"
"""The only setting that is not a number, but an address. Writing it sets ``ADDR_GEN_MODE`` to 2."""

ADDR_GEN_MODE = "ipv6.addr_gen_mode"

IPV6_MTU = "ipv6.mtu"
"""Can be read, but is not kept.

The kernel sets it to the MTU of the link whenever that changes, and when IPv6 starts on the link, for example when it
gets its carrier from its peer (addrconf_notify, net/ipv6/addrconf.c).
"""

_MC_FORWARDING = "is a state, not a setting: the kernel sets it while a multicast routing daemon uses the link"

_NEVER_SET = {
    IPV6_MTU: "the kernel sets it to the mtu of the link when that gets its carrier: set mtu, or that of routes",
    "ipv4.mc_forwarding": _MC_FORWARDING,
    "ipv6.mc_forwarding": _MC_FORWARDING,
}
"""The reasons why these can be read, but not given.

Nobody may write mc_forwarding (net/ipv4/devinet.c, net/ipv6/addrconf.c).
"""

_INTEGER = re.compile("(-?)(?:0[xX]([0-9a-fA-F]+)|0([0-9]+)|([0-9]+))")
_SETTING = re.compile("[a-z0-9_]{1,64}")
_SETTING_VALUE = re.compile("[-:0-9A-Za-z]{1,64}")
# DEVINET_SYSCTL_* of net/ipv4/devinet.c; of these names, IPv6 has some as well.
_IPV4_SETTINGS = frozenset(
    """
    accept_local accept_redirects accept_source_route arp_accept arp_announce arp_evict_nocarrier arp_filter arp_ignore
    arp_notify bc_forwarding bootp_relay disable_policy disable_xfrm drop_gratuitous_arp drop_unicast_in_l2_multicast
    force_igmp_version forwarding igmpv2_unsolicited_report_interval igmpv3_unsolicited_report_interval
    ignore_routes_with_linkdown log_martians mc_forwarding medium_id promote_secondaries proxy_arp proxy_arp_pvlan
    route_localnet rp_filter secure_redirects send_redirects shared_media src_valid_mark tag
    """.split()  # noqa: SIM905 - a list of words, not of quotes
)


def check_proto(proto: int, field: str = "address_proto") -> int:
    """Return `proto` if it is a valid IFA_PROTO: 0 to 255."""
    return _check_int(proto, field, 0, 255, "IFA_PROTO is a number from 0 to 255")


def _check_int(value: int, field: str, low: int, high: int, hint: str) -> int:
    if type(value) is not int or not low <= value <= high:
        raise InvalidValue(field, value, hint)
    return value


def check_alias(alias: str, field: str = "alias") -> str:
    """Return `alias` if it fits the kernel's IFALIASZ: at most 255 bytes, no NUL."""
    encoded = _encoded(alias, field)
    if len(encoded) > 255 or b"\0" in encoded:
        raise InvalidValue(field, alias, "must be a string of at most 255 bytes")
    return alias


def check_addresses(
    addresses: Iterable[str | IPInterface | NewAddress], field: str = "addresses"
) -> tuple[IPInterface, ...]:
    """Return the addresses as ``ipaddress`` interfaces; each needs a prefix and can occur only once.

    An address with attributes is a :class:`vethlib.NewAddress`, which is also such an interface.
    """
    if isinstance(addresses, str) or not isinstance(addresses, Iterable):
        raise InvalidValue(field, addresses, 'must be a list of addresses, such as ["10.0.0.1/24"]')
    checked: list[IPInterface] = []
    for address in addresses:
        checked.append(_check_address(address, field))
    if len(checked) > 1:
        _check_different(checked, field)
    return tuple(checked)


def _check_different(addresses: Iterable[IPInterface], field: str) -> None:
    seen: dict[object, IPInterface] = {}
    for one in addresses:
        # ipv6_chk_same_addr (net/ipv6/addrconf.c) does not look at the prefix length; IPv4 does.
        first = seen.setdefault(one.ip if one.version == 6 else slot(one), one)
        if first is not one:
            same = "the same address is given twice"
            cure = same if first.network == one.network else "a link has an IPv6 address once, with one prefix length"
            raise InvalidValue(field, str(one), cure)


def slot(one: IPInterface) -> object:
    """Return what must be unique to an IPv4 address on its link: its local address and the subnet of its peer."""
    interface, peer = identity_of(one)
    network = interface.network if peer is None else IPv4Interface((int(peer), interface.network.prefixlen)).network
    return interface if network == interface.network else (interface, network)


def _check_address(address: str | IPInterface | NewAddress, field: str) -> IPInterface:
    if isinstance(address, str) and len(address.split(None, 1)) > 1:
        from .newaddress import read_address  # for rarely used attributes

        return read_address(address, field)
    return check_plain(address, field)
