"""Fields that have IPv6 values, which a link without IPv6 cannot have."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from vethlib.errors import InvalidValue

from .checks import IPV6_MIN_MTU, Sysctl

if TYPE_CHECKING:
    from .neighbours import Neighbour
    from .routes import Route

__all__ = ["check_field_of_ipv6", "field_of_ipv6"]


def field_of_ipv6(
    routes: Iterable[Route] = (), neighbours: Iterable[Neighbour] = (), sysctls: Iterable[Sysctl] = ()
) -> str:
    """Return the name of the first of these fields that has an IPv6 value; "" if none has.

    IPv6 settings exist as long as the MTU is large enough, even where IPv6 is disabled.
    """
    if any(route.network.version == 6 for route in routes):
        return "routes"
    if any(neighbour.address.version == 6 for neighbour in neighbours):
        return "neighbours"
    return "sysctls" if any(setting.name.startswith("ipv6.") for setting in sysctls) else ""


def check_field_of_ipv6(
    ipv6: bool | None,
    mtu: int | None,
    routes: Iterable[Route] = (),
    neighbours: Iterable[Neighbour] = (),
    sysctls: Iterable[Sysctl] = (),
) -> None:
    """Raise InvalidValue if a link without IPv6 would have an IPv6 route, neighbour or setting."""
    if ipv6 is False and (field := field_of_ipv6(routes, neighbours)):
        raise InvalidValue("ipv6", ipv6, f"a link without IPv6 cannot have IPv6 values in its {field}")
    if mtu is not None and mtu < IPV6_MIN_MTU and (field := field_of_ipv6(routes, neighbours, sysctls)):
        raise InvalidValue("mtu", mtu, f"IPv6 needs {IPV6_MIN_MTU} bytes: raise the MTU or leave out IPv6 in {field}")
