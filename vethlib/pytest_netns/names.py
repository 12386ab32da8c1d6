"""The names of the fixtures, and who uses them: a test, or a file that is yet to be collected."""

from __future__ import annotations

import re
from typing import Final

import pytest

__all__ = ["FIXTURES", "SCOPES", "is_used", "mention"]

SCOPES: Final = {"function": "", "class": "class_", "module": "module_", "session": "session_"}
"""The scopes, each with what its fixtures' names begin with."""

_OF_EACH_SCOPE: Final = ("netns", "netns_factory", "veth", "veth_factory", "topology")

FIXTURES: Final = frozenset(
    ("netns_session", *(prefix + name for prefix in SCOPES.values() for name in _OF_EACH_SCOPE))
)


def is_used(item: pytest.Item) -> bool:
    """Whether a test has a fixture of the plugin, itself or through others, or the marker."""
    return not FIXTURES.isdisjoint(getattr(item, "fixturenames", ())) or item.get_closest_marker("netns") is not None


_NAME: Final = rf"({'|'.join(sorted(FIXTURES, key=len, reverse=True))})\b"
_MENTION: Final = re.compile(
    # A parameter of a function: what is before the end of its head, a ")" that "->" or ":" follows.
    rf"\bdef\s+\w+\s*\((?:[^)]|\)(?!\s*(?:->|:)))*?(?<![\w.\"'=]){_NAME}\s*[,:)=]"
    rf"|\busefixtures\((?:[^)]*[\"']){_NAME}"
    rf"|\bgetfixturevalue\(\s*[\"']{_NAME}"
    rf"|\bmark\s*\.\s*(netns)\b".encode()
)


def mention(source: bytes) -> str:
    """The name of a fixture of the plugin, or of its marker, that a Python source uses, or ""."""
    found = _MENTION.search(source)
    return next(name for name in found.groups() if name).decode() if found else ""
