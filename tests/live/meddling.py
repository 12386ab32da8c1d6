"""A host with a configurator, and others who meddle with it at any moment; at the end, a witness compares.

The others act at random, and so between any two steps of the configurator: each call that is wrapped by
:meth:`Meddlers.between` is a moment at which they may act. A seed gives the same choices again, though not the same
times.
"""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from tests.live.applying import LABEL
from tests.live.configuring import bind, quickly, states, unbind
from tests.live.descriptors import descriptors_left
from tests.witness import ip
from vethlib import End, Netns, Session, Veth, VethError, ns
from vethlib.agent import Configurator, Interface, Namespace, NamespaceType, PacketPort
from vethlib.agent.planning.observed import NetnsId
from vethlib.agent.registry.dependants import Attachment

NAMES = [f"v{number}" for number in range(6)]
NETNS = ["n1", "n2", "n3"]
OURS = f"vethlib label={LABEL} "
THEIRS = "10.9.9.9/24"

Found: TypeAlias = tuple[str, str, int]  # name, namespace, ifindex
Host: TypeAlias = dict[NetnsId, dict[str, dict[str, Any]]]  # namespace → name → link


def place_of(ref: str) -> NetnsId | None:
    """Return where a reference leads, using only stat."""
    kind, _, value = ref.partition(":")
    paths = {"": HOME, "netns": f"/run/netns/{value}", "path": value, "pid": f"/proc/{value}/ns/net"}
    try:
        status = os.stat(paths[kind])
    except OSError:
        return None
    return (status.st_dev, status.st_ino) if status.st_dev == os.stat(HOME).st_dev else None


HOME = "/proc/thread-self/ns/net"


