"""The screen of `vethctl top` and its keys. Pure: links, a view and a size make lines; a key makes another view."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from vethlib.cli.term.text import counted, fit, natural, paint, printable, width
from vethlib.rates import Rates, total

from .amounts import amount
from .linktext import link_state, ref_text
from .values import MeasuredLink

__all__ = ["ORDERS", "States", "View", "chosen", "fitting", "picture", "press", "state_of"]

States = Mapping[tuple[tuple[int, int], int], str]
"""The states of interfaces as published by an agent, by (namespace, ifindex) of their links."""


def _rate(*columns: str) -> Callable[[MeasuredLink], Any]:
    return lambda link: 0.0 if link.rates is None else -sum(getattr(link.rates, column) for column in columns)


ORDERS: Final[dict[str, Callable[[MeasuredLink], Any]]] = {
    "both": _rate("rx_bytes", "tx_bytes"),
    "rx": _rate("rx_bytes"),
    "tx": _rate("tx_bytes"),
    "drops": _rate("rx_dropped", "tx_dropped"),
    "name": lambda _one: 0,  # links of equal rank are sorted by name anyway
}
_ORDER_KEYS: Final = {"b": "both", "r": "rx", "t": "tx", "d": "drops", "n": "name"}
_SORTED_BY: Final = {"rx": 2, "tx": 3, "drops": 6}

_NAME: Final = 15  # IFNAMSIZ - 1, include/uapi/linux/if.h
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
    """The state of the screen. `typing` is a filter that is being entered, `offset` the first link shown."""

    order: str = "both"
    filter: str = ""
    typing: str | None = None
    paused: bool = False
    offset: int = 0
    ended: bool = False


def press(view: View, key: str, page: int) -> View:
    """Return the view after a key; `page` is the number of links shown at once."""
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


def fitting(links: Sequence[MeasuredLink], text: str) -> list[MeasuredLink]:
    """Return the links with `text` in their name or namespace."""
    text = text.lower()
    return [link for link in links if text in f"{link.name}@{ref_text(link.ref)}".lower()]


def chosen(links: Sequence[MeasuredLink], order: str, text: str) -> list[MeasuredLink]:
    """Return the links that match `text`, the busiest first, and sorted by name if they are equal."""
    matching = fitting(links, text)
    matching.sort(key=lambda link: (natural(link.ref), natural(link.name)))
    return sorted(matching, key=ORDERS[order])


def picture(
    links: Sequence[MeasuredLink],
    view: View,
    size: tuple[int, int],
    *,
    clock: str,
    interval: float,
    states: States | None = None,
    remark: str = "",
) -> list[str]:
    """Return the painted lines of a screen of `size` (columns, lines), none longer."""
    columns, lines = size
    matching = chosen(links, view.order, view.filter if view.typing is None else view.typing)
    room = max(1, lines - 4)
    offset = min(view.offset, max(0, len(matching) - room))
    shown = matching[offset : offset + room]
    top = [fit(_heading(matching, view, clock, interval), columns), fit(_sums(matching, offset, len(shown)), columns)]
    top.append(paint(fit(_titles(view, columns, states), columns), "heading"))
    body = [_row(link, columns, states) for link in shown]
    body += [""] * (room - len(body))
    foot = (
        f"filter: {printable(view.typing)}▏ (enter: apply, escape: leave)"
        if view.typing is not None
        else remark or _HELP
    )
    return [*top, *body, paint(fit(foot, columns), "faint")][:lines]


def _heading(matching: Sequence[MeasuredLink], view: View, clock: str, interval: float) -> str:
    places = len({link.sample.place for link in matching})
    counts = f"{counted(len(matching), 'link')} in {counted(places, 'namespace')}"
    text = f"vethctl top  {clock}  every {interval:g} s  {counts}"
    text += f"  filter: {view.filter}" if view.filter else ""
    return text + ("  PAUSED" if view.paused else "")


def _sums(matching: Sequence[MeasuredLink], offset: int, shown: int) -> str:
    sums = total(link.rates for link in matching)
    if sums is None:
        return "measuring…" if matching else "no link matches the filter"
    text = f"total rx {amount(sums.rx_bytes)}B/s {amount(sums.rx_packets)}p/s"
    text += f"  tx {amount(sums.tx_bytes)}B/s {amount(sums.tx_packets)}p/s"
    text += f"  dropped {amount(sums.rx_dropped + sums.tx_dropped)}/s"
    return text + (f"  {offset + 1}–{offset + shown} of {len(matching)}" if shown < len(matching) else "")


def _titles(view: View, columns: int, states: States | None) -> str:
    titles = ["LINK", "NETNS", "RX B/s", "TX B/s", "RX p/s", "TX p/s", "DROP/s", "STATE"]
    if view.order in _SORTED_BY:
        at = _SORTED_BY[view.order]
        titles[at] = f">{titles[at]}"
    return _line(titles, columns, states)


def _row(link: MeasuredLink, columns: int, states: States | None) -> str:
    state = state_of(link, states)
    busy = link.rates is not None and link.rates.rx_bytes + link.rates.tx_bytes > 0
    dropping = link.rates is not None and link.rates.rx_dropped + link.rates.tx_dropped > 0
    cells = [printable(link.name), printable(ref_text(link.ref)), *_numbers(link.rates), state]
    roles = ["link" if busy else "", "", "", "", "", "", "bad" if dropping else "", _ROLES.get(state, "warning")]
    return _line(cells, columns, states, roles)


def _numbers(rates: Rates | None) -> list[str]:
    if rates is None:
        return ["new", "", "", "", ""]
    values = (rates.rx_bytes, rates.tx_bytes, rates.rx_packets, rates.tx_packets, rates.rx_dropped + rates.tx_dropped)
    return [amount(value) for value in values]


def state_of(link: MeasuredLink, states: States | None) -> str:
    """Return the published state of its interface, or else the state of the link."""
    if states is not None and (state := states.get(link.sample.link)):
        return state
    return "" if link.link is None else link_state(link.link)


def _line(cells: Sequence[str], columns: int, states: States | None, roles: Sequence[str] = ()) -> str:
    """Return cells in columns: names on the left, numbers on the right; the namespace takes the remaining width."""
    state = _STATE if columns >= 75 or states is not None else 0
    rest = columns - _NAME - 1 - 5 * (_NUMBER + 1) - (state + 1 if state else 0)
    netns = max(8, min(40, rest))
    padded = [_padded(cells[0], _NAME), _padded(cells[1], netns)]
    padded += [" " * (_NUMBER - width(cell)) + cell for cell in cells[2:7]]
    padded += [cells[7]] if state else []
    line, left = "", columns
    for number, cell in enumerate(padded):
        cell = fit(cell if not number else " " + cell, left)
        left -= width(cell)
        # The space before a cell is not painted: its colour may be a background.
        text = cell.lstrip() if number else cell
        line += cell[: len(cell) - len(text)] + paint(text, roles[number] if roles else "")
    return line.rstrip()


def _padded(text: str, columns: int) -> str:
    text = fit(text, columns)
    return text + " " * (columns - width(text))
