"""Text as people see it: in which order, and how wide. A leaf."""

from __future__ import annotations

import re

__all__ = ["columns", "natural"]


def columns(text: str) -> int:
    """The columns it takes where every character is as wide as another, or twice as wide."""
    if text.isascii():
        return len(text)
    from unicodedata import combining, east_asian_width

    return sum(0 if combining(c) else 2 if east_asian_width(c) in "WF" else 1 for c in text)


def natural(text: str) -> list[str | tuple[int, str]]:
    """A key to sort by as people count: leaf2 comes before leaf10."""
    pieces: list[str | tuple[int, str]] = [*re.split("([0-9]+)", text)]
    # Not by int(), which refuses more than 4300 digits.
    pieces[1::2] = [(len(digits), digits) for digits in (piece.lstrip("0") for piece in re.findall("[0-9]+", text))]
    return pieces
