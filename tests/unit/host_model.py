"""A small model of a host, on which plans are carried out: what the kernel does to links and addresses, and refuses.

It covers only what plans depend on: names are unique in a namespace, deleting one end deletes the other, IPv6 addresses
are removed when a link is set down or its MTU gets too small, and addresses behave as in `kernel_addresses`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_interface
from typing import Any

from tests.unit.kernel_addresses import Held, KernelAddresses
from vethlib import links
from vethlib.addresses import IPAddress
from vethlib.agent import (
    AddNetns,
    ChangeLink,
    CreatePair,
    DeletePair,
    NetnsId,
    Observed,
    Plan,
    RemoveNetns,
    SeenLink,
    SeenNetns,
)
from vethlib.agent.planning.observed import LinkId
from vethlib.agent.reasons import ReasonCode
from vethlib.endfields.checks import Sysctl
from vethlib.endfields.neighbours import Neighbour
from vethlib.endfields.routes import Route
from vethlib.links import FURTHER, Address, Link

SECONDARY, DADFAILED, DEPRECATED, PERMANENT = 0x01, 0x08, 0x20, 0x80
HOME: NetnsId = (4, 1)


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
    kept: KernelAddresses = field(default_factory=KernelAddresses)
    peer: LinkId | None = None
    altnames: tuple[str, ...] = ()
    disable_ipv6: bool = False
    txqlen: int = 1000
    gso_max_size: int = 65536
    sysctls: tuple[Sysctl, ...] = (Sysctl("ipv4.rp_filter", "2"),)

    master: str = ""
    routes: tuple[Route, ...] = ()
    neighbours: tuple[Neighbour, ...] = ()
    offload: bool | tuple[str, ...] = True

    @property
    def further(self) -> dict[str, Any]:
        fields = {"txqlen": self.txqlen, "gso_max_size": self.gso_max_size, "sysctls": self.sysctls}
        fields |= {"master": self.master, "routes": self.routes, "neighbours": self.neighbours}
        return fields | {"offload": self.offload, "altnames": self.altnames}

    @property
    def ipv6(self) -> bool:
        return not self.disable_ipv6 and self.mtu >= 1280

    @property
    def addresses(self) -> list[Address]:
        return [
            Address(self.index, ip_interface(one.plain), _flags(one), one.proto, peer=_far(one)) for one in self.kept
        ]

    def give(self, interface: links.Interface | str, proto: int) -> None:
        """Give an address that already exists or can exist here."""
        if not self.kept.find(str(interface)):
            assert ":" not in str(interface) or self.mtu >= 1280, "no IPv6 on this link"
            if ":" in str(interface):
                self.set_ipv6(True)
            assert self.kept.give(Held(str(interface), proto)) == ""

    def take(self, text: str) -> None:
        """Remove an address, but none that is secondary to it."""
        before = list(self.kept)
        self.kept.take(text)
        for one in before:
            if one.text != text and not self.kept.find(one.text):
                self.kept.give(one)

    def lay(self, addresses: Sequence[Address]) -> None:
        """Have exactly these addresses, in this order; the kernel's link-local addresses stay."""
        known = {one.text: one for one in self.kept}
        stay = [one for one in self.kept if one.proto == 3]
        self.kept = KernelAddresses(self.kept.promote)
        new = [known.get(str(one)) or Held(str(one), one.proto, permanent=one.permanent) for one in addresses]
        four = [one for one in new if not one.is_ipv6]
        for one in [*four, *reversed([one for one in new if one.is_ipv6]), *stay]:
            assert self.kept.give(one) == ""

    def order(self, wanted: Sequence[str]) -> None:
        """Put the existing ones of these addresses in order, giving them again from the first that is out of order."""
        for version in (4, 6):
            ours = [text for text in wanted if (":" in text) == (version == 6) and self.kept.find(text)]
            moving = ours if version == 4 else ours[::-1]
            held = {text: self.kept.find(text) for text in moving}
            for text in moving:
                self.take(text)
            for text in moving:
                one = held[text]
                assert one is not None
                assert self.kept.give(one) == ""

    def lose_all(self) -> None:
        self.kept = KernelAddresses(self.kept.promote)

    def lose_ipv6(self) -> None:
        self.kept.six = []

    def set_mtu(self, mtu: int) -> None:
        self.mtu = mtu
        if mtu < 1280:
            self.lose_ipv6()
            self.disable_ipv6 = False  # the setting is removed with the IPv6 device, and a new device has the default
        elif self.up and self.ipv6:
            self._give_link_local()

    def set_ipv6(self, on: bool) -> None:
        if self.mtu >= 1280:
            self.disable_ipv6 = not on
        if not on:
            self.lose_ipv6()
        elif self.up and self.ipv6:
            self._give_link_local()

    def _give_link_local(self) -> None:
        self.kept.give(Held(f"fe80::{self.index:x}/64", 3))  # IFAPROT_KERNEL_LL

    def set_up(self, up: bool) -> None:
        if self.up and not up:
            self.lose_ipv6()
            self.routes = self.neighbours = ()
        self.up = up
        if up and self.ipv6:
            self._give_link_local()


