"""The desired interfaces of an agent, checked and normalized.

An :class:`Interface` or :class:`Namespace` that exists can be planned: values that the kernel would refuse are
refused here, with the northbound name of the field. All problems of an interface are reported together, so that a
file can be corrected in one go.

Values with the same meaning compare equal: a MAC address is in lower case with colons, each address has its prefix
length and is listed once, empty addresses are removed, and a namespace keeps only the field that its type reads.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from enum import IntEnum
from ipaddress import IPv6Interface
from operator import attrgetter
from typing import Any, Literal, TypeAlias, TypeVar

from vethlib import links
from vethlib._values import filler
from vethlib.addresses import PLAIN, Identity, identity_of
from vethlib.agent.limits import Limits
from vethlib.endfields.checks import Sysctl, slot
from vethlib.endfields.ipv6fields import field_of_ipv6
from vethlib.endfields.neighbours import Neighbour
from vethlib.endfields.routes import Route
from vethlib.endfields.table import FIELDS
from vethlib.errors import InvalidValue

from .namespace import FIELD_READ, HOME, Namespace, NamespaceType
from .problems import MOST_PROBLEMS, InvalidInterface, MoreProblems, Remark, detached, too_many
from .textchecks import check_description, check_interface_name, check_text, check_word

__all__ = [
    "IPv6Policy",
    "Interface",
    "InterfaceType",
]

IPV6_MIN_MTU = 1280  # include/uapi/linux/ipv6.h; below it, addrconf_notify() removes IPv6 from the link

# No veth can have these names: see also sysctl_dev_name_is_allowed(), include/net/net_namespace.h.
_NEVER_FREE = {
    "lo": "every namespace has a link of this name",
    "all": "the kernel has settings of this name",
    "default": "the kernel has settings of this name",
}

IPv6Policy: TypeAlias = Literal["on", "auto", "off"]
"""Which interfaces have no IPv6 if their configuration leaves that open: none, those in the home namespace, or all.

