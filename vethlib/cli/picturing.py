"""What is to be in a picture: of this host as it is, with what an agent waits for, or of northbound files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from vethlib.agent.model import Interface
from vethlib.agent.observed import Observed
from vethlib.agent.operations import ChangeLink, CreatePair, Plan
from vethlib.agent.state import State
from vethlib.graph import Box, Edge, Graph, Port
from vethlib.session.survey import SurveyedLink

from .linktext import change
from .text import natural
from .view import View
from .where import ref_text

__all__ = ["of_files", "of_host"]


def of_host(view: View, states: Iterable[Mapping[str, Any]] = ()) -> Graph:
    """The pairs of every namespace that could be looked at, and interfaces that an agent has no link for."""
    drawing = _Drawing()
    for ref in view.refs():
        drawing.box(ref_text(ref))
    joined: set[object] = set()
    for a, b in view.pairs():
        drawing.edges.append(Edge(_port(a), _port(b)))
        joined.update((id(a), id(b)))
    for one in view.links:
        if one.link.kind == "veth" and id(one) not in joined:
            drawing.loose(_port(one, reason=view.peer_text(one).removeprefix("⇄ ")))
    there = {(one.ref, one.link.name) for one in view.links}
    waiting = {
        entry["name"]: entry
        for entry in states
        if entry["state"] != "CONFIGURED" and entry["netns"] is not None and not entry.get("ifindex")
    }
    for name, entry in sorted(waiting.items(), key=lambda item: natural(item[0])):
        if (entry["netns"], entry["host_name"]) in there and entry["state"] == "PENDING":
            continue
        other = waiting.get(entry["peer"])
        if other is None or other["peer"] != name:
            drawing.loose(_of_entry(entry))
        elif natural(name) <= natural(other["name"]):
            drawing.edge(_of_entry(entry), _of_entry(other))
    return drawing.graph()


def _port(one: SurveyedLink, *, reason: str = "") -> Port:
    link = one.link
    addresses = tuple(str(address) for address in link.addresses if not address.is_link_local)
    state = link.operstate if link.up else "down"
    return Port(ref_text(one.ref), link.name, addresses, link.mtu, link.mac, state, reason)


def _of_entry(entry: Mapping[str, Any]) -> Port:
    return Port(
        ref_text(entry["netns"]), entry["host_name"] or entry["name"], state=entry["state"], reason=entry["reason"]
    )


def of_files(interfaces: Mapping[str, Interface], observed: Observed | None, planned: Plan | None) -> Graph:
    """What the files describe; with a look at this host, also how far it is from that."""
    drawing = _Drawing()
    to_do = _to_do(planned)
    ports: dict[str, Port] = {}
    for name, interface in interfaces.items():
        box = drawing.box(ref_text(interface.namespace.ref))
        state, reason = "" if interface.enabled else "disabled", ""
        if planned is not None:
            verdict = planned.verdicts[name]
            state, reason = str(verdict.state), verdict.reason
            if verdict.state is State.CONFIGURED:
                seen = planned.found.get(name)
                state = "" if seen is None else seen.link.operstate if seen.link.up else "down"
            state, reason = to_do.get(name, (state, reason))
        addresses = tuple(map(str, interface.ip_addresses))
        link, mac = interface.kernel_name, interface.phys_address
        ports[name] = Port(box, link, addresses, interface.mtu or None, mac, state, reason)
        if observed is not None:
            place = observed.netns[interface.namespace.ref]
            drawing.missing[box] = place.place is None or place.missing
    joined: set[str] = set()
    for a, b in _mutual(interfaces):
        drawing.edge(ports[a], ports[b])
        joined |= {a, b}
    for name in interfaces.keys() - joined:
        drawing.loose(ports[name])
    return drawing.graph()


def _mutual(interfaces: Mapping[str, Interface]) -> list[tuple[str, str]]:
    found = []
    for name, interface in interfaces.items():
        peer = interfaces.get(interface.peer_if_name)
        if peer is not None and peer.peer_if_name == name and name < peer.name:
            found.append((name, peer.name))
    return found


def _to_do(planned: Plan | None) -> dict[str, tuple[str, str]]:
    """What is to be done for an interface, in words."""
    found: dict[str, tuple[str, str]] = {}
    for operation in () if planned is None else planned.operations:
        if isinstance(operation, CreatePair):
            found[operation.a.name] = found[operation.b.name] = ("to be created", "")
        elif isinstance(operation, ChangeLink):
            changes = [change(field, old, new, "") for field, (old, new) in operation.changes.items()]
            changes += [f"+{one}" for one in operation.added] + [f"-{one}" for one in operation.removed]
            found[operation.interface.name] = ("to be changed", ", ".join(changes))
    return found


class _Drawing:
    """Boxes in the order in which they are first heard of, sorted at the end."""

    def __init__(self) -> None:
        self.edges: list[Edge] = []
        self.missing: dict[str, bool] = {}
        self._loose: dict[str, list[Port]] = {}

    def box(self, name: str) -> str:
        self._loose.setdefault(name, [])
        return name

    def loose(self, port: Port) -> None:
        self._loose[self.box(port.box)].append(port)

    def edge(self, a: Port, b: Port) -> None:
        self.box(a.box)
        self.box(b.box)
        self.edges.append(Edge(a, b))

    def graph(self) -> Graph:
        boxes = (
            Box(name, tuple(sorted(ports, key=lambda port: natural(port.name))), missing=self.missing.get(name, False))
            for name, ports in sorted(self._loose.items(), key=lambda item: natural(item[0]))
        )
        edges = sorted(self.edges, key=lambda edge: (natural(edge.a.box), natural(edge.a.name), natural(edge.b.box)))
        return Graph(tuple(boxes), tuple(edges))
