"""How often a cache looks at all links of a namespace."""

from __future__ import annotations

import pytest

from vethlib._nl.dump import link_bodies
from vethlib.ifindex import dumps

__all__ = ["counted_looks"]


def counted_looks(patch: pytest.MonkeyPatch) -> list[list[bytes]]:
    """What each of the looks of caches finds from now on."""
    looks: list[list[bytes]] = []

    def look() -> list[bytes]:
        looks.append(link_bodies())
        return looks[-1]

    patch.setattr(dumps, "link_bodies", look)
    return looks
