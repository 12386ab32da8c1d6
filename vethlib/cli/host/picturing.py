"""The graph of a picture: of this host, with interfaces that an agent waits for, or of northbound files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from vethlib.agent.config.model import Interface
from vethlib.agent.planning import words
from vethlib.agent.planning.observed import Observed
from vethlib.agent.planning.operations import ChangeLink, CreatePair, Plan
from vethlib.agent.state import State
from vethlib.cli.applying.config_warnings import by_interface, warnings_of
from vethlib.cli.render.linktext import operstate_word, ref_text
from vethlib.cli.term.text import natural, printable
from vethlib.graph import Box, Edge, Graph, Port
from vethlib.session.read.survey import SurveyedLink

from .status_places import StatusPlaces
from .view import View

__all__ = ["of_files", "of_host"]


def of_host(view: View, states: Sequence[Mapping[str, Any]] = (), statuses_at: StatusPlaces | None = None) -> Graph:
    """Return the graph of all observed namespaces, with interfaces that have no link yet.

    `states` are the statuses of an agent, whose namespaces are `statuses_at`.
    """
    drawing = _Drawing()
    for ref in view.refs():
        drawing.box(ref_text(ref))
    if statuses_at is not None:
        statuses_at.resolve(states)
    warnings = {} if statuses_at is None else {statuses_at.link(entry): _warnings_of(entry) for entry in states}
    connected: set[object] = set()
    for a, b in view.pairs():
        ends = (replace(_port(one), warnings=warnings.get((one.at, one.link.index), ())) for one in (a, b))
        drawing.edges.append(Edge(*ends))
        connected.update((id(a), id(b)))
    for one in view.links:
        if one.link.kind == "veth" and id(one) not in connected:
            drawing.loose(_port(one, reason=view.peer_text(one).removeprefix("⇄ ")))
    if statuses_at is not None:
        _add_waiting(drawing, view, states, statuses_at)
    return drawing.graph()


def _add_waiting(drawing: _Drawing, view: View, states: Sequence[Mapping[str, Any]], statuses_at: StatusPlaces) -> None:
    """Add interfaces that have no link yet, each in the box of its namespace, however the status names that."""
    existing = {(one.at, one.link.name) for one in view.links}
    refs = view.refs_by_place()
    waiting: dict[str, Mapping[str, Any]] = {}
    hidden: set[str] = set()  # interfaces hidden by a link of the same name
    for entry in states:
        if entry["state"] == "CONFIGURED" or entry["netns"] is None or entry.get("ifindex"):
            continue
        place = statuses_at.place(entry)
        ref = (place and refs.get(place)) or statuses_at.reached(entry)
        waiting[entry["name"]] = {**entry, "netns": entry["netns"] if ref is None else ref}
        if entry["state"] == "PENDING" and (place, entry["host_name"]) in existing:
            hidden.add(entry["name"])
    for name, entry in sorted(waiting.items(), key=lambda item: natural(item[0])):
        if name in hidden:
            continue
        other = waiting.get(entry["peer"])
        if other is None or other["peer"] != name:
            drawing.loose(_of_entry(entry))
        elif natural(name) <= natural(other["name"]):
            drawing.edge(_of_entry(entry), _of_entry(other))


def _port(surveyed: SurveyedLink, *, reason: str = "") -> Port:
    link = surveyed.link
    shown = [address for address in surveyed.addresses if not address.by_kernel]
    states = {str(address): address.state for address in shown if address.state != "usable"}
    addresses = tuple(map(str, shown))
    state = operstate_word(link)
    return Port(ref_text(surveyed.ref), link.name, addresses, link.mtu, link.mac, state, reason, address_states=states)


def _of_entry(entry: Mapping[str, Any]) -> Port:
    return Port(
        ref_text(entry["netns"]),
        entry["host_name"] or entry["name"],
        state=entry["state"],
        reason=entry["reason"],
        warnings=_warnings_of(entry),
    )


def _warnings_of(entry: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(warning["message"] for warning in entry.get("warnings", ()))


def of_files(interfaces: Mapping[str, Interface], observed: Observed | None, planned: Plan | None) -> Graph:
    """Return the graph of the files; with a plan, also what it would change on this host."""
    drawing = _Drawing()
    to_do = _to_do(planned)
    ports: dict[str, Port] = {}
    warnings = by_interface(warnings_of(interfaces))
    states = {} if planned is None else planned.states()
    for name, interface in interfaces.items():
        box = drawing.box(ref_text(interface.namespace.ref))
        state, reason = "" if interface.enabled else "disabled", ""
        if planned is not None:
            verdict = states[name]
            state, reason = str(verdict.state), verdict.reason
            if verdict.state is State.CONFIGURED:
                seen = planned.found.get(name)
                state = "" if seen is None else operstate_word(seen.link)
            state, reason = to_do.get(name, (state, reason))
        addresses = tuple(map(str, interface.ip_addresses))
        link, mac = interface.kernel_name, interface.phys_address
        texts = tuple(map(str, warnings.get(name, ())))
        ports[name] = Port(box, link, addresses, interface.mtu or None, mac, state, reason, texts)
        if observed is not None:
            place = observed.netns[interface.namespace.ref]
            drawing.missing[box] = place.place is None or place.missing
    connected: set[str] = set()
    for a, b in _mutual(interfaces):
        drawing.edge(ports[a], ports[b])
        connected |= {a, b}
    for name in interfaces.keys() - connected:
        drawing.loose(ports[name])
    return drawing.graph()


def _mutual(interfaces: Mapping[str, Interface]) -> list[tuple[str, str]]:
    pairs = []
    for name, interface in interfaces.items():
        peer = interfaces.get(interface.peer_if_name)
        if peer is not None and peer.peer_if_name == name and name < peer.name:
            pairs.append((name, peer.name))
    return pairs


def _to_do(planned: Plan | None) -> dict[str, tuple[str, str]]:
    """Return what a plan does for each interface, in words."""
    texts: dict[str, tuple[str, str]] = {}
    for operation in () if planned is None else planned.operations:
        if isinstance(operation, CreatePair):
            texts[operation.a.name] = texts[operation.b.name] = (words.to_be_done(operation), "")
        elif isinstance(operation, ChangeLink):
            _, earlier = texts.get(operation.interface.name, ("", ""))  # a link may be changed in several steps
            changes = ", ".join(filter(None, (earlier, printable(words.changes(operation)))))
            texts[operation.interface.name] = (words.to_be_done(operation), changes)
    return texts


class _Drawing:
    """Collects boxes, edges and loose ports, and sorts them at the end."""

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
