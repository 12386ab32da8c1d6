"""List the reasons for states, and warnings, below a picture, because print and PNG have no tooltips. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from vethlib.text import columns, cut, natural

from .labels import sign_of
from .model import MOODS_BY_SEVERITY, WARNED, Graph, Mood, Port

__all__ = ["Reason", "reasons", "wrapped"]

MOST: Final = 20  # reasons below a picture; the worst come first
_LONGEST: Final = 300  # characters of a reason
_PORTS: Final = 3  # ports that are named for a reason


@dataclass(frozen=True, slots=True)
class Reason:
    """A line of text, and the mood of its state."""

    text: str
    mood: Mood


def reasons(graph: Graph) -> list[Reason]:
    """Return the reasons of ports, the worst first, each once with its ports, and then the warnings, up to MOST."""
    by_reason: dict[tuple[str, str], list[Port]] = {}
    for port in _ports(graph):
        if port.reason:
            by_reason.setdefault((port.state, port.reason), []).append(port)
    order = sorted(
        by_reason.values(), key=lambda ports: (MOODS_BY_SEVERITY.index(ports[0].mood), natural(ports[0].name))
    )
    lines = _first(Reason(_line(ports), ports[0].mood) for ports in order)
    warnings = dict.fromkeys(warning for port in _ports(graph) for warning in port.warnings)
    return lines + _first(Reason(cut(f"{WARNED} {warning}", _LONGEST), "waiting") for warning in warnings)


def _first(reasons: Iterable[Reason]) -> list[Reason]:
    lines = list(reasons)
    left = len(lines) - MOST
    return [*lines[:MOST], Reason(f"… and {left} more", "plain")] if left > 0 else lines


def _ports(graph: Graph) -> Iterator[Port]:
    for edge in graph.edges:
        yield from (edge.a, edge.b)
    for box in graph.boxes:
        yield from box.loose


def _line(ports: list[Port]) -> str:
    first, rest = ports[0], len(ports) - _PORTS
    names = ", ".join(f"{port.name} in {port.box}" for port in ports[:_PORTS])
    names += f" and {rest} more" if rest > 0 else ""
    state = f"{first.state}: " if first.state not in ("", "up") else ""
    return cut(f"{sign_of(first)} {names}  {state}{first.reason}", _LONGEST)


def wrapped(text: str, wide: int) -> list[str]:
    """Wrap `text` into lines of up to `wide` columns; further lines are indented."""
    lines: list[str] = []
    line = ""
    for word in text.split(" "):
        while columns(word) > wide - 2:
            word, rest = word[: (wide - 2) // 2], word[(wide - 2) // 2 :]
            lines.append(f"{line} {word}" if line.strip() else line + word)
            line, word = "  ", rest
        if line and columns(line) + 1 + columns(word) > wide:
            lines.append(line)
            line = f"  {word}"
        else:
            line = f"{line} {word}" if line.strip() else line + word
    return [*lines, line]
