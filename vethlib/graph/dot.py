"""A graph for Graphviz: `vethctl graph --dot | dot -Tsvg`. The language: https://graphviz.org/doc/info/lang.html."""

from __future__ import annotations

from .model import Graph, Port

__all__ = ["dot"]

_STYLES = {
    "good": 'color="#2e7d32"',
    "bad": 'color="#c62828" style=dashed',
    "waiting": 'color="#9a6700" style=dotted',
    "planned": 'color="#1565c0" style=dashed',
    "plain": 'color="#555555"',
}


def dot(graph: Graph) -> str:
    """The text of an undirected graph: a node for each box, an edge with labels at its ends for each pair."""
    lines = ["graph vethlib {", "  rankdir=LR", "  node [shape=box style=rounded]"]
    lines.append("  edge [fontsize=10 labelfontsize=10]")
    for box in graph.boxes:
        words = [box.name + (" (not there)" if box.missing else "")]
        words += [_label(port) for port in box.loose]
        style = ' style="rounded,dashed"' if box.missing else ""
        lines.append(f"  {_quoted(box.name)} [label={_quoted(chr(10).join(words))}{style}]")
    for edge in graph.edges:
        ends = f"taillabel={_quoted(_label(edge.a))} headlabel={_quoted(_label(edge.b))}"
        tip = _quoted("\n⇄\n".join("\n".join(port.lines()) for port in (edge.a, edge.b)))
        lines.append(
            f"  {_quoted(edge.a.box)} -- {_quoted(edge.b.box)} [{ends} {_STYLES[edge.mood]} edgetooltip={tip} minlen=3]"
        )
    return "\n".join([*lines, "}", ""])


def _label(port: Port) -> str:
    words = [port.name, *port.addresses]
    words += [f"mtu {port.mtu}"] if port.mtu else []
    words += [port.state] if port.state not in ("", "up") else []
    return "\n".join(words)


def _quoted(text: str) -> str:
    # In a string only the quote is to be escaped, and \n is a line; another backslash would be read as an escape.
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
