"""Locate, replace and remove the elements of a JSON text that has one value or a list.

Everything else in the text stays the same, to the byte.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vethlib.agent.config.jsontext import decode
from vethlib.agent.limits import DEFAULT, Limits

__all__ = ["Element", "edited", "elements", "read_elements"]

_SPACE = re.compile(r"[ \t\n\r]*")
# A string of JSON has no line end, so that these are between values; those beside a bracket are not needed.
_LINE_ENDS = re.compile(r"(?P<opening>[\[{])?[\n\r][ \t\n\r]*(?P<closing>[\]}])?")
# Only to find the end of a value that decode() has read before, so the value of long numbers does not matter.
_decoder = json.JSONDecoder(parse_int=len)


@dataclass(frozen=True, slots=True)
class Element:
    """One value and its place in the text; `number` is its index in the list, None if there is no list."""

    start: int
    end: int
    number: int | None
    value: Any


def elements(text: str, limits: Limits = DEFAULT) -> list[Element]:
    """Return the value of `text`, or the values of its list. Raises Undecodable."""
    value = decode(text, limits)
    at = _skip(text, 1 if text.startswith("\ufeff") else 0)
    if not isinstance(value, list):
        return [Element(at, _decoder.raw_decode(text, at)[1], None, value)]
    located: list[Element] = []
    for number, item in enumerate(value):
        start = _skip(text, at + 1)  # after '[' or ','
        end = _decoder.raw_decode(text, start)[1]
        located.append(Element(start, end, number, item))
        at = _skip(text, end)
    return located


def read_elements(raw: bytes, limits: Limits = DEFAULT) -> tuple[str, list[Element]]:
    """Decode some bytes and return the text with its elements. Raises Undecodable."""
    text = raw.decode(errors="replace")
    if "\ufffd" in text or len(raw) > limits.file_bytes:
        decode(raw, limits)  # raises if they are too many, or not UTF-8, with line and column
    return text, elements(text, limits)


def edited(text: str, all_elements: list[Element], edits: Mapping[int, str | None]) -> str:
    """Return `text` with some elements replaced, by their place among `all_elements`; None removes an element.

    Returns "" if no element is left.
    """
    kept = [place for place in range(len(all_elements)) if edits.get(place, "") is not None]
    if not kept:
        return ""
    pieces = [text[: all_elements[0].start]]
    for place in kept:
        if place != kept[0]:  # keep the text between an element and the previous one
            pieces.append(text[all_elements[place - 1].end : all_elements[place].start])
        element = all_elements[place]
        new = edits.get(place)
        pieces.append(text[element.start : element.end] if new is None else _laid_out(new, text, element))
    pieces.append(text[all_elements[-1].end :])
    return "".join(pieces)


def _skip(text: str, at: int) -> int:
    space = _SPACE.match(text, at)
    assert space is not None
    return space.end()


def _laid_out(new: str, text: str, old: Element) -> str:
    """Return the text of a new element in the layout of the old one: on one line, or with its indentation."""
    if old.number is None:
        return new
    if "\n" not in text[old.start : old.end]:
        return _LINE_ENDS.sub(_joined, new)  # encoding it again would lose duplicate keys and the spelling of numbers
    line = text[text.rfind("\n", 0, old.start) + 1 : old.start]
    return new.replace("\n", f"\n{line}") if line.isspace() else new


def _joined(ends: re.Match[str]) -> str:
    opening, closing = ends["opening"] or "", ends["closing"] or ""
    return opening + closing or " "
