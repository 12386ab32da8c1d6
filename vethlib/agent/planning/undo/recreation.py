"""Creating a deleted pair again, as it was observed."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import replace
from typing import Any, Literal

from vethlib import links
from vethlib._values import replace as replace_value
from vethlib.agent.config.mark import ADDRESS_PROTO, Mark, read_alias
from vethlib.agent.config.model import Interface
from vethlib.agent.config.namespace import Namespace
from vethlib.agent.planning.observed import SeenLink
from vethlib.agent.planning.operations import CreatePair, DeletePair
from vethlib.endfields.newaddress import as_given
from vethlib.endfields.table import SYSCTLS
from vethlib.errors import InvalidValue
from vethlib.links import End, Veth, describe

__all__ = ["creation", "without_altnames"]


def creation(a: SeenLink, b: SeenLink, delete: DeletePair) -> CreatePair:
    """Return the creation of a pair like these two ends. Raises InvalidValue if their owner is unknown."""
    marks = []
    for end in (a, b):
        mark = dict(delete.marks).get(end.id) or read_alias(end.link.alias)
        if mark is None:
            raise InvalidValue("alias", end.link.alias, f"{describe(end.link.name, end.ref)} has no owner mark")
        marks.append(mark)
    ends = _end(a), _end(b)
    return CreatePair(
        _interface(a, marks[0], marks[1], ends[0]), _interface(b, marks[1], marks[0], ends[1]), Veth(*ends)
    )


def without_altnames(create: CreatePair, end: Literal["a", "b"], names: Container[str]) -> CreatePair:
    """Return the creation of a pair, one end of which does not get these alternative names."""
    interface: Interface = getattr(create, end)
    altnames = tuple(name for name in interface.altnames if name not in names)
    given = replace_value(getattr(create.veth, end), altnames=altnames)
    veth = replace_value(create.veth, **{end: given})
    return replace(create, veth=veth, **{end: replace(interface, altnames=altnames)})


def _end(seen: SeenLink) -> End:
    link = seen.link
    return End(
        link.name,
        seen.ref,
        mac=link.mac,
        mtu=link.mtu,
        addresses=_addresses(seen),
        up=link.up,
        num_queues=link.num_queues or None,
        alias=link.alias,
        group=link.group,
        address_proto=ADDRESS_PROTO,
        ipv6=link.ipv6,
        **{"altnames": link.altnames, **_further(seen)},
    )


def _further(seen: SeenLink) -> dict[str, Any]:
    """Return the fields that no :class:`Link` has, without settings that the link did not have."""
    further = dict(seen.further)
    if SYSCTLS in further:
        further[SYSCTLS] = tuple(setting for setting in further[SYSCTLS] if setting.value)
    return further


def _addresses(seen: SeenLink) -> tuple[links.Interface, ...]:
    """Return the addresses that the agent has added, in order."""
    return tuple(as_given(each, seen.link.name) for each in seen.addresses if each.proto == ADDRESS_PROTO)


def _interface(seen: SeenLink, mark: Mark, peer: Mark, end: End) -> Interface:
    return Interface(
        mark.name,
        peer.name,
        enabled=end.up,
        phys_address=seen.link.mac if mark.mac else "",
        mtu=seen.link.mtu,
        ip_addresses=tuple(map(str, end.interfaces)),
        namespace=Namespace.at(seen.ref),
        host_if_name=seen.link.name,
        num_queues=seen.link.num_queues,
        ipv6=end.ipv6,
        **end.further,
    )
