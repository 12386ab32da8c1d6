"""A graph for Mermaid, as GitHub and GitLab show it in Markdown: https://mermaid.js.org/syntax/flowchart.html."""

from __future__ import annotations

from .model import COLORS, Graph, Port, check_graph
from .reasons import reasons

__all__ = ["mermaid"]


def mermaid(graph: Graph) -> str:
    """Return the text of a flowchart, with a node for each box and a labelled edge for each pair."""
    check_graph(graph)
    ids = {box.name: f"n{number}" for number, box in enumerate(graph.boxes)}
    lines = ["flowchart LR"]
    for box in graph.boxes:
        words = [box.name + (" (missing)" if box.missing else ""), *map(_label, box.loose)]
        lines.append(f"  {ids[box.name]}[{_quoted(words)}]")
        if box.missing:
            lines.append(f"  style {ids[box.name]} stroke-dasharray: 4 4")
    for edge in graph.edges:
        line = "---" if edge.mood in ("good", "plain") else "-.-"
        label = _quoted([f"{_label(edge.a)} ⇄ {_label(edge.b)}"])
        lines.append(f"  {ids[edge.a.box]} {line}|{label}| {ids[edge.b.box]}")
    if below := reasons(graph):
        lines.append(f"  reasons[{_quoted([reason.text for reason in below])}]")
        lines.append("  style reasons fill:none,stroke:none,text-align:left")
    lines += [f"  linkStyle {number} stroke:{COLORS[edge.mood]}" for number, edge in enumerate(graph.edges)]
    return "\n".join([*lines, ""])


def _label(port: Port) -> str:
    words = [port.marked_name, *port.address_texts()]
    words += [f"mtu {port.mtu}"] if port.mtu else []
    words += [port.state] if port.state not in ("", "up") else []
    return " ".join(words)


def _quoted(lines: list[str]) -> str:
    # In quotes, only characters that are markup elsewhere must be entities, which Mermaid writes as #35;.
    return '"' + "<br>".join("".join(_safe(c) for c in line) for line in lines) + '"'


def _safe(character: str) -> str:
    return character if character.isalnum() or character in " .:/_-⇄()," else f"#{ord(character)};"
