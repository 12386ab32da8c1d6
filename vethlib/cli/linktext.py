"""Of a link in words: its state, and what has changed of it."""

from __future__ import annotations

from vethlib.links import Link

from .text import paint

__all__ = ["change", "link_state", "painted_state"]

_ROLES = {"UP": "good", "DOWN": "bad"}


def link_state(*, up: bool, operstate: str) -> str:
    """UP, DOWN, or what stands between: LOWERLAYERDOWN where the other end is down, …"""
    # A loopback's state is "unknown" for ever; what matters is that it is up.
    if operstate in ("up", "unknown") and up:
        return "UP"
    return operstate.upper() if up else "DOWN"


def painted_state(link: Link) -> str:
    """The same of a link, coloured by what it means."""
    text = link_state(up=link.up, operstate=link.operstate)
    return paint(text, _ROLES.get(text, "warning"))


def change(field: str, old: object, new: object, role: str = "heading") -> str:
    """``mtu 1400 → 1500``, ``down → up``; the new value is painted."""
    name = "" if field == "up" else f"{field} "
    return f"{name}{_said(field, old)} → {paint(_said(field, new), role)}"


def _said(field: str, value: object) -> str:
    if field == "up":
        return "up" if value else "down"
    if isinstance(value, tuple):
        return ",".join(value) or "none"
    return repr(value) if value == "" or " " in str(value) else str(value)
