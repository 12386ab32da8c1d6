"""The state of a link in a word."""

from __future__ import annotations

from vethlib.links import Link

from .text import paint

__all__ = ["link_state", "painted_state"]

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
