"""All attributes of a link as lines: single values first, then groups."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from vethlib.cli.term.text import paint, width
from vethlib.text import value_text

__all__ = ["detail_lines", "field_lines"]

_COLUMNS = 100
# The 32-bit counters, which stats64 has in full; a struct of hardware that virtual links do not have; and the
# statistics of af_inet6, whose order in the kernel (include/uapi/linux/snmp.h) is not that of the decoder.
_LEFT_OUT = frozenset({"stats", "map", "inet6_stats", "inet6_icmp6stats", "dummy", "unknown"})
_FLAGS = (
    # include/uapi/linux/if.h
    *("UP", "BROADCAST", "DEBUG", "LOOPBACK", "POINTOPOINT", "NOTRAILERS", "RUNNING", "NOARP", "PROMISC", "ALLMULTI"),
    *("MASTER", "SLAVE", "MULTICAST", "PORTSEL", "AUTOMEDIA", "DYNAMIC", "LOWER_UP", "DORMANT", "ECHO"),
)


def detail_lines(details: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines for the result of :meth:`vethlib.Session.details`, indented."""
    yield from _group(_tidy(details), "  ")


def field_lines(fields: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines for what :meth:`vethlib.Session.fields` returns and no attribute of a link shows, indented."""
    single = {name: value_text(name, fields[name]) for name in ("master", "offload")}
    yield from _group(single, "  ")
    for name in ("routes", "neighbours"):
        if fields[name]:
            yield f"  {paint(name, 'heading')}"
            yield from (f"    {value}" for value in fields[name])


def _tidy(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes without the prefixes and framing of netlink, and without those that were not decoded."""
    if isinstance(attrs.get("attrs"), list):
        attrs = dict(attrs["attrs"])
    tidy: dict[str, Any] = {}
    for key, value in attrs.items():
        name = str(key).removeprefix("IFLA_").lower()
        if name in _LEFT_OUT or (isinstance(value, Mapping) and "header" in value):
            continue
        if name == "flags" and isinstance(value, int):
            value = ",".join(flag for bit, flag in enumerate(_FLAGS) if value >> bit & 1)
        tidy[name] = _tidy(value) if isinstance(value, Mapping) else value
    return tidy


def _group(values: Mapping[str, Any], indent: str) -> Iterator[str]:
    line = ""
    for name, value in values.items():
        if isinstance(value, dict) or value in (None, ""):
            continue
        word = f"{paint(name, 'faint')} {value}"
        if line and width(line) + 2 + width(word) > _COLUMNS - len(indent):
            yield indent + line
            line = ""
        line += f"  {word}" if line else word
    if line:
        yield indent + line
    for name, value in values.items():
        lines = list(_group(value, f"{indent}  ")) if isinstance(value, dict) else []
        if lines:
            yield f"{indent}{paint(name, 'heading')}"
            yield from lines
