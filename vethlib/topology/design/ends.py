"""Fields of the links of a wire (:class:`vethlib.End`), in the text of a topology.

a -- b  txqlen=500 offload=off              # attributes of the statement: for both ends
a -- b  alias=uplink/downlink mac=/02:…:02  # for the left end and the right end; either may be missing
a -- b  sysctl.rp_filter=0                  # a setting of the links
a -- b  master=/lan                         # a bridge or VRF that exists in the node of the right end
a(10.0.0.1/24, default via 10.0.0.2) -- b   # a port: its addresses, routes and neighbours
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from vethlib.endfields.table import FIELDS
from vethlib.endfields.words import neighbour_words, route_words
from vethlib.errors import InvalidValue

__all__ = ["ENDS", "check_fields", "describe_fields", "is_end_attribute", "listed_fields", "read_ends"]

ENDS: Final = ("mac", "txqlen", "gso_max_size", "altname", "alias", "master", "offload", "sysctl.NAME")
"""The names of the attributes."""

_SYSCTL: Final = "sysctl."
_LISTED: Final = ("routes", "neighbours")
_ALLOWED: Final = ("mac", "txqlen", "gso_max_size", "altnames", "alias", "master", "offload", "sysctls", *_LISTED)


def is_end_attribute(name: str) -> bool:
    """Return whether an attribute is a field of the links."""
    return name in ENDS[:-1] or name.startswith(_SYSCTL)


def read_ends(given: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the fields of the left and of the right end. Raises InvalidValue."""
    sides: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
    for name, text in given.items():
        left, slash, right = text.partition("/")
        if not left and not right:
            raise InvalidValue(name, text, f"must be one value, or one for each end as in {name}=LEFT/RIGHT")
        if name == "mac" and not slash:
            raise InvalidValue(
                name, text, f"must be the MAC of one end: mac={text}/ for the left end, mac=/{text} for the right end"
            )
        for side, value in zip(sides, (left, right if slash else left), strict=True):
            if value:
                _read(side, name, value)
    fields = _checked(sides[0]), _checked(sides[1])
    if "mac" in fields[0] and fields[0]["mac"] == fields[1].get("mac"):
        raise InvalidValue("mac", given["mac"], "must be a different MAC for each end")
    return fields


def _read(side: dict[str, Any], name: str, text: str) -> None:
    if name.startswith(_SYSCTL):
        side.setdefault("sysctls", []).append((name.removeprefix(_SYSCTL), text))
    elif name == "altname":
        side["altnames"] = text.split(",")
    elif name == "offload":
        if text not in ("on", "off"):
            raise InvalidValue(name, text, "must be on or off")
        side[name] = text == "on"
    elif name in ("txqlen", "gso_max_size"):
        side[name] = int(text) if text.isascii() and text.isdecimal() and len(text) <= 10 else text
    else:
        side[name] = text


def _checked(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: FIELDS[name].check(value, name) for name, value in fields.items()}


def listed_fields(items: Iterable[str]) -> tuple[list[str] | None, dict[str, Any]]:
    """Return the addresses (None if only other fields are listed) and the fields of a port. Raises InvalidValue."""
    addresses: list[str] = []
    listed: dict[str, list[Any]] = {name: [] for name in _LISTED}
    for item in items:
        words = item.split()
        if "lladdr" in words:
            listed["neighbours"].append(neighbour_words(item))
        elif len(words) > 1 and not _is_address(words):
            listed["routes"].append(route_words(item.removeprefix("route ")))
        else:
            addresses.append(item)
    fields = _checked({name: values for name, values in listed.items() if values})
    return (None if fields and not addresses else addresses), fields


def _is_address(words: Sequence[str]) -> bool:
    from vethlib.endfields.newaddress import WORDS  # imported here, because few ports need it

    return words[1] in WORDS


def check_fields(fields: object) -> dict[str, Any]:
    """Return the fields of a port, checked. Raises InvalidValue."""
    if not isinstance(fields, Mapping):
        raise InvalidValue("topology", fields, 'the fields of a port must be a mapping, such as {"txqlen": 500}')
    for name in fields:
        if name not in _ALLOWED:
            raise InvalidValue("topology", name, f"a port can have the fields {', '.join(_ALLOWED)}")
    return _checked(fields)


def describe_fields(left: Mapping[str, Any], right: Mapping[str, Any]) -> list[str]:
    """Return the fields of both ends in words, as in ``txqlen 500`` and ``alias uplink/downlink``."""
    texts = []
    for name in (name for name in _ALLOWED if name in left or name in right):
        one, other = (_text(side[name]) if name in side else "" for side in (left, right))
        texts.append(f"{name} {one}" if one == other else f"{name} {one}/{other}")
    return texts


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
