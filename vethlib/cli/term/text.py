"""Text for people: escape sequences from elsewhere are harmless, colours have meanings, columns are aligned.

Within strings, a colour is a NUL, a secret of this process and a code; :func:`render` replaces these by an escape
sequence or nothing. Text from elsewhere cannot contain the secret, so it cannot contain colours.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence

from vethlib.text import columns, counted, cut, natural, printable

__all__ = ["counted", "fit", "natural", "paint", "printable", "render", "table_lines", "width", "without_password"]

# Neither blue, which is illegible on black, nor yellow, which is illegible on white.
_CODES = {
    "heading": "1",
    "faint": "2",
    "bad": "31",
    "good": "32",
    "address": "35",
    "warning": "1;35",
    "link": "36",
}
_WIDEST = 1000  # columns of a terminal to which cells are padded
_LONGEST = 64 << 10  # characters of a message with a URL
_BEGIN = f"\0{os.urandom(6).hex()}:"
_MARK = re.compile(f"{_BEGIN}([0-9;]*)m")
_URL = re.compile("etcd:|://", re.IGNORECASE)


def paint(text: object, role: str) -> str:
    """Mark a text with a role ("good", "link", …), which :func:`render` shows as a colour; "" is none."""
    return f"{_BEGIN}{_CODES[role]}m{text}{_BEGIN}m" if role and text != "" else str(text)


def render(text: str, *, colored: bool) -> str:
    """Return a line as it is written, with or without colours."""
    pieces = _MARK.split(text)
    pieces[::2] = map(printable, pieces[::2])
    pieces[1::2] = [f"\033[{code or 0}m" if colored else "" for code in pieces[1::2]]
    return "".join(pieces)


def without_password(text: str) -> str:
    """Mask the password in a message that may contain the URL of a store."""
    if not _URL.search(text):
        return text
    from vethlib.agent.stores.etcd.address import masked_in  # it imports much of the agent, and few messages have a URL

    return masked_in(cut(text, _LONGEST))


def width(text: str) -> int:
    """Return the width of a text on a terminal, in columns."""
    return columns(render(text, colored=False))


def fit(text: str, most: int) -> str:
    """Cut a printable text without colours to `most` columns of a terminal."""
    if columns(text) <= most:
        return text
    room = most - 1
    for number, character in enumerate(text):
        room -= columns(character)
        if room < 0:
            return f"{text[:number]}…" if most > 0 else ""
    return text


def table_lines(rows: Iterable[Sequence[str]], *, roles: Sequence[str] = (), right: bool = False) -> Iterator[str]:
    """Yield rows with aligned columns. `roles` has the meaning of each column; `right` aligns to the right."""
    cells = [list(row) for row in rows]
    # One cell of a megabyte does not make all others as wide.
    widths = [min(_WIDEST, max(map(width, column))) for column in zip(*cells, strict=True)]
    for row in cells:
        line = []
        for number, (cell, wide) in enumerate(zip(row, widths, strict=True)):
            painted = paint(cell, roles[number] if number < len(roles) else "")
            padding = " " * (wide - width(cell))
            line.append(padding + painted if right else painted + padding)
        yield "  ".join(line).rstrip()
