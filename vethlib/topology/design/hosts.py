"""The names of a topology's nodes as text for /etc/hosts."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_network
from socket import inet_aton

from vethlib.errors import InvalidValue
from vethlib.links import IPInterface

from .description import Layout, Member

__all__ = ["check_host_names", "hosts"]

_LOCAL = ("127.0.0.1\tlocalhost", "::1\tlocalhost ip6-localhost ip6-loopback")
_OWN = {name for line in _LOCAL for name in line.split()[1:]}


def check_host_names(members: Iterable[Member]) -> None:
    """Check that each node can be found by its name. Raises InvalidValue if the name leads elsewhere.

    In host names, letter case and a final dot are not significant. Programs do not look numbers up in /etc/hosts,
    because they take them for IPv4 addresses, and many programs do not look up names below localhost (RFC 6761).
    """
    nodes: dict[str, str] = {}
    for member in members:
        if member.kind == "switch":  # a switch has no addresses, and so is not listed
            continue
        name = member.name.lower().rstrip(".")
        if name in _OWN or name.endswith(".localhost"):
            hint = "with hosts=True, must not be a name of localhost, which means each node itself: rename the node"
            raise InvalidValue("topology", member.name, hint)
        if _is_address(name):
            hint = "with hosts=True, must not be a number, which programs take for an IPv4 address: rename the node"
            raise InvalidValue("topology", member.name, hint)
        if (other := nodes.setdefault(name, member.name)) != member.name:
            hint = f"with hosts=True, must differ from {other} in more than letter case and a final dot: rename one"
            raise InvalidValue("topology", member.name, hint)


def _is_address(name: str) -> bool:
    try:
        inet_aton(name)
    except OSError:
        return False
    return True


def hosts(layout: Layout, viewer: str) -> str:
    """Return the text of /etc/hosts for `viewer`: each node with its addresses, the ones closest to it first.

    The order matters: most programs try the first address of a name. IPv6 link-local addresses are left out, because
    programs cannot use them without a link.
    """
    addresses: dict[str, list[IPInterface]] = {member.name: [] for member in layout.members}
    for wire in layout.wires:
        for port in (wire.a, wire.b):
            addresses[port.node].extend(port.addresses or ())
    near = {ip_network(address.network) for address in addresses[viewer]}
    lines = [
        f"{address.ip}\t{name}"
        for name, those in addresses.items()
        for address in sorted(those, key=lambda address: address.network not in near)
        if not (address.version == 6 and address.ip.is_link_local)
    ]
    return "\n".join([*_LOCAL, *lines, ""])
