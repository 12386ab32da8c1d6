"""The names of a topology's nodes as text for /etc/hosts."""

from __future__ import annotations

from ipaddress import ip_network

from vethlib.links import IPInterface

from .description import Layout

__all__ = ["hosts"]

_LOCAL = ("127.0.0.1\tlocalhost", "::1\tlocalhost ip6-localhost ip6-loopback")


def hosts(layout: Layout, viewer: str) -> str:
    """Return the text of /etc/hosts for `viewer`: each node with its addresses, the ones closest to it first.

    The order matters: most programs try the first address of a name. Link-local addresses of IPv6 are left out, because
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
