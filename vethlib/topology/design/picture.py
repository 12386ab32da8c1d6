"""Draw a topology as text: one line per wire, first those between two nodes, then those of each switch.

    client  eth0  10.0.0.1/24  fd00::1/64    ──  eth0  10.0.0.2/24  fd00::2/64    r (router)
    r       eth1  10.0.1.1/24  fd00:1::1/64  ──  eth0  10.0.1.2/24  fd00:1::2/64  server      mtu 1400
    s (switch)  eth0  ──  eth0  10.0.2.1/24  fd00:2::1/64  a
                eth1  ──  eth0  10.0.2.2/24  fd00:2::2/64  b

A column is as wide as its widest cell, and is left out if all of its cells are empty.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from .description import Layout, Port, Wire
from .ends import describe_fields

__all__ = ["draw"]

_MOST: Final = 60
"""Maximum number of wires that are drawn, and of nodes without a wire that are named."""


def draw(layout: Layout) -> list[str]:
    """Return the lines of the picture: up to 60 wires, and the number of further ones."""
    names = {node.name: node.name if node.kind == "node" else f"{node.name} ({node.kind})" for node in layout.members}
    switches = {node.name for node in layout.members if node.kind == "switch"}
    lines: list[str] = []
    room = _MOST
    for wires in _groups(layout.wires, switches):
        rows = [_row(wire, names) for wire in wires[:room]]
        if wires and wires[0].a.node in switches:
            rows[1:] = [["", *row[1:]] for row in rows[1:]]
        lines += _table(rows)
        room -= len(rows)
    if len(layout.wires) > _MOST:
        lines.append(f"… and {_more(len(layout.wires) - _MOST, 'wire')}")
    wired = {port.node for wire in layout.wires for port in (wire.a, wire.b)}
    alone = [names[node.name] for node in layout.members if node.name not in wired]
    if alone:
        rest = f", … and {_more(len(alone) - _MOST, 'node')}" if len(alone) > _MOST else ""
        lines.append(f"without a wire: {', '.join(alone[:_MOST])}{rest}")
    return lines


def _more(count: int, noun: str) -> str:
    return f"{count} more {noun}{'s' if count > 1 else ''}"


def _groups(wires: Sequence[Wire], switches: set[str]) -> Iterator[list[Wire]]:
    """Return the wires between nodes, then those of each switch; a wire between switches belongs to the first."""
    between: list[Wire] = []
    of_switch: dict[str, list[Wire]] = {}
    for wire in wires:
        ends = [port.node for port in (wire.a, wire.b) if port.node in switches]
        if not ends:
            between.append(wire)
            continue
        owner = next((node for node in ends if node in of_switch), ends[0])
        of_switch.setdefault(owner, []).append(wire.seen_from(owner))
    yield between
    yield from of_switch.values()


def _row(wire: Wire, names: Mapping[str, str]) -> list[str]:
    words = [f"mtu {wire.mtu}"] if wire.mtu else []
    words += [] if wire.ipv6 is None else [f"ipv6 {'on' if wire.ipv6 else 'off'}"]
    words += _impairments(wire)
    if wire.a.fields or wire.b.fields:
        words += describe_fields(wire.a.fields, wire.b.fields)
    return [names[wire.a.node], *_port(wire.a), "──", *_port(wire.b), names[wire.b.node], "  ".join(words)]


def _impairments(wire: Wire) -> list[str]:
    there, back = ("" if one is None else str(one) for one in (wire.a_to_b, wire.b_to_a))
    if there == back:
        return [there] if there else []
    return [f"{arrow} {text}" for arrow, text in (("→", there), ("←", back)) if text]


def _port(port: Port) -> tuple[str, str, str]:
    v4, v6 = (
        ", ".join(str(address) for address in port.addresses or () if address.version == version) for version in (4, 6)
    )
    return port.link, v4, v6


def _table(rows: Sequence[Sequence[str]]) -> Iterable[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True) if width).rstrip()
