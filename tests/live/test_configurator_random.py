"""Random configurations, actions and meddling: in the end, the host is in exactly the desired state."""

from __future__ import annotations

import random
from typing import Any

import pytest

from tests.live.applying import LABEL
from tests.live.configuring import settle, states
from tests.witness import addresses, names, seen
from vethlib import End, LinkExists, Session, Veth, VethError, ns
from vethlib.agent import Interface, Namespace, NamespaceType
from vethlib.agent.reconcile.configurator import Configurator
from vethlib.ns import Netns

NAMES = [f"v{number}" for number in range(6)]
NETNS = ["", "n1", "n2", "n3"]


class World:
    """A host, an agent that waits for namespaces, others who meddle, and what is wanted."""

    def __init__(self, seed: int, session: Session, others: Session, configurator: Configurator) -> None:
        self.random = random.Random(seed)
        self.session, self.others, self.configurator = session, others, configurator
        self.wanted: dict[str, Interface] = {}

    def step(self) -> None:
        choose = self.random.choice
        act = choose([self.put] * 6 + [self.delete, self.add_netns, self.add_netns, self.remove_netns])
        if self.random.random() < 0.4:
            act = choose([self.add_foreign, self.remove_foreign, self.break_link, self.unlink])
        act()
        if self.random.random() < 0.5:
            self.configurator.poll(0)

    def put(self) -> None:
        choose = self.random.choice
        number = self.random.randrange(6)
        peer = number ^ 1 if self.random.random() < 0.9 else (number + 2) % 6
        netns = choose(NETNS)
        interface = Interface(
            f"v{number}",
            f"v{peer}",
            enabled=choose([True, True, False]),
            mtu=choose([0, 1400]),
            phys_address=choose(["", f"02:00:00:00:00:0{number}"]),
            ip_addresses=choose([(), (f"10.0.{number}.1/24",)]),
            namespace=Namespace(NamespaceType.NAMED_NS, name=netns) if netns else Namespace(),
            host_if_name=choose(["", "", "eth0"]),
        )
        self.wanted[interface.name] = interface
        self.configurator.put(interface)

    def delete(self) -> None:
        name = self.random.choice(NAMES)
        self.wanted.pop(name, None)
        self.configurator.delete(name)

    def add_netns(self) -> None:
        name = self.random.choice(NETNS[1:])
        if name not in ns.names():
            Netns.create(name).close()

    def remove_netns(self) -> None:
        ns.remove(self.random.choice(NETNS[1:]), missing_ok=True)

    def somewhere(self) -> str:
        return self.random.choice(["", *ns.names()])

    def add_foreign(self) -> None:
        name, netns = self.random.choice([*NAMES, "eth0"]), self.somewhere()
        try:
            self.others.create(Veth(End(name, netns), End(f"f{self.random.randrange(1000)}", netns)))
        except LinkExists:
            pass

    def links(self, *, ours: bool) -> list[tuple[str, str]]:
        return [
            (link.name, netns)
            for netns in ["", *ns.names()]
            for link in self.others.links(netns)
            if link.kind == "veth" and link.alias.startswith(f"vethlib label={LABEL} ") == ours
        ]

    def remove_foreign(self) -> None:
        if found := self.links(ours=False):
            self.others.delete(*self.random.choice(found), missing_ok=True)  # it may end with its peer's namespace

    def unlink(self) -> None:
        if found := self.links(ours=True):
            self.others.delete(*self.random.choice(found), missing_ok=True)  # it may end with its peer's namespace

    def break_link(self) -> None:
        if found := self.links(ours=True):
            change: dict[str, Any] = self.random.choice(
                [{"up": False}, {"up": True}, {"mtu": 1300}, {"new_name": f"r{self.random.randrange(1000)}"}]
            )
            try:
                self.others.set(*self.random.choice(found), **change)
            except VethError:
                pass

    # --- the oracle

    def check(self) -> None:
        there = {"", *ns.names()}
        holders: dict[tuple[str, str], str] = {}
        for name in sorted(self.wanted):
            one = self.wanted[name]
            if one.namespace.name in there:
                holders.setdefault((one.namespace.name, one.kernel_name), name)
        foreign = set(self.links(ours=False))
        expected: set[tuple[str, str]] = set()
        for one in self.wanted.values():
            peer = self.wanted.get(one.peer_if_name)
            if peer is None or peer.peer_if_name != one.name:
                continue
            ends = [(end.namespace.name, end.kernel_name, end.name) for end in (one, peer)]
            if all(holders.get((netns, kernel)) == name for netns, kernel, name in ends) and not any(
                (kernel, netns) in foreign for netns, kernel, _ in ends
            ):
                expected.add((one.kernel_name, one.namespace.name))
                self.check_end(one, peer)
        said = {name: states(self.configurator).get(name, "") for name in self.wanted}
        for name, one in self.wanted.items():
            right = (one.kernel_name, one.namespace.name) in expected and holders[
                one.namespace.name, one.kernel_name
            ] == name
            assert (said[name] == "CONFIGURED") == right, said
        # What is there of a pair that has FAILED stays; all else of ours is expected.
        failed = {name for name, state in said.items() if state.startswith("FAILED") or " failed: " in state}
        for kernel, netns in set(self.links(ours=True)) - expected:
            alias = seen(kernel, netns)["ifalias"].split("name=")[1].split()[0]
            assert alias in failed, (kernel, netns, said)
        assert states(self.configurator).keys() == self.wanted.keys()

    def check_end(self, one: Interface, peer: Interface) -> None:
        netns = one.namespace.name
        assert one.kernel_name in names(netns), states(self.configurator)
        link, other = seen(one.kernel_name, netns), seen(peer.kernel_name, peer.namespace.name)
        assert link["mtu"] == (one.mtu or 1500)
        assert ("UP" in link["flags"]) == one.enabled
        assert not one.phys_address or link["address"] == one.phys_address
        assert link["ifalias"].split()[2] == f"name={one.name}"
        assert set(addresses(one.kernel_name, netns)) == set(one.ip_addresses)
        if netns == peer.namespace.name:
            assert link["link"] == peer.kernel_name
        else:
            assert link["link_index"] == other["ifindex"]


@pytest.mark.parametrize("seed", range(20))
def test_in_the_end_it_is_as_it_should_be(session: Session, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vethlib.agent.reconcile.backoff.FREE_REPAIRS", 1 << 30)  # nothing here is a fight
    with Session() as others, Configurator(session, missing_netns="wait") as configurator:
        world = World(seed, session, others, configurator)
        for _ in range(5):
            for _ in range(8):
                world.step()
            settle(configurator)
            world.check()
