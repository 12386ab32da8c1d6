"""Links with unexpectedly large messages, as the owner of a namespace may create them."""

from __future__ import annotations

from collections.abc import Iterable
from struct import pack

from tests.live.configuring import quickly
from tests.witness import seen
from vethlib import ns
from vethlib._nl.const import IFLA_INFO_DATA, IFLA_INFO_KIND, IFLA_LINKINFO, NLM_F_REQUEST, RTM_NEWLINK
from vethlib._nl.sock import RtnlSocket
from vethlib._nl.wire import attribute, message

MOST_ALTNAMES = 496  # of 127 bytes; the kernel refuses one more (rtnl_alt_ifname, net/core/rtnetlink.c)

# IFLA_MACVLAN_* and enum macvlan_macaddr_mode of include/uapi/linux/if_link.h
_MACADDR_MODE, _MACADDR, _MACADDR_DATA = 3, 4, 5
_ADD, _SET = 0, 3
_AT_ONCE = 5000


def altnames(count: int, prefix: str = "") -> list[str]:
    """Alternative names of 127 bytes."""
    return [f"{prefix}{number:04d}".ljust(127, "x") for number in range(count)]


def give_altnames(link: str, names: Iterable[str], netns: str = "") -> None:
    quickly(*(f"link property add dev {link} altname {name}" for name in names), netns=netns)


def give_macs(lower: str, count: int, netns: str = "", name: str = "mv") -> None:
    """Create a macvlan on `lower` with `count` source MACs: above 5 460, the length of their nest wraps around."""
    quickly(f"link add {name} link {lower} type macvlan mode source", netns=netns)
    index = seen(name, netns)["ifindex"]
    macs = [attribute(_MACADDR, bytes([2, 0, 0, *number.to_bytes(3, "big")])) for number in range(count)]
    requests = [_set_macvlan(index, _SET, attribute(_MACADDR_DATA, b"".join(macs[:_AT_ONCE])))]
    requests += [_set_macvlan(index, _ADD, mac) for mac in macs[_AT_ONCE:]]
    with ns.entered(netns):
        sock = RtnlSocket()
    try:
        assert {outcome.errno for outcome in sock.exchange(requests)} == {0}
    finally:
        sock.close()


def _set_macvlan(index: int, mode: int, macs: bytes) -> bytes:
    data = attribute(_MACADDR_MODE, pack("=I", mode)) + macs
    info = attribute(IFLA_INFO_KIND, b"macvlan\0") + attribute(IFLA_INFO_DATA, data)
    return message(RTM_NEWLINK, NLM_F_REQUEST, pack("=BxHiII", 0, 0, index, 0, 0) + attribute(IFLA_LINKINFO, info))
