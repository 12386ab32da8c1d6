"""Routes and neighbours in the words of `ip route` and `ip neighbour`, as values that :mod:`.table` checks."""

from __future__ import annotations

from vethlib.errors import InvalidValue

__all__ = ["neighbour_words", "route_words"]

_NUMBERS = ("metric", "mtu", "table")


def route_words(text: str) -> dict[str, str | int]:
    """Read a route: DESTINATION [via IP] [metric N] [src IP] [mtu BYTES] [table N]. Raises InvalidValue."""
    dst, *words = text.split() or [""]
    fields: dict[str, str | int] = {"dst": dst, **dict(zip(words[::2], words[1::2], strict=False))}
    numbers = {name: int(value) for name, value in fields.items() if name in _NUMBERS and _is_number(str(value))}
    if len(words) % 2 or not dst or len(fields) != 1 + len(words) // 2:
        raise InvalidValue("routes", text, "must be a route, as in 'default via 10.0.0.1 metric 100'")
    return fields | numbers


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= 20


def neighbour_words(text: str) -> dict[str, str]:
    """Read a neighbour: IP [lladdr] MAC. Raises InvalidValue."""
    words = text.split()
    if len(words) == 3 and words[1] == "lladdr":
        del words[1]
    if len(words) != 2:
        raise InvalidValue("neighbours", text, "must be a neighbour, as in '10.0.0.9 lladdr 02:00:00:00:00:09'")
    return {"ip": words[0], "mac": words[1]}
