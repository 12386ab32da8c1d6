"""The chart: an SVG with a panel of horizontal bars per job, for light and dark backgrounds. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from .machine import Conditions
from .report import duration
from .results import WHOLE, Result, Row

__all__ = ["chart"]

_WIDTH, _MARGIN = 880, 28
_LABELS, _VALUES = 172, 150  # left and right of the bars
_PLOT = _WIDTH - 2 * _MARGIN - _LABELS - _VALUES
_ROW, _BAR = 24, 14
_TITLE, _AXIS, _GAP = 46, 22, 26
# If the longest bar is more than this many times the shortest, the scale is logarithmic, so that short bars are
# visible.
_LOG_FROM = 12.0

_LEGEND = (
    "limit: a C program that sends the fewest messages; ×: multiple of limit, or else of vethlib; thin line: the spread"
)

# It has its own background, because the page that shows it as an image may have another theme.
_STYLE = """
  text { font: 13px system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; fill: #1f2328; }
  .head { font-size: 17px; font-weight: 600; }
  .title { font-size: 14px; font-weight: 600; }
  .faint { fill: #636c76; font-size: 12px; }
  .value { font-variant-numeric: tabular-nums; paint-order: stroke; stroke: #ffffff; stroke-width: 4px; }
  .paper { fill: #ffffff; }
  .grid { stroke: #d1d9e0; stroke-width: 1; }
  .spread { stroke: #1f2328; stroke-opacity: 0.55; stroke-width: 1.5; }
  .bar { fill: #a3b1c2; }
  .limit { fill: #57606a; }
  .vethlib { fill: #1f7a4d; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; }
    .faint { fill: #9198a1; }
    .paper { fill: #0d1117; }
    .value { stroke: #0d1117; }
    .grid { stroke: #30363d; }
    .spread { stroke: #e6edf3; }
    .bar { fill: #4c5867; }
    .limit { fill: #8b949e; }
    .vethlib { fill: #3fb97a; }
  }
"""


@dataclass(frozen=True, slots=True)
class _Bar:
    """A row of a panel, in the unit of the panel."""

    label: str
    contestant: str
    value: float
    low: float
    high: float
    text: str
    hover: str


@dataclass(frozen=True, slots=True)
class _Panel:
    title: str
    subtitle: str
    bars: tuple[_Bar, ...]

    @property
    def height(self) -> int:
        return _TITLE + _ROW * len(self.bars) + _AXIS + _GAP


def chart(results: Sequence[Result], conditions: Conditions) -> str:
    """Return the SVG of all results."""
    subtitle = f"{conditions.machine}; {conditions.queues_text}"
    panels = [panel for group in _grouped(results) if (panel := _panel(group)).bars]
    parts = []
    top = 98
    for panel in panels:
        parts += [f'<g transform="translate({_MARGIN} {top})">', *_drawn(panel), "</g>"]
        top += panel.height
    head = "The cost of wiring network namespaces with veth pairs"
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{top}" '
            f'viewBox="0 0 {_WIDTH} {top}" role="img" aria-label="{escape(head)}">',
            f"<style>{_STYLE}</style>",
            f'<rect class="paper" width="{_WIDTH}" height="{top}" rx="8"/>',
            _text(_MARGIN, 38, head, "head"),
            _text(_MARGIN, 60, subtitle, "faint"),
            _text(_MARGIN, 77, _LEGEND, "faint"),
            *parts,
            "</svg>",
            "",
        ]
    )


def _grouped(results: Iterable[Result]) -> list[list[Result]]:
    """Group results into panels: the sizes of growth share one, every other result has its own."""
    groups: list[list[Result]] = []
    for result in results:
        if result.job.workload.name == "growth" and groups and groups[-1][0].job.workload is result.job.workload:
            groups[-1].append(result)
        else:
            groups.append([result])
    return groups


def _panel(group: Sequence[Result]) -> _Panel:
    workload = group[0].job.workload
    unit = "ms" if workload.milliseconds else "µs"
    bars = [_bar(result, row, unit, several=len(group) > 1) for result in group for row in _rows(result)]
    size = f"{group[0].job.n}–{group[-1].job.n}" if len(group) > 1 else f"{group[0].job.n}"
    title = f"{workload.name}, {size} {workload.item}s"
    return _Panel(title, f"{workload.what}; {unit} per {workload.item}", tuple(bars))


def _rows(result: Result) -> list[Row]:
    """Return the rows to draw; of phases that add up, only the sum."""
    rows = result.rows()
    return [row for row in rows if row.phase == WHOLE] or rows


def _bar(result: Result, row: Row, unit: str, *, several: bool) -> _Bar:
    milliseconds = unit == "ms"
    scale = 1e3 if milliseconds else 1e6
    label = f"{row.contestant}, {result.job.n}" if several else row.contestant
    if row.phase not in (WHOLE, result.job.workload.name):
        label = f"{row.contestant}, {row.phase}"
    text = f"{duration(row.wall.median, milliseconds=milliseconds)} {unit}"
    if row.ratio is not None and row.contestant != row.base:
        text += f"  × {row.ratio:.2f}" if row.ratio < 10 else f"  × {row.ratio:.0f}"
    low, high = (duration(value, milliseconds=milliseconds) for value in (row.wall.low, row.wall.high))
    hover = f"{result.job.title}, {row.phase}, {row.contestant}: {text}; from {low} to {high} {unit}"
    wall = row.wall
    return _Bar(label, row.contestant, wall.median * scale, wall.low * scale, wall.high * scale, text, hover)


def _drawn(panel: _Panel) -> list[str]:
    axis = _Axis.over(panel.bars)
    subtitle = f"{panel.subtitle}, logarithmic" if axis.logarithmic else panel.subtitle
    bottom = _TITLE + _ROW * len(panel.bars)
    parts = [_text(0, 14, panel.title, "title"), _text(0, 32, subtitle, "faint")]
    for tick in axis.ticks:
        x = _LABELS + axis.at(tick)
        parts.append(f'<line class="grid" x1="{x:.1f}" y1="{_TITLE}" x2="{x:.1f}" y2="{bottom + 4}"/>')
        parts.append(_text(x, bottom + 18, f"{tick:,g}".replace(",", " "), "faint", "middle"))
    for number, bar in enumerate(panel.bars):
        parts += _row(bar, axis, _TITLE + _ROW * number + _ROW / 2)
    return parts


def _row(bar: _Bar, axis: _Axis, y: float) -> list[str]:
    kind = bar.contestant if bar.contestant in ("limit", "vethlib") else "bar"
    length = max(1.5, axis.at(bar.value))
    low, high = axis.at(bar.low), axis.at(bar.high)
    return [
        f"<g><title>{escape(bar.hover)}</title>",
        _text(_LABELS - 10, y + 4.5, bar.label, "", "end"),
        f'<rect class="{kind}" x="{_LABELS}" y="{y - _BAR / 2}" width="{length:.1f}" height="{_BAR}" rx="2"/>',
        f'<line class="spread" x1="{_LABELS + low:.1f}" y1="{y}" x2="{_LABELS + high:.1f}" y2="{y}"/>',
        _text(_LABELS + max(length, high) + 8, y + 4.5, bar.text, "value"),
        "</g>",
    ]


@dataclass(frozen=True, slots=True)
class _Axis:
    """The scale of the bars."""

    start: float
    stop: float
    ticks: tuple[float, ...]
    logarithmic: bool

    @classmethod
    def over(cls, bars: Sequence[_Bar]) -> _Axis:
        """Return a scale on which all values can be distinguished."""
        low, high = min(bar.value for bar in bars), max(bar.high for bar in bars)
        if low > 0 and high > _LOG_FROM * low:
            # Half a decade of room, so that the shortest bar is visible.
            first, last = math.floor(math.log10(low) - 0.5), math.log10(high)
            ticks = tuple(10.0**power for power in range(first, math.floor(last) + 1))
            return cls(10.0**first, high, ticks, True)
        step = _round_step(high / 5) if high > 0 else 1.0
        return cls(0.0, high or 1.0, tuple(step * i for i in range(int(high / step) + 1)), False)

    def at(self, value: float) -> float:
        """Return the place of a value."""
        if not self.logarithmic:
            return _PLOT * value / self.stop
        return _PLOT * math.log(max(value, self.start) / self.start) / math.log(self.stop / self.start)


def _round_step(least: float) -> float:
    """Return the next of 1, 2, 5, 10, 20, …"""
    power = 10.0 ** math.floor(math.log10(least))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= least)


def _text(x: float, y: float, text: str, kind: str, anchor: str = "start") -> str:
    kind = f' class="{kind}"' if kind else ""
    anchor = f' text-anchor="{anchor}"' if anchor != "start" else ""
    return f'<text x="{x:g}" y="{y:g}"{kind}{anchor}>{escape(text)}</text>'