def _flags(one: Held) -> int:
    flags = PERMANENT if one.permanent else 0
    flags |= SECONDARY if one.secondary else 0
    flags |= DEPRECATED if one.deprecated else 0
    return flags | (DADFAILED if one.dadfailed else 0)


def _far(one: Held) -> IPAddress | None:
    return None if one.far == one.local else ip_address(one.far)


class Host:
    def __init__(self) -> None:
        self.places: dict[str, NetnsId] = {"": HOME}
        self.absent: dict[str, SeenNetns] = {}
        self.links: dict[LinkId, HostLink] = {}
        self.cookies: dict[NetnsId, int] = {}
        self._next = 10

    def add_netns(self, *refs: str) -> NetnsId:
        self._next += 1
        place = (4, self._next)
        self.places.update(dict.fromkeys(refs, place))
        return place

    def add(self, place: NetnsId, name: str, **fields: object) -> HostLink:
        self._next += 1
        link = HostLink(self._next, name, **fields)  # type: ignore[arg-type]
        for each in (name, *link.altnames):
            assert self.at(place, each) is None, f"EEXIST: {each} in {place}"
        self.links[place, link.index] = link
        return link

    def connect(self, a: NetnsId, left: HostLink, b: NetnsId, right: HostLink) -> None:
        left.peer, right.peer = (b, right.index), (a, left.index)

    def at(self, place: NetnsId, name: str) -> HostLink | None:
        for (where, _), link in self.links.items():
            if where == place and name in (link.name, *link.altnames):
                return link
        return None

    def __getitem__(self, key: tuple[str, str]) -> HostLink:
        ref, name = key
        link = self.at(self.places[ref], name)
        assert link is not None, f"no {name} in {ref or 'home'}"
        return link

    def _give_altnames(self, place: NetnsId, link: HostLink, altnames: Iterable[str]) -> None:
        """Give a link exactly these alternative names, none of which may be another link's or the link's own name."""
        link.altnames = tuple(name for name in link.altnames if name in altnames)
        for name in altnames:
            assert name in link.altnames or self.at(place, name) is None, f"EEXIST: {name} in {place}"
        link.altnames = tuple(altnames)

    def observe(self, *, creatable: bool = True) -> Observed:
        return Observed(_Lookup(self, creatable), [self._seen(end) for end in self.links], self.cookies)

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
            ipv6=link.ipv6,
        )
        cookie = self.cookies.get(place, 0)
        return SeenLink(place, ref, seen, tuple(link.addresses), link.peer, cookie, further=link.further)

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
        for gone in change.removed:
            assert link.kept.find(str(gone)), f"{gone} is not there"
            link.take(str(gone))
        altnames = new.get("altnames", link.altnames)
        former = link.name
        self._give_altnames(change.place, link, [name for name in altnames if name != former])
        if "name" in new:
            assert self.at(change.place, new["name"]) is None, f"EEXIST: {new['name']} in {change.place}"
            link.name = new["name"]
        self._give_altnames(change.place, link, altnames)
        link.mac = new.get("mac", link.mac)
        if "mtu" in new:
            link.set_mtu(new["mtu"])
        if "up" in new:
            link.set_up(new["up"])
        if "ipv6" in new:
            link.set_ipv6(new["ipv6"])
        for name in FURTHER:
            setattr(link, name, new.get(name, getattr(link, name)))
        if change.restored is not None:
            link.lay(change.restored)
            return
        for interface in _as_sent(list(map(str, change.added))):
            link.give(interface, 0x76)
        link.order(list(map(str, change.order)))

    def _create(self, create: CreatePair) -> None:
        made = []
        for end in (create.veth.a, create.veth.b):
            place = self.places[str(end.netns)]
            link = self.add(place, end.name, up=False, group=end.group, alias=end.alias)
            link.mac = end.mac or f"02:00:00:00:00:{link.index & 255:02x}"
            link.num_queues = end.num_queues or 2
            link.set_mtu(end.mtu or 1500)
            if end.ipv6 is not None:
                link.set_ipv6(end.ipv6)
            link.set_up(end.up)
            self._give_altnames(place, link, end.altnames)
            for name, value in end.further.items():
                setattr(link, name, value)
            for interface in _as_sent(list(map(str, end.interfaces))):
                link.give(interface, end.address_proto)
            made.append((place, link))
        (a, left), (b, right) = made
        self.connect(a, left, b, right)

    def snapshot(self) -> dict[LinkId, HostLink]:
        return deepcopy(self.links)


def _as_sent(texts: list[str]) -> list[str]:
    """Return the last IPv6 address first, because the kernel puts a new one before the others."""
    return [text for text in texts if ":" not in text] + [text for text in reversed(texts) if ":" in text]


class _Lookup(dict[str, SeenNetns]):
    """Answers for any reference, like an observer that was asked for the references in use."""

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
                self[ref] = SeenNetns(ref, None, f"{ref} is gone", code=ReasonCode.PROCESS_GONE)
        return self[ref]
