"""A graph as an SVG that needs nothing else: no font, script or style from elsewhere; light or dark as the reader is.

What is to be seen is never told by colour alone: a port says its state in a word with a sign before it, and edges that
are not up are dashed or dotted. Whoever points at something reads all that is known of it.
"""

from __future__ import annotations

from html import escape
from typing import Final

from .layout import HEAD, PAD, Curve, PlacedBox, Row, place, title_of
from .model import Graph

__all__ = ["svg"]

_STYLE: Final = """\
svg{--bg:#ffffff;--box:#f6f8fa;--line:#8c959f;--text:#1f2328;--dim:#59636e;\
--good:#1a7f37;--bad:#cf222e;--waiting:#9a6700;--planned:#0969da;--plain:#59636e}
@media (prefers-color-scheme:dark){svg{--bg:#0d1117;--box:#161b22;--line:#6e7681;--text:#e6edf3;--dim:#9198a1;\
--good:#3fb950;--bad:#f85149;--waiting:#d29922;--planned:#4493f8;--plain:#9198a1}}
text{font:12px ui-monospace,"DejaVu Sans Mono","Liberation Mono",Menlo,Consolas,monospace;\
fill:var(--text);white-space:pre}
.t{font-weight:bold}.d{fill:var(--dim)}.bg{fill:var(--bg)}
.b{fill:var(--box);stroke:var(--line)}.m{stroke-dasharray:4 3}
.e{fill:none;stroke-width:1.6}g:hover>.e{stroke-width:3.5}.h{fill:none;stroke:transparent;stroke-width:9}
.bad{stroke-dasharray:7 4}.waiting{stroke-dasharray:2 4}.planned{stroke-dasharray:10 3 2 3}
"""
_STYLE_OF: Final = "".join(
    f".e.{mood},.p.{mood}{{stroke:var(--{mood})}}.p.{mood}{{fill:var(--{mood})}}text .{mood}{{fill:var(--{mood})}}\n"
    for mood in ("good", "bad", "waiting", "planned", "plain")
)


def svg(graph: Graph, *, title: str = "Network namespaces and the veth pairs between them") -> str:
    """The text of an SVG file. The same graph gives the same text."""
    placed = place(graph)
    width, height = round(placed.width), round(placed.height)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" style="max-width:100%;height:auto">',
        f"<title>{_safe(title)}</title>",
        f"<desc>{_safe(_described(graph))}</desc>",
        f"<style>{_STYLE}{_STYLE_OF}</style>",
        f'<rect class="bg" width="{width}" height="{height}"/>',
    ]
    lines += map(_curve, placed.curves)
    for box in placed.boxes:
        lines += _box(box)
    return "\n".join([*lines, "</svg>", ""])


def _described(graph: Graph) -> str:
    bad = sum(edge.mood not in ("good", "plain") for edge in graph.edges)
    words = [f"{len(graph.boxes)} namespaces, {len(graph.edges)} pairs"]
    return ", ".join(words + ([f"{bad} of them not up"] if bad else []))


def _curve(curve: Curve) -> str:
    a, b, mood = curve.a, curve.b, curve.edge.mood
    out_a, out_b = _out(a), _out(b)
    if a.side == b.side and curve.bulge:
        edge = max(a.x * out_a, b.x * out_b) * out_a  # the one that stands out further
        far = edge + out_a * curve.bulge * 4 / 3  # a cubic reaches three quarters of the way to its control points
        path = f"M{_n(a.x)} {_n(a.y)}C{_n(far)} {_n(a.y)} {_n(far)} {_n(b.y)} {_n(b.x)} {_n(b.y)}"
    else:
        reach = max(24.0, abs(a.x - b.x) / 2)
        path = (
            f"M{_n(a.x)} {_n(a.y)}C{_n(a.x + out_a * reach)} {_n(a.y)} {_n(b.x + out_b * reach)} {_n(b.y)} "
            f"{_n(b.x)} {_n(b.y)}"
        )
    tip = "\n".join([f"{a.port.name} in {a.port.box} ⇄ {b.port.name} in {b.port.box}", "", *_tip(a), "", *_tip(b)])
    return f'<g><title>{_safe(tip)}</title><path class="h" d="{path}"/><path class="e {mood}" d="{path}"/></g>'


def _out(row: Row) -> int:
    return 1 if row.side == "right" else -1


def _tip(row: Row) -> list[str]:
    return [f"{row.port.box}: {row.port.name}", *(f"  {line}" for line in row.port.lines()[1:])]


def _box(box: PlacedBox) -> list[str]:
    x, y, missing = box.x, box.y, " m" if box.box.missing else ""
    lines = [
        f'<rect class="b{missing}" x="{_n(x)}" y="{_n(y)}" width="{_n(box.width)}" height="{_n(box.height)}" rx="6"/>',
        f'<text class="t" x="{_n(x + PAD)}" y="{_n(y + HEAD - 8)}">{_safe(title_of(box.box))}</text>',
    ]
    if box.rows:
        line = f"M{_n(x)} {_n(y + HEAD - 1)}h{_n(box.width)}"
        lines.append(f'<path class="b" d="{line}"/>')
    lines += map(_row, box.rows)
    return lines


def _row(row: Row) -> str:
    inner = row.x - _out(row) * PAD
    anchor = ' text-anchor="end"' if row.side == "right" else ""
    name, _, rest = row.text.partition("  ")
    details, sign, state = rest, "", ""
    if row.port.state not in ("", "up"):
        details, _, state = rest.rpartition("  ") if "  " in rest else ("", "", rest)
        sign = f'<tspan class="{row.port.mood}">{"  " if state else ""}{_safe(state)}</tspan>'
    tail = f'<tspan class="d">  {_safe(details)}</tspan>' if details else ""
    dot = f'<circle class="p {row.port.mood}" cx="{_n(row.x)}" cy="{_n(row.y)}" r="3"/>'
    text = f'<text x="{_n(inner)}" y="{_n(row.y + 4)}"{anchor}>{_safe(name)}{tail}{sign}</text>'
    return f"<g><title>{_safe(chr(10).join(_tip(row)))}</title>{dot}{text}</g>"


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _safe(text: str) -> str:
    # XML has no place for control characters, not even escaped (https://www.w3.org/TR/xml/#charsets).
    return escape("".join(c if c.isprintable() or c == "\n" else "�" for c in text), quote=False)
