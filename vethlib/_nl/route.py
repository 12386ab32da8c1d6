"""Routes on the wire (struct rtmsg and RTA_* of include/uapi/linux/rtnetlink.h): making static ones."""

from __future__ import annotations

from socket import AF_INET, AF_INET6
from typing import Final

from .const import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_REQUEST,
    RT_SCOPE_UNIVERSE,
    RT_TABLE_MAIN,
    RTA_DST,
    RTA_GATEWAY,
    RTM_NEWROUTE,
    RTN_UNICAST,
    RTPROT_STATIC,
)
from .wire import Part, Template, hole, template_cache

__all__ = ["new_route"]

# struct rtmsg from its fourth byte on: tos, table, protocol, scope, type, flags
_STATIC: Final = bytes([0, RT_TABLE_MAIN, RTPROT_STATIC, RT_SCOPE_UNIVERSE, RTN_UNICAST]) + b"\0\0\0\0"


def new_route(network: bytes, prefixlen: int, gateway: bytes) -> bytes:
    """RTM_NEWROUTE: `network` (4 or 16 bytes; prefix length 0 is the default route) is behind `gateway`.

    In the main table, as static. The kernel finds the link by the gateway, which has to be a neighbour: ENETUNREACH
    or EHOSTUNREACH otherwise (fib_check_nh, net/ipv4/fib_semantics.c; ip6_route_check_nh, net/ipv6/route.c).
    EEXIST: there is a route to this network already.
    """
    return _template(len(gateway)).fill((prefixlen, network, gateway))


@template_cache
def _template(size: int) -> Template:
    family = AF_INET if size == 4 else AF_INET6
    # A default route with RTA_DST all zeros is the same to the kernel as one without.
    parts: list[Part] = [
        bytes([family]),
        "B",
        b"\0",
        _STATIC,
        *hole(RTA_DST, f"{size}s"),
        *hole(RTA_GATEWAY, f"{size}s"),
    ]
    return Template(RTM_NEWROUTE, NLM_F_REQUEST | NLM_F_CREATE | NLM_F_EXCL, parts)
