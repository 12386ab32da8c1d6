"""Links as desired (:class:`End`, :class:`Veth`) and as observed (:class:`Link`, :class:`Pair`, :class:`Stats`).

Values are checked on creation (:mod:`.endfields.checks`), so every ``End`` can be sent to the kernel.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from operator import attrgetter
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from ._former import renamed
from ._values import KW_ONLY, Value, aside
from .addresses import Address, IPAddress, IPInterface
from .endfields.checks import (
    IPV6_MIN_MTU,
    check_addresses,
    check_alias,
    check_group,
    check_index,
    check_ipv6,
    check_kernel_name,
    check_lookup_name,
    check_mac,
    check_mtu,
    check_name,
    check_proto,
    check_queues,
    check_up,
    check_wait,
)
from .endfields.ipv6fields import check_field_of_ipv6
from .errors import InvalidValue, check_type
from .ns.reference import HasFileno

if TYPE_CHECKING:
    from .endfields.neighbours import Neighbour
    from .endfields.newaddress import NewAddress
    from .endfields.routes import Route

__all__ = [
    "FURTHER",
    "Address",
    "Dependents",
    "End",
    "IPInterface",
    "Link",
    "NetnsRef",
    "Pair",
    "Stats",
    "Veth",
    "check_addresses",
    "check_alias",
    "check_group",
    "check_index",
    "check_ipv6",
    "check_kernel_name",
    "check_lookup_name",
    "check_mac",
    "check_mtu",
    "check_name",
    "check_proto",
    "check_queues",
    "check_ref",
    "check_up",
    "check_veth",
    "check_wait",
    "describe",
    "means_home",
    "spell",
]

NetnsRef: TypeAlias = str | HasFileno | None


class End(Value):
    """One end of a pair to create.

    A `name` that ends with "*", such as "veth*", stands for the first free name with this prefix: "veth0", "veth1" …

    `netns` is a namespace reference ("" = the session's home namespace). If `mac`, `mtu` (bytes) or `num_queues` (per
    direction) is None, the kernel chooses. With ipv6=False, the link has no IPv6 at all: no link-local address and no
    route (net.ipv6.conf.NAME.disable_ipv6 is set before it comes up). True enables it; None leaves the namespace's
    default for new links.

    `txqlen` is the length of the transmit queue (packets), `gso_max_size` the largest packet that is left to the link
    to segment (bytes), and `altnames` are alternative names (Linux 5.5). `sysctls` are settings of the link, below
    net.ipv4.conf.NAME and net.ipv6.conf.NAME: ``{"rp_filter": "0", "ipv6.forwarding": "1"}``; without a family, IPv4
    is meant if it has a setting of that name. `ipv6.mtu` and `mc_forwarding` are invalid, because the kernel keeps no
    value of them.

    `master` is an existing bridge or VRF in the same namespace to which the link is attached.

    With offload=False, nothing is left to the network card, which a veth does not have: checksums are computed and long
    segments are split before a packet is sent, as switches in user space require. With True, both are left to it, as on
    a new veth.

    `routes` are routes over the link, and `neighbours` permanent neighbours, of a link that is up; their protocol marks
    them as vethlib's.

    `addresses` are "ip/prefix" strings or ``ipaddress`` interfaces. They may have attributes, as in
    ``"10.0.0.1/24 brd + label veth1:1"``, ``"10.0.0.1 peer 10.0.0.2/32"`` or ``"2001:db8::1/64 nodad"``: see
    :class:`vethlib.NewAddress`. `alias`, `group` and `address_proto` (IFLA_IFALIAS, IFLA_GROUP and IFA_PROTO, 0 = none)
    are marks by which a program can recognise its own links and addresses later.

    Raises :class:`InvalidValue` for a value that the kernel would refuse.
    """

    name: str
    netns: NetnsRef = ""
    _: KW_ONLY
    mac: str | None = None
    mtu: int | None = None
    addresses: Iterable[str | IPInterface | NewAddress] = ()
    up: bool = True
    num_queues: int | None = None
    alias: str | None = None
    group: int | None = None
    address_proto: int = 0
    ipv6: bool | None = None
    txqlen: int | None = None
    gso_max_size: int | None = None
    altnames: Iterable[str] = ()
    master: str = ""
    sysctls: Mapping[str, str | int] | Iterable[tuple[str, str]] = ()
    routes: Iterable[Route] = ()
    neighbours: Iterable[Neighbour] = ()
    offload: bool | Iterable[str] | None = None

    def __post_init__(self) -> None:
        check_name(self.name, may_be_open=True)
        if self.netns.__class__ is not str:
            check_ref(self.netns)
        if self.mac is not None:
            _set(self, "mac", check_mac(self.mac))
        if self.mtu is not None:
            check_mtu(self.mtu)
        if self.addresses != ():
            _set(self, "addresses", check_addresses(self.addresses))
        if self.num_queues is not None:
            check_queues(self.num_queues)
        if self.up is not True:
            check_up(self.up)
        if self.alias is not None:
            check_alias(self.alias)
        if self.group is not None:
            check_group(self.group)
        check_proto(self.address_proto)
        if self.ipv6 is not None:
            check_ipv6(self.ipv6, self.interfaces, self.mtu)
        if self.mtu is not None and self.mtu < IPV6_MIN_MTU and any(one.version == 6 for one in self.interfaces):
            raise InvalidValue("mtu", self.mtu, "IPv6 needs 1280 bytes: raise the MTU or leave out the IPv6 addresses")
        if _further(self) != _NOTHING_FURTHER:
            for name, none in FURTHER.items():
                value = getattr(self, name)
                _set(self, name, none if value in (None, (), "") else _check_further(name, value))
            if self.routes or self.neighbours or self.sysctls:
                check_field_of_ipv6(self.ipv6, self.mtu, self.routes, self.neighbours, self.sysctls)  # type: ignore[arg-type]
            if self.name in self.altnames:
                raise InvalidValue("altnames", self.name, "is the name of the link itself: leave it out")
            if not self.up:
                self._check_nothing_late()

    def _check_nothing_late(self) -> None:
        for name, given in (("routes", self.routes), ("neighbours", self.neighbours)):
            for value in given:
                raise InvalidValue(name, str(value), f"a link that is down has no {name}: leave them out, or set it up")

    @property
    def further(self) -> Mapping[str, Any]:
        """Those of the rarely used fields (``FURTHER``) that were given, in their order."""
        values = _further(self)
        if values == _NOTHING_FURTHER:
            return _EMPTY
        return {name: value for name, value in zip(FURTHER, values, strict=True) if value not in (None, (), "")}

    @property
    def has_direct(self) -> bool:
        """Whether it has fields that cannot be set by a message."""
        return self.sysctls != () or self.offload is not None

    @property
    def interfaces(self) -> tuple[IPInterface, ...]:
        """The addresses as ``ipaddress`` interfaces."""
        return self.addresses  # type: ignore[return-value]

    def __str__(self) -> str:
        return describe(self.name, self.netns)


_set = object.__setattr__

FURTHER: Mapping[str, Any] = MappingProxyType(
    {
        "txqlen": None,
        "gso_max_size": None,
        "altnames": (),
        "master": "",
        "sysctls": (),
        "routes": (),
        "neighbours": (),
        "offload": None,
    }
)
"""The rarely used fields, each with the value that means "not given": the link then keeps its own."""

_NOTHING_FURTHER = tuple(FURTHER.values())
_EMPTY: Mapping[str, Any] = MappingProxyType({})
_further = attrgetter(*FURTHER)


def _check_further(name: str, value: Any) -> Any:
    from .endfields.table import FIELDS  # for rarely used fields

    return FIELDS[name].check(value, name)


def describe(name: str, netns: NetnsRef) -> str:
    """Describe a link for messages: ``'veth1' in netns:blue``, or ``'veth1'`` in the home namespace."""
    return repr(name) if means_home(netns) else f"{name!r} in {spell(netns)}"


def means_home(netns: NetnsRef) -> bool:
    """Return whether a reference is that of the home namespace, which no object is, even if it is false."""
    return netns is None or (isinstance(netns, str) and not netns)


def check_ref(netns: object, field: str = "netns") -> None:
    """Raise InvalidValue for a value that cannot be a reference; as part of a key, it would fail with another error."""
    if not (netns is None or isinstance(netns, str) or hasattr(netns, "fileno")):
        raise InvalidValue(field, netns, 'give a namespace reference, as in "" (home), "ns1" or "pid:42"')


def spell(netns: NetnsRef) -> str:
    """Describe a namespace for messages: ``netns:blue`` for "blue", ``the home namespace`` for ""."""
    if means_home(netns):
        return "the home namespace"
    if label := getattr(netns, "label", ""):
        return str(label)
    text = str(netns)
    return text if ":" in text else f"netns:{text}"


class Veth(Value):
    """A pair to create: its two ends, whose order does not matter.

    Raises :class:`InvalidValue` if both ends have the same name in the same namespace, or if one is not an End.
    """

    a: End
    b: End

    def __post_init__(self) -> None:
        for which, end in (("a", self.a), ("b", self.b)):
            check_type(end, End, which, 'give an End, as in Veth(End("veth1"), End("veth2", netns="ns2"))')
        if self.a.name == self.b.name and self.a.netns == self.b.netns and self.a.name[-1] != "*":
            raise InvalidValue("name", self.a.name, "both ends of the pair have this name in one namespace")

    def __str__(self) -> str:
        return f"{self.a} ⇄ {self.b}"


def check_veth(veth: Veth, field: str = "veths") -> Veth:
    """Return `veth` if it is a Veth."""
    return check_type(veth, Veth, field, 'give a Veth, as in Veth(End("veth1"), End("veth2", netns="ns2"))')


class Link(Value):
    """The state of a link at one moment, as reported by the kernel.

    `netns` is the reference that was used to look it up. `operstate` is the RFC 2863 state ("up", "lowerlayerdown", …).
    The kernel updates it with a delay: right after ``create`` without `wait`, it may still be "unknown" or "down", as
    is usual before Linux 6.12. For a veth, `peer_index` is the ifindex of its peer, and `peer_netnsid` the nsid of the
    peer's namespace in this namespace (None: both are in the same namespace). `group` is 2³¹ or more if
    ``create_many(together=True)`` has made the pair; an :class:`End` cannot be given such a group. `num_queues` is the
    number of transmit queues.

    `ifaddrs` are the `addresses` in the same order, each with its peer, state, lifetimes and owner. They are empty if
    the kernel was not asked for them (:meth:`Session.create` without `wait`, caches).

    `ipv6` is False if the link has no IPv6: net.ipv6.conf.NAME.disable_ipv6 is set, or the MTU is below 1280. The
    kernel sends no event when that setting changes, so a cache may be out of date.

    `cookie` is the SO_NETNS_COOKIE of its namespace, so that a Link is never mistaken for a link of another namespace;
    0 before Linux 5.14.
    """

    index: int
    name: str
    netns: NetnsRef
    kind: str
    mac: str
    mtu: int
    up: bool
    operstate: str
    addresses: tuple[IPInterface, ...]
    peer_index: int | None
    peer_netnsid: int | None
    alias: str
    group: int
    num_queues: int
    altnames: tuple[str, ...] = ()
    ifaddrs: tuple[Address, ...] = aside(default=())
    ipv6: bool = True
    cookie: int = aside(default=0)

    @property
    def carrier(self) -> bool | None:
        """Whether the link has a carrier: for a veth, whether its peer is up. None while the link itself is down.

        A veth without a carrier has the operstate "lowerlayerdown" if its peer is in the same namespace, and otherwise
        "down", like a link that was set down (default_operstate, net/core/link_watch.c).
        """
        return self.operstate not in _NO_CARRIER if self.up else None


_NO_CARRIER = frozenset({"down", "lowerlayerdown", "notpresent"})


class Pair(Value):
    """The two links of a newly created pair; can be unpacked."""

    a: Link
    b: Link

    def __iter__(self) -> Iterator[Link]:
        return iter((self.a, self.b))


class SourcedRoutes(NamedTuple):
    """The `number` of routes over one link (`over` is its ifindex) whose source is an address of another link.

    `source` is that address. `own` is True if vethlib has added the routes; `over` is 0 if they lead over no link.
    """

    source: IPAddress
    over: int
    own: bool
    number: int


class Dependents(Value):
    """The dependents of a link: what others have configured on it.

    `routes` is the number of routes that neither the kernel nor vethlib created, `neighbours` the number of permanent
    neighbours that vethlib did not create. `stacked` are the names of the links on top of it (VLANs, macvlans). `fixed`
    describes other dependents: a master, queueing disciplines, programs, alternative names, and flags and sizes that
    differ from those of a new link and that vethlib does not set. `ipv6_off` is True if net.ipv6.conf.NAME.disable_ipv6
    is set. `sourced` are the routes over other links that have an address of this link as their source, no matter who
    has added them, and `ipv4_neighbours` is the number of the IPv4 neighbours among `neighbours`. `ipv6_token` is the
    token of the link (ip token), or "".
    """

    routes: int = 0
    neighbours: int = 0
    stacked: tuple[str, ...] = ()
    fixed: tuple[str, ...] = ()
    ipv6_off: bool = False
    sourced: tuple[SourcedRoutes, ...] = ()
    ipv4_neighbours: int = 0
    ipv6_token: str = ""


class Stats(Value):
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


__getattr__ = renamed(__name__, {"Borne": "Dependents", "Interface": "IPInterface"})
