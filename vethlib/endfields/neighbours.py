"""Permanent neighbours over a link: as given to an end, and as the kernel reports them (:class:`Neighbour`).

1. A neighbour that vethlib adds has the protocol ``PROTO`` (NDA_PROTOCOL, Linux 5.0), by which it is recognised later;
   others are never removed.
2. A link has one neighbour per address. So a given neighbour replaces any other with its address, no matter who added
   it; if the change is undone, the other is restored as it was. An equal neighbour stays as it is, with its owner.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator, Mapping, Sequence
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface, ip_address
from typing import Any, Final

from vethlib._nl.dependents.neighbour import NeighbourMessage, del_neighbour, new_neighbour
from vethlib._values import Value, aside
from vethlib.addresses import IPAddress
from vethlib.errors import InvalidValue

from .checks import check_hardware_address

__all__ = ["PROTO", "Neighbour", "check_given", "check_neighbours", "neighbour_of", "neighbour_requests"]

PROTO: Final = 118
"""The protocol of neighbours that vethlib adds."""

_LONGEST: Final = 64  # characters of an address


class Neighbour(Value):
    """A permanent neighbour over a link: ``Neighbour("10.0.0.9", "02:00:00:00:00:09")``.

    The link never asks who has the address `ip` (by ARP or neighbour discovery), and never forgets it.

    `proto` is the protocol of a neighbour that was read; vethlib adds them with ``PROTO``.

    Raises :class:`InvalidValue`, with the field "neighbours", for a value that the kernel would refuse.
    """

    ip: str | IPAddress
    mac: str
    proto: int = aside(default=PROTO)

    def __post_init__(self) -> None:
        object.__setattr__(self, "ip", _address(self.ip))
        object.__setattr__(self, "mac", check_hardware_address(self.mac, "neighbours"))
        if type(self.proto) is not int or not 0 <= self.proto <= 255:
            raise InvalidValue("neighbours", self.proto, "proto must be a number from 0 to 255")

    @property
    def address(self) -> IPAddress:
        """The IP address as an ``ipaddress`` address."""
        return self.ip  # type: ignore[return-value]

    def __str__(self) -> str:
        """Format as ``ip neighbour`` does: ``10.0.0.9 lladdr 02:00:00:00:00:09``."""
        return f"{self.ip} lladdr {self.mac}"

    def as_dict(self) -> dict[str, Any]:
        """Return the neighbour as in the northbound model: ``{"ip": "10.0.0.9", "mac": "02:00:00:00:00:09"}``."""
        return {"ip": str(self.ip), "mac": self.mac}


def _address(given: object) -> IPAddress:
    if isinstance(given, str) and len(given) <= _LONGEST:
        try:
            given = ip_address(given)
        except ValueError:
            pass
    if isinstance(given, IPv4Interface | IPv6Interface):
        given = given.ip
    if not isinstance(given, IPv4Address | IPv6Address):
        raise InvalidValue("neighbours", given, "ip must be an address without a prefix length, such as 10.0.0.9")
    if given.is_unspecified or given.is_multicast:
        raise InvalidValue(
            "neighbours",
            str(given),
            "an unspecified or multicast address does not belong to one host: give a unicast address",
        )
    if isinstance(given, IPv6Address) and given.scope_id is not None:
        raise InvalidValue("neighbours", str(given), "leave out the %scope: the link is the scope")
    return given


def check_neighbours(
    neighbours: Iterable[Neighbour | Mapping[str, Any]], field: str = "neighbours"
) -> tuple[Neighbour, ...]:
    """Return neighbours, each given as :class:`Neighbour` or as in the northbound model, sorted and without duplicates.

    Raises InvalidValue, also for an address with two MAC addresses.
    """
    if isinstance(neighbours, str | Mapping) or not isinstance(neighbours, Iterable):
        hint = 'must be a list of neighbours, such as [Neighbour("10.0.0.9", "02:00:00:00:00:09")]'
        raise InvalidValue(field, neighbours, hint)
    checked: dict[IPAddress, Neighbour] = {}
    for given in neighbours:
        neighbour = _from_dict(given, field) if isinstance(given, Mapping) else given
        if not isinstance(neighbour, Neighbour):
            raise InvalidValue(field, given, 'must be a Neighbour, such as Neighbour("10.0.0.9", "02:00:00:00:00:09")')
        first = checked.setdefault(neighbour.address, neighbour)
        if first != neighbour:
            raise InvalidValue(field, str(neighbour), f"{first} has the same address: give each address once")
    return tuple(sorted(checked.values(), key=lambda each: (each.address.version, each.address.packed)))


def check_given(neighbours: Iterable[Neighbour | Mapping[str, Any]], field: str) -> tuple[Neighbour, ...]:
    """Check neighbours that are to be added: like :func:`check_neighbours`, but each gets the protocol of vethlib.

    A caller may pass neighbours that were read, including those of other programs, which would otherwise be added with
    the protocol of the other program.
    """
    return tuple([_as_ours(neighbour) for neighbour in check_neighbours(neighbours, field)])


def _as_ours(neighbour: Neighbour) -> Neighbour:
    return neighbour if neighbour.proto == PROTO else Neighbour(neighbour.ip, neighbour.mac)


def _from_dict(given: Mapping[str, Any], field: str) -> Neighbour:
    for key in given:
        if key not in ("ip", "mac"):
            raise InvalidValue(field, key, "a neighbour has the keys ip, mac")
    for key in ("ip", "mac"):
        if not given.get(key):
            raise InvalidValue(field, dict(given), f"a neighbour needs the key {key}, as in {_EXAMPLE}")
    return Neighbour(given["ip"], given["mac"])


_EXAMPLE: Final = '{"ip": "10.0.0.9", "mac": "02:00:00:00:00:09"}'


def neighbour_of(message: NeighbourMessage) -> Neighbour | None:
    """Return a permanent neighbour that was read; None for others, and for any that :class:`Neighbour` refuses."""
    if not message.is_permanent or len(message.address) not in (4, 16) or len(message.mac) != 6:
        return None
    try:
        return Neighbour(ip_address(message.address), message.mac.hex(":"), message.protocol)
    except InvalidValue:
        return None


def neighbour_requests(
    index: int, present: Sequence[Neighbour], wanted: Sequence[Neighbour]
) -> Iterator[tuple[str, bytes, tuple[int, ...], int]]:
    """Yield the changes from a link's present neighbours, as far as they may be changed, to the desired ones.

    Each has a text, the message, the errnos that mean that it was unnecessary, and, if it adds a neighbour, the IP
    version.
    """
    there = {each.address: each for each in present}
    kept = {each.address for each in wanted}
    for neighbour in present:
        if neighbour.address not in kept:
            yield _removal(index, neighbour)
    for neighbour in wanted:
        old = there.get(neighbour.address)
        if old == neighbour:
            continue
        if old is not None and not neighbour.proto:
            yield _removal(index, old)  # the protocol of an entry is never cleared
        yield f"neighbour {neighbour}", _new(index, neighbour), (), neighbour.address.version


# ENOENT: another program has removed it, or the kernel has when the link was set down or its MAC changed.
_GONE: Final = (errno.ENOENT,)


def _removal(index: int, neighbour: Neighbour) -> tuple[str, bytes, tuple[int, ...], int]:
    return f"no neighbour {neighbour}", del_neighbour(index, neighbour.address.packed), _GONE, 0


def _new(index: int, neighbour: Neighbour) -> bytes:
    mac = bytes.fromhex(neighbour.mac.replace(":", ""))
    return new_neighbour(index, neighbour.address.packed, mac, neighbour.proto)
