"""The limits in the page on tenants, writers and local users are the limits in the code."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from vethlib.agent.limits import Limits

pytestmark = pytest.mark.docs

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "who-can-do-what.md"
_UNITS = {"KiB": 1 << 10, "MiB": 1 << 20}


def _figures() -> dict[str, float]:
    """Each limit in backquotes with the last number before it: "up to 64 connections (`metrics_clients`)"."""
    known = {one.name for one in fields(Limits)}
    found: dict[str, float] = {}
    text = PAGE.read_text()
    for named in re.finditer(r"`(\w+)`", text):
        if named[1] in known:
            before = re.findall(r"\b(\d+(?: \d{3})*|a)(?: (KiB|MiB))?\b", text[: named.start()])
            number, unit = before[-1]
            found[named[1]] = (1 if number == "a" else int(number.replace(" ", ""))) * _UNITS.get(unit, 1)
    return found


def test_the_page_has_the_defaults_of_the_limits() -> None:
    figures = _figures()
    assert len(figures) >= 10
    assert figures == {name: getattr(Limits(), name) for name in figures}
