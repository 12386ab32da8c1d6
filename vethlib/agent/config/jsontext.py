"""Decode JSON written by people: errors have a line and a column, and duplicate keys are not lost.

The standard decoder keeps only the last of two equal keys; here an object remembers which keys were given twice.
Numbers of any length and nesting of any depth yield a value or :class:`Undecodable`, and so does a text above the
limits. Values are counted before decoding, because the decoder turns the three bytes of ``{},`` into an object of a
hundred. The decoder's own limit of nesting depends on the version of Python and on its caller, and may be above that of
the encoder, so that a value which is read could not be printed; hence a fixed one.
"""

from __future__ import annotations

import json
from typing import Any, Final

from vethlib.agent.limits import DEFAULT, Limits
from vethlib.errors import InvalidValue

__all__ = ["JsonObject", "Stray", "Undecodable", "decode"]


_DEEPEST: Final = 100  # objects and lists within each other in one value; those of the model have four levels
_ONLY_BRACKETS: Final = bytes.maketrans(b"{}", b"[]")
_OTHERS: Final = bytes(set(range(256)) - set(b"[]{}"))


class Undecodable(InvalidValue):
    """The text is not JSON. ``line`` and ``column`` count from 1; they are 0 if the place is unknown."""

    def __init__(self, reason: str, *, line: int = 0, column: int = 0) -> None:
        where = f"line {line}, column {column}" if line else "text"
        super().__init__(where, "", reason)
        self.line = line
        self.column = column

    def __str__(self) -> str:
        return f"{self.field}: {self.hint}" if self.line else self.hint


class Stray(InvalidValue):
    """A part that does not belong there: an unknown key, or a file with other content.

    It may contain a secret, so :attr:`public` contains nothing of the value.
    """

    def __init__(self, field: str, hint: str, value: object = "") -> None:
        super().__init__(field, value, hint)
        if value == "":
            self.args = (self.public,)

    @property
    def public(self) -> str:
        """The message without the value."""
        return f"{self.field}: {self.hint}"


class JsonObject(dict[str, Any]):
    """A JSON object; `twice` lists the keys that were given more than once."""

    twice: tuple[str, ...] = ()


def decode(text: str | bytes, limits: Limits = DEFAULT) -> Any:
    """Decode `text` (UTF-8, with or without a byte order mark). Raises :class:`Undecodable`."""
    _check_size(text, limits)
    if isinstance(text, bytes):
        text = _as_text(text)
    try:
        value = _decode(text.removeprefix("\ufeff"))
    except json.JSONDecodeError as error:
        raise Undecodable(
            f"not JSON: {error.msg[:1].lower()}{error.msg[1:]}", line=error.lineno, column=error.colno
        ) from None
    except RecursionError:
        raise _too_deep() from None
    # A list around the values does not count, so that a value can be moved into one.
    if _is_deeper(text, _DEEPEST + isinstance(value, list)):
        raise _too_deep()
    return value


def _check_size(text: str | bytes, limits: Limits) -> None:
    if len(text) > limits.file_bytes:
        raise Undecodable(f"must have at most {limits.file_bytes} bytes (limit file_bytes)")
    # An upper bound: each value but the first follows one of these characters, which strings can contain, too.
    count = sum(text.count(byte) for byte in b",[{") if isinstance(text, bytes) else sum(map(text.count, ",[{"))
    if count > limits.json_values:
        raise Undecodable(f"must have at most {limits.json_values} values, and may have {count} (limit json_values)")


def _is_deeper(text: str, levels: int) -> bool:
    """Return whether a valid text has more levels of nesting."""
    if text.count("[") + text.count("{") <= levels:
        return False
    without_escapes = text.encode(errors="surrogatepass").replace(b"\\\\", b"").replace(b'\\"', b"")
    outside_strings = b"".join(without_escapes.split(b'"')[::2])
    brackets = outside_strings.translate(_ONLY_BRACKETS, _OTHERS)
    for _ in range(levels):  # each time without the innermost level of each branch
        brackets = brackets.replace(b"[]", b"")
    return brackets != b""


def _too_deep() -> Undecodable:
    return Undecodable(f"nested too deeply: must have at most {_DEEPEST} levels of nesting")


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
    # int() refuses more than 4300 digits; no number of the model has more than ten.
    return int(digits) if len(digits) <= 20 else float(digits)


_decode = json.JSONDecoder(object_pairs_hook=_object, parse_int=_integer).decode
