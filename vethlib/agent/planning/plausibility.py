"""Warnings about parts of a configuration that are valid but probably mistakes; they change no state. Pure.

The rules, each with the code of its warnings:

- same-address: both ends of a pair have the same address, so neither reaches the other.
- no-common-subnet: both ends have addresses of a family, and no two of them are in the same subnet. Link-local IPv6
  addresses do not count: the kernel gives them to every end.
- same-mac: both ends have the same MAC address.
- mtu-mismatch: the ends have different MTUs, so packets between the two sizes are lost.
- not-enabled: one end of a pair is enabled and the other is not; or neither is, unless both are disabled explicitly.
- similar-netns: a namespace that few interfaces use has a name that differs from another one by one letter. The name of
  a namespace that does not exist is enough to create it.
- similar-peer: the peer is not configured, and another interface that names this one as its peer has a name that
  differs by one letter.
- addresses-ignored: an interface has addresses, and link_only, with which addresses are left alone.
- unread-field: a field of a namespace is set, but its type selects another field.
- configured-twice: another file configures the interface, too.
- former-key: a key that only clients of older agents write.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from vethlib import links
from vethlib.addresses import identity_of
from vethlib.agent.config.model import Interface
from vethlib.agent.config.similar import SimilarNames, are_similar, shape_of

from .compare import DEFAULT_MTU

__all__ = ["ConfigWarning", "Plausibility", "lookalike", "pair_warnings", "similar_netns", "warnings_of"]

_FEW: Final = 2  # interfaces that use a namespace whose name may be a typing error
_SHOWN: Final = 3  # addresses in a message
_NAMING: Final = 64  # interfaces compared that have the same peer; there may be thousands
_EXISTING: Final = 1000  # namespaces of a host that are compared
_COMPARED: Final = 256  # addresses of an end whose subnets are compared


@dataclass(frozen=True, slots=True)
class ConfigWarning:
    """A part of the configuration that is valid but probably a mistake.

    `code` is one of those above, `interfaces` are the names of the interfaces concerned, in order, `fields` are the
    fields, and `message` describes it for people.
    """

    code: str
    interfaces: tuple[str, ...]
    fields: tuple[str, ...]
    message: str

    def __str__(self) -> str:
        return self.message

    def as_dict(self) -> dict[str, Any]:
        """Return the warning for JSON."""
        return {
            "code": self.code,
            "interfaces": list(self.interfaces),
            "fields": list(self.fields),
            "message": self.message,
        }


class Plausibility:
    """The warnings about interfaces that are added and removed.

    `interfaces` are the present ones, by name. `naming` returns the names of the interfaces whose peer has a name, and
    `at` those of the interfaces with a namespace reference. `invalid` are the names whose values are not valid.
    """

    def __init__(
        self,
        interfaces: Mapping[str, Interface],
        naming: Callable[[str], Iterable[str]],
        at: Callable[[str], Iterable[str]],
        invalid: Container[str] = (),
    ) -> None:
        self._interfaces = interfaces
        self._naming = naming
        self._at = at
        self._invalid = invalid
        self._netns = SimilarNames()

    def add(self, interface: Interface) -> list[str]:
        """Add an interface; return the names of other namespaces whose warnings may have changed."""
        name = interface.namespace.name
        return self._netns.like(name) if name and self._netns.add(name) else []

    def remove(self, interface: Interface) -> list[str]:
        """Remove an interface; return what :meth:`add` returns."""
        name = interface.namespace.name
        return self._netns.like(name) if name and self._netns.discard(name) else []

    def of(self, name: str) -> tuple[ConfigWarning, ...]:
        """Return the warnings about an interface; () if there is none of that name."""
        interface = self._interfaces.get(name)
        if interface is None:
            return ()
        remarks = (ConfigWarning(code, (name,), fields, f"{name}: {text}") for code, fields, text in interface.remarks)
        return (*remarks, *self.among_others(interface))

    def among_others(self, interface: Interface) -> Iterator[ConfigWarning]:
        """Yield the warnings about an interface that follow from other interfaces."""
        peer = self._interfaces.get(interface.peer_if_name)
        if peer is None:
            if interface.peer_if_name not in self._invalid:
                yield from self._similar_peer(interface)
        elif peer.peer_if_name == interface.name:
            yield from pair_warnings(*((interface, peer) if interface.name < peer.name else (peer, interface)))
        yield from self._similar_netns(interface)

    def _similar_peer(self, interface: Interface) -> Iterator[ConfigWarning]:
        own, missing = interface.name, interface.peer_if_name
        shape = shape_of(missing)
        for name in sorted(islice(self._naming(own), _NAMING)):
            other = shape_of(name)
            if other != shape and are_similar(shape, other):
                message = f"{own}: its peer {missing} is not configured, but {name} is, and has {own} as its peer"
                yield ConfigWarning("similar-peer", (own, name), ("veth.peer_if_name",), message)
                return

    def _similar_netns(self, interface: Interface) -> Iterator[ConfigWarning]:
        name = interface.namespace.name
        uses = self._netns.uses(name) if name else _FEW + 1
        if uses > _FEW:
            return
        for other in self._netns.like(name):
            uses_of_other = self._netns.uses(other)
            if uses < uses_of_other:
                yield similar_netns(self._at(f"netns:{name}"), name, other)
                return
            if uses == uses_of_other:  # either may be wrong
                both = {*self._at(f"netns:{name}"), *self._at(f"netns:{other}")}
                yield similar_netns(both, *sorted((name, other)))
                return


def warnings_of(interfaces: Mapping[str, Interface], invalid: Container[str] = ()) -> list[ConfigWarning]:
    """Return the warnings about a configuration, each once, by the names of the interfaces.

    `invalid` are the names whose values are not valid.

    Warnings that follow from one value alone are in :attr:`Parsed.warnings`.
    """
    naming: dict[str, list[str]] = {}
    at: dict[str, list[str]] = {}
    for interface in interfaces.values():
        naming.setdefault(interface.peer_if_name, []).append(interface.name)
        at.setdefault(interface.namespace.ref, []).append(interface.name)
    plausibility = Plausibility(interfaces, lambda name: naming.get(name, ()), lambda ref: at.get(ref, ()), invalid)
    for interface in interfaces.values():
        plausibility.add(interface)
    return list(
        dict.fromkeys(each for name in sorted(interfaces) for each in plausibility.among_others(interfaces[name]))
    )


def similar_netns(interfaces: Iterable[str], name: str, other: str) -> ConfigWarning:
    """Return the warning about interfaces whose namespace has nearly the same name as another one."""
    names = tuple(sorted(interfaces))
    message = (
        f"{', '.join(names)}: the name of the namespace {name} differs from {other} by one letter: is that intended?"
    )
    return ConfigWarning("similar-netns", names, ("namespace.name",), message)


def lookalike(name: str, existing: Iterable[str]) -> str:
    """Return the existing namespace with nearly the same name as a new one; "" if there is none."""
    names = SimilarNames()
    for other in islice(existing, _EXISTING):
        names.add(other)
    return next(iter(names.like(name)), "")


def pair_warnings(a: Interface, b: Interface) -> Iterator[ConfigWarning]:
    """Yield the warnings about two interfaces that form a pair."""
    both = a.name, b.name
    if a.phys_address and a.phys_address == b.phys_address:
        message = f"{a.name} and {b.name} both have the MAC address {a.phys_address}: configure different ones"
        yield ConfigWarning("same-mac", both, ("phys_address",), message)
    yield from _mtu_warnings(a, b)
    yield from _enabled_warnings(a, b)
    if a.addresses and b.addresses and not a.link_only and not b.link_only:
        yield from _address_warnings(a, b)


def _mtu_warnings(a: Interface, b: Interface) -> Iterator[ConfigWarning]:
    mtus = a.mtu or DEFAULT_MTU, b.mtu or DEFAULT_MTU
    if mtus[0] != mtus[1]:
        shown = [f"{mtu}{'' if end.mtu else ' (the default)'}" for end, mtu in zip((a, b), mtus, strict=True)]
        message = f"{a.name} has the MTU {shown[0]}, {b.name} {shown[1]}: packets above {min(mtus)} bytes are lost"
        yield ConfigWarning("mtu-mismatch", (a.name, b.name), ("mtu",), message)


def _enabled_warnings(a: Interface, b: Interface) -> Iterator[ConfigWarning]:
    if a.enabled and b.enabled:
        return
    if a.enabled or b.enabled:
        on, off = (a, b) if a.enabled else (b, a)
        message = f"{off.name} is not enabled, so {on.name} has no carrier"
    elif "enabled" in a.explicit and "enabled" in b.explicit:
        return
    else:
        message = f"neither {a.name} nor {b.name} is enabled: both stay down"
    yield ConfigWarning("not-enabled", (a.name, b.name), ("enabled",), message)


def _address_warnings(a: Interface, b: Interface) -> Iterator[ConfigWarning]:
    first, other = a.addresses[0], b.addresses[0]
    if len(a.addresses) == len(b.addresses) == 1 and first.network == other.network and int(first) != int(other):
        return  # most pairs, which need no warning
    if same := set(map(_ip, a.addresses)) & set(map(_ip, b.addresses)):
        shown = [str(address.ip) for address in a.addresses if _ip(address) in same]
        more = f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
        message = f"{a.name} and {b.name} both have {', '.join(shown[:_SHOWN])}{more}: configure different ones"
        yield ConfigWarning("same-address", (a.name, b.name), ("ip_addresses",), message)
    for version in (4, 6):
        at_a, at_b = ([each for each in end.addresses if _counts(each, version)] for end in (a, b))
        if _are_apart(at_a, at_b):
            message = (
                f"{a.name} ({at_a[0]}) and {b.name} ({at_b[0]}) have no IPv{version} subnet in common: "
                "without routes, they cannot reach each other"
            )
            yield ConfigWarning("no-common-subnet", (a.name, b.name), ("ip_addresses",), message)


def _ip(address: links.Interface) -> tuple[int, int]:
    # An address object of `ipaddress` takes ten times as long to create and to hash.
    return address.version, int(address)


def _counts(address: links.Interface, version: int) -> bool:
    # The other end may have the address of a peer.
    if identity_of(address)[1] is not None:
        return False
    return address.version == version and not (version == 6 and address.is_link_local)


def _are_apart(at_a: Sequence[links.Interface], at_b: Sequence[links.Interface]) -> bool:
    """Return whether both ends have addresses, and no two of them are in each other's subnet."""
    if not at_a or not at_b or len(at_a) > _COMPARED or len(at_b) > _COMPARED:
        return False
    if at_a[0].network == at_b[0].network:
        return False
    return not (_shares_subnet(at_a, at_b) or _shares_subnet(at_b, at_a))


def _shares_subnet(wide: Sequence[links.Interface], narrow: Sequence[links.Interface]) -> bool:
    """Return whether an address of `wide`, whose subnet is no narrower, is in the subnet of an address of `narrow`."""
    subnets: dict[int, set[int]] = {}  # by prefix length: the candidates of `wide`, as network numbers
    for address in narrow:
        length, shift = address.network.prefixlen, address.max_prefixlen - address.network.prefixlen
        if length not in subnets:
            subnets[length] = {int(other) >> shift for other in wide if other.network.prefixlen <= length}
        if int(address) >> shift in subnets[length]:
            return True
    return False
