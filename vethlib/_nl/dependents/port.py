"""The settings of a port of a bridge: read from the message of its link, and sent again as they were.

The kernel forgets them when the link leaves its bridge, even for a moment (del_nbp, net/bridge/br_if.c).
"""

from __future__ import annotations

from struct import Struct
from typing import Final

from vethlib._nl.const import (
    AF_BRIDGE,
    IFLA_BRPORT_BACKUP_NHID,
    IFLA_BRPORT_LOCKED,
    IFLA_BRPORT_MAB,
    IFLA_BRPORT_MCAST_EHT_HOSTS_LIMIT,
    IFLA_BRPORT_MCAST_FLOOD,
    IFLA_BRPORT_MCAST_MAX_GROUPS,
    IFLA_BRPORT_MRP_RING_OPEN,
    IFLA_BRPORT_MULTICAST_ROUTER,
    IFLA_BRPORT_NEIGH_VLAN_SUPPRESS,
    IFLA_BRPORT_PRIORITY,
    IFLA_BRPORT_ROOT_ID,
    IFLA_INFO_SLAVE_DATA,
    IFLA_INFO_SLAVE_KIND,
    IFLA_LINKINFO,
    IFLA_PROTINFO,
    NLA_F_NESTED,
    NLM_F_REQUEST,
    RTM_SETLINK,
)
from vethlib._nl.wire import attribute, attributes, attributes_of, message
from vethlib.errors import Malformed

__all__ = ["port_settings", "set_port"]

_IFINFOMSG: Final = Struct("=BxHiII")  # family, type, ifindex, flags, change

# Those that br_setport sets (net/bridge/br_netlink.c), except the state, which the bridge decides, and FLUSH, which is
# a command; all others are only reported. A cost that was set no longer follows the speed of the link.
_SETTINGS: Final = frozenset(
    (
        *range(IFLA_BRPORT_PRIORITY, IFLA_BRPORT_ROOT_ID),
        IFLA_BRPORT_MULTICAST_ROUTER,
        *range(IFLA_BRPORT_MCAST_FLOOD, IFLA_BRPORT_MRP_RING_OPEN),
        IFLA_BRPORT_MCAST_EHT_HOSTS_LIMIT,
        IFLA_BRPORT_LOCKED,
        IFLA_BRPORT_MAB,
        IFLA_BRPORT_MCAST_MAX_GROUPS,
        IFLA_BRPORT_NEIGH_VLAN_SUPPRESS,
        IFLA_BRPORT_BACKUP_NHID,
    )
)


def port_settings(body: bytes) -> bytes:
    """Return the settings in an RTM_NEWLINK, as attributes; b"" if it is not a bridge port. Raises Malformed."""
    kind, settings = b"", b""
    for attr, start, end in attributes_of(body, _IFINFOMSG.size):
        if attr == IFLA_LINKINFO:
            try:
                for inner, at, to in attributes(body, start, end):
                    if inner == IFLA_INFO_SLAVE_KIND:
                        kind = body[at:to].rstrip(b"\0")
                    elif inner == IFLA_INFO_SLAVE_DATA:
                        settings = _settings(body[at:to])
            except Malformed:
                return b""  # IFLA_LINKINFO itself may be cut (see wire.py, rule 6)
    return settings if kind == b"bridge" else b""


def _settings(data: bytes) -> bytes:
    found = attributes(data, 0, len(data))
    return b"".join(attribute(attr, data[start:end]) for attr, start, end in found if attr in _SETTINGS)


def set_port(index: int, settings: bytes) -> bytes:
    """RTM_SETLINK: give link `index`, which is a port of a bridge, the settings that were read."""
    body = _IFINFOMSG.pack(AF_BRIDGE, 0, index, 0, 0) + attribute(IFLA_PROTINFO | NLA_F_NESTED, settings)
    return message(RTM_SETLINK, NLM_F_REQUEST, body)