class Meddlers:
    """Actions of others, at random; `log` lists those that they have carried out."""

    def __init__(self, choose: random.Random, others: Session, *, noisy: bool) -> None:
        self.choose = choose
        self.log: list[tuple[object, ...]] = []
        self.probability = 0.0  # the probability that they act between two steps
        self.processes: list[subprocess.Popen[bytes]] = []
        self._others = others
        self._busy = False
        self._acts: list[Callable[[], object]] = [
            *[self.add_netns, self.add_foreign, self.break_link] * 3,
            *[self.remove_netns, self.renew_netns, self.remove_foreign, self.unlink, self.out_and_back] * 2,
            *[self.same_index] * 2,
            *[self.cover, self.start, self.end, self.move_foreign, self.readdress, self.down_and_up],
            *([self.make_noise] if noisy else []),
        ]

    def between(self, patch: pytest.MonkeyPatch, owner: object, name: str) -> None:
        """Let them act before and after each call of this function."""
        original = getattr(owner, name)

        def wrapped(*args: Any, **how: Any) -> Any:
            self.maybe(f"before {name}")
            try:
                return original(*args, **how)
            finally:
                self.maybe(f"after {name}")

        patch.setattr(owner, name, wrapped)

    def maybe(self, when: str) -> None:
        if not self._busy and self.choose.random() < self.probability:
            self.act(when)

    def act(self, when: str) -> None:
        act = self.choose.choice(self._acts)
        self.log.append((when, act.__name__))
        self._busy = True
        try:
            act()
        except (VethError, OSError, subprocess.CalledProcessError) as error:
            self.log.append(("refused", type(error).__name__))
        finally:
            self._busy = False

    def tidy(self) -> None:
        """End the processes, and remove every namespace, with whatever covers it."""
        while self.processes:
            self.end()
        for name in ns.names():
            while Path("/run/netns", name).exists():
                ns.remove(name)

    # --- namespaces

    def _name(self) -> str:
        name = self.choose.choice(NETNS)
        self.log.append((name,))
        return name

    def somewhere(self) -> str:
        return self.choose.choice(["", *ns.names()])

    def add_netns(self) -> None:
        Netns.create(self._name()).close()

    def remove_netns(self) -> None:
        ns.remove(self._name(), missing_ok=True)

    def renew_netns(self) -> None:
        name = self._name()
        ns.remove(name, missing_ok=True)
        Netns.create(name).close()

    def cover(self) -> None:
        """Mount a namespace on another one, or remove what is mounted."""
        name, other = self._name(), self._name()
        if self.choose.random() < 0.5 and {name, other} <= set(ns.names()):
            bind(f"/run/netns/{name}", f"/run/netns/{other}")
        else:
            unbind(f"/run/netns/{other}")
            if place_of(f"netns:{other}") is None:
                os.unlink(f"/run/netns/{other}")

    def start(self) -> None:
        """Start a process in one of the namespaces, or one that moves to its own."""
        if len(self.processes) > 2:
            self.end()
        elif self.choose.random() < 0.5:
            with ns.entered(f"netns:{self._name()}"):
                self.processes.append(subprocess.Popen(["sleep", "1000"]))
        else:
            self.processes.append(subprocess.Popen(["unshare", "-n", "sleep", "1000"]))

    def end(self) -> None:
        if self.processes:
            process = self.processes.pop(self.choose.randrange(len(self.processes)))
            process.kill()
            process.wait()

    # --- links

    def _links(self, *, ours: bool) -> list[Found]:
        places = {place_of(f"netns:{name}"): name for name in ns.names()} | {place_of(""): ""}
        return [
            (link.name, netns, link.index)
            for netns in places.values()
            for link in self._others.links(netns)
            if link.kind == "veth" and link.alias.startswith(OURS) == ours
        ]

    def _link(self, ours: float) -> Found:
        """Return one of our links with this probability, otherwise one of theirs."""
        found = self._links(ours=self.choose.random() < ours)
        if not found:
            raise OSError("there is none")
        link = self.choose.choice(found)
        self.log.append(link)
        return link

    def _peer(self) -> str:
        return f"g{self.choose.randrange(100_000)}"

    def add_foreign(self) -> None:
        name, netns = self.choose.choice([*NAMES, "eth0", "f1", "f2", "f1", "f2"]), self.somewhere()
        self.log.append((name, netns))
        self._others.create(Veth(End(name, netns), End(self._peer(), self.choose.choice([netns, self.somewhere()]))))

    def remove_foreign(self) -> None:
        name, netns, _ = self._link(0)
        self._others.delete(name, netns, missing_ok=True)

    def unlink(self) -> None:
        name, netns, _ = self._link(1)
        self._others.delete(name, netns, missing_ok=True)

    def break_link(self) -> None:
        name, netns, _ = self._link(0.8)
        if self.choose.random() < 0.3:
            quickly(f"link set dev {name} name r{self.choose.randrange(100_000)}", netns=netns)
        else:
            change: dict[str, Any] = self.choose.choice([{"up": False}, {"up": True}, {"mtu": 1300}])
            self._others.set(name, netns, **change)

    def down_and_up(self) -> None:
        name, netns, _ = self._link(0.5)
        quickly(f"link set dev {name} down", f"link set dev {name} up", netns=netns)

    def readdress(self) -> None:
        name, netns, _ = self._link(1)
        quickly(self.choose.choice([f"addr flush dev {name}", f"addr add {THEIRS} dev {name}"]), netns=netns)

    def out_and_back(self) -> None:
        """Move a link to another namespace and back, which keeps its ifindex."""
        name, netns, _ = self._link(0.6)
        other = self.somewhere()
        with Netns.open(netns) as back, Netns.open(other) as away:
            if back.identity == away.identity:
                return
            for target, at in ((away, netns), (back, other)):
                quickly(f"link set dev {name} netns /proc/{os.getpid()}/fd/{target.fileno()}", netns=at)
        if self.choose.random() < 0.8:
            quickly(f"link set dev {name} up", netns=netns)

    def same_index(self) -> None:
        """Put another link in the place of one."""
        name, netns, index = self._link(0.5)
        create = f"link add name {name} index {index} type veth peer name {self._peer()}"
        quickly(f"link del dev {name}", create, f"link set dev {name} up", netns=netns)

    def move_foreign(self) -> None:
        name, netns, _ = self._link(0)
        if other := self.somewhere():
            quickly(f"link set dev {name} netns {other}", netns=netns)

    def make_noise(self) -> None:
        name, netns, _ = self._link(0)
        quickly(*(f"link set dev {name} mtu {1300 + number % 100}" for number in range(150)), netns=netns)


