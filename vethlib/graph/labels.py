"""What is written in a picture: the text of a port, the sign of its state, and the title of a box."""

from __future__ import annotations

from typing import Final

from .model import Box, Port

__all__ = ["row_text", "sign_of", "title_of"]


def row_text(port: Port) -> str:
    """Return the text of a port: its name, addresses, MTU, and its state unless that is up."""
    words = [port.marked_name, *port.address_texts()[:2]]
    words += [f"+{len(port.addresses) - 2}"] if len(port.addresses) > 2 else []
    words += [f"mtu {port.mtu}"] if port.mtu else []
    words += [f"{sign_of(port)} {port.state}"] if port.state not in ("", "up") else []
    return "  ".join(words)


def sign_of(port: Port) -> str:
    """Return the sign before the state of a port, for readers who do not see its colour."""
    return _SIGN_OF.get(port.state, SIGNS[port.mood])


_SIGN_OF: Final = {"to be changed": "~"}
SIGNS: Final = {"good": "✓", "bad": "✕", "waiting": "…", "planned": "+", "plain": "·"}


def title_of(box: Box) -> str:
    """Return the title of a box."""
    return f"{box.name} (missing)" if box.missing else box.name
