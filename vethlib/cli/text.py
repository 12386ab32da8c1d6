"""Text for people: harmless to a terminal, coloured by meaning, as wide as it looks, counted in words.

A colour travels through our strings as a NUL and its code, which :func:`render` turns into an escape sequence or
nothing. No name, alias or path can hold a NUL, so what looks like an escape sequence in one of them is never obeyed.
"""

from __future__ import annotations

import re

from vethlib.text import columns, natural

__all__ = ["counted", "natural", "paint", "printable", "render", "width", "without_password"]

# Neither blue, which cannot be read on black, nor yellow, which cannot be read on white.
_CODES = {
    "heading": "1",
    "faint": "2",
    "bad": "31",
    "good": "32",
    "address": "35",
    "warning": "1;35",
    "link": "36",
}
_MARK = re.compile("\0([0-9;]*)m")
_URL = re.compile("etcd:|://", re.IGNORECASE)
_LONE = re.compile("[\ud800-\udc7f\udd00-\udfff]")  # what no byte stands for (PEP 383)


def paint(text: object, role: str) -> str:
    """`text` with a meaning ("good", "link", …) that :func:`render` shows as a colour; "" is none."""
    return f"\0{_CODES[role]}m{text}\0m" if role and text != "" else str(text)


def render(text: str, *, colored: bool) -> str:
    """One line as it is to be written."""
    pieces = _MARK.split(text)
    pieces[::2] = map(printable, pieces[::2])
    pieces[1::2] = [f"\033[{code or 0}m" if colored else "" for code in pieces[1::2]]
    return "".join(pieces)


def printable(text: str) -> str:
    """`text` with what a terminal cannot show, or would obey, escaped: control codes, and bytes that are no text."""
    text = _LONE.sub(lambda found: repr(found[0])[1:-1], text)
    text = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def without_password(text: str) -> str:
    """A message that may hold the URL of a store, as where that was given in the wrong place."""
    if not _URL.search(text):
        return text
    from vethlib.agent.stores.etcd.address import masked_in  # with all of the agent: most messages have no URL

    return masked_in(text)


def width(text: str) -> int:
    """How many columns `text` takes on a terminal."""
    return columns(render(text, colored=False))


def counted(number: int, what: str) -> str:
    """``1 interface``, ``2 interfaces``."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