class World:
    """A configurator with its configuration and dependants, among meddlers."""

    def __init__(self, configurator: Configurator, meddlers: Meddlers, *, starving: bool) -> None:
        self.configurator = configurator
        self.meddlers = meddlers
        self.wanted: dict[str, Interface] = {}
        self.ports: list[tuple[PacketPort, Attachment]] = []
        self._choose = meddlers.choose
        self._starving = starving
        acts = [(self.put, 35), (self.delete, 7), (self.resync, 4), (self.attach, 10), (self.detach, 4), (self.act, 40)]
        self._acts = [act for act, weight in acts for _ in range(weight)]

    def step(self) -> None:
        self._choose.choice(self._acts)()
        if self._choose.random() < 0.5:
            return
        self._note("poll")
        if self._starving and self._choose.random() < 0.5:
            with descriptors_left(self._choose.randrange(12)):
                self.configurator.poll(0)
        else:
            self.configurator.poll(0)

    def _note(self, *what: object) -> None:
        self.meddlers.log.append(what)

    def _namespace(self) -> Namespace:
        choice, processes = self._choose.random(), self.meddlers.processes
        if choice < 0.55:
            return Namespace(NamespaceType.NAMED_NS, name=self._choose.choice(NETNS))
        if choice < 0.67:
            return Namespace(NamespaceType.FILE_REF_NS, filepath=f"/run/netns/{self._choose.choice(NETNS)}")
        if choice < 0.8 and processes:
            return Namespace(pid=self._choose.choice(processes).pid)
        return Namespace()

    def put(self) -> None:
        choose, number = self._choose.choice, self._choose.randrange(6)
        peer = number ^ 1 if self._choose.random() < 0.93 else (number + 2) % 6
        interface = Interface(
            f"v{number}",
            f"v{peer}",
            enabled=choose([True, True, True, False]),
            mtu=choose([0, 1400]),
            phys_address=choose(["", f"02:00:00:00:00:0{number}"]),
            ip_addresses=choose([(), (f"10.0.{number}.1/24",)]),
            namespace=self._namespace(),
            host_if_name=choose(["", "", "eth0"]),
        )
        self._note("put", interface.name, interface.peer_if_name, interface.namespace.ref, interface.kernel_name)
        self.wanted[interface.name] = interface
        self.configurator.put(interface)

    def delete(self) -> None:
        name = self._choose.choice(NAMES)
        self._note("delete", name)
        self.wanted.pop(name, None)
        self.configurator.delete(name)

    def resync(self) -> None:
        self._note("resync")
        self.configurator.resync(list(self.wanted.values()))

    def attach(self) -> None:
        if len(self.ports) > 5:
            self.detach()
            return
        name, ref = self._choose.choice([*NAMES[:4], "eth0", "f1", "f2"]), self._namespace().ref
        self._note("attach", name, ref)
        port = PacketPort(name, ref, session=self.configurator.session)
        self.ports.append((port, self.configurator.attach(port)))

    def detach(self) -> None:
        if self.ports:
            port, attachment = self.ports.pop(self._choose.randrange(len(self.ports)))
            self._note("detach", port)
            attachment.remove()

    def act(self) -> None:
        self.meddlers.act("step")

    # --- what has to be so in the end

    def problems(self) -> list[tuple[object, ...]]:
        """Return the differences from the configuration and from the reports, once there is nothing left to do."""
        host: Host = {}
        for ref in (
            "",
            *(f"netns:{name}" for name in ns.names()),
            *(f"pid:{one.pid}" for one in self.meddlers.processes),
        ):
            place = place_of(ref)
            if place is not None and place not in host:
                host[place] = {link["ifname"]: link for link in ip("address", netns=ref)}
        places = {name: place_of(interface.namespace.ref) for name, interface in self.wanted.items()}
        good = self._possible(host, places)
        return [
            *self._wrong_links(host, places, good),
            *self._wrong_states(good),
            *self._wrong_ports(host),
            *self._wrong_indexes(host, places, good),
        ]

    def _possible(self, host: Host, places: dict[str, NetnsId | None]) -> set[str]:
        """Return the interfaces that have to be CONFIGURED."""
        holders: dict[tuple[NetnsId | None, str], str] = {}
        for name in sorted(self.wanted):
            holders.setdefault((places[name], self.wanted[name].kernel_name), name)

        def has_its_name(interface: Interface) -> bool:
            place, name = places[interface.name], interface.kernel_name
            if place is None or holders[place, name] != interface.name:
                return False
            link = host[place].get(name)
            return link is None or link.get("ifalias", "").startswith(OURS)

        possible = set()
        for name, interface in self.wanted.items():
            peer = self.wanted.get(interface.peer_if_name)
            if peer is not None and peer.peer_if_name == name and has_its_name(interface) and has_its_name(peer):
                possible.add(name)
        return possible

    def _wrong_links(self, host: Host, places: dict[str, NetnsId | None], good: set[str]) -> list[tuple[object, ...]]:
        problems: list[tuple[object, ...]] = []
        status = {one.name: one for one in self.configurator.status()}
        for name in good:
            interface, place = self.wanted[name], places[name]
            assert place is not None
            link = host[place].get(interface.kernel_name)
            if link is None:
                problems.append(("missing", name))
                continue
            found = {f"{one['local']}/{one['prefixlen']}" for one in link["addr_info"] if one["scope"] == "global"}
            seen = (
                link["mtu"],
                "UP" in link["flags"],
                link["ifalias"].split()[2],
                found - {THEIRS},
                link["ifindex"],
                link["address"] if interface.phys_address else "",
            )
            if name not in status:  # it was put a moment ago
                problems.append((name, "has no status"))
                continue
            known = status[name].link
            mtu, index = interface.mtu or 1500, None if known is None else known.index
            addresses = set(interface.ip_addresses)
            wanted = (mtu, interface.enabled, f"name={name}", addresses, index, interface.phys_address)
            if seen != wanted:
                problems.append((name, "is", seen, "instead of", wanted))
        return problems

    def _wrong_states(self, good: set[str]) -> list[tuple[object, ...]]:
        said = states(self.configurator)
        wrong = [(name, said.get(name)) for name in self.wanted if (said.get(name) == "CONFIGURED") != (name in good)]
        return [*wrong, *((name, "has a status") for name in said.keys() - self.wanted.keys())]

    def _wrong_ports(self, host: Host) -> list[tuple[object, ...]]:
        problems: list[tuple[object, ...]] = []
        for port, attachment in self.ports:
            place = place_of(port.netns)
            link = None if place is None else host[place].get(port.host_if_name)
            index = link["ifindex"] if link is not None and "UP" in link["flags"] else None
            attached = None if attachment.link is None else attachment.link.index
            # The socket of a link that was deleted or moved away is bound to none.
            bound = port.host_if_name if port._socket is None else port._socket.getsockname()[0]
            if (index, port.host_if_name) != (attached, bound):
                problems.append((port, "is attached to", attached, bound, "instead of", index))
        return problems

    def _wrong_indexes(self, host: Host, places: dict[str, NetnsId | None], good: set[str]) -> list[tuple[object, ...]]:
        entries = self.configurator.indexes.entries()
        at_home = {entry.index: entry.host_name for entry in entries if not entry.netns}
        home = place_of("")
        assert home is not None
        links = {link["ifindex"]: link["ifname"] for link in host[home].values()}
        managed = {entry.name: entry.index for entry in entries if entry.managed}
        indexes = {name: self._index(host, places[name], self.wanted[name].kernel_name) for name in good}
        problems: list[tuple[object, ...]] = [("indexes", at_home, "instead of", links)] if at_home != links else []
        return problems + [(name, "has no index") for name in good if managed.get(name) != indexes[name]]

    @staticmethod
    def _index(host: Host, place: NetnsId | None, name: str) -> int | None:
        link = None if place is None else host[place].get(name)
        return None if link is None else link["ifindex"]
