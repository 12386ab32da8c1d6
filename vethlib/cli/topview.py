"""What `vethctl top` shows, and what its keys do. Pure: links, a state and a size make lines; a key makes a state."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from vethlib.rates import Rates, total

from .amounts import amount
from .tally import Counted
from .text import counted, natural, paint, printable, width
from .where import ref_text

__all__ = ["ORDERS", "View", "chosen", "fitting", "picture", "press"]

States = Mapping[tuple[tuple[int, int], int], str]
"""What an agent says of an interface, by (namespace, ifindex) of its link."""


def _rate(*columns: str) -> Callable[[Counted], Any]:
    return lambda one: 0.0 if one.rates is None else -sum(getattr(one.rates, column) for column in columns)


ORDERS: Final[dict[str, Callable[[Counted], Any]]] = {
    "both": _rate("rx_bytes", "tx_bytes"),
    "rx": _rate("rx_bytes"),
    "tx": _rate("tx_bytes"),
    "drops": _rate("rx_dropped", "tx_dropped"),
    "name": lambda _one: 0,  # which is the order among equals anyway
}
_ORDER_KEYS: Final = {"b": "both", "r": "rx", "t": "tx", "d": "drops", "n": "name"}
_SORTED_BY: Final = {"rx": 2, "tx": 3, "drops": 6}

_NAME: Final = 15  # of a link: IFNAMSIZ - 1, include/uapi/linux/if.h
_NUMBER: Final = 7
_STATE: Final = 10
_ROLES: Final = {
    "UP": "good",
    "DOWN": "bad",
    "CONFIGURED": "good",
    "RETRYING": "bad",
    "FAILED": "bad",
    "INVALID": "bad",
}
_HELP: Final = "q quit  sort: b both r rx t tx d drops n name  / filter  p pause  ↑↓ scroll"


@dataclass(frozen=True, slots=True)
class View:
    """How to look at it. `typing` is a filter that is being written, `offset` the first link shown."""

    order: str = "both"
    filter: str = ""
    typing: str | None = None
    paused: bool = False
    offset: int = 0
    ended: bool = False


def press(view: View, key: str, page: int) -> View:
    """What a key makes of a view; `page` is how many links are shown at once."""
    if view.typing is not None:
        return _type(view, view.typing, key)
    if key in _ORDER_KEYS:
        return replace(view, order=_ORDER_KEYS[key], offset=0)
    steps = {"up": -1, "k": -1, "down": 1, "j": 1, "page-up": -page, "page-down": page}
    if key in steps:
        return replace(view, offset=max(0, view.offset + steps[key]))
    changes: dict[str, dict[str, Any]] = {
        "q": {"ended": True},
        "p": {"paused": not view.paused},
        " ": {"paused": not view.paused},
        "/": {"typing": view.filter},
        "escape": {"filter": "", "offset": 0},
        "home": {"offset": 0},
        "end": {"offset": 1 << 30},
    }
    return replace(view, **changes.get(key, {}))


def _type(view: View, text: str, key: str) -> View:
    if key == "enter":
        return replace(view, filter=text, typing=None, offset=0)
    if key == "escape":
        return replace(view, typing=None)
    if key == "backspace":
        return replace(view, typing=text[:-1])
    return replace(view, typing=text + key) if len(key) == 1 else view


def fitting(links: Sequence[Counted], wanted: str) -> list[Counted]:
    """Those whose name or namespace has `wanted` in it."""
    wanted = wanted.lower()
    return [one for one in links if wanted in f"{one.name}@{ref_text(one.ref)}".lower()]


def chosen(links: Sequence[Counted], order: str, wanted: str) -> list[Counted]:
    """Those that fit, the busiest first, and by name among equals."""
    found = fitting(links, wanted)
    found.sort(key=lambda one: (natural(one.ref), natural(one.name)))
    return sorted(found, key=ORDERS[order])


def picture(
    links: Sequence[Counted],
    view: View,
    size: tuple[int, int],
    *,
    clock: str,
    interval: float,
    states: States | None = None,
    remark: str = "",
) -> list[str]:
    """The lines of a screen of that size (columns, lines), none longer, painted."""
    columns, lines = size
    found = chosen(links, view.order, view.filter if view.typing is None else view.typing)
    room = max(1, lines - 4)
    offset = min(view.offset, max(0, len(found) - room))
    shown = found[offset : offset + room]
    top = [_fit(_heading(found, view, clock, interval), columns), _fit(_sums(found, offset, len(shown)), columns)]
    top.append(paint(_fit(_titles(view, columns, states), columns), "heading"))
    body = [_row(one, columns, states) for one in shown]
    body += [""] * (room - len(body))
    foot = (
        f"filter: {printable(view.typing)}▏ (enter: apply, escape: leave)"
        if view.typing is not None
        else remark or _HELP
    )
    return [*top, *body, paint(_fit(foot, columns), "faint")][:lines]


def _heading(found: Sequence[Counted], view: View, clock: str, interval: float) -> str:
    places = len({one.sample.place for one in found})
    text = (
        f"vethctl top  {clock}  every {interval:g} s  {counted(len(found), 'link')} in {counted(places, 'namespace')}"
    )
    text += f"  filter: {view.filter}" if view.filter else ""
    return text + ("  PAUSED" if view.paused else "")


def _sums(found: Sequence[Counted], offset: int, shown: int) -> str:
    sums = total(one.rates for one in found)
    if sums is None:
        return "measuring…" if found else "no link has that in its name or namespace"
    text = f"total rx {amount(sums.rx_bytes)}B/s {amount(sums.rx_packets)}p/s"
    text += f"  tx {amount(sums.tx_bytes)}B/s {amount(sums.tx_packets)}p/s"
    text += f"  dropped {amount(sums.rx_dropped + sums.tx_dropped)}/s"
    return text + (f"  {offset + 1}–{offset + shown} of {len(found)}" if shown < len(found) else "")


def _titles(view: View, columns: int, states: States | None) -> str:
    titles = ["LINK", "NETNS", "RX B/s", "TX B/s", "RX p/s", "TX p/s", "DROP/s", "STATE"]
    if view.order in _SORTED_BY:
        at = _SORTED_BY[view.order]
        titles[at] = f">{titles[at]}"
    return _line(titles, columns, states)


def _row(one: Counted, columns: int, states: States | None) -> str:
    state = _state(one, states)
    busy = one.rates is not None and one.rates.rx_bytes + one.rates.tx_bytes > 0
    dropping = one.rates is not None and one.rates.rx_dropped + one.rates.tx_dropped > 0
    cells = [printable(one.name), printable(ref_text(one.ref)), *_numbers(one.rates), state]
    roles = ["link" if busy else "", "", "", "", "", "", "bad" if dropping else "", _ROLES.get(state, "warning")]
    return _line(cells, columns, states, roles)


def _numbers(rates: Rates | None) -> list[str]:
    if rates is None:
        return ["new", "", "", "", ""]
    values = (rates.rx_bytes, rates.tx_bytes, rates.rx_packets, rates.tx_packets, rates.rx_dropped + rates.tx_dropped)
    return [amount(value) for value in values]


def _state(one: Counted, states: States | None) -> str:
    """What the agent says of it; else whether it is up, as show has it."""
    if states is not None and (said := states.get(one.sample.link)):
        return said
    link = one.link
    if link is None:
        return ""
    return "UP" if link.up and link.operstate in ("up", "unknown") else link.operstate.upper() if link.up else "DOWN"


def _line(cells: Sequence[str], columns: int, states: States | None, roles: Sequence[str] = ()) -> str:
    """The cells in columns: names to the left, numbers to the right; the namespace has what room is left."""
    state = _STATE if columns >= 75 or states is not None else 0
    rest = columns - _NAME - 1 - 5 * (_NUMBER + 1) - (state + 1 if state else 0)
    netns = max(8, min(40, rest))
    padded = [_padded(cells[0], _NAME), _padded(cells[1], netns)]
    padded += [" " * (_NUMBER - width(cell)) + cell for cell in cells[2:7]]
    padded += [cells[7]] if state else []
    line, left = "", columns
    for number, cell in enumerate(padded):
        cell = _fit(cell if not number else " " + cell, left)
        left -= width(cell)
        # The space before a cell is not its own: a colour may be a background.
        text = cell.lstrip() if number else cell
        line += cell[: len(cell) - len(text)] + paint(text, roles[number] if roles else "")
    return line.rstrip()


def _padded(text: str, columns: int) -> str:
    text = _fit(text, columns)
    return text + " " * (columns - width(text))


def _fit(text: str, columns: int) -> str:
    """`text`, which is printable, cut to so many columns."""
    if width(text) <= columns:
        return text
    while text and width(text) > columns - 1:
        text = text[:-1]
    return text + "…" if columns > 0 else ""
