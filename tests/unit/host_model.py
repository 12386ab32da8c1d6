"""A small model of a host, to carry out plans against: what the kernel does to links and addresses, and refuses.

Only what plans depend on: names are unique in a namespace, deleting one end deletes the other, IPv6 addresses go
when a link goes down or gets too small an MTU, and secondary IPv4 addresses go with their primary one.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from ipaddress import ip_interface

from vethlib import links
from vethlib.agent import (
    AddNetns,
    ChangeLink,
    CreatePair,
    DeletePair,
    Observed,
    Place,
    Plan,
    RemoveNetns,
    SeenLink,
    SeenNetns,
)
from vethlib.agent.observed import LinkId
from vethlib.links import Address, Link

SECONDARY, PERMANENT = 0x01, 0x80
HOME: Place = (4, 1)


@dataclass
class Addr:
    interface: links.Interface
    proto: int
    flags: int = 0


@dataclass
class HostLink:
    index: int
    name: str
    kind: str = "veth"
    mac: str = "02:ff:00:00:00:01"
    mtu: int = 1500
    up: bool = True
    alias: str = ""
    group: int = 0
    num_queues: int = 2
    addresses: list[Addr] = field(default_factory=list)
    peer: LinkId | None = None
    altnames: tuple[str, ...] = ()

    def give(self, interface: links.Interface, proto: int) -> None:
        for there in self.addresses:
            if there.interface == interface:
                return
            assert there.interface.version == 4 or there.interface.ip != interface.ip, "EEXIST"
        if interface.version == 6:
            assert self.mtu >= 1280, "no IPv6 on this link"
        primary = (a for a in self.addresses if a.interface.version == 4 and not a.flags & SECONDARY)
        secondary = interface.version == 4 and any(a.interface.network == interface.network for a in primary)
        self.addresses.append(Addr(interface, proto, SECONDARY if secondary else 0))

    def take(self, interface: links.Interface) -> None:
        for there in self.addresses:
            if there.interface == interface:
                self.addresses.remove(there)
                if interface.version == 4 and not there.flags & SECONDARY:
                    self.addresses = [a for a in self.addresses if not _depends(a, interface)]
                return

    def lay(self, addresses: Sequence[Address]) -> None:
        """Have these addresses, given anew in this order; link-local ones of the kernel stay."""
        stay = [a for a in self.addresses if a.proto == 3]
        self.addresses = []
        for address in addresses:
            self.give(address.interface, address.proto)
        self.addresses += stay

    def lose_ipv6(self) -> None:
        self.addresses = [a for a in self.addresses if a.interface.version == 4]

    def set_mtu(self, mtu: int) -> None:
        self.mtu = mtu
        if mtu < 1280:
            self.lose_ipv6()

    def set_up(self, up: bool) -> None:
        if self.up and not up:
            self.lose_ipv6()
        self.up = up
        if up and self.mtu >= 1280:
            self.give(ip_interface(f"fe80::{self.index:x}/64"), 3)  # IFAPROT_KERNEL_LL


def _depends(address: Addr, primary: links.Interface) -> bool:
    if address.interface.version == 6 or not address.flags & SECONDARY:
        return False
    return address.interface.network == primary.network


class Host:
    def __init__(self) -> None:
        self.places: dict[str, Place] = {"": HOME}
        self.absent: dict[str, SeenNetns] = {}
        self.links: dict[LinkId, HostLink] = {}
        self._next = 10

    def add_netns(self, *refs: str) -> Place:
        self._next += 1
        place = (4, self._next)
        self.places.update(dict.fromkeys(refs, place))
        return place

    def add(self, place: Place, name: str, **fields: object) -> HostLink:
        self._next += 1
        assert self.at(place, name) is None, f"EEXIST: {name} in {place}"
        link = HostLink(self._next, name, **fields)  # type: ignore[arg-type]
        self.links[place, link.index] = link
        return link

    def connect(self, a: Place, left: HostLink, b: Place, right: HostLink) -> None:
        left.peer, right.peer = (b, right.index), (a, left.index)

    def at(self, place: Place, name: str) -> HostLink | None:
        for (where, _), link in self.links.items():
            if where == place and name in (link.name, *link.altnames):
                return link
        return None

    def __getitem__(self, key: tuple[str, str]) -> HostLink:
        ref, name = key
        link = self.at(self.places[ref], name)
        assert link is not None, f"no {name} in {ref or 'home'}"
        return link

    def observe(self, *, creatable: bool = True) -> Observed:
        return Observed(_Lookup(self, creatable), [self._seen(end) for end in self.links])

    def _seen(self, end: LinkId) -> SeenLink:
        place, index = end
        link = self.links[end]
        ref = next(ref for ref, where in self.places.items() if where == place)
        seen = Link(
            index,
            link.name,
            ref,
            link.kind,
            link.mac,
            link.mtu,
            link.up,
            "up" if link.up else "down",
            (),
            link.peer[1] if link.peer else None,
            None,
            link.alias,
            link.group,
            link.num_queues,
            link.altnames,
        )
        addresses = tuple(Address(index, a.interface, a.flags | PERMANENT, a.proto) for a in link.addresses)
        return SeenLink(place, ref, seen, addresses, link.peer)

    def apply(self, plan: Plan) -> None:
        for operation in plan.operations:
            match operation:
                case AddNetns():
                    assert operation.ref not in self.places
                    self.add_netns(operation.ref)
                case DeletePair():
                    self.delete((operation.place, operation.index))
                case ChangeLink():
                    self._change(operation)
                case CreatePair():
                    self._create(operation)
                case RemoveNetns():
                    assert self.places.pop(operation.ref) == operation.place
                    assert all(place != operation.place for place, _ in self.links)

    def delete(self, end: LinkId) -> None:
        peer = self.links.pop(end).peer
        if peer is not None:
            del self.links[peer]

    def _change(self, change: ChangeLink) -> None:
        link = self.links[change.place, change.index]
        new = {name: value for name, (_, value) in change.changes.items()}
        for name, (old, _) in change.changes.items():
            assert getattr(link, name) == old
        link.alias = new.get("alias", link.alias)
        stay = [address for address in link.addresses if address.interface not in change.removed]
        for interface in change.removed:
            link.take(interface)
        for address in stay:
            link.give(address.interface, address.proto)
        if "name" in new:
            assert self.at(change.place, new["name"]) is None, "EEXIST"
            link.name = new["name"]
        link.mac = new.get("mac", link.mac)
        if "mtu" in new:
            link.set_mtu(new["mtu"])
        if "up" in new:
            link.set_up(new["up"])
        if change.restored is not None:
            link.lay(change.restored)
            return
        for interface in change.added:
            link.give(interface, 0x76)

    def _create(self, create: CreatePair) -> None:
        made = []
        for end in (create.veth.a, create.veth.b):
            place = self.places[str(end.netns)]
            link = self.add(place, end.name, up=False, group=end.group, alias=end.alias)
            link.mac = end.mac or f"02:00:00:00:00:{link.index & 255:02x}"
            link.num_queues = end.num_queues or 2
            link.set_mtu(end.mtu or 1500)
            link.set_up(end.up)
            for interface in end.interfaces:
                link.give(interface, end.address_proto)
            made.append((place, link))
        (a, left), (b, right) = made
        self.connect(a, left, b, right)

    def snapshot(self) -> dict[LinkId, HostLink]:
        return deepcopy(self.links)


class _Lookup(dict[str, SeenNetns]):
    """Answers for any reference, as an observer would that was asked for those in use."""

    def __init__(self, host: Host, creatable: bool) -> None:
        super().__init__({ref: SeenNetns(ref, place) for ref, place in host.places.items()})
        self.update(host.absent)
        self._creatable = creatable

    def get(self, ref: str, default: object = None) -> SeenNetns:
        if ref not in self:
            if ref.startswith("netns:"):
                reason = f"/run/netns/{ref[6:]} does not exist"
                self[ref] = SeenNetns(ref, ref if self._creatable else None, reason, missing=True)
            else:
                self[ref] = SeenNetns(ref, None, f"{ref} is gone")
        return self[ref]
