"""A topology as text: one line for each wire, what is the same on many lines left out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from .description import Layout, Port, Wire

__all__ = ["draw"]

_MOST = 60  # wires that are drawn


def draw(layout: Layout) -> list[str]:
    """The lines of the picture; of more than 60 wires the first, and how many more there are."""
    kinds = {member.name: member.kind for member in layout.members}
    wired = {port.node for wire in layout.wires for port in (wire.a, wire.b)}
    rows = [_row(wire, kinds) for wire in layout.wires[:_MOST]]
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(4)]
    lines = [_line(row, widths) for row in rows]
    if len(layout.wires) > _MOST:
        lines.append(f"… and {len(layout.wires) - _MOST} more wires")
    alone = [member.name for member in layout.members if member.name not in wired]
    if alone:
        lines.append(f"without a wire: {', '.join(alone)}")
    return lines


def _row(wire: Wire, kinds: Mapping[str, str]) -> tuple[str, str, str, str]:
    a, b = wire.a, wire.b
    mtu = f"  mtu {wire.mtu}" if wire.mtu else ""
    return _name(a.node, kinds), _port(a), _port(b), _name(b.node, kinds) + mtu


def _name(node: str, kinds: Mapping[str, str]) -> str:
    kind = kinds[node]
    return node if kind == "node" else f"{node} ({kind})"


def _port(port: Port) -> str:
    return "  ".join([port.link, *map(str, port.addresses or ())])


def _line(row: Iterable[str], widths: Iterable[int]) -> str:
    cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
    return f"{cells[0]}  {cells[1]} ── {cells[2]}  {cells[3]}".rstrip()
