"""JSON as people write it: what is wrong with a text is told by its place, and nothing is lost.

The standard decoder lets the last of two equal keys win; here an object remembers which keys came twice.
Numbers of any length and nesting of any depth end in a value or in :class:`Undecodable`.
"""

from __future__ import annotations

import json
from typing import Any

from vethlib.errors import InvalidValue

__all__ = ["JsonObject", "Undecodable", "decode"]


class Undecodable(InvalidValue):
    """A text that is not JSON. ``line`` and ``column`` count from 1; 0 where no place can be named."""

    def __init__(self, reason: str, *, line: int = 0, column: int = 0) -> None:
        where = f"line {line}, column {column}" if line else "text"
        super().__init__(where, "", reason)
        self.line = line
        self.column = column

    def __str__(self) -> str:
        return f"{self.field}: {self.hint}" if self.line else self.hint


class JsonObject(dict[str, Any]):
    """A JSON object; `twice` lists the keys that were given more than once."""

    twice: tuple[str, ...] = ()


def decode(text: str | bytes) -> Any:
    """The value that `text` (UTF-8, with or without a byte order mark) holds. Raises :class:`Undecodable`."""
    if isinstance(text, bytes):
        text = _as_text(text)
    try:
        return json.loads(text.removeprefix("\ufeff"), object_pairs_hook=_object, parse_int=_integer)
    except json.JSONDecodeError as error:
        raise Undecodable(
            f"not JSON: {error.msg[:1].lower()}{error.msg[1:]}", line=error.lineno, column=error.colno
        ) from None
    except RecursionError:
        raise Undecodable("not a configuration: nested too deeply") from None


def _as_text(text: bytes) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError as error:
        before = text[: error.start]
        line = before.count(b"\n") + 1
        column = error.start - before.rfind(b"\n")
        raise Undecodable("not UTF-8", line=line, column=column) from None


def _object(pairs: list[tuple[str, Any]]) -> JsonObject:
    made = JsonObject(pairs)
    if len(made) < len(pairs):
        keys = [key for key, _ in pairs]
        seen: set[str] = set()
        made.twice = tuple(dict.fromkeys(key for key in keys if key in seen or seen.add(key)))  # type: ignore[func-returns-value]
    return made


def _integer(digits: str) -> int | float:
    # int() refuses more than 4300 digits; nothing here has more than ten.
    return int(digits) if len(digits) <= 20 else float(digits)
