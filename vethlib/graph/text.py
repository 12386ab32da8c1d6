"""How wide a text is, in characters of one width."""

from __future__ import annotations

from unicodedata import combining, east_asian_width

__all__ = ["columns"]


def columns(text: str) -> int:
    """The columns it takes where every character is as wide as another, or twice as wide."""
    if text.isascii():
        return len(text)
    return sum(0 if combining(c) else 2 if east_asian_width(c) in "WF" else 1 for c in text)
