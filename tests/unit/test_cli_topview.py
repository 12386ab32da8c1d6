"""What top shows, and what its keys do."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from vethlib.cli.render.topview import View, chosen, picture, press
from vethlib.cli.render.values import MeasuredLink
from vethlib.cli.term.text import render, width
from vethlib.links import Link, Stats
from vethlib.rates import Rates, Sample

STATS = Stats(*[0] * len(fields(Stats)))


def link(name: str, ref: str = "", *, up: bool = True, **rates: float) -> MeasuredLink:
    zeros = Rates(1.0, *[0.0] * (len(fields(Rates)) - 1))
    state = "up" if up else "down"
    seen = Link(2, name, ref, "veth", "02:00:00:00:00:01", 1500, up, state, (), None, None, "", 0, 1, ())
    return MeasuredLink(
        ref, name, Sample((4, hash(ref) % 1000), hash(name) % 1000, 0.0, STATS), replace(zeros, **rates), seen
    )


LINKS = [
    link("eth0", rx_bytes=10.0, tx_bytes=500.0),
    link("leaf10", "netns:leaf", rx_bytes=200.0),
    link("leaf2", "netns:leaf", rx_bytes=200.0, rx_dropped=3.0),
    link("idle", "pid:42", up=False),
]


def shown(view: View = View(), columns: int = 80, lines: int = 24, links: list[MeasuredLink] = LINKS) -> list[str]:  # noqa: B008
    found = picture(links, view, (columns, lines), clock="12:00:00", interval=1.0)
    return [render(line, colored=False) for line in found]


def test_the_busiest_come_first_and_equals_by_name_as_people_count() -> None:
    assert [one.name for one in chosen(LINKS, "both", "")] == ["eth0", "leaf2", "leaf10", "idle"]
    assert [one.name for one in chosen(LINKS, "rx", "")] == ["leaf2", "leaf10", "eth0", "idle"]
    assert chosen(LINKS, "drops", "")[0].name == "leaf2"


def test_a_filter_is_for_names_and_namespaces() -> None:
    assert [one.name for one in chosen(LINKS, "name", "LEAF")] == ["leaf2", "leaf10"]
    assert [one.name for one in chosen(LINKS, "name", "@pid:")] == ["idle"]


@pytest.mark.parametrize("columns", [20, 40, 60, 80, 132])
@pytest.mark.parametrize("lines", [2, 5, 24])
def test_no_screen_is_too_small(columns: int, lines: int) -> None:
    for view in (View(), View(typing="x" * 90), View(paused=True, filter="e"), View(offset=1 << 30)):
        found = shown(view, columns, lines)
        assert len(found) <= lines
        assert max(map(width, found)) <= columns


def test_eighty_columns_hold_everything_of_a_link() -> None:
    row = next(line for line in shown() if line.startswith("leaf2"))
    assert row.split() == ["leaf2", "leaf", "200", "0", "0", "0", "3", "UP"]
    assert "total rx 410B/s" in shown()[1]


def test_names_cannot_command_the_terminal() -> None:
    assert all("\033" not in line for line in shown(links=[link("a\033[2Jb", "netns:\033c")]))


def test_the_state_is_what_the_agent_says() -> None:
    states = {LINKS[0].sample.link: "RETRYING"}
    found = picture(LINKS, View(), (80, 24), clock="", interval=1.0, states=states)
    rows = [render(line, colored=False) for line in found]
    assert next(row for row in rows if row.startswith("eth0")).endswith("RETRYING")
    assert next(row for row in rows if row.startswith("idle")).endswith("DOWN")


def test_keys_sort_pause_scroll_and_quit() -> None:
    view = View(offset=3)
    assert press(view, "r", 10) == View(order="rx")
    assert press(view, "p", 10).paused
    assert not press(press(view, " ", 10), "p", 10).paused
    assert press(view, "page-up", 10).offset == 0
    assert press(view, "down", 10).offset == 4
    assert press(view, "q", 10).ended
    assert press(view, "z", 10) == view


def test_a_filter_is_typed_applied_and_left() -> None:
    view = View()
    for key in ("/", "n", "q", "backspace", "s"):
        view = press(view, key, 10)
    assert (view.typing, view.ended, view.filter) == ("ns", False, "")
    assert press(view, "enter", 10) == View(filter="ns")
    assert press(view, "escape", 10) == View()
    assert press(View(filter="ns"), "escape", 10) == View()
