"""Whether this network namespace has a link of some name, for arguments and hints, which have no session."""

from __future__ import annotations

import socket
from typing import Final

from vethlib._nl.wire import encoded, to_system

__all__ = ["is_link"]

_LONGEST: Final = 15  # bytes; some C libraries cut a longer name


def is_link(name: str) -> bool:
    """Return whether this network namespace has a link of that name or short alternative name."""
    try:
        return len(encoded(name)) <= _LONGEST and socket.if_nametoindex(to_system(name)) > 0
    except (OSError, ValueError):
        return False
