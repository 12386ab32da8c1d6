"""Routes over a link: as given to an end, and as the kernel reports them (:class:`Route`).

1. A route that vethlib adds has the protocol ``PROTO`` (rtm_protocol, include/uapi/linux/rtnetlink.h), by which it is
   recognised later; routes with any other protocol are foreign and never changed.
2. To the kernel, two routes are the same if they have the same destination, metric and table. So a route that differs
   in anything else is removed before its successor is added.
3. If no metric is given, the kernel's default applies: 0 for IPv4, 1024 for IPv6 (IP6_RT_PRIO_USER).
4. A gateway has to be on the link when a route via it is added, and that may require another route, as with
   169.254.1.1/32 on the link and a default route via 169.254.1.1. So routes without a gateway are added before the
   others, and removed after them.
5. If another program appends an IPv6 route with the same destination, metric and table, the kernel reports both as one
   route with several hops and the protocol of the first. The first is the route of vethlib, which is added only if
   there is no other.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    ip_address,
    ip_network,
)
from socket import AF_INET6
from typing import Any, Final, TypeAlias

from vethlib._nl.const import RT_TABLE_MAIN
from vethlib._nl.dependents.route import RouteMessage, change_route
from vethlib._values import KW_ONLY, Value, aside, filler
from vethlib.addresses import IPAddress
from vethlib.errors import InvalidValue

__all__ = [
    "PROTO",
    "IPNetwork",
    "Route",
    "check_routes",
    "in_order",
    "link_of",
    "new_route_requests",
    "route_of",
    "route_requests",
]

PROTO: Final = 118
"""The protocol of routes that vethlib adds."""

IPNetwork: TypeAlias = IPv4Network | IPv6Network

_METRIC: Final = {4: 0, 6: 1024}
_LARGEST_MTU: Final = 65520  # the kernel reduces a larger one to this (ip_metrics_convert, net/ipv4/metrics.c)
_LONGEST: Final = 64  # characters of an address or a network


class Route(Value):
    """A route over a link: ``Route("default", via="10.0.0.1")``, ``Route("10.2.0.0/16", via="10.0.0.1", metric=100)``.

    `destination` is a network, an address or "default". Without a gateway (`via`), it is on the link itself. `metric`
    decides between routes to one destination (the lowest is used), `src` is the source address of packets that do not
    have one yet, `mtu` (bytes) the path MTU, and `table` the number of the routing table (254 is the main table).

    `proto` is the protocol of a route that was read; vethlib always adds them with ``PROTO``.

    Raises :class:`InvalidValue`, with the field "routes", for a value that the kernel would refuse.
    """

    destination: str | IPNetwork
    _: KW_ONLY
    via: str | IPAddress | None = None
    metric: int | None = None
    src: str | IPAddress | None = None
    mtu: int | None = None
    table: int = RT_TABLE_MAIN
    proto: int = aside(default=PROTO)

    def __post_init__(self) -> None:
        via, src = _address(self.via, "via"), _address(self.src, "src")
        network = _network(self.destination, via or src)
        version = network.version
        _set(self, "destination", network)
        _set(self, "via", via)
        _set(self, "src", src)
        if via is not None and via.version != version:
            raise InvalidValue("routes", str(via), f"via must be of the same family as {network}")
        if src is not None and src.version != version:
            raise InvalidValue("routes", str(src), f"src must be of the same family as {network}")
        for address in (network.network_address, via, src):
            if getattr(address, "scope_id", None) is not None:
                raise InvalidValue("routes", str(address), "an address of a route has no %scope: the link is the scope")
        for address in (via, src):
            if address is not None and address.is_unspecified:
                raise InvalidValue("routes", str(address), "via and src must be the address of a host, or left out")
        if self.metric is not None:
            _number(self.metric, "metric", 0, 0xFFFF_FFFF)
        # To the kernel, a metric of 0 means its default (rule 3).
        _set(self, "metric", self.metric or _METRIC[version])
        if self.mtu is not None:
            _number(self.mtu, "mtu", 68 if version == 4 else 1280, 65535)
            _set(self, "mtu", min(self.mtu, _LARGEST_MTU))
        _number(self.table, "table", 1, 0xFFFF_FFFF)

    @property
    def network(self) -> IPNetwork:
        """The destination as an ``ipaddress`` network."""
        return self.destination  # type: ignore[return-value]

    @property
    def gateway(self) -> IPAddress | None:
        """The gateway as an ``ipaddress`` address; None if the destination is on the link."""
        return self.via  # type: ignore[return-value]

    @property
    def source(self) -> IPAddress | None:
        """The source address as an ``ipaddress`` address, if there is one."""
        return self.src  # type: ignore[return-value]

    def __str__(self) -> str:
        """Format as ``ip route`` does: ``default via 10.0.0.1 metric 100``."""
        network = self.network
        words = ["default" if not network.prefixlen else _shortest(network)]
        if not network.prefixlen and network.version == 6 and self.via is None:
            words = ["::/0"]
        words += ["via", str(self.via)] if self.via is not None else []
        words += ["metric", str(self.metric)] if self.metric != _METRIC[network.version] else []
        words += ["src", str(self.src)] if self.src is not None else []
        words += ["mtu", str(self.mtu)] if self.mtu is not None else []
        words += ["table", str(self.table)] if self.table != RT_TABLE_MAIN else []
        return " ".join(words)

    def as_dict(self) -> dict[str, Any]:
        """Return the route as in the northbound model: ``{"dst": "0.0.0.0/0", "via": "10.0.0.1", "metric": 100}``."""
        fields: dict[str, Any] = {"dst": str(self.network)}
        fields |= {name: str(value) for name in ("via", "src") if (value := getattr(self, name)) is not None}
        if self.metric != _METRIC[self.network.version]:
            fields["metric"] = self.metric
        if self.mtu is not None:
            fields["mtu"] = self.mtu
        if self.table != RT_TABLE_MAIN:
            fields["table"] = self.table
        return fields


_set = object.__setattr__

# The same texts occur again and again: networks in every namespace, a gateway in each of its routes.
_read_network = lru_cache(maxsize=1024)(ip_network)
_read_address = lru_cache(maxsize=1024)(ip_address)


def _shortest(network: IPNetwork) -> str:
    return str(network.network_address) if network.prefixlen == network.max_prefixlen else str(network)


def _network(given: object, near: IPAddress | None) -> IPNetwork:
    if given == "default":
        return _read_network("::/0" if near is not None and near.version == 6 else "0.0.0.0/0")
    if isinstance(given, IPv4Network | IPv6Network):
        return given
    if isinstance(given, str) and len(given) <= _LONGEST:
        try:
            return _read_network(given)
        except ValueError:
            pass
        try:
            network = ip_network(given, strict=False)
        except ValueError:
            pass
        else:
            raise InvalidValue("routes", given, f"has host bits: the destination must be {network}")
    raise InvalidValue("routes", given, 'a destination must be a network such as 10.1.0.0/16, or "default"')


def _address(given: object, name: str) -> IPAddress | None:
    if isinstance(given, IPv4Interface | IPv6Interface):
        return given.ip
    if given is None or isinstance(given, IPv4Address | IPv6Address):
        return given
    if isinstance(given, str) and len(given) <= _LONGEST:
        try:
            return _read_address(given)
        except ValueError:
            pass
    raise InvalidValue("routes", given, f"{name} must be an address, such as 10.0.0.1 or fd00::1")


def _number(value: object, name: str, low: int, high: int) -> None:
    if type(value) is not int or not low <= value <= high:
        raise InvalidValue("routes", value, f"{name} must be a number from {low} to {high}")


def check_routes(routes: Iterable[Route | Mapping[str, Any]], field: str = "routes") -> tuple[Route, ...]:
    """Return routes, each given as a :class:`Route` or as in the northbound model, sorted and without duplicates.

    Raises InvalidValue, also for two routes that are the same to the kernel (rule 2).
    """
    if isinstance(routes, str | Mapping) or not isinstance(routes, Iterable):
        raise InvalidValue(field, routes, 'must be a list of routes, such as [Route("default", via="10.0.0.1")]')
    checked: dict[tuple[int, ...], Route] = {}
    for given in routes:
        route = _from_dict(given, field) if isinstance(given, Mapping) else given
        if not isinstance(route, Route):
            raise InvalidValue(field, given, 'must be a Route, such as Route("default", via="10.0.0.1")')
        key = _key(route)
        if (first := checked.setdefault(key, route)) is not route and first != route:
            raise InvalidValue(field, str(route), f"{first} has the same destination, metric and table")
    return tuple([checked[key] for key in sorted(checked)])


_KEYS: Final = {"dst": "destination", **{name: name for name in ("via", "metric", "src", "mtu", "table")}}


def _from_dict(given: Mapping[str, Any], field: str) -> Route:
    for key in given:
        if key not in _KEYS:
            raise InvalidValue(field, key, f"a route has the keys {', '.join(_KEYS)}")
    # In protobuf, a field that is not given is 0 or "".
    fields = {_KEYS[key]: value for key, value in given.items() if value not in (None, "", 0)}
    if "destination" not in fields:
        raise InvalidValue(field, "", "a route needs a dst, such as 0.0.0.0/0")
    return Route(**fields)


def _key(route: Route) -> tuple[int, ...]:
    """Return what identifies a route to the kernel (rule 2); routes are also sorted by it."""
    network = route.network
    return network.version, route.table, int(network.network_address), network.prefixlen, route.metric or 0


def in_order(routes: Iterable[Route]) -> tuple[Route, ...]:
    """Return routes that were read, in the same order as given routes, and without duplicates.

    Other programs may add what :func:`check_routes` refuses: two routes that differ only in their gateways
    (NLM_F_APPEND).
    """
    return tuple(sorted(dict.fromkeys(routes), key=_key))


_route = filler(Route)  # The kernel has routes that a Route refuses, such as one with an MTU of 50.


def link_of(message: RouteMessage) -> int:
    """Return the ifindex of the link that a route leads over; 0 for no link, and for IPv4 routes with several hops."""
    if not message.next_hops:
        return message.ifindex
    return message.next_hops[0] if message.family == AF_INET6 else 0


def route_of(message: RouteMessage) -> Route | None:
    """Return a route that was read; None if no :class:`Route` describes it, as with several hops of IPv4.

    For an IPv6 route with several hops, the first is returned (rule 5).
    """
    if message.is_special or not link_of(message):
        return None
    gateway = message.gateway or message.first_gateway
    version = 6 if message.family == AF_INET6 else 4
    network = ip_network((message.network or bytes(16 if version == 6 else 4), message.prefixlen))
    if network.version != version:
        return None
    return _route(
        network,
        ip_address(gateway) if gateway else None,
        message.metric or _METRIC[version],
        ip_address(message.source) if message.source else None,
        message.mtu or None,
        message.table or RT_TABLE_MAIN,
        message.protocol,
    )


def new_route_requests(index: int, wanted: Iterable[Route]) -> Iterator[tuple[Route, bytes]]:
    """Yield the message for each route over a link that has no routes yet."""
    for route in _on_link_first(wanted):
        yield route, _message(index, route, add=True)


def route_requests(
    index: int, present: Sequence[Route], wanted: Sequence[Route]
) -> Iterator[tuple[str, bytes, tuple[int, ...], int]]:
    """Yield the changes from the routes of vethlib that a link has to the desired ones, removals first.

    Each has a text, the message, the errnos that mean that it was unnecessary, and, if it adds a route, the IP version.
    """
    there, kept = set(present), set(wanted)
    for route in reversed(_on_link_first(route for route in present if route not in kept)):
        yield f"no route {route}", _message(index, route, add=False), _GONE, 0
    for route in _on_link_first(route for route in wanted if route not in there):
        yield f"route {route}", _message(index, route, add=True), (), route.network.version


def _on_link_first(routes: Iterable[Route]) -> list[Route]:
    """Return routes in the order in which they can be added (rule 4)."""
    return sorted(routes, key=lambda route: route.via is not None)


# ESRCH: another program has removed it, or the kernel has, with the address that is its source.
_GONE: Final = (errno.ESRCH,)


def _message(index: int, route: Route, *, add: bool) -> bytes:
    network, metric = route.network, route.metric
    assert metric is not None
    return change_route(
        network.network_address.packed,
        network.prefixlen,
        b"" if route.gateway is None else route.gateway.packed,
        index,
        metric,
        add=add,
        source=b"" if route.source is None else route.source.packed,
        mtu=route.mtu or 0,
        table=route.table,
        protocol=PROTO,
    )
