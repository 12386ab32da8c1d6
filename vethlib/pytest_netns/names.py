"""The names of the fixtures, and the tests that use them."""

from __future__ import annotations

from typing import Final

import pytest

__all__ = ["BASES", "FIXTURES", "SCOPES", "base_of", "is_used"]

SCOPES: Final = {"function": "", "class": "class_", "module": "module_", "session": "session_"}
"""The scopes, each with the prefix of its fixtures' names."""

_OF_EACH_SCOPE: Final = ("netns", "netns_factory", "veth", "veth_factory", "topology")

FIXTURES: Final = frozenset(
    ("netns_session", *(prefix + name for prefix in SCOPES.values() for name in _OF_EACH_SCOPE))
)


def base_of(scope: str) -> str:
    """Return the name of the fixture on which all others of a scope depend."""
    return f"_{SCOPES[scope]}netns_scope"


BASES: Final = frozenset(("netns_session", *map(base_of, SCOPES)))
"""The fixtures on which all others depend. A project may have its own `topology`, but none of these."""


def is_used(item: pytest.Item) -> bool:
    """Return whether a test uses a fixture of the plugin, directly or indirectly, or has the marker."""
    return not BASES.isdisjoint(getattr(item, "fixturenames", ())) or item.get_closest_marker("netns") is not None
