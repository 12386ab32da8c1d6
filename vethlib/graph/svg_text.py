"""A graph as a self-contained SVG: no font, script or style from elsewhere; light or dark like the reader's theme.

1. Nothing is expressed by colour alone: a port has its state as a word with a sign before it, and edges that are not up
   are dashed or dotted.
2. Every shape and text has the colours for a light background as attributes. The style sheet, whose variables select
   the dark theme, only overrides them; programs without support for variables (Inkscape, rsvg-convert and most
   converters) skip it as a whole (`@supports`).
3. Tooltips have all details. The reasons for states are also below the picture, for print and PNG.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Final

from .labels import title_of
from .layout import CHAR, HEAD, PAD, ROW, Curve, PlacedBox, Row, place
from .model import Graph, Mood, check_graph
from .reasons import Reason, reasons, wrapped

__all__ = ["svg"]

_LIGHT: Final[Mapping[str, str]] = {
    "bg": "#ffffff",
    "box": "#f6f8fa",
    "line": "#8c959f",
    "text": "#1f2328",
    "dim": "#59636e",
    "good": "#1a7f37",
    "bad": "#cf222e",
    "waiting": "#9a6700",
    "planned": "#0969da",
    "plain": "#59636e",
}
_DARK: Final[Mapping[str, str]] = {
    "bg": "#0d1117",
    "box": "#161b22",
    "line": "#6e7681",
    "text": "#e6edf3",
    "dim": "#9198a1",
    "good": "#3fb950",
    "bad": "#f85149",
    "waiting": "#d29922",
    "planned": "#4493f8",
    "plain": "#9198a1",
}
_DASHES: Final[Mapping[Mood, str]] = {"bad": "7 4", "waiting": "2 4", "planned": "10 3 2 3"}
_FONT: Final = "ui-monospace,'DejaVu Sans Mono','Liberation Mono',Menlo,Consolas,monospace"
_MARGIN: Final = 24
_NARROWEST: Final = 560  # pixels, so that reasons are readable


def _variables(colors: Mapping[str, str]) -> str:
    return "svg{" + ";".join(f"--{name}:{color}" for name, color in colors.items()) + "}"


_MOODS: Final = ("good", "bad", "waiting", "planned", "plain")
_STYLE: Final = "\n".join(
    [
        "text{white-space:pre}g:hover>.e{stroke-width:3.5}",
        "@supports (fill:var(--bg)){",
        _variables(_LIGHT),
        f"@media (prefers-color-scheme:dark){{{_variables(_DARK)}}}",
        "text{fill:var(--text)}.d{fill:var(--dim)}.bg{fill:var(--bg)}.b{fill:var(--box);stroke:var(--line)}",
        *(
            f".e.{mood},.p.{mood}{{stroke:var(--{mood})}}.p.{mood},text .{mood}{{fill:var(--{mood})}}"
            for mood in _MOODS
        ),
        "}",
        "",
    ]
)


def svg(graph: Graph, *, title: str = "Network namespaces and the veth pairs between them") -> str:
    """Return the text of an SVG file. Equal graphs give equal texts."""
    check_graph(graph)
    placed = place(graph)
    width, height = round(placed.width), round(placed.height)
    below = reasons(graph)
    if below:
        width = max(width, _NARROWEST)
    lines_below, height = _below(below, width, height)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" font-family="{_FONT}" font-size="12" style="max-width:100%;height:auto">',
        f"<title>{_safe(title)}</title>",
        f"<desc>{_safe(_described(graph))}</desc>",
        f"<style>{_STYLE}</style>",
        f'<rect class="bg" fill="{_LIGHT["bg"]}" width="{width}" height="{height}"/>',
    ]
    lines += map(_curve, placed.curves)
    for box in placed.boxes:
        lines += _box(box)
    return "\n".join([*lines, *lines_below, "</svg>", ""])


def _described(graph: Graph) -> str:
    bad = sum(edge.mood not in ("good", "plain") for edge in graph.edges)
    words = [f"{len(graph.boxes)} namespaces, {len(graph.edges)} pairs"]
    words += [f"{bad} of them not up"] if bad else []
    warned = sum(bool(edge.a.warnings or edge.b.warnings) for edge in graph.edges)
    return ", ".join(words + ([f"{warned} of them with a warning"] if warned else []))


def _below(reasons: list[Reason], width: int, height: int) -> tuple[list[str], int]:
    """Return the lines of the reasons below a picture of that height, and the height including them."""
    lines: list[str] = []
    y = float(height)
    for reason in reasons:
        for number, text in enumerate(wrapped(reason.text, int((width - 2 * _MARGIN) / CHAR))):
            sign, rest = (text[:1], text[1:]) if number == 0 else ("", text)
            span = f'<tspan class="{reason.mood}" fill="{_LIGHT[reason.mood]}">{_safe(sign)}</tspan>' if sign else ""
            lines.append(_text(_MARGIN, y, f"{span}{_safe(rest)}", "r"))
            y += ROW
    return lines, round(y + _MARGIN / 2) if reasons else height


def _text(x: float, y: float, content: str, cls: str = "", more: str = "") -> str:
    named = f' class="{cls}"' if cls else ""
    return f'<text{named} fill="{_LIGHT["text"]}" xml:space="preserve" x="{_n(x)}" y="{_n(y)}"{more}>{content}</text>'


def _curve(curve: Curve) -> str:
    a, b, mood = curve.a, curve.b, curve.edge.mood
    out_a, out_b = _out(a), _out(b)
    if a.side == b.side and curve.bulge:
        edge = max(a.x * out_a, b.x * out_b) * out_a  # the end that is further out
        far = edge + out_a * curve.bulge * 4 / 3  # a cubic reaches three quarters of the way to its control points
        path = f"M{_n(a.x)} {_n(a.y)}C{_n(far)} {_n(a.y)} {_n(far)} {_n(b.y)} {_n(b.x)} {_n(b.y)}"
    else:
        reach = max(24.0, abs(a.x - b.x) / 2)
        path = (
            f"M{_n(a.x)} {_n(a.y)}C{_n(a.x + out_a * reach)} {_n(a.y)} {_n(b.x + out_b * reach)} {_n(b.y)} "
            f"{_n(b.x)} {_n(b.y)}"
        )
    tip = "\n".join([f"{a.port.name} in {a.port.box} ⇄ {b.port.name} in {b.port.box}", "", *_tip(a), "", *_tip(b)])
    # The first path is wide and invisible, as the area for the tooltip.
    reach_of_pointer = (
        f'<path class="h" fill="none" stroke="none" stroke-width="9" pointer-events="stroke" d="{path}"/>'
    )
    dashes = f' stroke-dasharray="{_DASHES[mood]}"' if mood in _DASHES else ""
    line = f'<path class="e {mood}" fill="none" stroke="{_LIGHT[mood]}" stroke-width="1.6"{dashes} d="{path}"/>'
    return f"<g><title>{_safe(tip)}</title>{reach_of_pointer}{line}</g>"


def _out(row: Row) -> int:
    return 1 if row.side == "right" else -1


def _tip(row: Row) -> list[str]:
    return [f"{row.port.box}: {row.port.name}", *(f"  {line}" for line in row.port.lines()[1:])]


def _box(box: PlacedBox) -> list[str]:
    x, y = box.x, box.y
    look = f'fill="{_LIGHT["box"]}" stroke="{_LIGHT["line"]}"'
    dashes = ' stroke-dasharray="4 3"' if box.box.missing else ""
    lines = [
        f'<rect class="b" {look}{dashes} x="{_n(x)}" y="{_n(y)}" width="{_n(box.width)}" '
        f'height="{_n(box.height)}" rx="6"/>',
        _text(x + PAD, y + HEAD - 8, _safe(title_of(box.box)), "t", ' font-weight="bold"'),
    ]
    if box.rows:
        lines.append(f'<path class="b" {look} d="M{_n(x)} {_n(y + HEAD - 1)}h{_n(box.width)}"/>')
    lines += map(_row, box.rows)
    return lines


def _row(row: Row) -> str:
    mood = row.port.mood
    inner = row.x - _out(row) * PAD
    anchor = ' text-anchor="end"' if row.side == "right" else ""
    name, _, rest = row.text.partition("  ")
    details, sign, state = rest, "", ""
    if row.port.state not in ("", "up"):
        details, _, state = rest.rpartition("  ") if "  " in rest else ("", "", rest)
        text = f"{'  ' if state else ''}{_safe(state)}"
        sign = f'<tspan class="{mood}" fill="{_LIGHT[mood]}">{text}</tspan>'
    tail = f'<tspan class="d" fill="{_LIGHT["dim"]}">  {_safe(details)}</tspan>' if details else ""
    color = _LIGHT[mood]
    dot = f'<circle class="p {mood}" fill="{color}" stroke="{color}" cx="{_n(row.x)}" cy="{_n(row.y)}" r="3"/>'
    text = _text(inner, row.y + 4, f"{_safe(name)}{tail}{sign}", more=anchor)
    return f"<g><title>{_safe(chr(10).join(_tip(row)))}</title>{dot}{text}</g>"


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _safe(text: str) -> str:
    # XML permits no control characters, not even escaped (https://www.w3.org/TR/xml/#charsets).
    return escape("".join(c if c.isprintable() or c == "\n" else "�" for c in text), quote=False)