Interfaces with IPv6 addresses, routes or neighbours, or `link_only`, are excepted.
"""

T = TypeVar("T")
_set = object.__setattr__
_further = attrgetter(*links.FURTHER)
_NOTHING_FURTHER = tuple(links.FURTHER.values())
_NONE: Mapping[str, Any] = {}  # shared by the many interfaces that have none


class InterfaceType(IntEnum):
    """The kind of link of an interface."""

    VETH = 0


@dataclass(frozen=True, slots=True)
class Interface:
    """A desired interface: one end of a veth pair. The fields are those of the northbound model.

    `peer_if_name` is the name of the interface at the other end. With their default values, `phys_address`, `mtu`
    (bytes) and `num_queues` are chosen by the kernel. `ipv6` is whether the link has IPv6; None leaves that to the
    policy of the agent. The fields after it are those of :class:`vethlib.End`; a missing field is left alone.
    `addresses` are the `ip_addresses` as ``ipaddress`` interfaces, `kernel_name` is the name of the link in its
    namespace, `wants_ipv6` is `ipv6` or the result of the policy (:meth:`with_ipv6_policy`), and `further` has those of
    the fields that few interfaces have (``vethlib.links.FURTHER``) that are given. `explicit` are the names of fields
    that were written although they have their default value; it only affects writing. `spelling` are warnings about the
    text from which the value was read.

    Raises :class:`InvalidInterface`, which lists all problems.
    """

    name: str
    peer_if_name: str = ""
    _: KW_ONLY
    description: str = ""
    type: int = InterfaceType.VETH
    enabled: bool = False
    phys_address: str = ""
    mtu: int = 0
    ip_addresses: tuple[str, ...] = ()
    namespace: Namespace = HOME
    host_if_name: str = ""
    num_queues: int = 0
    link_only: bool = False
    ipv6: bool | None = None
    txqlen: int | None = None
    gso_max_size: int | None = None
    altnames: tuple[str, ...] = ()
    master: str = ""
    sysctls: Mapping[str, str | int] | tuple[Sysctl, ...] = ()
    routes: tuple[Route, ...] = ()
    neighbours: tuple[Neighbour, ...] = ()
    offload: bool | tuple[str, ...] | None = None
    explicit: frozenset[str] = field(default=frozenset(), repr=False, compare=False)
    spelling: tuple[Remark, ...] = field(default=(), repr=False, compare=False)
    addresses: tuple[links.Interface, ...] = field(init=False, repr=False, compare=False)
    kernel_name: str = field(init=False, repr=False, compare=False)
    wants_ipv6: bool | None = field(init=False, repr=False, compare=False)
    further: Mapping[str, Any] = field(init=False, repr=False, compare=False)
    _by_identity: Mapping[Identity, links.Interface] | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check = _Checks()
        if not isinstance(self.type, int) or self.type != InterfaceType.VETH:
            check.wrong("type", self.type, "must be VETH (0), the only type")
        named = check(check_interface_name, self.name, "name")
        if self.host_if_name:
            check(_check_kernel_name, self.host_if_name, "host_if_name")
        elif named:
            check(_check_as_link_name, self.name, "name")
        self._check_peer(check)
        check(check_description, self.description, "description")
        if self.phys_address:
            _set(self, "phys_address", check(links.check_mac, self.phys_address, "phys_address"))
        if self.mtu != 0:
            check(links.check_mtu, self.mtu, "mtu")
        if self.num_queues != 0:
            check(links.check_queues, self.num_queues, "num_queues")
        for flag in ("enabled", "link_only", "ipv6"):
            value = getattr(self, flag)
            if not isinstance(value, bool) and not (flag == "ipv6" and value is None):
                check.wrong(flag, value, "must be true or false")
        _set(self, "wants_ipv6", self.ipv6)
        for name, value in self._given_further().items():
            _set(self, name, check(FIELDS[name].check, value, name))
        _set(self, "further", self._given_further())
        own = self.host_if_name or self.name
        if own in (self.altnames or ()):
            check.wrong("altnames", own, "is the name of the link itself: leave it out")
        if "lo" in (self.altnames or ()):
            check.wrong("altnames", "lo", _NEVER_FREE["lo"])
        self._check_addresses(check)
        if self.further:
            self._check_further_for_ipv6(check)
        if type(self.namespace) is not Namespace:
            check.wrong("namespace", self.namespace, "must be a Namespace")
        else:
            field = FIELD_READ[NamespaceType(self.namespace.type)]
            check(check_word, str(getattr(self.namespace, field)), f"namespace.{field}")
        if check.problems:
            raise InvalidInterface(self.name, check.listed())
        if self.host_if_name == self.name:
            _set(self, "host_if_name", "")
        _set(self, "kernel_name", self.host_if_name or self.name)

    def _check_peer(self, check: _Checks) -> None:
        if not self.peer_if_name:
            cure = "must be the name of the interface at the other end"
            check.wrong("veth.peer_if_name", self.peer_if_name, cure)
        elif self.peer_if_name == self.name:
            check.wrong(
                "veth.peer_if_name", self.peer_if_name, "must be another interface: an interface cannot be its own peer"
            )
        else:
            check(check_interface_name, self.peer_if_name, "veth.peer_if_name")

    def _check_addresses(self, check: _Checks) -> None:
        seen: dict[object, tuple[str, links.Interface]] = {}
        addresses: list[links.Interface] = []
        given: object = self.ip_addresses
        if isinstance(given, str) or not isinstance(given, Iterable):
            check.wrong("ip_addresses", given, 'must be a list of addresses, such as ["10.0.0.1/24"]')
            _set(self, "addresses", ())
            return
        for number, text in enumerate(self.ip_addresses):
            where = f"ip_addresses[{number}]"
            if text == "":
                continue
            address = check(_read_address, text, where)
            if address is None:
                continue
            # ipv6_add_addr() (net/ipv6/addrconf.c) looks an address up without its prefix.
            key = address.ip if isinstance(address, IPv6Interface) else slot(address)
            first = seen.setdefault(key, (where, address))
            if first[0] == where:
                addresses.append(address)
            elif first[1] != address:
                other = "another prefix length" if first[1].network != address.network else "other attributes"
                cure = f"{first[0]} has the same address with {other}; a link can have it only once"
                check.wrong(where, text, cure)
        _set(self, "addresses", tuple(addresses))
        _set(self, "ip_addresses", tuple(map(str, addresses)))
        six = any(address.version == 6 for address in addresses) and not self.link_only
        if six and self.ipv6 is False:
            check.wrong("ipv6", self.ipv6, "must not be false for an interface with IPv6 addresses in ip_addresses")
        if (six or self.ipv6 is True) and type(self.mtu) is int and 0 < self.mtu < IPV6_MIN_MTU:
            cause = "IPv6 addresses" if six else "ipv6"
            check.wrong("mtu", self.mtu, f"must be at least {IPV6_MIN_MTU} for a link with {cause}")

    def _check_further_for_ipv6(self, check: _Checks) -> None:
        late = self.routes or (), self.neighbours or ()
        sysctls: Any = self.sysctls or ()
        if self.ipv6 is False and (name := field_of_ipv6(*late)):
            check.wrong("ipv6", self.ipv6, f"must not be false for an interface with IPv6 in {name}")
        if type(self.mtu) is int and 0 < self.mtu < IPV6_MIN_MTU and (name := field_of_ipv6(*late, sysctls)):
            check.wrong("mtu", self.mtu, f"must be at least {IPV6_MIN_MTU} for a link with IPv6 in {name}")

    def _given_further(self) -> Mapping[str, Any]:
        values = _further(self)
        if values == _NOTHING_FURTHER:
            return _NONE
        return {name: value for name, value in zip(links.FURTHER, values, strict=True) if value != links.FURTHER[name]}

    def with_ipv6_policy(self, policy: IPv6Policy) -> Interface:
        """Return the interface, with `wants_ipv6` False if the policy applies to it."""
        if policy == "on" or self.ipv6 is not None or self.link_only or (policy == "auto" and self.namespace.ref):
            return self
        if any(address.version == 6 for address in self.addresses) or field_of_ipv6(self.routes, self.neighbours):
            return self
        settled = copy.copy(self)
        _set(settled, "wants_ipv6", False)
        return settled

    def beyond(self, limits: Limits) -> list[InvalidValue]:
        """Return the values that exceed the limits, though the kernel would accept them."""
        problems = []
        if self.num_queues > limits.queues:
            cure = f"must be at most {limits.queues} (limit queues)"
            problems.append(InvalidValue("num_queues", self.num_queues, cure))
        return [*problems, *too_many({"ip_addresses": self.addresses, **self.further}, limits)]

    @property
    def remarks(self) -> tuple[Remark, ...]:
        """Parts of the value that are accepted but probably mistakes."""
        if self.link_only and self.ip_addresses:
            text = "ip_addresses is ignored: with link_only, addresses are left alone"
            return (*self.spelling, Remark("addresses-ignored", ("link_only", "ip_addresses"), text))
        return self.spelling

    @property
    def warnings(self) -> tuple[str, ...]:
        """The texts of :attr:`remarks`."""
        return tuple(remark.text for remark in self.remarks)

    @property
    def by_identity(self) -> Mapping[Identity, links.Interface]:
        """The `addresses` by their identities; computed once, because each event of an address asks for it."""
        if self._by_identity is None:
            _set(self, "_by_identity", {identity_of(address): address for address in self.addresses})
        return self._by_identity or {}

    def end(self, *, group: int | None = None, alias: str | None = None, address_proto: int = 0) -> links.End:
        """Return the :class:`vethlib.End` to create, with owner marks.

        Only these are checked: an interface has no other value that an end may not have.
        """
        if alias is not None:
            links.check_alias(alias)
        if group is not None:
            links.check_group(group)
        links.check_proto(address_proto)
        further = links.FURTHER
        if self.further:
            given = {name: value for name, value in self.further.items() if self.enabled or not FIELDS[name].late}
            further = {**further, **given}
        return _end(
            name=self.kernel_name,
            netns=self.namespace.ref,
            mac=self.phys_address or None,
            mtu=self.mtu or None,
            addresses=() if self.link_only else self.addresses,
            up=self.enabled,
            num_queues=self.num_queues or None,
            alias=alias,
            group=group,
            address_proto=address_proto,
            ipv6=self.wants_ipv6,
            **further,
        )


_end = filler(links.End)


def _check_kernel_name(name: str, where: str) -> str:
    check_text(name, where)
    if name in _NEVER_FREE:
        raise InvalidValue(where, name, _NEVER_FREE[name])
    if name.endswith("*"):
        raise InvalidValue(where, name, "must be a whole name, without '*' at the end: an agent chooses no names")
    return links.check_name(name, where)


def _check_as_link_name(name: str, where: str) -> str:
    try:
        return _check_kernel_name(name, where)
    except InvalidValue as error:
        cure = "set host_if_name" if name in _NEVER_FREE or name.endswith("*") else "shorten it, or set host_if_name"
        raise InvalidValue(where, name, f"{error.hint}; {cure}") from None


def _read_address(text: str | links.Interface, where: str) -> links.Interface:
    whole = text
    if isinstance(text, str) and "/" not in text and " " not in text.strip():
        whole = f"{text}/128" if ":" in text else f"{text}/32"
    try:
        address = links.check_addresses([whole], where)[0]
    except InvalidValue as error:
        raise InvalidValue(where, text, error.hint) from None
    if type(address) not in PLAIN:
        if getattr(address, "expires", False):
            cure = "an address has no lifetime in a configuration, because an agent keeps it: leave out valid_lft and"
            raise InvalidValue(where, text, f"{cure} preferred_lft")
        if str(address) == str(plain := identity_of(address)[0]):
            return plain
    if address.version == 6 and int(address) == 1:  # EADDRNOTAVAIL from ipv6_add_addr(), net/ipv6/addrconf.c
        raise InvalidValue(where, text, "only the loopback interface can have this address")
    return address


class _Checks:
    """Runs checks and collects their exceptions, so that one problem does not hide the next."""

    def __init__(self) -> None:
        self.problems: list[InvalidValue] = []
        self._more = 0  # problems beyond MOST_PROBLEMS

    def __call__(self, check: Callable[..., T], value: object, where: str) -> T | None:
        """Return the checked value; None if it is invalid."""
        try:
            return check(value, where)
        except InvalidValue as error:
            self._note(detached(error))
            return None

    def wrong(self, where: str, value: object, cure: str) -> None:
        """Add a problem that was found elsewhere."""
        self._note(InvalidValue(where, value, cure))

    def listed(self) -> list[InvalidValue]:
        """Return the problems, with a last one for the number of unlisted ones."""
        return [*self.problems, *([MoreProblems(self._more)] if self._more else [])]

    def _note(self, problem: InvalidValue) -> None:
        if len(self.problems) < MOST_PROBLEMS:
            self.problems.append(problem)
        else:
            self._more += 1
