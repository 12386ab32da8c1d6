"""Text for people: words for numbers and values, order and width, and the characters that a terminal would interpret.

A leaf module.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

__all__ = [
    "bounded",
    "change_text",
    "columns",
    "counted",
    "cut",
    "has_controls",
    "listed",
    "natural",
    "printable",
    "value_text",
    "without_controls",
]

# Characters that a terminal interprets or a reader does not see: C0, DEL and C1; marks, embeddings, overrides and
# isolates of the bidirectional algorithm (UAX 9); line and paragraph separators; invisible operators, interlinear marks
# and tags. Not the zero-width joiners, without which some languages cannot be written. A list, not str.isprintable(),
# which changes with the Unicode version of Python: a name has to be valid on every host of a fleet or on none.
_CONTROLS = re.compile(
    "[\0-\x1f\x7f-\x9f\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e0fff]"
)
_LONE = re.compile("[\ud800-\udc7f\udd00-\udfff]")  # surrogates that represent no byte (PEP 383)


def has_controls(text: str) -> bool:
    """Return whether `text` has a character that a terminal interprets or a reader does not see."""
    return _CONTROLS.search(text) is not None


def without_controls(text: str) -> str:
    r"""Return `text` with each such character escaped as ``\uNNNN``."""
    return _CONTROLS.sub(_as_number, text)


def _as_number(match: re.Match[str]) -> str:
    number = ord(match[0])
    return f"\\u{number:04x}" if number < 1 << 16 else f"\\U{number:08x}"


def printable(text: str) -> str:
    """Return `text` with everything escaped that a terminal cannot show or would interpret.

    That is control characters, and the surrogates that stand for undecodable bytes.
    """
    if text.isprintable():
        return text
    text = _LONE.sub(lambda match: repr(match[0])[1:-1], text)
    text = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def columns(text: str) -> int:
    """Return the width of `text` in columns of a terminal, where a character takes none, one or two."""
    if text.isascii():
        return len(text)
    from unicodedata import combining, east_asian_width

    return sum(0 if combining(c) else 2 if east_asian_width(c) in "WF" else 1 for c in text)


def cut(text: str, most: int) -> str:
    """Return `text` cut to `most` characters, with a note of how many were left out."""
    if len(text) <= most:
        return text
    end = f"… ({len(text) - most} more characters)"
    return text[: max(0, most - len(end))] + end


def bounded(text: str, most: int) -> str:
    """Return foreign text, such as a file name or the message of an engine, made printable and cut to `most`."""
    return printable(cut(text, most)) if text else ""


def natural(text: str) -> list[str | tuple[int, str]]:
    """Return a sort key for natural order: leaf2 is before leaf10."""
    pieces: list[str | tuple[int, str]] = [*re.split("([0-9]+)", text)]
    # Not int(), which refuses more than 4300 digits.
    pieces[1::2] = [(len(digits), digits) for digits in (piece.lstrip("0") for piece in re.findall("[0-9]+", text))]
    return pieces


def counted(number: int, what: str) -> str:
    """Return ``1 interface``, ``2 interfaces``."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def listed(words: Sequence[str]) -> str:
    """Return ``a, b and c``."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def value_text(field: str, value: object) -> str:
    """Return the value of a link's field: ``up`` or ``down``, ``on`` or ``off``; quoted if empty or with a space."""
    if field == "up":
        return "up" if value else "down"
    if isinstance(value, bool):
        return "on" if value else "off"
    if value is None:
        return "unknown"
    if field == "offload":
        return f"on but {value[0]}" if isinstance(value, tuple) and len(value) == 1 else "partly on"
    if isinstance(value, tuple):
        return ",".join(map(str, value)) or "none"
    if field == "master" and not value:
        return "none"
    return repr(value) if value == "" or " " in str(value) else str(value)


def change_text(field: str, old: object, new: object, mark: Callable[[str], str] = str) -> str:
    """Return ``mtu 1400 → 1500`` or ``down → up``, with the new value as `mark` returns it."""
    name = "" if field == "up" else f"{field} "
    return f"{name}{value_text(field, old)} → {mark(value_text(field, new))}"
