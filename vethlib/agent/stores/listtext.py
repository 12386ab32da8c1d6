"""The elements of a JSON text that holds one value or a list, and the text without them or with others in their place.

What is not edited stays as it was written, to the byte.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vethlib.agent.jsontext import decode

__all__ = ["Element", "edited", "elements", "read_elements"]

_SPACE = re.compile(r"[ \t\n\r]*")
# Only to find where a value ends: decode() has read it before, and what long numbers are does not matter.
_decoder = json.JSONDecoder(parse_int=len)


@dataclass(frozen=True, slots=True)
class Element:
    """One value and where it stands; `number` is its place in the list, None where there is no list."""

    start: int
    end: int
    number: int | None
    value: Any


def elements(text: str) -> list[Element]:
    """The value that `text` holds, or those of its list. Raises Undecodable."""
    value = decode(text)
    at = _skip(text, 1 if text.startswith("\ufeff") else 0)
    if not isinstance(value, list):
        return [Element(at, _decoder.raw_decode(text, at)[1], None, value)]
    found: list[Element] = []
    for number, one in enumerate(value):
        start = _skip(text, at + 1)  # behind '[' or ','
        end = _decoder.raw_decode(text, start)[1]
        found.append(Element(start, end, number, one))
        at = _skip(text, end)
    return found


def read_elements(raw: bytes) -> tuple[str, list[Element]]:
    """What some bytes say as text, and its elements. Raises Undecodable."""
    text = raw.decode(errors="replace")
    if "\ufffd" in text:
        decode(raw)  # which refuses what is no UTF-8, and tells where
    return text, elements(text)


def edited(text: str, found: list[Element], edits: Mapping[int, str | None]) -> str:
    """`text` with other texts for some of its elements, by their place among `found`; None leaves an element out.

    "" where none is left.
    """
    kept = [place for place in range(len(found)) if edits.get(place, "") is not None]
    if not kept:
        return ""
    pieces = [text[: found[0].start]]
    for place in kept:
        if place != kept[0]:  # an element keeps what stands between it and the one before
            pieces.append(text[found[place - 1].end : found[place].start])
        one = found[place]
        new = edits.get(place)
        pieces.append(text[one.start : one.end] if new is None else _laid_out(new, text, one))
    pieces.append(text[found[-1].end :])
    return "".join(pieces)


def _skip(text: str, at: int) -> int:
    space = _SPACE.match(text, at)
    assert space is not None
    return space.end()


def _laid_out(new: str, text: str, old: Element) -> str:
    """A new element's text as the old one was written: on one line, or indented like it."""
    if old.number is None:
        return new
    if "\n" not in text[old.start : old.end]:
        return json.dumps(decode(new), ensure_ascii=False)
    line = text[text.rfind("\n", 0, old.start) + 1 : old.start]
    return new.replace("\n", f"\n{line}") if line.isspace() else new
