"""Routes of a node that a test adds and removes, over rtnetlink."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final, Literal, TypeAlias

from vethlib._nl.dependents.route import delete_route, replace_route
from vethlib.errors import InvalidValue
from vethlib.links import IPInterface
from vethlib.ns import Netns

from .sockets import Sockets

__all__ = ["IPAddress", "IPNetwork", "check_address", "closest", "parts", "remove", "replace"]

IPAddress: TypeAlias = IPv4Address | IPv6Address
IPNetwork: TypeAlias = IPv4Network | IPv6Network

_ESRCH: Final = errno.ESRCH
_ANYWHERE: Final[dict[int, IPNetwork]] = {4: IPv4Network("0.0.0.0/0"), 6: IPv6Network("::/0")}


def check_address(value: object, field: str) -> IPAddress:
    """Return an address from its text. Raises InvalidValue."""
    if isinstance(value, (IPv4Address, IPv6Address)):
        return value
    try:
        return ip_address(value) if isinstance(value, str) else ip_address("")
    except ValueError:
        raise InvalidValue(field, value, "must be a node or an address, such as 10.0.0.1") from None


def closest(
    theirs: Sequence[IPInterface], mine: Iterable[IPInterface], version: Literal[4, 6] | None
) -> IPAddress | None:
    """Return the address to reach another node by: of the first one's version, preferably in a network of mine."""
    theirs = [address for address in theirs if version in (None, address.version)]
    if not theirs:
        return None
    theirs = [address for address in theirs if address.version == theirs[0].version]
    networks = {address.network for address in mine}
    return next((address for address in theirs if address.network in networks), theirs[0]).ip


def parts(
    destination: object, via: Callable[[Literal[4, 6] | None], IPAddress | None], index: int, metric: object
) -> tuple[IPNetwork, IPAddress | None, int, int]:
    """Return the parts of a route, checked; `via` returns the gateway for an IP version. Raises InvalidValue."""
    version: Literal[4, 6] | None = None
    if destination != "default":
        version = 4 if _check_destination(destination, None).version == 4 else 6
    gateway = via(version)
    return _check_destination(destination, gateway), gateway, index, _check_metric(metric)


def _check_destination(value: object, via: IPAddress | None) -> IPNetwork:
    """Return a network from "10.1.0.0/16", an address, or "default", of the family of `via`. Raises InvalidValue."""
    if value == "default":
        return _ANYWHERE[4 if via is None else via.version]
    try:
        network: IPNetwork = ip_network(value)  # type: ignore[arg-type]
    except (ValueError, TypeError):
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
