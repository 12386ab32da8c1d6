"""A graph for Graphviz: `vethctl graph --dot | dot -Tsvg`. The language: https://graphviz.org/doc/info/lang.html.

A box is a table with a row for each port, and edges end at rows: labels beside edges would lie on one another.
"""

from __future__ import annotations

from html import escape
from typing import Final

from .labels import row_text, title_of
from .model import COLORS, Graph, Mood, Port, check_graph
from .reasons import reasons

__all__ = ["dot"]

_LINES: Final[dict[Mood, str]] = {
    "good": "solid",
    "bad": "dashed",
    "waiting": "dotted",
    "planned": "dashed",
    "plain": "solid",
}


def dot(graph: Graph) -> str:
    """Return the text of an undirected graph, with a node for each box and an edge for each pair."""
    check_graph(graph)
    # Not their names: those that differ only in what cannot be displayed would be one node.
    ids = {box.name: f"n{number}" for number, box in enumerate(graph.boxes)}
    rows: dict[str, list[Port]] = {box.name: [] for box in graph.boxes}
    edges = []
    for edge in graph.edges:
        ends = []
        for port in (edge.a, edge.b):
            ends.append(f"{ids[port.box]}:p{len(rows[port.box])}")
            rows[port.box].append(port)
        tip = "\n⇄\n".join("\n".join([f"{port.name} in {port.box}", *port.lines()[1:]]) for port in (edge.a, edge.b))
        look = f'color="{COLORS[edge.mood]}" style={_LINES[edge.mood]} edgetooltip={_quoted(tip)}'
        edges.append(f"  {' -- '.join(ends)} [{look}]")
    lines = ["graph vethlib {", "  graph [rankdir=LR ranksep=1]"]
    lines.append('  node [shape=plain fontname="monospace" fontsize=11]')
    for box in graph.boxes:
        title = f"<TR><TD><B>{_html(title_of(box))}</B></TD></TR>"
        table = title + "".join(_row(number, port) for number, port in enumerate([*rows[box.name], *box.loose]))
        style = ' STYLE="DASHED"' if box.missing else ""
        frame = f'<TABLE BORDER="1" CELLBORDER="0" CELLSPACING="2"{style}>'
        lines.append(f"  {ids[box.name]} [label=<{frame}{table}</TABLE>>]")
    if below := reasons(graph):
        text = "\\l".join(_quoted(reason.text)[1:-1] for reason in below)  # "\l": left-aligned
        lines.insert(2, f'  label="{text}\\l" labelloc=b labeljust=l fontname="monospace" fontsize=11')
    return "\n".join([*lines, *edges, "}", ""])


def _row(number: int, port: Port) -> str:
    text = _html(row_text(port))
    return f'<TR><TD PORT="p{number}" ALIGN="LEFT"><FONT COLOR="{COLORS[port.mood]}">{text}</FONT></TD></TR>'


def _html(text: str) -> str:
    return escape("".join(c if c.isprintable() else "�" for c in text)).replace("&#x27;", "&#39;")


def _quoted(text: str) -> str:
    # In a string, only the quote is escaped, and \n starts a line; any other backslash would be read as an escape.
    text = "".join(c if c.isprintable() or c == "\n" else "�" for c in text)
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
