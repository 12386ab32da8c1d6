"""The names of the fixtures, and which tests use them."""

from __future__ import annotations

from typing import Final

import pytest

__all__ = ["BASES", "FIXTURES", "SCOPES", "base_of", "is_used"]

SCOPES: Final = {"function": "", "class": "class_", "module": "module_", "session": "session_"}
"""The scopes, each with what its fixtures' names begin with."""

_OF_EACH_SCOPE: Final = ("netns", "netns_factory", "veth", "veth_factory", "topology")

FIXTURES: Final = frozenset(
    ("netns_session", *(prefix + name for prefix in SCOPES.values() for name in _OF_EACH_SCOPE))
)


def base_of(scope: str) -> str:
    """The name of the fixture on which all of a scope rest."""
    return f"_{SCOPES[scope]}netns_scope"


BASES: Final = frozenset(("netns_session", *map(base_of, SCOPES)))
"""What every fixture of ours rests on. A project may well have a `topology` of its own, but none of these."""


def is_used(item: pytest.Item) -> bool:
    """Whether a test has a fixture of the plugin, itself or through others, or the marker."""
    return not BASES.isdisjoint(getattr(item, "fixturenames", ())) or item.get_closest_marker("netns") is not None
