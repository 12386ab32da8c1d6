"""Routes of a node that a test adds and removes, over rtnetlink."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any, Final, Literal, TypeAlias, TypeGuard

from vethlib._nl.dependents.route import delete_route, replace_route
from vethlib.errors import InvalidValue, LinkNotFound
from vethlib.links import IPInterface
from vethlib.ns import Netns
from vethlib.topology.sockets import Sockets

__all__ = [
    "IPAddress",
    "IPNetwork",
    "check_address",
    "check_version",
    "closest",
    "is_of_link",
    "parts",
    "preferred",
    "remove",
    "replace",
    "scope_index",
    "socket_address",
]

IPAddress: TypeAlias = IPv4Address | IPv6Address
IPNetwork: TypeAlias = IPv4Network | IPv6Network

_OF_A_NETWORK: Final = (str, IPv4Address, IPv6Address, IPv4Network, IPv6Network)
_ESRCH: Final = errno.ESRCH
_ANYWHERE: Final[dict[int, IPNetwork]] = {4: IPv4Network("0.0.0.0/0"), 6: IPv6Network("::/0")}


def check_address(value: object, field: str) -> IPAddress:
    """Return an address from its text. Raises InvalidValue."""
    try:
        address = ip_address(value if isinstance(value, (str, IPv4Address, IPv6Address)) else "")
    except ValueError:
        raise InvalidValue(field, value, "must be a node or an address, such as 10.0.0.1") from None
    return address


def check_version(version: object) -> Literal[4, 6] | None:
    """Return an IP version, or None for any. Raises InvalidValue."""
    if version is not None and (type(version) is not int or version not in (4, 6)):
        raise InvalidValue("version", version, "must be 4 or 6, or None for that of the other node's first address")
    return version  # type: ignore[return-value]


def is_of_link(address: IPAddress) -> TypeGuard[IPv6Address]:
    """Return whether an address can be used only together with a link."""
    return address.version == 6 and address.is_link_local


def socket_address(address: IPAddress, port: int, index_of: Callable[[str], int], field: str) -> tuple[Any, ...]:
    """Return an address for a socket of a node, with the ifindex of its link, which `index_of` looks up there.

    If it were given the name of the link, the socket module would look that up in the namespace of the caller. Raises
    InvalidValue, with `field`, if the address needs a link and has none.
    """
    if address.version == 4:
        return str(address), port
    if is_of_link(address) and not address.scope_id:
        raise InvalidValue(field, str(address), f"must have the link, as in {address}%eth0: each link has this network")
    return str(address).partition("%")[0], port, 0, scope_index(address, index_of)


def scope_index(address: IPAddress | None, index_of: Callable[[str], int]) -> int:
    """Return the ifindex of the link in an address, given there by name or as a number; 0 if there is none."""
    scope = address.scope_id if isinstance(address, IPv6Address) else None
    if not scope:
        return 0
    try:
        return index_of(scope)
    except LinkNotFound:
        if not (scope.isascii() and scope.isdecimal() and len(scope) < 10):
            raise
        return int(scope)


def preferred(addresses: Sequence[IPInterface]) -> Sequence[IPInterface]:
    """Return the addresses without those that need a link, unless there are no others."""
    return [address for address in addresses if not is_of_link(address.ip)] or addresses


def closest(
    theirs: Sequence[IPInterface], mine: Iterable[IPInterface], version: Literal[4, 6] | None
) -> IPAddress | None:
    """Return the address by which to reach another node: of the version of its first, preferably in a network of mine.

    An address that needs a link is returned only if there are no others.
    """
    theirs = preferred([address for address in theirs if version in (None, address.version)])
    if not theirs:
        return None
    theirs = [address for address in theirs if address.version == theirs[0].version]
    networks = {address.network for address in mine}
    return next((address for address in theirs if address.network in networks), theirs[0]).ip


def parts(
    destination: object, via: Callable[[Literal[4, 6] | None], IPAddress | None], metric: object
) -> tuple[IPNetwork, IPAddress | None, int]:
    """Return the parts of a route, checked; `via` returns the gateway for an IP version. Raises InvalidValue."""
    version: Literal[4, 6] | None = None
    if destination != "default":
        version = 4 if _check_destination(destination, None).version == 4 else 6
    gateway = via(version)
    return _check_destination(destination, gateway), gateway, _check_metric(metric)


def _check_destination(value: object, via: IPAddress | None) -> IPNetwork:
    """Return a network from "10.1.0.0/16", an address, or "default", of the family of `via`. Raises InvalidValue."""
    if value == "default":
        return _ANYWHERE[4 if via is None else via.version]
    try:
        network: IPNetwork = ip_network(value if isinstance(value, _OF_A_NETWORK) else "")
    except ValueError:
        hint = 'must be a network without host bits, such as "10.1.0.0/16" or "10.1.0.9", or "default"'
        raise InvalidValue("destination", value, hint) from None
    if via is not None and network.version != via.version:
        raise InvalidValue("via", str(via), f"must be an IPv{network.version} address, like {network}")
    return network


def _check_metric(value: object) -> int:
    """Return a metric; None is 0, the kernel's default. Raises InvalidValue."""
    if value is None:
        return 0
    if type(value) is not int or not 0 < value <= 0xFFFF_FFFF:
        raise InvalidValue("metric", value, "must be an integer from 1 to 4294967295; the smallest is preferred")
    return value


def replace(node: str, netns: Netns, network: IPNetwork, via: IPAddress | None, index: int, metric: int) -> None:
    """Add a route, or replace the one to the same network with the same metric. Raises NetlinkError."""
    request = replace_route(*_packed(network, via), index, metric)
    with Sockets([node], {node: netns}) as sockets:
        sockets.check(node, f"add the route to {network}{_via(via)}", sockets.exchange(node, [request]))


def remove(
    node: str, netns: Netns, network: IPNetwork, via: IPAddress | None, index: int, metric: int, *, missing_ok: bool
) -> None:
    """Remove the first route that matches what is given. Raises NetlinkError."""
    request = delete_route(*_packed(network, via), index, metric)
    with Sockets([node], {node: netns}) as sockets:
        outcomes = sockets.exchange(node, [request])
        if not (missing_ok and outcomes[0].errno == _ESRCH):
            sockets.check(node, f"remove the route to {network}{_via(via)}", outcomes)


def _packed(network: IPNetwork, via: IPAddress | None) -> tuple[bytes, int, bytes]:
    return network.network_address.packed, network.prefixlen, b"" if via is None else via.packed


def _via(via: IPAddress | None) -> str:
    return "" if via is None else f" via {via}"
