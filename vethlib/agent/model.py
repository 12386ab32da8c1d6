"""The interfaces an agent is told to keep, checked and brought to one spelling.

An :class:`Interface` or :class:`Namespace` that exists can be planned: what the kernel would refuse is
refused here, with the northbound name of the field. All that is wrong with an interface is reported at once,
because who corrects a file wants to do it in one go.

Values that mean the same compare equal: the MAC is lower case, an address carries its prefix, empty addresses
are gone, and of a namespace only what its type reads is kept.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import KW_ONLY, dataclass, field
from enum import IntEnum
from ipaddress import IPv6Interface
from typing import TypeVar

from vethlib import links
from vethlib.errors import InvalidValue

__all__ = ["Interface", "InterfaceType", "InvalidInterface", "Namespace", "NamespaceType"]

NAME_MAX = 63  # three times longer than a link name, and three of them still fit into an alias
PID_MAX = 4_194_304  # PID_MAX_LIMIT, include/linux/threads.h
IPV6_MIN_MTU = 1280  # include/uapi/linux/ipv6.h: below it addrconf_notify() takes IPv6 off the link

_NOT_TEXT = re.compile("[\0\ud800-\udfff]")
_NOT_IN_NAME = re.compile("[/:% ]")

T = TypeVar("T")
_set = object.__setattr__


class InterfaceType(IntEnum):
    """What kind of link an interface is."""

    VETH = 0


class NamespaceType(IntEnum):
    """Which field of a :class:`Namespace` refers to it."""

    PID_REF_NS = 0
    MICROSERVICE_REF_NS = 1
    NAMED_NS = 2
    FILE_REF_NS = 3


FIELD_READ = {
    NamespaceType.PID_REF_NS: "pid",
    NamespaceType.MICROSERVICE_REF_NS: "microservice",
    NamespaceType.NAMED_NS: "name",
    NamespaceType.FILE_REF_NS: "filepath",
}


class InvalidInterface(InvalidValue):
    """An interface that can never work: ``name`` is its name, ``problems`` everything that is wrong."""

    def __init__(self, name: str, problems: Iterable[InvalidValue]) -> None:
        self.problems = tuple(problems)
        first = self.problems[0]
        super().__init__(first.field, first.value, first.hint)
        self.name = name

    def __str__(self) -> str:
        return f"interface {self.name!r}: " + "; ".join(map(str, self.problems))


@dataclass(frozen=True, slots=True)
class Namespace:
    """A reference to a network namespace; without a value, the agent's own.

    A union by convention: `type` says which field is read, the others are dropped. pid 0 and an empty name or
    filepath mean the agent's own namespace, whatever the type.

    Raises :class:`InvalidValue` for a reference that can never lead anywhere.
    """

    type: int = NamespaceType.PID_REF_NS
    _: KW_ONLY
    pid: int = 0
    microservice: str = ""
    name: str = ""
    filepath: str = ""

    def __post_init__(self) -> None:
        if self.type not in FIELD_READ:
            known = ", ".join(f"{kind.name} ({kind.value})" for kind in NamespaceType)
            raise InvalidValue("namespace.type", self.type, f"give one of {known}")
        kind = NamespaceType(self.type)
        read = FIELD_READ[kind]
        value = getattr(self, read)
        _CHECK_NAMESPACE[kind](value)
        _set(self, "type", kind if value else NamespaceType.PID_REF_NS)
        for other in FIELD_READ.values():
            if other != read:
                _set(self, other, 0 if other == "pid" else "")

    @property
    def ref(self) -> str:
        """As vethlib spells it: ``""``, ``netns:blue``, ``pid:42``, ``path:/…``, ``microservice:x``."""
        if self.name:
            return f"netns:{self.name}"
        if self.pid:
            return f"pid:{self.pid}"
        if self.filepath:
            return f"path:{self.filepath}"
        return f"microservice:{self.microservice}" if self.microservice else ""


def _check_pid(pid: int) -> None:
    if type(pid) is not int or not 0 <= pid <= PID_MAX:
        cure = f"a process id is 1 to {PID_MAX}, and 0 the agent's own namespace"
        raise InvalidValue("namespace.pid", pid, cure)


def _check_microservice(label: str) -> None:
    _check_text(label, "namespace.microservice")
    if not label:
        raise InvalidValue("namespace.microservice", label, "name the microservice label of a container")


def _check_netns_name(name: str) -> None:
    _check_text(name, "namespace.name")
    if "/" in name or name in (".", "..") or len(name.encode()) > 255:
        cure = "a namespace is called as its file in /run/netns: 1 to 255 bytes, no '/', not '.' or '..'"
        raise InvalidValue("namespace.name", name, cure)


def _check_filepath(path: str) -> None:
    _check_text(path, "namespace.filepath")
    if path and not path.startswith("/"):
        raise InvalidValue("namespace.filepath", path, "give an absolute path, as in /proc/42/ns/net")


_CHECK_NAMESPACE: dict[NamespaceType, Callable[..., None]] = {
    NamespaceType.PID_REF_NS: _check_pid,
    NamespaceType.MICROSERVICE_REF_NS: _check_microservice,
    NamespaceType.NAMED_NS: _check_netns_name,
    NamespaceType.FILE_REF_NS: _check_filepath,
}

HOME = Namespace()


@dataclass(frozen=True, slots=True)
class Interface:
    """One end of a veth pair as its configuration wants it; the fields are those of the northbound model.

    `peer_if_name` names the interface at the other end. Left at their defaults, `phys_address`, `mtu` (bytes)
    and `num_queues` are the kernel's choice. `addresses` are the `ip_addresses` as ``ipaddress`` interfaces. `explicit`
    names the fields that were written out though they are at their default; it makes no difference but in writing.

    Raises :class:`InvalidInterface`, which lists everything that is wrong.
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
    explicit: frozenset[str] = field(default=frozenset(), repr=False, compare=False)
    addresses: tuple[links.Interface, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check = _Checks()
        if self.type != InterfaceType.VETH:
            check.wrong("type", self.type, "the only type is VETH (0)")
        named = check(check_interface_name, self.name, "name")
        if self.host_if_name:
            check(links.check_name, self.host_if_name, "host_if_name")
        elif named:
            check(_check_as_link_name, self.name, "name")
        self._check_peer(check)
        check(_check_text, self.description, "description")
        if self.phys_address:
            _set(self, "phys_address", check(links.check_mac, self.phys_address, "phys_address"))
        if self.mtu != 0:
            check(links.check_mtu, self.mtu, "mtu")
        if self.num_queues != 0:
            check(links.check_queues, self.num_queues, "num_queues")
        for flag in ("enabled", "link_only"):
            if not isinstance(getattr(self, flag), bool):
                check.wrong(flag, getattr(self, flag), "say true or false")
        self._check_addresses(check)
        if type(self.namespace) is not Namespace:
            check.wrong("namespace", self.namespace, "give a Namespace")
        if check.problems:
            raise InvalidInterface(self.name, check.problems)
        if self.host_if_name == self.name:
            _set(self, "host_if_name", "")

    def _check_peer(self, check: _Checks) -> None:
        if not self.peer_if_name:
            cure = "a veth needs the name of the interface at its other end"
            check.wrong("veth.peer_if_name", self.peer_if_name, cure)
        elif self.peer_if_name == self.name:
            check.wrong("veth.peer_if_name", self.peer_if_name, "an interface cannot be its own peer")
        else:
            check(check_interface_name, self.peer_if_name, "veth.peer_if_name")

    def _check_addresses(self, check: _Checks) -> None:
        seen: dict[object, str] = {}
        addresses: list[links.Interface] = []
        for number, text in enumerate(self.ip_addresses):
            where = f"ip_addresses[{number}]"
            if text == "":
                continue
            address = check(_read_address, text, where)
            if address is None:
                continue
            # ipv6_add_addr() (net/ipv6/addrconf.c) looks an address up without its prefix.
            key = address.ip if isinstance(address, IPv6Interface) else address
            if key in seen:
                check.wrong(where, text, f"{seen[key]} has this address already")
            else:
                seen[key] = where
                addresses.append(address)
        _set(self, "addresses", tuple(addresses))
        _set(self, "ip_addresses", tuple(address.with_prefixlen for address in addresses))
        six = any(address.version == 6 for address in addresses) and not self.link_only
        if six and type(self.mtu) is int and 0 < self.mtu < IPV6_MIN_MTU:
            cure = f"a link needs an MTU of at least {IPV6_MIN_MTU} for its IPv6 addresses"
            check.wrong("mtu", self.mtu, cure)

    @property
    def kernel_name(self) -> str:
        """What the link is called in its namespace."""
        return self.host_if_name or self.name

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is accepted, but hardly meant."""
        if self.link_only and self.ip_addresses:
            return ("link_only leaves addresses alone: ip_addresses is ignored",)
        return ()

    def end(self, *, group: int | None = None, alias: str | None = None, address_proto: int = 0) -> links.End:
        """The :class:`vethlib.End` to create, with the marks that tell it as ours."""
        return links.End(
            self.kernel_name,
            self.namespace.ref,
            mac=self.phys_address or None,
            mtu=self.mtu or None,
            addresses=() if self.link_only else self.addresses,
            up=self.enabled,
            num_queues=self.num_queues or None,
            alias=alias,
            group=group,
            address_proto=address_proto,
        )


def check_interface_name(name: str, where: str = "name") -> str:
    """Return `name` if it can name an interface: as a link name, but of up to 63 bytes.

    Longer than a link's 15 because it only has to be unique and readable, and to fit into the link's alias.
    """
    _check_text(name, where)
    if not 1 <= len(name.encode()) <= NAME_MAX:
        cure = f"an interface's name has 1 to {NAME_MAX} bytes, this one has {len(name.encode())}"
        raise InvalidValue(where, name, cure)
    if not name.isprintable() or _NOT_IN_NAME.search(name):
        raise InvalidValue(where, name, "an interface's name has no '/', ':', '%', space or control code")
    if name in (".", ".."):
        raise InvalidValue(where, name, "an interface cannot be called '.' or '..'")
    return name


def _check_as_link_name(name: str, where: str) -> str:
    try:
        return links.check_name(name, where)
    except InvalidValue as error:
        raise InvalidValue(where, name, f"{error.hint}: shorten it, or give host_if_name") from None


def _read_address(text: str | links.Interface, where: str) -> links.Interface:
    whole = text
    if isinstance(text, str) and "/" not in text:
        whole = f"{text}/128" if ":" in text else f"{text}/32"
    try:
        return links.check_addresses([whole], where)[0]
    except InvalidValue as error:
        raise InvalidValue(where, text, error.hint) from None


def _check_text(text: str, where: str) -> str:
    if not isinstance(text, str):
        raise InvalidValue(where, text, "give text")
    # Lone surrogates (an undecodable file name, or \ud800 in JSON) cannot be sent or stored as UTF-8.
    if _NOT_TEXT.search(text):
        raise InvalidValue(where, text, "text has no NUL and no lone surrogate")
    return text


class _Checks:
    """Runs checks and collects what they raise, so that one problem does not hide the next."""

    def __init__(self) -> None:
        self.problems: list[InvalidValue] = []

    def __call__(self, check: Callable[..., T], value: object, where: str) -> T | None:
        try:
            return check(value, where)
        except InvalidValue as error:
            self.problems.append(error)
            return None

    def wrong(self, where: str, value: object, cure: str) -> None:
        self.problems.append(InvalidValue(where, value, cure))
